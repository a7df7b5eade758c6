"""
What a link costs: ``python benchmarks/links.py``.

Messages a second over one link, the time until a link is there, and handshakes a second, by link protocol, in one
process and one run; beside them UDP alone, OpenSSL alone, and signatures alone.  `benchmarks/README.rst` says what the
figures mean.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from random import Random
from statistics import median
from typing import Any
from typing import cast as typed

from limits import handshakes_allowed
from OpenSSL import SSL
from twisted.internet import asyncioreactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import DatagramProtocol
from zope.interface import implementer

from p2psip.config.document import Configuration
from p2psip.forwarding.fragments import fragments
from p2psip.ids import NodeId
from p2psip.interfaces import ILink, ILinkHost, ILinkOwner
from p2psip.links.datagram_link import LEAST_MESSAGE, DTLSLink
from p2psip.links.dtls_links import DTLSLinks
from p2psip.links.handshake import Contexts
from p2psip.links.ice import ICELinks
from p2psip.links.service import LinkService
from p2psip.links.tls import TLSLinks
from p2psip.security.certificates import Authority, generate_key, make_authority
from p2psip.security.identity import Identity
from p2psip.security.signing import Signer
from p2psip.security.trust import Trust

OVERLAY = "benchmark.invalid"
SIZES = (500, 1200)
WINDOWS = (1, 32)
WAYS = ("one way", "echo")
WHOLE = 1300
"""Bytes that a link over DTLS may send in one datagram, where it is to send them whole."""
AT_ONCE = 8
"""Handshakes that are under way at a time."""
KINDS: dict[str, type[Any]] = {"tls": TLSLinks, "dtls": DTLSLinks, "ice": ICELinks}


# -- Nodes that have nothing but links ----------------------------------------------------------------------


@implementer(ILinkOwner)
class Owner:
    """Waits for links, and hands their messages on."""

    def __init__(self) -> None:
        self.received: Callable[[bytes], None] = lambda message: None
        self.open: list[ILink] = []
        self._waiting: list[tuple[int, Deferred[None]]] = []

    def link_opened(self, link: ILink) -> None:
        self.open.append(link)
        self._look()

    def link_closed(self, link: ILink, reason: Exception | None) -> None:
        self.open.remove(link)
        self._look()

    def has(self, count: int) -> Deferred[None]:
        """Fires when so many links are open."""
        waiting: Deferred[None] = Deferred()
        self._waiting.append((count, waiting))
        self._look()
        return waiting

    def _look(self) -> None:
        for each in [each for each in self._waiting if each[0] == len(self.open)]:
            self._waiting.remove(each)
            each[1].callback(None)

    def message_received(self, link: ILink, message: bytes) -> None:
        self.received(message)

    def link_failing(self, link: ILink) -> None: ...
    def link_recovered(self, link: ILink) -> None: ...
    def messages_undelivered(self, link: ILink, messages: Sequence[bytes]) -> None: ...

    def link_rejected(self, cause: str, address: str) -> None:
        raise AssertionError(f"{address} was rejected: {cause}")


@implementer(ILinkHost)
@dataclass
class Host:
    """What links need of their node."""

    signer: Signer
    private_key: Any
    trust: Trust
    clock: Any
    owner: Owner = field(default_factory=Owner)
    configuration: Configuration = field(default_factory=lambda: Configuration(instance_name=OVERLAY))
    random: Random = field(default_factory=Random)
    relays: None = None


def make_host(authority: Authority, key_type: str, reactor: Any) -> Host:
    """A host with a Node-ID and a certificate of its own."""
    key, node_id = generate_key(key_type), NodeId(os.urandom(16))
    certificate = authority.issue(
        key.public_key(),
        overlay=OVERLAY,
        user_name=f"node@{OVERLAY}",
        node_ids=[node_id],
        role="peer",
        now=time.time(),
        lifetime=86400.0,
    )
    trust = Trust(OVERLAY, [authority.certificate], (), 16, time.time)
    return Host(Signer(Identity.from_certificate(certificate, OVERLAY), key), key, trust, reactor)


class Pair:
    """Two nodes on loopback that have links of one protocol; the first one begins them."""

    def __init__(self, kind: str, authority: Authority, key_type: str, reactor: Any) -> None:
        self.hosts = [make_host(authority, key_type, reactor) for _ in range(2)]
        self._ends: list[LinkService] = [
            KINDS[kind](host, reactor, ["127.0.0.1"], 0) for host in self.hosts
        ]
        self._ice = kind == "ice"

    async def listen(self) -> None:
        """Be ready for `link`."""
        for end in self._ends:
            await end.listen()

    async def link(self) -> ILink:
        """A link more, from the first node to the second."""
        here, there = self._ends
        a, b = (host.signer.node_id for host in self.hosts)
        if not self._ice:
            return await here.connect(there.candidates(), b)
        offer, answer = await here.negotiate(True, b), await there.negotiate(False, a)
        made, _ = await gatherResults(
            [
                offer.conclude(answer.ufrag, answer.password, answer.candidates, b),
                answer.conclude(offer.ufrag, offer.password, offer.candidates, a),
            ]
        )
        return made  # type: ignore[no-any-return]

    async def both_have(self, count: int) -> None:
        """Wait until each node has so many links."""
        for host in self.hosts:
            await host.owner.has(count)

    async def set_up(self, count: int) -> tuple[float, float]:
        """Make `count` links at once and close them again; seconds until all were there, on the clock and of CPU."""
        began = time.perf_counter(), time.thread_time()
        made = await gatherResults([Deferred.fromCoroutine(self.link()) for _ in range(count)])
        await self.both_have(count)
        took = time.perf_counter() - began[0], time.thread_time() - began[1]
        for link in made:
            link.close()
        await self.both_have(0)
        return took

    async def stop(self) -> None:
        """Close everything."""
        await gatherResults([end.stop() for end in self._ends])


# -- Messages a second --------------------------------------------------------------------------------------


class Path:
    """A way for messages, there and back; `pieces` tells in how many each of them arrives."""

    def __init__(self, there: Callable[[bytes], object], back: Callable[[bytes], object]) -> None:
        self.there, self.back = there, back
        self.arrived: Callable[[bytes], None]
        self.came_back: Callable[[bytes], None]
        self.pieces: Callable[[bytes], int] = lambda message: 1


async def path_of_links(kind: str, most: int, authority: Authority, reactor: Any) -> Path:
    """A link of `kind`; one over DTLS sends at most `most` bytes of a message in a datagram."""
    pair = Pair(kind, authority, "ec", reactor)
    await pair.listen()
    await pair.link()
    await pair.both_have(1)
    ends = [host.owner.open[0] for host in pair.hosts]
    path = Path(*(end.send for end in ends))
    pair.hosts[0].owner.received = lambda message: path.came_back(message)
    pair.hosts[1].owner.received = lambda message: path.arrived(message)
    if isinstance(ends[0], DTLSLink):
        path.pieces = lambda message: len(fragments(message, most))
        for end in ends:
            end._framing.path.probed(most)  # type: ignore[attr-defined]
    return path


class Datagrams(DatagramProtocol):
    """One end of a path of UDP alone."""

    noisy = False

    def __init__(self) -> None:
        self.received: Callable[[bytes], None]

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.received(datagram)


def path_of_udp(reactor: Any) -> Path:
    """UDP alone."""
    ends = [Datagrams(), Datagrams()]
    ports = [reactor.listenUDP(0, end, "127.0.0.1") for end in ends]
    for end, other in zip(ends, reversed(ports), strict=True):
        typed(Any, end.transport).connect("127.0.0.1", other.getHost().port)
    path = Path(*(typed(Any, end.transport).write for end in ends))
    ends[0].received = lambda message: path.came_back(message)
    ends[1].received = lambda message: path.arrived(message)
    return path


class Traffic:
    """Keeps `window` messages of `size` bytes under way until `count` have arrived, or have come back."""

    numbers = iter(range(1 << 60))
    """No two messages are the same: a link over datagrams would take the second for a retransmission."""

    def __init__(self, path: Path, size: int, window: int, count: int, echo: bool) -> None:
        self._path, self._size, self._window = path, size, window
        self._to_send = self._to_come = count
        self._pieces = path.pieces(bytes(size))
        self._there = self._back = 0
        self._done: Deferred[None] = Deferred()
        path.arrived = self._echo if echo else self._arrived
        path.came_back = self._came_back

    async def run(self) -> None:
        for _ in range(self._window):
            self._send()
        await self._done

    def _message(self) -> bytes:
        # A forwarding header, as far as `fragments` looks at it, that differs in the transaction_id.
        return bytes(20) + next(self.numbers).to_bytes(8) + bytes(self._size - 28)

    def _send(self) -> None:
        if self._to_send:
            self._to_send -= 1
            self._path.there(self._message())

    def _arrived(self, piece: bytes) -> None:
        self._there += 1
        if self._there % self._pieces == 0:
            self._ended()

    def _echo(self, piece: bytes) -> None:
        self._there += 1
        if self._there % self._pieces == 0:
            self._path.back(self._message())

    def _came_back(self, piece: bytes) -> None:
        self._back += 1
        if self._back % self._pieces == 0:
            self._ended()

    def _ended(self) -> None:
        self._to_come -= 1
        self._send()
        if not self._to_come:
            self._done.callback(None)


async def messages(reactor: Any, authority: Authority, count: int, rounds: int) -> list[dict[str, Any]]:
    """A row for each size, window and way: the paths in turn, as often as there are rounds."""
    paths = {
        "udp": path_of_udp(reactor),
        "tls": await path_of_links("tls", 0, authority, reactor),
        "dtls": await path_of_links("dtls", WHOLE, authority, reactor),
        "ice": await path_of_links("ice", WHOLE, authority, reactor),
        "dtls, fragments": await path_of_links("dtls", LEAST_MESSAGE, authority, reactor),
    }
    cases = list(product(WAYS, SIZES, WINDOWS))
    measured: dict[Any, dict[str, list[tuple[float, float]]]] = {
        case: {name: [] for name in paths} for case in cases
    }
    for turn in range(rounds + 1):
        for (way, size, window), (name, path) in product(cases, paths.items()):
            traffic = Traffic(path, size, window, count, way == "echo")
            began = time.perf_counter(), time.thread_time()
            await traffic.run()
            took = time.perf_counter() - began[0], time.thread_time() - began[1]
            if turn:  # the first one warms up
                measured[way, size, window][name].append(took)
    return [
        {
            "way": way,
            "bytes": size,
            "window": window,
            "per_second": {name: round(count / median(took for took, _ in runs)) for name, runs in found.items()},
            "cpu_us": {name: round(median(cpu for _, cpu in runs) / count * 1e6, 1) for name, runs in found.items()},
            "times_udp": ratios(found, "udp"),
            "times_tls": ratios(found, "tls"),
        }
        for (way, size, window), found in measured.items()
    ]


def ratios(found: dict[str, list[tuple[float, float]]], to: str) -> dict[str, float]:
    """What each costs in CPU time against what `to` did in the same round: medians of the rounds."""
    return {
        name: round(median(one[1] / other[1] for one, other in zip(runs, found[to], strict=True)), 2)
        for name, runs in found.items()
    }


# -- Until a link is there ----------------------------------------------------------------------------------


async def set_up_times(reactor: Any, authority: Authority, rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds from the beginning until both ends have the link, one at a time."""
    pairs = {kind: Pair(kind, authority, "ec", reactor) for kind in KINDS}
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in pairs}
    for pair in pairs.values():
        await pair.listen()
        await pair.set_up(1)
    for _ in range(rounds):
        for kind, pair in pairs.items():
            found[kind].append(await pair.set_up(1))
    for pair in pairs.values():
        await pair.stop()
    times = ratios(found, "tls")
    return {
        kind: {
            "ms": round(median(took for took, _ in runs) * 1e3, 2),
            "cpu_ms": round(median(cpu for _, cpu in runs) * 1e3, 2),
            "times_tls": times[kind],
        }
        for kind, runs in found.items()
    }


