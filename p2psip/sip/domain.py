"""Which URIs are of this overlay's domain, and the AOR that they stand for."""

from __future__ import annotations

from collections.abc import Iterable

from .errors import SIPFailure, SIPParseError
from .uri import SIPURI, URI, bare_host


class Domain:
    """The domain that a registrar or redirect server is responsible for: the overlay's name.

    `hosts` are the addresses and names of the server itself: phones that were given one of them in place of the
    domain mean the domain.  The service may add to it when addresses are bound.
    """

    def __init__(self, name: str, hosts: Iterable[str] = ()) -> None:
        self.name = name.lower()
        self.hosts = {bare_host(host) for host in hosts}

    def covers(self, uri: URI) -> bool:
        """Whether `uri` is a SIP or SIPS URI of this domain, with or without a user."""
        return isinstance(uri, SIPURI) and (uri.address == self.name or uri.address in self.hosts)

    def aor(self, uri: URI) -> str:
        """The AOR that `uri` stands for: user@domain, the user without escapes.

        :raises SIPFailure: 416 for another scheme than sip and sips, 404 for another domain or no user.
        """
        if not isinstance(uri, SIPURI):
            raise SIPFailure(416)
        if not self.covers(uri) or uri.user is None:
            raise SIPFailure(404)
        try:
            user = uri.aor().rpartition("@")[0]
        except SIPParseError as error:
            raise SIPFailure(error.status) from error
        return f"{user}@{self.name}"
