"""
How many Stores and Fetches go over one link: ``python benchmarks/store.py``.

Two processes, each a node with everything that a node has: a peer that stores, and a client that sends it signed
Stores of 400-byte values and fetches them again, over TLS, with P-256 keys.  Every message and every value is
signed and verified.  Prints JSON; `benchmarks/README.rst` says what the figures mean.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Any

from limits import EchoClient, echo_factory, signature_rates
from twisted.internet import asyncioreactor, ssl
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import SSL4ClientEndpoint, connectProtocol
from twisted.internet.threads import deferToThreadPool

from p2psip.config.accept import accept_first, publish
from p2psip.config.defaults import default_configuration
from p2psip.config.document import Configuration
from p2psip.config.kinds import Kind
from p2psip.config.write import write_document
from p2psip.ids import NodeId
from p2psip.node import Node, installed
from p2psip.security.certificates import (
    Authority,
    certificate_pem,
    generate_key,
    load_private_key,
    make_authority,
    private_key_pem,
)
from p2psip.security.identity import Identity
from p2psip.security.signing import Signer
from p2psip.storage.interfaces import IStorage
from p2psip.storage.sqlite import GATHER_SECONDS, SQLiteStorage
from p2psip.storage.store import MemoryStorage
from p2psip.wire.codes import DataModel
from p2psip.wire.storage import DataValue

OVERLAY = "benchmark.invalid"
KIND = Kind(
    kind_id=0xF0000001, name="", data_model=DataModel.SINGLE, access_control="USER-MATCH", max_count=1, max_size=500
)
USERS = 64
VALUE = bytes(400)
MESSAGE_BYTES = 1300
"""About what a Store with its certificates takes, for the echo."""


class Materials:
    """The keys, certificates and the document of a small overlay, as one process hands them to the other."""

    def __init__(self, authority: Authority, ports: tuple[int, int]) -> None:
        now = time.time()
        self._authority = authority
        key = generate_key()
        signer = Signer(self.identity(key, "configuration", os.urandom(16)), key)
        made = default_configuration(
            OVERLAY,
            root_certificates=[authority.certificate],
            configuration_signer=signer.node_id,
            kind_signer=signer.node_id,
            now=now,
            bootstrap_nodes=[("127.0.0.1", ports[0])],
            no_ice=True,
        )
        made = replace(made, kinds=MappingProxyType({KIND.kind_id: KIND}))
        self.document = write_document(publish(made, signer, signer))
        self.ports = ports

    def identity(self, key: Any, name: str, node_id: bytes) -> Identity:
        """A fresh certificate of `key`."""
        certificate = self._authority.issue(
            key.public_key(),
            overlay=OVERLAY,
            user_name=f"{name}@{OVERLAY}",
            node_ids=[NodeId(node_id)],
            role="peer",
            now=time.time(),
            lifetime=86400.0,
        )
        return Identity.from_certificate(certificate, OVERLAY)

    def for_peer(self) -> dict[str, Any]:
        """What the other process needs, for JSON."""
        key = generate_key()
        return {
            "document": base64.b64encode(self.document).decode(),
            "key": private_key_pem(key).decode(),
            "certificate": base64.b64encode(self.identity(key, "peer", os.urandom(16)).certificate).decode(),
            "ports": self.ports,
        }


def configuration_of(document: bytes) -> Configuration:
    """The document as any node reads it."""
    return accept_first(document, OVERLAY, time.time())


def cpu_seconds() -> tuple[float, float]:
    """What this process has used, and what of it the reactor's thread, which is the one that asks."""
    return time.process_time(), time.thread_time()


# -- The peer's process -----------------------------------------------------------------------------------


