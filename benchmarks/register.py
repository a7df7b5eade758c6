"""
How many phones an overlay of three nodes registers: ``python benchmarks/register.py [--users N] [--refreshes N]``.

Three `twistd p2psip` processes, and this program as all the phones, over UDP; all share the machine's cores.  First
registrations are challenged, prove themselves by digest, and are stored in the overlay with both replicas;
refreshes reuse their nonce and change nothing in the overlay.  Prints JSON; `benchmarks/README.rst` says what the
figures mean.  `twistd` and `p2psip` have to be installed where this Python is.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import secrets
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

from limits import signature_rates

sys.path.insert(0, str(Path(__file__).parents[1]))

from p2psip.cli.connection import NodeConnection
from tests.integration.nodes import NodeProcess, World, until

OVERLAY = "benchmark.invalid"
EXPIRES = 3600
RESEND_SECONDS = 0.5
TRANSMISSIONS = 8
_BRANCH = re.compile(rb"branch=z9hG4bK-([0-9]+)").search
_SHA256_NONCE = re.compile(rb'nonce="([^"]+)", algorithm=SHA-256').search


class Phone:
    """One user's phone."""

    __slots__ = ("_a1", "_contact", "_cseq", "_name", "_nonce_count", "_number", "_where", "nonce", "server")

    def __init__(self, number: int, password: str, server: tuple[str, int], where: str) -> None:
        self._number = number
        self._name = f"user{number}"
        self._a1 = sha256(f"{self._name}:{OVERLAY}:{password}".encode()).hexdigest()
        self._where = where
        self._contact = f"Contact: <sip:{self._name}@{where}>;expires={EXPIRES}\r\n"
        self._cseq = 0
        self._nonce_count = 0
        self.server = server
        self.nonce = ""

    def request(self, branch: int, contact: bool) -> bytes:
        """A REGISTER, which asks for the bindings without `contact`; with credentials as soon as there is a nonce."""
        self._cseq += 1
        return (
            f"REGISTER {_URI} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {self._where};branch=z9hG4bK-{branch};rport\r\n"
            f"Max-Forwards: 70\r\nFrom: <sip:{self._name}@{OVERLAY}>;tag={self._number}\r\n"
            f"To: <sip:{self._name}@{OVERLAY}>\r\nCall-ID: {self._number}@{self._where}\r\n"
            f"CSeq: {self._cseq} REGISTER\r\n{self._contact if contact else ''}{self._authorization()}"
            "Content-Length: 0\r\n\r\n"
        ).encode()

    def _authorization(self) -> str:
        if not self.nonce:
            return ""
        self._nonce_count += 1
        middle = f"{self.nonce}:{self._nonce_count:08x}:0a4f113b:auth"
        response = sha256(f"{self._a1}:{middle}:{_A2}".encode()).hexdigest()
        return (
            f'Authorization: Digest username="{self._name}", realm="{OVERLAY}", nonce="{self.nonce}", uri="{_URI}", '
            f'response="{response}", algorithm=SHA-256, qop=auth, nc={self._nonce_count:08x}, cnonce="0a4f113b"\r\n'
        )

    def challenged(self, nonce: str) -> None:
        """Use `nonce` from now on."""
        self.nonce, self._nonce_count = nonce, 0


_URI = f"sip:{OVERLAY}"
_A2 = sha256(f"REGISTER:{_URI}".encode()).hexdigest()


class Exchange:
    """One request that is under way."""

    __slots__ = ("contact", "data", "phone", "transmissions")

    def __init__(self, phone: Phone, data: bytes, contact: bool) -> None:
        self.phone = phone
        self.data = data
        self.contact = contact
        self.transmissions = 1


class Phones:
    """All phones on one socket, with at most `window` of them waiting for an answer."""

    def __init__(self, window: int, host: str) -> None:
        self._window = window
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self._socket.bind((host, 0))
        self._socket.settimeout(RESEND_SECONDS)
        self.where = "{}:{}".format(*self._socket.getsockname())
        self._branch = 0
        self._under_way: dict[int, Exchange] = {}
        self.failures: Counter[str] = Counter()
        self.resent = 0

    def _begin(self, phone: Phone, contact: bool) -> None:
        self._branch += 1
        data = phone.request(self._branch, contact)
        self._under_way[self._branch] = Exchange(phone, data, contact)
        self._socket.sendto(data, phone.server)

    def run(self, phones: Iterable[Phone], contact: bool) -> int:
        """Send a REGISTER for each of `phones` until each is answered for good; how many got 200."""
        served, waiting, under_way = 0, iter(phones), self._under_way
        while True:
            while len(under_way) < self._window and (phone := next(waiting, None)) is not None:
                self._begin(phone, contact)
            if not under_way:
                return served
            try:
                served += self._answered(self._socket.recv(4096))
            except TimeoutError:
                self._resend()

    def _answered(self, data: bytes) -> int:
        """Take one answer; 1 if it is the 200 that was waited for."""
        found = _BRANCH(data)
        exchange = self._under_way.pop(int(found[1]), None) if found else None
        if exchange is None:
            return 0
        status = data[8:11]
        if status == b"200":
            if exchange.contact and b"\r\nContact: " not in data:
                self.failures["200 without the contact"] += 1
                return 0
            return 1
        challenge = _SHA256_NONCE(data) if status == b"401" else None
        if challenge is not None and not exchange.phone.nonce:
            exchange.phone.challenged(challenge[1].decode())
            self._begin(exchange.phone, exchange.contact)
            return 0
        self.failures[data.split(b"\r\n", 1)[0].decode()] += 1
        return 0

    def _resend(self) -> None:
        for branch, exchange in list(self._under_way.items()):
            if exchange.transmissions == TRANSMISSIONS:
                del self._under_way[branch]
                self.failures["no answer"] += 1
                continue
            exchange.transmissions += 1
            self.resent += 1
            self._socket.sendto(exchange.data, exchange.phone.server)


