"""The Usages of this distribution, for `twisted.plugin` to find."""

from __future__ import annotations

from p2psip.usages.certificate import CertificateUsageFactory
from p2psip.usages.gateways import GatewayUsageFactory
from p2psip.usages.sip import SIPUsageFactory
from p2psip.usages.turn import TurnUsageFactory

certificate = CertificateUsageFactory()

sip = SIPUsageFactory()
"""SIP-REGISTRATION, and SIP between nodes (RFC 7904)."""

turn = TurnUsageFactory()

gateways = GatewayUsageFactory()
"""Gateways to the telephone network, by a Kind of our own."""
