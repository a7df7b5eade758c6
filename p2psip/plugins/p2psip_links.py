"""The overlay link protocols, for `twisted.plugin` to find."""

from __future__ import annotations

from p2psip.links.dtls_links import DTLSLinkFactory
from p2psip.links.ice import ICELinkFactory
from p2psip.links.tls import TLSLinkFactory

tls = TLSLinkFactory()
dtls = DTLSLinkFactory()
ice = ICELinkFactory()