def serve(storage_name: str) -> None:
    """Be the peer, until standard input ends; each line of it asks for the CPU seconds used."""
    given = json.loads(sys.stdin.readline())
    from twisted.internet import reactor

    key = load_private_key(given["key"].encode())
    identity = Identity.from_certificate(base64.b64decode(given["certificate"]), OVERLAY)
    with tempfile.TemporaryDirectory(prefix="p2psip-benchmark-") as directory:
        storage: IStorage = MemoryStorage()
        if storage_name == "sqlite":
            storage = SQLiteStorage(
                str(Path(directory, "data.sqlite")),
                lambda function, *arguments: deferToThreadPool(
                    reactor, reactor.getThreadPool(), function, *arguments  # type: ignore[attr-defined]
                ),
                time.time(),
                run_soon=lambda write: reactor.callLater(GATHER_SECONDS, write),  # type: ignore[attr-defined]
            )
        node = Node(
            configuration_of(base64.b64decode(given["document"])),
            Signer(identity, key),
            key,
            storage,
            replace(installed(), usages=()),
            clock=reactor,
            now=time.time,
            random=Random(),
            addresses=["127.0.0.1"],
            port=given["ports"][0],
        )
        context = ssl.PrivateCertificate.loadPEM(
            certificate_pem(identity.certificate) + private_key_pem(key)
        ).options()

        async def begin() -> None:
            await node.start(found=True)
            reactor.listenSSL(  # type: ignore[attr-defined]
                given["ports"][1], echo_factory(MESSAGE_BYTES), context, interface="127.0.0.1"
            )
            print("ready", flush=True)

        def asked() -> None:
            if sys.stdin.readline():
                print(*cpu_seconds(), flush=True)
            else:
                asyncio.get_event_loop().remove_reader(sys.stdin.fileno())
                reactor.stop()  # type: ignore[attr-defined]

        asyncio.get_event_loop().add_reader(sys.stdin.fileno(), asked)
        Deferred.fromCoroutine(begin()).addErrback(fail)
        reactor.run()  # type: ignore[attr-defined]


def fail(failure: Any) -> None:
    """End the process with the failure shown."""
    print(failure.getTraceback(), file=sys.stderr, flush=True)
    os._exit(1)


# -- The client's process -----------------------------------------------------------------------------------


class Load:
    """The client: a node, the users that it signs for, and the peer's process."""

    def __init__(self, node: Node, signers: list[Signer], peer: subprocess.Popen[str]) -> None:
        self._node = node
        self._signers = signers
        self._peer = peer

    def peer_cpu(self) -> tuple[float, float]:
        """CPU seconds that the peer has used, as `cpu_seconds`."""
        assert self._peer.stdin is not None and self._peer.stdout is not None
        self._peer.stdin.write("cpu\n")
        self._peer.stdin.flush()
        process, thread = map(float, self._peer.stdout.readline().split())
        return process, thread

    def store(self, number: int) -> Deferred[Any]:
        """One Store."""
        signer = self._signers[number % USERS]
        name = signer.identity.user_name.encode()
        return self._node.overlay.store(name, KIND.kind_id, [DataValue(value=VALUE)], 3600, signer=signer)

    def fetch(self, number: int) -> Deferred[Any]:
        """One Fetch, of a value that was stored."""
        name = self._signers[number % USERS].identity.user_name.encode()
        return self._node.overlay.fetch(name, KIND.kind_id).addCallback(self._check)

    def _check(self, values: Any) -> None:
        assert [value.data.value.value for value in values] == [VALUE]

    async def rate(self, operation: Callable[[int], Deferred[Any]], window: int, count: int) -> dict[str, float]:
        """Do `operation` `count` times, `window` at a time; per second, and what it costs each process."""
        numbers = iter(range(count))

        async def one_after_another() -> None:
            for number in numbers:
                await operation(number)

        ours, theirs, began = cpu_seconds(), self.peer_cpu(), time.perf_counter()
        await gatherResults([Deferred.fromCoroutine(one_after_another()) for _ in range(window)])
        took = time.perf_counter() - began
        client, peer = (
            [round((after - before) / count * 1e6, 1) for before, after in zip(*both, strict=True)]
            for both in ((ours, cpu_seconds()), (theirs, self.peer_cpu()))
        )
        return {
            "per_second": round(count / took, 1),
            "client_cpu_us": client[0],
            "peer_cpu_us": peer[0],
            "peer_reactor_cpu_us": peer[1],
        }


def bounds(rates: dict[str, float]) -> dict[str, dict[str, float]]:
    """Operations per second that the signatures alone allow.

    With one request under way the two processes take turns, so their times add up; with many under way each has a
    core of its own, and the busier of the two decides.
    """
    sign, verify = 1 / rates["sign"], 1 / rates["verify"]
    # A Store: the client signs value and message, the peer verifies both; the peer signs its answer, which the
    # client verifies.  A Fetch: request and answer likewise, and the client verifies the value in the answer.
    sides = {"store": (2 * sign + verify, sign + 2 * verify), "fetch": (sign + 2 * verify, sign + verify)}
    return {
        name: {"one_core": round(1 / (client + peer), 1), "two_cores": round(1 / max(client, peer), 1)}
        for name, (client, peer) in sides.items()
    }