# -- Handshakes a second ------------------------------------------------------------------------------------


def in_memory(hosts: Sequence[Host], method: int) -> Callable[[], Awaitable[None]]:
    """`AT_ONCE` handshakes of OpenSSL alone, with the keys of `hosts`: no cookies, no sockets."""
    contexts = [Contexts(host, method).current() for host in hosts]

    def handshake() -> None:
        client, server = (SSL.Connection(context, None) for context in contexts)
        client.set_connect_state()
        server.set_accept_state()
        if method == SSL.DTLS_METHOD:
            client.set_ciphertext_mtu(WHOLE)
            server.set_ciphertext_mtu(WHOLE)
        waiting = {client: server, server: client}
        while waiting:
            for end, other in list(waiting.items()):
                with suppress(SSL.WantReadError):
                    end.do_handshake()
                    del waiting[end]
                with suppress(SSL.WantReadError):
                    other.bio_write(end.bio_read(1 << 16))

    async def run() -> None:
        for _ in range(AT_ONCE):
            handshake()

    return run


async def handshakes(reactor: Any, authority: Authority, key_type: str, rounds: int) -> dict[str, Any]:
    """Handshakes per second of CPU time of both ends together, and what allows how many."""
    pairs = {kind: Pair(kind, authority, key_type, reactor) for kind in KINDS}
    hosts = pairs["tls"].hosts
    runs: dict[str, Callable[[], Awaitable[Any]]] = {
        "tls in memory": in_memory(hosts, SSL.TLS_METHOD),
        "dtls in memory": in_memory(hosts, SSL.DTLS_METHOD),
    }
    for kind, pair in pairs.items():
        await pair.listen()
        runs[kind] = lambda pair=pair: pair.set_up(AT_ONCE)  # type: ignore[misc]
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    allowed: list[float] = []
    for turn in range(rounds + 1):
        for name, run in runs.items():
            began = time.thread_time()
            took = await run()
            if turn:
                cpu[name].append(took[1] if took else time.thread_time() - began)
        allowed.append(handshakes_allowed(hosts[0].private_key, 0.02))
    for pair in pairs.values():
        await pair.stop()
    rates = {name: round(AT_ONCE / median(each), 1) for name, each in cpu.items()}
    limit = median(allowed)
    rows: dict[str, Any] = {"signatures_and_key_exchange_alone": round(limit, 1)}
    for name, rate in rates.items():
        rows[name] = {"per_second": rate, "of_limit": round(rate / limit, 2)}
        memory = "tls in memory" if name == "tls" else "dtls in memory"
        if name in KINDS:
            rows[name]["of_openssl"] = round(rate / rates[memory], 2)
    return rows


