"""The overlay link protocols, for `twisted.plugin` to find."""

from __future__ import annotations

from p2psip.links.tls import TLSLinkFactory

tls = TLSLinkFactory()
