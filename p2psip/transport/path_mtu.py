"""Path MTU discovery over links that carry datagrams: a Ping padded to each size to try (RFC 6940 §6.5.3.1, RFC 8899).

The link tells whether the Ping was acknowledged; its answer is one as to any other Ping, and is not waited for.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from ..config.document import Configuration
from ..errors import LinkError, RELOADError
from ..ids import NodeId
from ..interfaces import IPathProbe, ISigner
from ..wire.codes import MessageCode
from ..wire.header import NodeDestination
from ..wire.methods import PingReq
from .messages import compose, seal
from .transactions import Transactions

OVERHEAD = 45
"""Bytes of a datagram that carries a message of ours, beside it: DTLS 1.2 with AES-GCM, and the framing."""
SIZES = (1200 - OVERHEAD, 1372 - OVERHEAD)
"""Bytes of the messages to try.  1200 is the first size of RFC 8899 §5.1.2: what carries IPv6 carries it.  1372, and
48 of IPv6 and UDP, are the 1420 of WireGuard, the narrowest of the usual tunnels over Ethernet (PPPoE 1492, DS-Lite
1460, VXLAN 1450); what Ethernet alone would carry more is six in a hundred."""
VARIES = 8
"""Bytes that a Ping may be off the size: signatures differ in length."""
TRIES = 3
"""Probes of each size (RFC 8899 §5.1.2: MAX_PROBES)."""
AT_FIRST = 1.0
"""Seconds in which the first probe is sent over a new link, at random."""
AGAIN = 600.0
"""Seconds until what the path did not take is tried again (RFC 8899 §5.1.1: PMTU_RAISE_TIMER)."""
SOON = 15.0
"""Seconds until that is done where it may be otherwise already."""
MOST_AT_ONCE = 4
"""Links that are probed at a time."""


class PathMTUs:
    """Looks after the MTU of every link that can be probed, from `opened` until `closed`."""

    log = Logger()

    def __init__(
        self,
        configuration: Callable[[], Configuration],
        signer: ISigner,
        transactions: Transactions,
        clock: IReactorTime,
        random: Random,
    ) -> None:
        self._configuration = configuration
        self._signer = signer
        self._transactions = transactions
        self._clock = clock
        self._random = random
        self._turns = DeferredSemaphore(MOST_AT_ONCE)
        # When the search begins on each open link; None while it is under way, or waits for its turn.
        self._calls: dict[IPathProbe, IDelayedCall | None] = {}

    def opened(self, link: IPathProbe) -> None:
        """`link` is up."""
        link.path_shrunk = lambda: self._shrunk(link)
        self._later(link, AT_FIRST * self._random.random())

    def closed(self, link: IPathProbe) -> None:
        """`link` is gone."""
        call = self._calls.pop(link, None)
        if call is not None:
            call.cancel()

    def stop(self) -> None:
        """Probe no more."""
        for link in list(self._calls):
            self.closed(link)

    def _later(self, link: IPathProbe, seconds: float) -> None:
        self._calls[link] = self._clock.callLater(seconds, self._begin, link)

    def _shrunk(self, link: IPathProbe) -> None:
        """Large messages do not arrive any more; or a few were lost by chance."""
        call = self._calls.get(link)
        if call is not None:
            call.cancel()
            self._later(link, SOON * self._random.uniform(0.9, 1.1))

    def _begin(self, link: IPathProbe) -> None:
        self._calls[link] = None
        searched = self._turns.run(lambda: Deferred.fromCoroutine(self._search(link)))
        searched.addErrback(lambda failure: self.log.failure("path MTU not searched", failure))

    async def _search(self, link: IPathProbe) -> None:
        """Try one size after the other, while the path takes them."""
        wait = AGAIN
        try:
            for size in SIZES:
                if link.mtu + VARIES < size and not await self._takes(link, size):
                    break
        except (LinkError, RELOADError):
            wait = SOON  # it was no time for it
        if link in self._calls:
            self._later(link, wait * self._random.uniform(0.9, 1.1))

    async def _takes(self, link: IPathProbe, size: int) -> bool:
        for _ in range(TRIES):
            if link not in self._calls:
                raise LinkError("the link has ended")
            if await self._probe(link, size):
                return True
        return False

    async def _probe(self, link: IPathProbe, size: int) -> bool:
        """Whether a Ping of `size` bytes passes; raises as `Transactions.begin` and `IPathProbe.probe` fail."""
        probes: list[Deferred[bool]] = []

        def transmit(transaction_id: int) -> None:
            if not probes:  # a probe is sent once
                probes.append(link.probe(self._ping(link.node_id, transaction_id, size)))

        answered = self._transactions.begin(
            transmit,
            lambda signer: signer.node_id == link.node_id,
            self._configuration().overlay_reliability_timer / 1000,
            MessageCode.PING_ANS,
        )
        answered.addErrback(lambda failure: None)  # the link has told what we want to know
        passed = False
        try:
            passed = await probes[0]
        finally:
            if not passed:
                answered.cancel()
        return passed

    def _ping(self, node_id: NodeId, transaction_id: int, size: int) -> bytes:
        """A whole Ping of about `size` bytes, more where it cannot be that small."""
        configuration, code = self._configuration(), MessageCode.PING_REQ

        def padded(padding: int) -> bytes:
            body = PingReq(padding=bytes(padding)).encode()
            sealed = seal(configuration.overlay_hash, transaction_id, code, body, self._signer)
            return compose(configuration, transaction_id, [NodeDestination(node_id=node_id)], sealed)

        bare = padded(0)
        return padded(size - len(bare)) if len(bare) < size else bare