class Processes:
    """CPU seconds of the nodes and of this program."""

    def __init__(self, nodes: list[NodeProcess]) -> None:
        self._nodes = nodes

    def cpu(self) -> tuple[float, float]:
        """Used so far: by all nodes, and here."""
        ticks = 0
        for node in self._nodes:
            assert node.process is not None
            fields = Path(f"/proc/{node.process.pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        used = resource.getrusage(resource.RUSAGE_SELF)
        return ticks / os.sysconf("SC_CLK_TCK"), used.ru_utime + used.ru_stime


def note(text: str) -> None:
    """Tell the person who waits."""
    print(text, file=sys.stderr, flush=True)


def measure(processes: Processes, count: int, operation: Callable[[], int]) -> dict[str, Any]:
    """Per second and per operation, of one that answers how many succeeded."""
    nodes, here = processes.cpu()
    began = time.perf_counter()
    served = operation()
    took = time.perf_counter() - began
    nodes_after, here_after = processes.cpu()
    return {
        "per_second": round(served / took, 1),
        "count": count,
        "failed": count - served,
        "nodes_cpu_us": round((nodes_after - nodes) / count * 1e6, 1),
        "load_cpu_us": round((here_after - here) / count * 1e6, 1),
    }


def signatures_allow(rates: dict[str, float], cores: int) -> float:
    """First registrations per second that the signatures alone allow, with all cores busy with nothing else.

    The value is signed once and verified by three nodes, two of which verify the user's certificate too.  It travels
    to two replicas, and before that, of three users two have to be brought to a responsible peer that is not their
    registrar; each such request, and its answer, is signed once and verified once.
    """
    messages = 2 * (2 + 2 / 3)
    return round(cores / ((1 + messages) / rates["sign"] + (3 + 2 + messages) / rates["verify"]), 1)


def udp_echo_per_second(count: int = 20000, window: int = 32) -> float:
    """Datagrams of 600 bytes that a Twisted server of one process sends back to this program."""
    command = [sys.executable, str(Path(__file__).with_name("limits.py")), "--udp-echo"]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here,
    ):
        try:
            assert server.stdout is not None
            here.connect(("127.0.0.1", int(server.stdout.readline())))
            here.settimeout(5)
            began = time.perf_counter()
            for _ in range(window):
                here.send(bytes(600))
            for number in range(count):
                here.recv(1024)
                if number < count - window:
                    here.send(bytes(600))
            took = time.perf_counter() - began
        finally:
            server.terminate()
    return round(count / took, 1)


def stored(nodes: list[NodeProcess]) -> list[int]:
    """How many values each node keeps."""
    return [int(NodeConnection(node.state).ask("GET", "/status")["stored"]["values"]) for node in nodes]


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Ask often enough for the time that passes to be that of the nodes."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            sys.exit("not all values came to all nodes")
        time.sleep(0.02)


def run(world: World, users: int, refreshes: int, window: int) -> dict[str, Any]:
    """The whole benchmark."""
    founder = world.founder()
    nodes = [founder, world.join(founder), world.join(founder)]
    until(lambda: all(len(node.status()["links"]) == 2 for node in nodes), 30, "three nodes know each other", nodes)
    note(f"3 nodes, pids {[node.process.pid for node in nodes if node.process]}; making {users} accounts")
    password = secrets.token_urlsafe(9)
    accounts = "".join(f"user{number},{password}\n" for number in range(users))
    founder.p2psip("user", "import", "-", stdin=accounts)
    load = Phones(window, nodes[0].address)
    phones = [Phone(n, password, (nodes[n % 3].address, 5060), load.where) for n in range(users)]
    processes = Processes(nodes)
    note("each registrar asks the authority for its users once")
    enrolled = measure(processes, users, lambda: load.run(phones, contact=False))
    for phone in phones:
        phone.challenged("")  # a phone that is switched on knows no nonce
    before = stored(nodes)
    note("first registrations")
    began = time.perf_counter()
    answered = 0.0

    def register_all() -> int:
        nonlocal answered
        served = load.run(phones, contact=True)
        answered = time.perf_counter()
        wait_until(lambda: stored(nodes) == [users + b for b in before], 60)
        return served

    first = measure(processes, users, register_all)
    first["answered_per_second"] = round(users / (answered - began), 1)
    note("refreshes")
    again = [phones[n % users] for n in range(refreshes)]
    refreshed = measure(processes, refreshes, lambda: load.run(again, contact=True))
    cores = len(os.sched_getaffinity(0))
    rates = signature_rates()
    return {
        "python": sys.version.split()[0],
        "cores": cores,
        "users": users,
        "window": window,
        "limits": {
            "signatures_per_second_and_core": rates,
            "signatures_allow_first_registrations": signatures_allow(rates, cores),
            "udp_echo_per_second": udp_echo_per_second(),
        },
        "credentials_fetched": enrolled,
        "first_registrations": first,
        "refreshes": refreshed,
        "failures": dict(load.failures),
        "resent": load.resent,
        "rejected": [node.status()["rejected"] for node in nodes],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=1500, help="phones, one for each user (default 1500)")
    parser.add_argument("--refreshes", type=int, default=12000, help="refreshes in all (default 12000)")
    parser.add_argument("--window", type=int, default=128, help="phones that wait at a time (default 128)")
    options = parser.parse_args()
    world = World(OVERLAY)
    try:
        result = run(world, options.users, options.refreshes, options.window)
    finally:
        world.close()
    print(json.dumps(result, indent=2))
    if result["failures"]:
        sys.exit("some registrations failed")


if __name__ == "__main__":
    main()