async def echo_rate(reactor: Any, port: int, window: int, count: int) -> float:
    """Messages per second that come back over one TLS connection."""
    endpoint = SSL4ClientEndpoint(reactor, "127.0.0.1", port, ssl.CertificateOptions(verify=False))
    client = await connectProtocol(endpoint, EchoClient(MESSAGE_BYTES, window, count))
    rate = await client.begin()
    assert client.transport is not None
    client.transport.loseConnection()
    return round(rate, 1)


def free_ports() -> tuple[int, int]:
    """Two ports of 127.0.0.1 that nobody listens on."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


async def measure(reactor: Any, peer: subprocess.Popen[str], count: int, windows: list[int]) -> dict[str, Any]:
    """Everything, in one run."""
    now = time.time()
    materials = Materials(make_authority(OVERLAY, generate_key(), now, 10 * 86400.0), free_ports())
    assert peer.stdin is not None and peer.stdout is not None
    peer.stdin.write(json.dumps(materials.for_peer()) + "\n")
    peer.stdin.flush()
    assert peer.stdout.readline() == "ready\n"
    key = generate_key()
    node_id = os.urandom(16)
    node = Node(
        configuration_of(materials.document),
        Signer(materials.identity(key, "client", node_id), key),
        key,
        MemoryStorage(),
        replace(installed(), usages=()),
        clock=reactor,
        now=time.time,
        random=Random(),
        addresses=["127.0.0.1"],
        port=0,
        client=True,
        joined=lambda: joined.callback(None),
    )
    joined: Deferred[None] = Deferred()
    await node.start()
    await joined
    signers = [Signer(materials.identity(key, f"user{n}", node_id), key) for n in range(USERS)]
    load = Load(node, signers, peer)
    for number in range(USERS):  # so that each certificate was seen once
        await load.store(number)
    rates = signature_rates()
    allowed = bounds(rates)
    result: dict[str, Any] = {"limits": {"signatures_per_second": rates, "signatures_allow": allowed}}
    result["limits"]["tls_echo_per_second"] = {
        str(window): await echo_rate(reactor, materials.ports[1], window, count) for window in windows
    }
    for name, operation in (("store", load.store), ("fetch", load.fetch)):
        result[name] = {}
        for window in windows:
            measured = await load.rate(operation, window, count)
            for cores in ("one_core", "two_cores"):
                measured[f"of_signatures_on_{cores}"] = round(measured["per_second"] / allowed[name][cores], 2)
            costs = (measured["client_cpu_us"], measured["peer_reactor_cpu_us"])
            measured["of_signatures_by_cpu_time"] = round(1e6 / sum(costs) / allowed[name]["one_core"], 2)
            result[name][str(window)] = measured
    result["rejected"] = dict(node.rejected())
    await node.stop()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=4000, help="operations of each measurement (default 4000)")
    parser.add_argument(
        "--windows", type=int, nargs="+", default=[1, 32], help="how many are under way at a time (default 1 and 32)"
    )
    parser.add_argument("--storage", choices=("sqlite", "memory"), default="sqlite", help="of the peer")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    asyncioreactor.install()  # as `twistd p2psip` does
    if options.serve:
        serve(options.storage)
        return
    from twisted.internet import reactor

    command = [sys.executable, __file__, "--serve", "--storage", options.storage]
    results: list[dict[str, Any]] = []

    async def run(peer: subprocess.Popen[str]) -> None:
        results.append(await measure(reactor, peer, options.count, options.windows))

    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as peer:

        def begin() -> None:
            running: Deferred[None] = Deferred.fromCoroutine(run(peer))
            running.addErrback(fail)
            running.addCallback(lambda _: reactor.stop())  # type: ignore[attr-defined]

        reactor.callWhenRunning(begin)  # type: ignore[attr-defined]
        reactor.run()  # type: ignore[attr-defined]
    head = {
        "python": sys.version.split()[0],
        "cores": len(os.sched_getaffinity(0)),
        "storage": options.storage,
        "value_bytes": len(VALUE),
    }
    print(json.dumps({**head, **results[0]}, indent=2))


if __name__ == "__main__":
    main()