# -- The whole ----------------------------------------------------------------------------------------------


async def measure(reactor: Any, count: int, rounds: int) -> dict[str, Any]:
    """Everything, in one run."""
    authority = make_authority(OVERLAY, generate_key(), time.time(), 10 * 86400.0)
    return {
        "python": sys.version.split()[0],
        "cores": len(os.sched_getaffinity(0)),
        "messages": await messages(reactor, authority, count, rounds),
        "set_up": await set_up_times(reactor, authority, 2 * rounds),
        "handshakes": {
            key_type: await handshakes(reactor, authority, key_type, rounds) for key_type in ("ec", "rsa")
        },
    }


def table(result: dict[str, Any]) -> str:
    """The same for people."""
    names = list(result["messages"][0]["per_second"])
    lines = ["Messages a second (CPU time of a message against UDP alone)", ""]
    lines.append(f"{'':24}" + "".join(f"{name:>20}" for name in names))
    for row in result["messages"]:
        head = f"{row['way']}, {row['bytes']} bytes, {row['window']}"
        cells = (f"{row['per_second'][name]:,} ({row['times_udp'][name]})" for name in names)
        lines.append(f"{head:24}" + "".join(f"{cell:>20}" for cell in cells))
    lines += ["", "Until a link is there", "", f"{'':24}{'ms':>12}{'CPU ms':>12}{'CPU, times TLS':>16}"]
    for kind, row in result["set_up"].items():
        lines.append(f"{kind:24}{row['ms']:>12}{row['cpu_ms']:>12}{row['times_tls']:>16}")
    for key_type, rows in result["handshakes"].items():
        limit = rows["signatures_and_key_exchange_alone"]
        lines += ["", f"Handshakes in a second of CPU time, {key_type}", ""]
        lines.append(f"{'':24}{'a second':>12}{'of signatures':>16}{'of OpenSSL':>12}")
        lines.append(f"{'signatures, ECDH alone':24}{limit:>12,}{1:>16}")
        for name, row in rows.items():
            if name in (*KINDS, "tls in memory", "dtls in memory"):
                lines.append(f"{name:24}{row['per_second']:>12,}{row['of_limit']:>16}{row.get('of_openssl', 1):>12}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="messages of each measurement (default 1000)")
    parser.add_argument("--rounds", type=int, default=7, help="of everything; medians are shown (default 7)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args()
    asyncioreactor.install()  # as `twistd p2psip` does
    from twisted.internet import reactor as installed

    reactor: Any = installed

    def show(result: dict[str, Any]) -> None:
        print(json.dumps(result, indent=2) if options.json else table(result), flush=True)

    def begin() -> None:
        running = Deferred.fromCoroutine(measure(reactor, options.count, options.rounds)).addCallback(show)
        running.addErrback(lambda failure: print(failure.getTraceback(), file=sys.stderr))
        running.addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(begin)
    reactor.run()


if __name__ == "__main__":
    main()
