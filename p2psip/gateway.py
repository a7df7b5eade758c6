"""Telephone numbers at one node: whose they are, where they go out, and this node's own trunks (INumbers)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from .enrollment.gateway import GatewayCertificate
from .enrollment.numbers import NumberDirectory
from .errors import LinkError, NotJoined, RELOADError
from .node import Node
from .renewal import Renewal
from .sip.edge import SIPEdge
from .sip.errors import SIPFailure, SIPParseError, Unavailable
from .sip.headers import parse_name_addr
from .sip.interfaces import INumbers, IServerLocator, ProxyTarget, Source, Target
from .sip.message import Request
from .sip.numbers import DialPlan, bare
from .sip.trunk import Trunk, TrunkRegistration
from .sip.uri import SIPURI, URI
from .startup import read_secret
from .state import StateDirectory
from .usages.gateways import GatewayUsage

LOOK: Final = 60.0
"""Seconds between two looks at where the servers of a trunk are."""
EXPECTED = (RELOADError, LinkError, NotJoined, CancelledError, DeferredTimeout)

_CALLED: Final = ("P-Called-Party-ID", "To")
"""Where trunks that put the registered Contact into the Request-URI say who is called, best first."""


class Trunks:
    """The trunks of one gateway: where their servers are, and its registrations there.

    :param prefixes: of the numbers that they take.
    :param number: shown for callers that have none; it may be empty.
    :param register: whether to register.
    """

    log = Logger()

    def __init__(
        self,
        trunks: Sequence[Trunk],
        prefixes: Sequence[str],
        priority: int,
        number: str,
        register: bool,
        clock: IReactorTime,
        random: Random,
    ) -> None:
        self.prefixes = tuple(prefixes)
        self.priority = priority
        self.number = number
        self._trunks = trunks
        self._register = register
        self._clock = clock
        self._random = random
        self._servers: dict[Trunk, Sequence[Target]] = {}
        self._addresses: frozenset[str] = frozenset()
        self._registrations: list[TrunkRegistration] = []
        self._looking: LoopingCall | None = None

    def start(self, edge: SIPEdge, locator: IServerLocator) -> None:
        """Look for the servers from now on, and register."""
        if self._register:
            self._registrations = [self._registration(trunk, edge) for trunk in self._trunks]
        self._looking = LoopingCall(lambda: Deferred.fromCoroutine(self._look(locator)))
        self._looking.clock = self._clock
        self._looking.start(LOOK, now=True).addErrback(
            lambda failure: self.log.failure("the trunks' servers are not looked for any more", failure)
        )

    def _registration(self, trunk: Trunk, edge: SIPEdge) -> TrunkRegistration:
        def servers() -> Sequence[Target]:
            return self._servers.get(trunk, ())

        return TrunkRegistration(trunk, self._contact(trunk), edge, servers, self._clock, self._random)

    def _contact(self, trunk: Trunk) -> str:
        return self.number or trunk.user

    async def stop(self) -> None:
        """Unregister; never fails."""
        if self._looking is not None and self._looking.running:
            self._looking.stop()
        await DeferredList([registration.stop() for registration in self._registrations])

    def targets(self, number: str, identity: str) -> list[ProxyTarget]:
        """The ways to `number`, for a caller who is known there by the number `identity`."""
        return [
            trunk.target(number, server, identity or self.number)
            for trunk in self._trunks
            for server in self._servers.get(trunk) or (None,)
        ]

    def from_trunk(self, source: Source) -> bool:
        """Whether `source` is a server of a trunk; its port is whatever it sends from."""
        return source.host in self._addresses

    def is_contact(self, uri: URI) -> bool:
        """Whether `uri` is the one by which this node is registered, which does not tell who is called."""
        return self._register and isinstance(uri, SIPURI) and uri.user in {self._contact(t) for t in self._trunks}

    def status(self) -> list[Mapping[str, Any]]:
        """For ``status --json``."""
        registered = [registration.registered for registration in self._registrations]
        registered += [False] * (len(self._trunks) - len(registered))
        return [
            {
                "uri": str(trunk.uri),
                "servers": [server.host for server in self._servers.get(trunk, ())],
                "registered": is_registered,
            }
            for trunk, is_registered in zip(self._trunks, registered, strict=True)
        ]

    async def _look(self, locator: IServerLocator) -> None:
        for trunk in self._trunks:
            try:
                self._servers[trunk] = await locator.locate(trunk.uri)
            except SIPFailure as error:
                # What was known of it stays: a name server that is down need not take a trunk away.
                if not self._servers.get(trunk):
                    self.log.warn("{trunk} is not found: {error}", trunk=str(trunk.uri), error=str(error))
        self._addresses = frozenset(server.host for servers in self._servers.values() for server in servers)
        for registration in self._registrations:
            registration.start()


@implementer(INumbers)
class Numbers:
    """What the proxy asks about telephone numbers.

    :param overlay: its name, the domain of its users.
    :param trunks: this node's own, where it is a gateway.
    """

    log = Logger()

    def __init__(
        self,
        plan: DialPlan,
        overlay: str,
        directory: NumberDirectory,
        usage: GatewayUsage,
        node_id: bytes,
        random: Random,
        trunks: Trunks | None = None,
    ) -> None:
        self._plan = plan
        self._overlay = overlay
        self._directory = directory
        self._usage = usage
        self._node_id = node_id
        self._random = random
        self.trunks = trunks
        self.counters: Counter[str] = Counter()

    def start(self, edge: SIPEdge, locator: IServerLocator) -> None:
        """See to this node's trunks, where it has some, over `edge`, which listens."""
        if self.trunks is not None:
            self.trunks.start(edge, locator)

    async def stop(self) -> None:
        """Unregister at the trunks, and ask nobody any more; never fails."""
        self._directory.stop()
        if self.trunks is not None:
            await self.trunks.stop()

    def status(self) -> Mapping[str, Any]:
        """For ``status --json``: what `GatewayUsage.status` tells, and this node's trunks."""
        return {**self._usage.status(), "trunks": [] if self.trunks is None else self.trunks.status()}

    # -- INumbers ----------------------------------------------------------------------------------------------

    def number_of(self, uri: URI) -> str | None:
        """See `INumbers`."""
        return self._plan.number_of(uri)

    def is_emergency(self, number: str) -> bool:
        """See `INumbers`."""
        return self._plan.is_emergency(number)

    def called(self, request: Request) -> str | None:
        """See `INumbers`."""
        number = self.number_of(request.uri)
        if number is not None and not (self.trunks is not None and self.trunks.is_contact(request.uri)):
            return number
        for name in _CALLED:
            try:
                value = request.get(name)
                found = None if value is None else self.number_of(parse_name_addr(value).uri)
            except SIPParseError:
                self.counters["malformed number"] += 1
            else:
                if found is not None:
                    return found
        return number

    def user_of(self, number: str) -> Deferred[str | None]:
        """See `INumbers`."""
        return Deferred.fromCoroutine(self._user_of(number))

    async def _user_of(self, number: str) -> str | None:
        name = await self._directory.user_of(bare(number))
        return f"{name}@{self._overlay}" if name else None

    def from_trunk(self, source: Source) -> bool:
        """See `INumbers`."""
        return self.trunks is not None and self.trunks.from_trunk(source)

    def gateways(self, number: str, caller: str = "") -> Deferred[Sequence[ProxyTarget]]:
        """See `INumbers`: those with the longest prefix first, then by priority, equals at random.

        For an emergency number every gateway will do, those that name it first.
        """
        return Deferred.fromCoroutine(self._gateways(number, caller))

    async def _gateways(self, number: str, caller: str) -> Sequence[ProxyTarget]:
        anyhow = self.is_emergency(number)
        ways: list[tuple[int, int, float, list[ProxyTarget]]] = []

        def add(prefixes: Sequence[str], priority: int, targets: list[ProxyTarget]) -> None:
            length = longest_prefix(prefixes, number)
            if length or anyhow:
                ways.append((-length, priority, self._random.random(), targets))

        trunks = self.trunks
        if trunks is not None and (anyhow or longest_prefix(trunks.prefixes, number)):
            add(trunks.prefixes, trunks.priority, trunks.targets(number, await self._number_of(caller)))
        try:
            nodes = await self._usage.find()
        except EXPECTED as error:
            self.counters["gateways not found"] += 1
            if not ways:
                raise Unavailable("Overlay Unavailable", retry_after=5) from error
            nodes = ()
        for node in nodes:
            if node.node_id != self._node_id:
                add(node.prefixes, node.priority, [ProxyTarget(f"tel:{number}", node=node.node_id)])
        ways.sort(key=lambda way: way[:3])
        return [target for *_, targets in ways for target in targets]

    async def _number_of(self, caller: str) -> str:
        """The number of the caller, an AOR; empty where it has none, or that is not to be found out."""
        name, _, domain = caller.rpartition("@")
        if domain != self._overlay:
            return ""
        try:
            return await self._directory.number_of(name) or ""
        except Unavailable:
            self.counters["number of a caller unavailable"] += 1
            return ""


