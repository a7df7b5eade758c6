"""The authority at work in a node that holds it: its enrollment server, and what the operator asks of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final, Protocol

from twisted.internet.defer import maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from .config.document import Configuration, ConfigurationError
from .config.parse import parse
from .enrollment.archive import import_authority
from .enrollment.authority import AuthorityError, OverlayAuthority
from .enrollment.client import ENROLL
from .enrollment.publication import next_document
from .enrollment.server import EnrollmentServer
from .hostport import address_text
from .ids import NodeId
from .running import Running
from .startup import StartError
from .transport.bootstrap import Place

DAY: Final = 86400.0
YEAR: Final = 365 * DAY
MOST_BOOTSTRAP_NODES: Final = 32
"""In one document: who joins may have to try them all."""


class AuthorityService:
    """An authority, the server that it enrolls by, and the documents that it publishes."""

    log = Logger()

    def __init__(self, service: Running, authority: OverlayAuthority) -> None:
        self.authority = authority
        self._service = service
        self._ports: list[IListeningPort] = []
        self._said = False
        self._prolonging = LoopingCall(self._prolong)
        self._prolonging.clock = service.reactor
        self.server: EnrollmentServer | None = None

    @classmethod
    def opened(cls, service: Running) -> AuthorityService:
        """The authority that lies in the state directory.

        :raises StartError: it is damaged.
        """
        try:
            return cls(service, OverlayAuthority(service.state.authority, service.overlay, time.time))
        except AuthorityError as e:
            raise StartError(str(e)) from e

    @classmethod
    def created(cls, service: Running) -> AuthorityService:
        """The authority of a new overlay; the one that lies there, if founding was interrupted."""
        if service.state.has_authority:
            return cls.opened(service)
        key_type = service.options["key-type"]
        return cls(
            service,
            OverlayAuthority.create(service.state.authority, service.overlay, time.time, key_type),
        )

    @classmethod
    def imported(cls, service: Running, archive: bytes, passphrase: str) -> AuthorityService:
        """The authority out of an export; raises AuthorityError.  Blocks for the passphrase."""
        directory = service.state.authority
        return cls(service, import_authority(archive, passphrase, directory, service.overlay, time.time))

    # -- the server ------------------------------------------------------------------------------------------

    @property
    def urls(self) -> Sequence[str]:
        """The base URLs of this node's configuration and enrollment server."""
        port = self._service.options["enrollment-port"]
        return [f"https://{address_text(address, port)}" for address in self._service.advertised]

    @property
    def url(self) -> str:
        """Its enrollment-server element."""
        return self.urls[0] + ENROLL

    async def start(self) -> None:
        """Serve from now on.

        :raises StartError: an address and port cannot be had.
        """
        service = self._service
        assert service.node is not None
        self.server = EnrollmentServer(
            self.authority,
            service.node.trust,
            lambda: self.configuration,
            service.reactor,
            service.in_thread,
        )
        factory = self.server.factory(*self.authority.server_credentials(service.advertised))
        port = service.options["enrollment-port"]
        for address in service.interfaces:
            try:
                self._ports.append(service.reactor.listenTCP(port, factory, interface=address))
            except CannotListenError as e:
                raise StartError(f"cannot listen on {address} port {port} (--enrollment-port): {e}") from e
        self._prolonging.start(DAY, now=True).addErrback(
            lambda failure: self.log.failure("the document is not prolonged any more", failure)
        )

    async def stop(self) -> None:
        """Serve no more."""
        if self._prolonging.running:
            self._prolonging.stop()
        for port in self._ports:
            await maybeDeferred(port.stopListening)
        self._ports = []
        self.authority.close()

    @property
    def listeners(self) -> list[str]:
        """Where it listens, for people."""
        return [f"enrollment {url}" for url in self.urls] if self._ports else []

    def say_what_next(self) -> None:
        """Tell the operator of a new overlay the next commands, once."""
        if self._said:
            return
        self._said = True
        state = self._service.state.path
        self.log.info("users:  p2psip user add alice --state {state}", state=str(state))
        self.log.info("nodes:  p2psip invite NAME --state {state}", state=str(state))

    # -- documents -------------------------------------------------------------------------------------------

    @property
    def configuration(self) -> Configuration:
        """The configuration in use."""
        assert self._service.node is not None
        return self._service.node.configuration

    def publish(self, **changes: Any) -> int:
        """Sign the next configuration document, with `changes` to what is in use, and send it to every node.

        Answers its sequence number.

        :raises p2psip.config.document.ConfigurationError: it could not be used, or not by this node.
        """
        node = self._service.node
        assert node is not None
        document = next_document(self.authority, self.configuration, **changes)
        node.check_support(parse(document, self._service.overlay))
        node.updates.offer(document)
        return self.configuration.sequence

    def set_bootstrap_nodes(self, places: Sequence[Place]) -> None:
        """Have the document name `places` to bootstrap from (RFC 6940 §11.1), if it does not.

        :raises ConfigurationError: there are none, or too many.
        """
        if not 0 < len(places) <= MOST_BOOTSTRAP_NODES:
            raise ConfigurationError("bootstrap-node", f"there must be 1 to {MOST_BOOTSTRAP_NODES} of them")
        if tuple(places) != self.configuration.bootstrap_nodes:
            self.publish(bootstrap_nodes=tuple(places))

    def expel(self, node_ids: Sequence[bytes]) -> None:
        """Throw nodes out of the overlay: the next document names them as bad-node (RFC 6940 §11.1)."""
        bad = self.configuration.bad_nodes.union(NodeId(node_id) for node_id in node_ids)
        if bad != self.configuration.bad_nodes:
            self.publish(bad_nodes=bad)

    def announce(self) -> None:
        """See that the document names this node's enrollment server, and this node to bootstrap from.

        Whoever enrolls here must be able to join though the founder is gone.
        """
        servers, bootstrap_nodes = self.configuration.enrollment_servers, self.configuration.bootstrap_nodes
        port = self._service.options["reload-port"]
        own = [(address, port) for address in self._service.advertised]
        missing = [place for place in own if place not in bootstrap_nodes]
        if self.url not in servers or missing:
            self.publish(
                enrollment_servers=tuple(dict.fromkeys((*servers, self.url))),
                bootstrap_nodes=(*bootstrap_nodes, *missing),
            )

    def _prolong(self) -> None:
        """Publish the document anew when less than a third of its life is left."""
        expiration = self.configuration.expiration
        if expiration is None or expiration - time.time() >= YEAR / 3:
            return
        try:
            self.publish(expiration=float(int(time.time() + YEAR)))
        except Exception:  # noqa: BLE001  (tried again tomorrow, months before the document ends)
            self.log.failure("the configuration document is not prolonged yet")


class Administered(Running, Protocol):
    """A running node, with the authority where it holds that."""

    authority: AuthorityService | None
