"""The SIP server of one node: registrar, redirect server and their edge, put together."""

from __future__ import annotations

import resource
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from hashlib import blake2s
from pathlib import Path
from random import Random
from typing import Any, Final

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from .enrollment.credentials import RegistrarCredentials
from .hostport import address_text
from .ids import NodeId
from .sip.authentication import Authenticator
from .sip.digest import NonceMint
from .sip.domain import Domain
from .sip.edge import SIPEdge
from .sip.interfaces import Contact
from .sip.journal import SQLiteJournal
from .sip.location import Location
from .sip.proxy.build import Beyond, build_proxy
from .sip.redirect import Redirect
from .sip.registrar import Devices, Registrar
from .sip.server import SIPServer
from .sip.tls import ClientTLS, ServerTLS
from .sipcertificate import Origin, SIPCertificate
from .usages.sip import SIPUsage

MOST_STREAMS: Final = 10_000
"""Connections of phones, where the system allows twice as many descriptors."""
EXPIRY_SECONDS: Final = 1.0
"""How often bindings that have ended are looked for."""
TICK_SECONDS: Final = 0.5
"""How often calls that have had their time are looked for."""
_REFUSING: Final = (
    *("malformed", "overloaded", "request too large", "response too large"),
    *("server not trusted", "TLS handshake failed"),
)
"""Of what the edge counts, the refusals."""