def longest_prefix(prefixes: Sequence[str], number: str) -> int:
    """How many characters the longest of `prefixes` has with which `number` begins; 0 where it fits none."""
    return max((len(prefix) for prefix in prefixes if number.startswith(prefix)), default=0)


def build_numbers(node: Node, renewal: Renewal, state: StateDirectory, options: Mapping[str, Any]) -> Numbers:
    """What a registrar knows of telephone numbers; with ``--gateway`` it is a gateway, before the node starts.

    :param options: those of `p2psip.gateway_options`, checked.
    :raises StartError: the file with the trunk's password cannot be read.
    """
    usage: Any = node.usages["gateways"]
    clock = node.overlay.clock
    directory = NumberDirectory(renewal.client, clock)
    trunks = _build_trunks(options, clock, node.random) if options["gateway"] else None
    if trunks is not None:
        certificate = GatewayCertificate(
            renewal.client, node.trust, renewal.credentials.key, node.node_id, state.gateway_certificate, clock
        )
        usage.serve(trunks.prefixes, trunks.priority, certificate.signer)
    overlay = node.configuration.instance_name
    return Numbers(options["dial-plan"], overlay, directory, usage, node.node_id, node.random, trunks)


def _build_trunks(options: Mapping[str, Any], clock: IReactorTime, random: Random) -> Trunks:
    file = options["gateway-password-file"]
    password = read_secret(file) if file else ""
    return Trunks(
        [Trunk(uri, options["gateway-user"] or "", password, random) for uri in options["gateway"]],
        options["gateway-prefix"],
        options["gateway-priority"],
        options["gateway-number"] or "",
        bool(options["gateway-register"]),
        clock,
        random,
    )
