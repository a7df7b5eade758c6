"""``twistd p2psip``: one node as a service, from its options to its orderly end."""

from __future__ import annotations

import asyncio
import atexit
import gc
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from random import SystemRandom
from typing import Any, Final, TypeVar

from twisted.application.service import Service
from twisted.internet import asyncioreactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import ILogObserver, Logger
from twisted.names.client import createResolver
from twisted.python import usage
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from .administration import Administrator
from .authority import AuthorityService
from .config.document import ConfigurationError
from .control import ControlServer
from .directory_administration import DirectoryAdministrator
from .enrollment.credentials import RegistrarCredentials
from .errors import LinkError
from .gateway import Numbers, build_numbers
from .joining import (
    Credentials,
    Enrollment,
    found,
    found_self_signed,
    rejoining,
)
from .lan import CONFIGURATION_SERVICE, PEER_SERVICES, Lan
from .links.addresses import has_ipv6, outward_addresses
from .logs import node_log
from .node import Node, installed
from .options import NodeOptions
from .phones import Phones
from .ports import require_free_ports
from .publishing import Publisher
from .renewal import Renewal
from .routes import EXPECTED, Operator
from .security.certificates import private_key_pem
from .security.signing import Signer
from .selfsigned import DocumentKey
from .sip.errors import SIPListenError
from .sip.locator import Locator
from .sip.media.anchoring import Media
from .sip.media.build import build_media
from .sip.names import Names, system_resolver
from .sip.proxy.build import Beyond
from .sipcertificate import Origin, issued_certificate, own_certificate
from .startup import (
    Discovered,
    Found,
    JoinByDocument,
    JoinByToken,
    Start,
    StartError,
    configuration_server,
    decide,
    read_secret,
)
from .state import StateDirectory, StateError, write_file
from .storage.interfaces import StorageError
from .storage.sqlite import GATHER_SECONDS, SQLiteStorage
from .transport.bootstrap import BootstrapCache, load_places, save_places
from .usages.sip import SIPUsage
from .usages.turn import TurnUsage

T = TypeVar("T")

ALONE: Final = 30.0
"""Seconds without an answer after which a node that holds the authority founds the overlay anew."""
COLLECT_AFTER: Final = 20_000
"""Objects more than before, after which garbage is looked for among the youngest."""
DESCRIPTORS: Final = 65536


class Options(NodeOptions):
    """The options, and the choice of the reactor, which must come before any other is installed."""

    def postOptions(self) -> None:
        """Check the options and install the asyncio reactor."""
        super().postOptions()
        installed_reactor = sys.modules.get("twisted.internet.reactor")
        if installed_reactor is None:
            loop = asyncio.new_event_loop()
            asyncio.set_event_loop(loop)
            asyncioreactor.install(loop)
        elif not isinstance(installed_reactor, asyncioreactor.AsyncioSelectorReactor):
            raise usage.UsageError("p2psip runs on the asyncio reactor: leave out twistd's --reactor")


def makeService(options: Options) -> NodeService:
    """The service of one node.  What makes it impossible is said in one line, and ends the program."""
    state = StateDirectory(options["state"])
    _allow_descriptors()
    _collect_less()
    try:
        state.prepare(_future_owner(options.parent or {}))
        require_free_ports(options, enrollment=_may_serve_enrollment(options, state))
    except (StateError, StartError) as e:
        raise SystemExit(f"p2psip: {e}") from None
    from twisted.internet import reactor

    return NodeService(options, state, reactor)


def _may_serve_enrollment(options: Options, state: StateDirectory) -> bool:
    """Whether the enrollment server will run; before it is known, for all but a self-signed overlay's founder."""
    return state.has_authority or not (state.has_credentials or options["self-signed"])


def _future_owner(twistd: Mapping[str, Any]) -> tuple[int, int] | None:
    """User and group that twistd's --uid and --gid will make of root; None where all stays as it is."""
    uid, gid = twistd.get("uid"), twistd.get("gid")
    if os.geteuid() != 0 or (uid is None and gid is None):
        return None
    return (os.geteuid() if uid is None else uid), (os.getegid() if gid is None else gid)


