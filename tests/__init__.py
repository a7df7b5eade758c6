"""The tests of p2psip: this tree mirrors the package; ``python -m tests unit`` runs it with trial."""

from __future__ import annotations

try:
    from hypothesis import settings

    from .reactor import install
except ImportError:  # the report of what the tests prove needs nothing but their sources
    pass
else:
    # How long an example takes says more of the machine than of p2psip, and fails where it is busy.
    settings.register_profile("p2psip", deadline=None)
    settings.load_profile("p2psip")
    install()
