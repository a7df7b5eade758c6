"""Makes ``twistd p2psip`` known to Twisted; everything else is in ``p2psip.service``."""

from __future__ import annotations

from twisted.application.service import ServiceMaker

p2psip = ServiceMaker("p2psip", "p2psip.service", "A node of an overlay that serves SIP phones.", "p2psip")
