"""Where topologies, Usages and access control policies are found, this distribution's and others'.

Any distribution adds a module by installing it into a directory ``p2psip/plugins`` without an
``__init__.py``. ``twisted.plugin.getPlugins(interface, p2psip.plugins)`` then finds its module-level
factories; each node builds its own instance from them.
"""

from __future__ import annotations

from twisted.plugin import pluginPackagePaths

__path__.extend(pluginPackagePaths(__name__))
__all__: list[str] = []
