"""The servers of URIs that name an address: for these nothing is looked up (RFC 3263 §4.1, §4.2)."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from .errors import SIPFailure
from .interfaces import IServerLocator, Target
from .uri import SIPURI


def numeric_target(uri: SIPURI) -> Target | None:
    """The server that `uri` names by its address; None where its host is a name."""
    try:
        host = str(ipaddress.ip_address(uri.address))
    except ValueError:
        return None
    secure = uri.scheme == "sips"
    transport = (uri.parameters.get("transport") or ("tls" if secure else "udp")).upper()
    if secure or transport == "TLS":
        return Target("TLS", host, uri.port or 5061, host)
    return Target(transport, host, uri.port or 5060)


@implementer(IServerLocator)
class Addresses:
    """Finds no names."""

    def locate(self, uri: SIPURI) -> Deferred[Sequence[Target]]:
        """See `IServerLocator`."""
        target = numeric_target(uri)
        return fail(SIPFailure(502, "Names Are Not Looked Up")) if target is None else succeed([target])
