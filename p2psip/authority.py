"""The authority at work in a node that holds it: its enrollment server, and what the operator asks of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from twisted.internet.defer import maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort

from .directory import DirectoryReading
from .enrollment.archive import import_authority
from .enrollment.authority import AuthorityError, OverlayAuthority
from .enrollment.client import ENROLL
from .enrollment.server import EnrollmentServer
from .enrollment.settings import PhoneSettings
from .hostport import address_text, bracketed
from .ids import NodeId
from .publishing import Publisher
from .running import Running
from .startup import StartError
from .webpage import WebPage


class AuthorityService(Publisher):
    """An authority, the server that it enrolls by, and the documents that it publishes."""

    def __init__(self, service: Running, authority: OverlayAuthority) -> None:
        super().__init__(service, authority)
        self.authority = authority
        self._ports: list[IListeningPort] = []
        self._page: WebPage | None = None
        if (plan := service.options.get("dial-plan")) is not None:
            authority.dialled = plan.dialled
        self.directory = DirectoryReading(service, authority, self.expel)
        self.server: EnrollmentServer | None = None

    @classmethod
    def opened(cls, service: Running) -> AuthorityService:
        """The authority that lies in the state directory.

        :raises StartError: it is damaged, or its accounts cannot be used.
        """
        try:
            accounts = service.options["accounts"]
            authority = OverlayAuthority(service.state.authority, service.overlay, time.time, accounts=accounts)
            return cls(service, authority)
        except AuthorityError as e:
            raise StartError(str(e)) from e

    @classmethod
    def created(cls, service: Running) -> AuthorityService:
        """The authority of a new overlay; the one that lies there, if founding was interrupted.

        :raises StartError: its accounts cannot be used.
        """
        if service.state.has_authority:
            return cls.opened(service)
        key_type, accounts = service.options["key-type"], service.options["accounts"]
        directory, overlay = service.state.authority, service.overlay
        try:
            made = OverlayAuthority.create(directory, overlay, time.time, key_type, accounts=accounts)
        except AuthorityError as e:
            raise StartError(str(e)) from e
        return cls(service, made)

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
            self.directory.in_thread,
            lambda *device: phone_settings(service, *device),
        )
        factory = self.server.factory(*self.authority.server_credentials(service.advertised))
        port = service.options["enrollment-port"]
        for address in service.interfaces:
            try:
                self._ports.append(service.reactor.listenTCP(port, factory, interface=address))
            except CannotListenError as e:
                raise StartError(f"cannot listen on {address} port {port} (--enrollment-port): {e}") from e
        if service.options["web-certificate"]:
            path = Path(service.options["web-certificate"])
            self._page = WebPage(self.server.page_site(), path, service.reactor)
            self._page.start(service.interfaces, service.options["web-port"])
        self.log.info("the accounts are in {place}", place=self.authority.database.place)
        self.directory.start()
        await super().start()

    async def stop(self) -> None:
        """Serve no more."""
        await super().stop()
        if self._page is not None:
            await self._page.stop()
        for port in self._ports:
            await maybeDeferred(port.stopListening)
        self._ports = []
        await self.directory.stop()
        self.authority.close()

    @property
    def listeners(self) -> list[str]:
        """Where it listens, for people."""
        pages = [] if self._page is None else self._page.listeners
        return [*(f"enrollment {url}" for url in self.urls), *pages] if self._ports else []

    def say_commands(self) -> None:
        """Tell how users and other nodes come in."""
        state = self._service.state.path
        self.log.info("users:  p2psip user add alice --state {state}", state=str(state))
        self.log.info("nodes:  p2psip invite NAME --state {state}", state=str(state))

    # -- documents -------------------------------------------------------------------------------------------

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


def phone_settings(service: Running, user: str, device: str, password: str) -> PhoneSettings:
    """The settings of a phone that this node serves."""
    sip_port = service.options["sip-port"]
    port = "" if sip_port == 5060 else f":{sip_port}"
    return PhoneSettings(
        aor=f"{user}@{service.overlay}",
        servers=[bracketed(address) + port for address in service.advertised],
        domain=service.overlay,
        mode=service.options["sip-mode"],
        user=user,
        device=device,
        password=password,
    )


class Administered(Running, Protocol):
    """A running node, with the authority where it holds that."""

    authority: AuthorityService | None
    publisher: Publisher | None
    """Of a self-signed overlay, which has no authority."""
