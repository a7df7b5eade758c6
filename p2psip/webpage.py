"""The page of users with a certificate that browsers know, at a port of its own (``--web-certificate``).

At the enrollment server's port they see the overlay's: join tokens name its key, so it cannot be another.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from .enrollment.limits import BoundedConnections
from .hostport import address_text
from .sip.tls import ServerTLS, TLSError, secured
from .sip.transport import host_and_port
from .sipcertificate import NotYet, own_certificate
from .startup import StartError

SECONDS: Final = 60.0
"""Between two looks whether the certificate's file has changed."""


class WebPage:
    """Serves `site` over TLS, with the operator's certificate.

    :param path: a PEM file, chain and key; read anew when it has changed.
    :raises StartError: it cannot be used.
    """

    log = Logger()

    def __init__(self, site: IProtocolFactory, path: Path, reactor: Any) -> None:
        self._reactor = reactor
        self._certificate = own_certificate(path, "--web-certificate")
        loaded = self._certificate.load()
        assert loaded is not None
        self._server = ServerTLS(loaded.chain, loaded.private_key)
        self._factory: Any = BoundedConnections(secured(site, self._server, reactor), reactor)
        self._ports: list[IListeningPort] = []
        self._looking = LoopingCall(self.look)
        self._looking.clock = reactor

    def start(self, interfaces: Sequence[str], port: int) -> None:
        """Serve from now on.

        :raises StartError: an address and port cannot be had.
        """
        for address in interfaces:
            try:
                self._ports.append(self._reactor.listenTCP(port, self._factory, interface=address))
            except CannotListenError as e:
                raise StartError(f"cannot listen on {address} port {port} (--web-port): {e}") from e
        self._looking.start(SECONDS, now=False).addErrback(
            lambda failure: self.log.failure("the page's certificate is not looked at any more", failure)
        )

    async def stop(self) -> None:
        """Serve no more."""
        if self._looking.running:
            self._looking.stop()
        for port in self._ports:
            await maybeDeferred(port.stopListening)
        self._ports = []

    @property
    def listeners(self) -> list[str]:
        """Where it listens, for people."""
        places = [port.getHost() for port in self._ports]
        return [f"page https://{address_text(*host_and_port(place))}" for place in places]

    def look(self) -> None:
        """Take over a certificate that is new."""
        try:
            loaded = self._certificate.load()
            if loaded is not None:
                self._server.use(loaded.chain, loaded.private_key)
                self.log.info("the page has another certificate")
        except (NotYet, TLSError) as e:
            self.log.warn("the page keeps its certificate: {why}", why=str(e))
