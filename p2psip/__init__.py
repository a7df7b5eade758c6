"""Telephony without a central server: a RELOAD overlay (RFC 6940) that carries SIP (RFC 7904).

The floors of the package and what each may import: ``docs/architecture/index.rst``.
"""

from __future__ import annotations

from typing import Final

__version__: Final = "0.1.0"