class Phones:
    """Serves the phones of one overlay at one node.

    :param bindings: the file with the bindings of the last run; made where there is none.
    :param advertise: addresses that phones reach this node at.
    :param open_: redirect for anybody, without asking who calls.
    :param mode: "proxy", or "redirect" to let phones call each other by themselves.
    :param secret: of this node, the same after a restart.
    """

    log = Logger()

    def __init__(
        self,
        overlay: str,
        node_id: NodeId,
        usage: SIPUsage,
        credentials: RegistrarCredentials,
        bindings: Path,
        reactor: Any,
        random: Random,
        advertise: Sequence[str],
        open_: bool,
        mode: str,
        secret: bytes,
        beyond: Beyond = Beyond(),  # noqa: B008  (immutable)
    ) -> None:
        self._reactor = reactor
        self._credentials = credentials
        self._database = _private_database(bindings)
        self.domain = Domain(overlay, advertise)
        self._location = Location()
        # A new key each time: nonces of the last run, whose counts are forgotten, must not be replayed.
        mint = NonceMint(node_id, secrets.token_bytes(32))
        self._authenticator = Authenticator(self.domain, credentials, mint)
        self.registrar = Registrar(
            self.domain, self._authenticator, self._location, usage, SQLiteJournal(self._database),
            devices=Devices(node_id, blake2s(secret).digest()),
        )  # fmt: skip
        self._server = SIPServer(self.domain, self.registrar, reactor.seconds, random)
        self._client = ClientTLS()
        self._certificate: SIPCertificate | None = None
        # Strangers must not take the descriptors that links and storage need.
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if descriptors == resource.RLIM_INFINITY:
            descriptors = 2 * MOST_STREAMS
        self.edge = SIPEdge(
            reactor,
            self._server,
            random,
            advertise=advertise,
            most_streams=min(MOST_STREAMS, descriptors // 2),
            tls=self._client,
        )
        usage.serve(credentials.signer, credentials.known, self.edge, self.registrar, self._server, self._database)
        self._proxy = build_proxy(
            self.domain, node_id, self._authenticator, self.registrar, usage, usage, self.edge, self._server.respond,
            secret, reactor.seconds, random, beyond,
        )  # fmt: skip
        redirect = Redirect(self.domain, self._authenticator, self.registrar, usage, open_)
        self._server.serve_calls(self._proxy, redirect if mode == "redirect" else None)
        self._ticking = LoopingCall.withCount(self._tick)
        self._ticking.clock = reactor
        self._ticked = 0.0
        self._expiring = LoopingCall(lambda: self.registrar.expire(reactor.seconds()))
        self._expiring.clock = reactor

    def start(self, addresses: Sequence[str], port: int) -> None:
        """Take over the bindings of the last run, and listen.

        :raises SIPListenError: an address and port cannot be had.
        """
        self.registrar.load(self._reactor.seconds())
        self.edge.listen(addresses, port)
        hosts = {target.host for target in self.edge.listening}
        if hosts & {"0.0.0.0", "::"}:
            hosts |= {"127.0.0.1", "::1", "localhost"}
        self.domain.hosts.update(hosts)
        self._credentials.start()
        self._ticked = self._reactor.seconds()
        self._ticking.start(TICK_SECONDS, now=False).addErrback(
            lambda failure: self.log.failure("calls do not end in time any more", failure)
        )
        self._expiring.start(EXPIRY_SECONDS, now=False).addErrback(
            lambda failure: self.log.failure("bindings do not expire any more", failure)
        )

    def serve_tls(self, addresses: Sequence[str], port: int, origin: Origin) -> None:
        """Listen for TLS as well, as soon as there is a certificate; it may take until an authority can be asked."""

        def listen(server: ServerTLS) -> None:
            known = len(self.edge.listening)
            self.edge.listen(addresses, port, ("TLS",), server)
            self.log.info("listening: {listeners}", listeners=", ".join(self.listeners[known:]))

        self._certificate = SIPCertificate(origin, listen, self._client, self._reactor)
        self._certificate.start()

    async def stop(self) -> None:
        """Listen no more."""
        if self._certificate is not None:
            self._certificate.stop()
        for looping in (self._expiring, self._ticking):
            if looping.running:
                looping.stop()
        self._credentials.stop()
        await self.edge.stop()
        self._database.close()

    def _tick(self, _count: int) -> None:
        now = self._reactor.seconds()
        late, self._ticked = now - self._ticked - TICK_SECONDS, now
        self._proxy.tick(now, late)

    def forget(self, user: str, device: str) -> None:
        """A user is gone, or one of its phones (`device` not empty): forget where, here and in the overlay."""
        aor = f"{user}@{self.domain.name}"
        self.registrar.remove(aor, self._reactor.seconds(), device or None).addErrback(
            lambda failure: self.log.failure("a removed user's registration stays until it ends", failure)
        )

    # -- for `status` ----------------------------------------------------------------------------------------

    @property
    def listeners(self) -> list[str]:
        """Where phones are served, for people."""
        return [f"sip {t.transport} {address_text(t.host, t.port)}" for t in self.edge.listening]

    def registrations(self, offset: int, limit: int) -> Mapping[str, Any]:
        """A page of the AORs with phones registered here."""
        now = self._reactor.seconds()
        aors = self._location.aors()
        page = [
            {"aor": aor, "contacts": [contact_json(c) for c in self.registrar.query(aor, now)]}
            for aor in aors[offset : offset + limit]
        ]
        return {"total": len(aors), "page": page}

    def rejected(self) -> Mapping[str, int]:
        """What was refused, by cause."""
        edge, refused = self.edge.counters, self._authenticator.counters
        return {
            **{f"sip: {cause}": edge[cause] for cause in _REFUSING if edge[cause]},
            **{f"sip: {cause}": count for cause, count in refused.items()},
            **{f"sip: {cause}": count for cause, count in self._proxy.counters.items()},
            **{f"sip status: {k}": count for k, count in self._server.counters.items() if k[:1] in "456"},
        }


def contact_json(contact: Contact) -> Mapping[str, Any]:
    """A contact as `p2psip` prints it."""
    return {"uri": contact.uri, "q": 1.0 if contact.q is None else contact.q, "expires": contact.expires}


def _private_database(path: Path) -> sqlite3.Connection:
    path.touch(mode=0o600)
    return sqlite3.connect(path, isolation_level=None)