def _allow_descriptors() -> None:
    """Ask for as many as may be had: each phone over TCP takes one, and most systems give 1024 unasked."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _collect_less() -> None:
    """Look for garbage in cycles less often: a node makes little, and looking took a busy one 7 % of its time."""
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 20)


class NodeService(Service):
    """One node: starts as `startup.decide` says, and runs until the process ends or the node leaves."""

    log = Logger()

    def __init__(self, options: NodeOptions, state: StateDirectory, reactor: Any) -> None:
        self.options = options
        self.state = state
        self.reactor = reactor
        self.phase = "starting"
        self._plugins = installed(options["link-protocol"])
        self.overlay: str = options["overlay"]
        self.node: Node | None = None
        self.phones: Phones | None = None
        self.numbers: Numbers | None = None
        self.media: Media | None = None
        names = Names(system_resolver(reactor, options["name-server"]), reactor)
        self._servers = Locator(names, reactor, SystemRandom())
        self.authority: AuthorityService | None = None
        self.publisher: Publisher | None = None
        self.renewal: Renewal | None = None
        routes = {**Operator(self).routes(), **Administrator(self).routes(), **DirectoryAdministrator(self).routes()}
        self._control = ControlServer(routes, EXPECTED)
        self._lan = Lan(self.overlay, self.bound, reactor)
        self._storage: SQLiteStorage | None = None
        self._running: Deferred[None] | None = None

    def setServiceParent(self, parent: Any) -> None:
        """Be part of twistd's application, and choose what its log shows (its option --logger goes first)."""
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]
        if isinstance(parent, Componentized) and self.options.parent is not None:
            parent.setComponent(ILogObserver, node_log(self.options.parent))

    # -- addresses -------------------------------------------------------------------------------------------

    @property
    def bound(self) -> Sequence[str]:
        """The addresses to bind to; none means all."""
        addresses: Sequence[str] = self.options["bind"]
        return addresses

    @property
    def interfaces(self) -> Sequence[str]:
        """The addresses to bind TCP servers to; "::" takes IPv4 as well."""
        return self.bound or (("::",) if has_ipv6() else ("0.0.0.0",))

    @property
    def advertised(self) -> Sequence[str]:
        """The addresses that others reach this node at."""
        return self.options["advertise"] or self.bound or outward_addresses()

    def in_thread(self, function: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """Run a blocking function off the reactor's thread."""
        done: Deferred[T] = deferToThreadPool(self.reactor, self.reactor.getThreadPool(), function, *arguments)
        return done

    # -- life ------------------------------------------------------------------------------------------------

    def startService(self) -> None:
        """Begin; what fails later ends the program with one line."""
        super().startService()  # type: ignore[no-untyped-call]
        self._control.listen(self.state.control, self.reactor)
        self._running = Deferred.fromCoroutine(self._run())
        self._running.addErrback(self._failed)

    def stopService(self) -> Deferred[None]:
        """Leave the overlay in good order, and end."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    def _failed(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return
        if failure.check(StartError, LinkError, SIPListenError, StorageError, ConfigurationError):
            self._end(f"p2psip: {failure.value}")
        else:
            self.log.failure("the node cannot run", failure)
            self._end("p2psip: this is a bug; the log says more")

    def _end(self, text: str) -> None:
        """End the program with `text` in the log and exit status 1."""
        self.log.critical("{text}", text=text)
        # twistd knows no exit status of its own: the interpreter's last act sets it, after all is closed.
        atexit.register(os._exit, 1)
        # The reactor may not run yet: what is found wrong at once is found while services start.
        self.reactor.callWhenRunning(self.reactor.stop)

    async def _run(self) -> None:
        start = await decide(self.options, self.state, self._discover, self._lan.search)
        credentials = await self._obtain(start)
        if self.state.has_authority and self.authority is None:
            self.authority = AuthorityService.opened(self)
        if self.state.has_signer and credentials.digest:
            self.publisher = Publisher(self, DocumentKey.opened(self.state, self.overlay, credentials.digest))
        node = self.node = self._build(credentials)
        self.renewal = Renewal(node, credentials, self.state, self.reactor)
        usage: Any = node.usages.get("sip")
        if not self.options["no-sip"] and isinstance(usage, SIPUsage):
            self._build_phones(node, self.renewal, usage)
        self._offer_turn(node)
        if self.authority is not None:
            await self.authority.start()
        if self.publisher is not None:
            await self.publisher.start()
        if self.phones is not None:
            # SIP keeps the families apart: no phone is to see an IPv4 address mapped into IPv6.
            every = ("0.0.0.0", "::") if has_ipv6() else ("0.0.0.0",)
            self.phones.start(self.bound or every, self.options["sip-port"])
            self.phones.serve_tls(self.bound or every, self.options["sips-port"], self._sip_certificate(self.renewal))
        if self.media is not None:
            self.media.start()
        if self.phones is not None and self.numbers is not None:
            self.numbers.start(self.phones.edge, self._servers)
        self.phase = "joining"
        if self.options["lan"]:
            await self._lan.watch(ice=not node.configuration.no_ice)
        await node.start(found=isinstance(start, Found))
        self.log.info("listening: {listeners}", listeners=", ".join(self.listeners()))
        self.renewal.start()

    async def _obtain(self, start: Start) -> Credentials:
        options = self.options
        enrollment = Enrollment(self.state, self.reactor, self._waiting, options["key-type"])
        if isinstance(start, Found):
            self.phase = "founding"
            places = [(address, options["reload-port"]) for address in self.advertised]
            kinds = [kind for usage in self._plugins.usages for kind in usage.kinds]
            no_ice = bool(options["no-ice"])
            if start.self_signed:
                self.log.info(
                    "this node founds {overlay}, whose nodes certify themselves: anybody who has its configuration "
                    "document can join, under any user name that is free", overlay=self.overlay,
                )  # fmt: skip
                signer = DocumentKey.created(self.state, self.overlay, start.self_signed, options["key-type"])
                return found_self_signed(
                    signer, self.state, options["account"], places, kinds, options["key-type"], no_ice
                )
            self.log.info("nothing is known of {overlay}: this node founds it", overlay=self.overlay)
            self.authority = AuthorityService.created(self)
            return found(
                self.authority.authority,
                self.state,
                places,
                [self.authority.url],
                kinds,
                options["key-type"],
                no_ice,
            )
        self.phase = "enrolling"
        if isinstance(start, JoinByToken):
            self.log.info("this node joins {overlay} with a token", overlay=self.overlay)
            return await enrollment.by_token(start)
        if isinstance(start, JoinByDocument):
            name = start.account or "a node that certifies itself"
            self.log.info("this node joins {overlay} as {account}", overlay=self.overlay, account=name)
            return await enrollment.by_document(start, self.overlay)
        if isinstance(start, Discovered):
            self.log.info("the DNS names a configuration server of {overlay}", overlay=self.overlay)
            account, file = options["account"], options["password-file"]
            return await enrollment.discovered(
                start, self.overlay, account, read_secret(file) if file else None
            )
        self.log.info(
            "this node rejoins {overlay} from {state}", overlay=self.overlay, state=str(self.state.path)
        )
        return rejoining(self.state, options["account"])

    def _waiting(self, why: str, seconds: float) -> None:
        self.log.info("not enrolled yet: {why}; again in {seconds:.0f} s", why=why, seconds=seconds)

    async def _discover(self, overlay: str) -> tuple[str, int] | None:
        return await configuration_server(overlay, createResolver(), self.reactor)

    # -- parts -----------------------------------------------------------------------------------------------

    def _build(self, credentials: Credentials) -> Node:
        configuration = credentials.configuration
        cache = BootstrapCache(
            load_places(self.state.bootstrap_cache),
            lambda places: save_places(self.state.bootstrap_cache, places),
        )
        own = {(address, self.options["reload-port"]) for address in self.advertised}
        alone = not cache.places and own.issuperset(configuration.bootstrap_nodes)
        self._storage = SQLiteStorage(
            str(self.state.data),
            self.in_thread,
            time.time(),
            run_soon=lambda write: self.reactor.callLater(GATHER_SECONDS, write),
        )
        holds_key = self.authority is not None or self.publisher is not None
        return Node(
            configuration,
            Signer(credentials.identity, credentials.key),
            credentials.key,
            self._storage,
            self._plugins,
            clock=self.reactor,
            now=time.time,
            random=SystemRandom(),
            addresses=self.bound,
            port=self.options["reload-port"],
            advertise=self.options["advertise"],
            bootstrap_cache=cache,
            nearby=self._lan.places,
            save_configuration=self._save_configuration,
            client=bool(self.options["client"]),
            found_after=(0.0 if alone else ALONE) if holds_key else None,
            joined=self._joined,
            excluded=self._excluded,
        )

    def _offer_turn(self, node: Node) -> None:
        turn: Any = node.usages.get("turn")
        if self.options["turn-server"] and isinstance(turn, TurnUsage):
            host, port = self.options["turn-server"]
            turn.serve(host, port, read_secret(self.options["turn-secret-file"]).encode())

    def _build_phones(self, node: Node, renewal: Renewal, usage: SIPUsage) -> None:
        credentials = renewal.credentials
        if credentials.digest:
            self.log.info(
                "no SIP server: the nodes of {overlay} certify themselves, and there is no authority to certify the "
                "users of phones", overlay=self.overlay,
            )  # fmt: skip
            return
        if credentials.identity.role != "registrar":
            self.log.info("no SIP server: this node was not invited as a registrar")
            return
        registrar_credentials = RegistrarCredentials(
            renewal.client,
            node.trust,
            credentials.key,
            self.overlay,
            self.state.registrar,
            self.reactor,
            self._revoked,
            self.options["revocation-interval"] / 2,
        )
        self.numbers = build_numbers(node, renewal, self.state, self.options)
        self.media = build_media(self.options["rtpengine"], node.node_id.hex(), self.reactor, node.random)
        self.phones = Phones(
            self.overlay,
            node.node_id,
            usage,
            registrar_credentials,
            self.state.bindings,
            self.reactor,
            node.random,
            self.advertised,
            bool(self.options["open"]),
            self.options["sip-mode"],
            private_key_pem(credentials.key),
            Beyond(self._servers, self.numbers, self.media),
        )

    def _sip_certificate(self, renewal: Renewal) -> Origin:
        if self.options["sip-certificate"]:
            return own_certificate(Path(self.options["sip-certificate"]))
        return issued_certificate(
            self.state,
            self.overlay,
            self.advertised,
            renewal,
            lambda: self.authority.authority if self.authority is not None else None,
            self.in_thread,
        )

    def _revoked(self, user: str, device: str) -> None:
        if self.phones is not None:
            self.phones.forget(user, device)

    def listeners(self) -> list[str]:
        """Where this node listens, for people."""
        node, phones, authority = self.node, self.phones, self.authority
        found = [] if node is None else [f"reload {address}" for address in node.status()["listeners"]]
        found += [] if phones is None else phones.listeners
        return found + ([] if authority is None else authority.listeners)

    # -- what happens ----------------------------------------------------------------------------------------

    def _joined(self) -> None:
        assert self.node is not None
        self.phase = "joined"
        self.log.info("node {node} is part of {overlay}", node=self.node.node_id.hex(), overlay=self.overlay)
        holder = self.authority or self.publisher
        if holder is not None:
            holder.say_what_next()
        if self.options["lan"]:
            self._announce(self.node)

    def _announce(self, node: Node) -> None:
        """Let the LAN know of this node: where it is a peer, and where its enrollment server is."""
        if not self.options["client"]:
            service = PEER_SERVICES[not node.configuration.no_ice]
            self._lan.announce(service, node.node_id, self.options["reload-port"])
        if self.authority is not None and self.authority.listeners:
            self._lan.announce(CONFIGURATION_SERVICE, node.node_id, self.options["enrollment-port"])

    def _excluded(self, why: ConfigurationError) -> None:
        self._end(f"this node has left {self.overlay}, whose new configuration it cannot follow: {why}")

    def _save_configuration(self, document: bytes) -> None:
        try:
            write_file(self.state.document, document)
        except OSError as e:
            # It is in use all the same; after a restart the neighbors bring it again.
            self.log.error("the new configuration document is not saved: {error}", error=str(e))

    # -- the end ---------------------------------------------------------------------------------------------

    async def leave(self) -> None:
        """Leave the overlay in good order; the program ends soon after."""
        self.phase = "leaving"
        if self.node is not None:
            await self.node.leave()
        self.reactor.callLater(0.2, self.reactor.stop)

    async def _stop(self) -> None:
        if self.node is not None:
            self.log.info("this node leaves {overlay}", overlay=self.overlay)
        if self._running is not None:
            self._running.cancel()
        if self.renewal is not None:
            self.renewal.stop()
        for end in self._endings():
            try:
                await end()
            except Exception:  # noqa: BLE001  (the others have to end in good order, the storage above all)
                self.log.failure("a part of this node did not end in good order")
        self.state.release()

    def _endings(self) -> Iterator[Callable[[], Awaitable[None]]]:
        """What ends each part, in this order."""
        yield self._lan.stop
        if self.numbers is not None:
            yield self.numbers.stop
        if self.phones is not None:
            yield self.phones.stop
        if self.media is not None:
            yield self.media.stop
        if self.node is not None:
            yield self.node.leave if self.node.joined else self.node.stop
        if self.authority is not None:
            yield self.authority.stop
        if self.publisher is not None:
            yield self.publisher.stop
        if self._storage is not None:
            yield self._storage.close
        yield self._control.stop


__all__ = ["NodeService", "Options", "makeService"]
