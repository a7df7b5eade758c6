"""
The SIP server of a node beside kamailio: ``python benchmarks/sip.py [--seconds S] [--rounds N] [--only WHAT ...]``.

Digest registrations, redirections and record-routed calls a second, the memory of registrations and the time of one
answer; the same phones ask both servers, in turn.  Each server has one core, the phones another.  Nothing of an overlay
is in it: that is what the other benchmarks measure.  Prints JSON; `benchmarks/README.rst` says what the figures mean.
It needs kamailio and a C compiler.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import md5
from pathlib import Path
from typing import Any

OVERLAY = "benchmark.invalid"
SERVER_CORE, LOAD_CORE = "0", "1"
LOAD_PORT = 30000
CALLEE_PORT = LOAD_PORT + 1
EXPIRES = 3600
KAMAILIO = """\
#!KAMAILIO
debug=1
log_stderror=yes
children=1
disable_tcp=yes
auto_aliases=no
alias="benchmark.invalid"
listen=udp:127.0.0.1:{port}
loadmodule "kex.so"
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "auth.so"
modparam("usrloc", "db_mode", 0)
modparam("auth", "nonce_expire", 3600)
modparam("rr", "enable_full_lr", 1)
request_route {{
  if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
  if (has_totag()) {{
    if (is_method("ACK") && t_check_trans()) {{ t_relay(); exit; }}
    if (loose_route()) {{ t_relay(); }}
    exit;
  }}
  t_check_trans();
  if (is_method("REGISTER")) {{
    $var(pw) = $fU + "-pw";
    if (!pv_www_authenticate("benchmark.invalid", "$var(pw)", "0")) {{
      www_challenge("benchmark.invalid", "1");
      exit;
    }}
    save("location");
    exit;
  }}
  if (!lookup("location")) {{ sl_send_reply("404", "Not Found"); exit; }}
#!ifdef REDIRECT
  append_to_reply("Contact: <$ru>\\r\\n");
  sl_send_reply("302", "Moved Temporarily");
  exit;
#!endif
  record_route();
  t_relay();
}}
"""

# -- our server, in a process of its own ------------------------------------------------------------------------


def serve(port: int, mode: str, users: int) -> None:
    """The SIP server of a node without its overlay, which trusts callers to be who they say."""
    from random import Random

    from twisted.internet import asyncioreactor

    asyncioreactor.install()
    from twisted.internet import defer, reactor
    from twisted.internet.task import LoopingCall

    from p2psip.service import COLLECT_AFTER
    from p2psip.sip.authentication import Authenticator, Proven
    from p2psip.sip.digest import ALGORITHMS, NonceMint, ha1
    from p2psip.sip.domain import Domain
    from p2psip.sip.edge import SIPEdge
    from p2psip.sip.errors import NotRegistered
    from p2psip.sip.interfaces import DeviceCredential, NodeRoute
    from p2psip.sip.location import Location
    from p2psip.sip.proxy.build import Beyond, build_proxy
    from p2psip.sip.redirect import Redirect
    from p2psip.sip.registrar import Registrar
    from p2psip.sip.server import SIPServer

    node_id = bytes(16)

    class NoOverlay:
        """As if this node were alone: whom it has registered is known here and nowhere else."""

        def register(self, aor: str, expires: int, *_: Any, **__: Any) -> Any:
            return defer.succeed(None)

        def unregister(self, aor: str) -> Any:
            return defer.succeed(None)

        def resolve(self, aor: str) -> Any:
            return defer.fail(NotRegistered())

        def forwarded(self, aor: str) -> Any:
            return None

        def routes(self, aor: str) -> Any:
            return defer.succeed([NodeRoute(node_id, aor)])

    class Secrets:
        """Knows all users already."""

        known = {
            name: [DeviceCredential("phone", a, ha1(a, name, OVERLAY, f"{name}-pw")) for a in ALGORITHMS]
            for name in map("user{}".format, range(users))
        }

        def credentials(self, user: str, *_: Any) -> Any:
            return defer.succeed(self.known[user])

    class Trusting(Authenticator):
        async def authenticate(self, request: Any, *_: Any, **__: Any) -> Proven:
            return Proven(request.from_.uri.user, "phone")

    clock: Any = reactor
    random, overlay, secrets = Random(), NoOverlay(), Secrets()
    domain, location = Domain(OVERLAY, ["127.0.0.1"]), Location()
    mint = NonceMint(node_id, os.urandom(32))
    registrar = Registrar(domain, Authenticator(domain, secrets, mint), location, overlay)
    trusting = Trusting(domain, secrets, mint)
    server = SIPServer(domain, registrar, clock.seconds, random)
    edge = SIPEdge(clock, server, random, advertise=["127.0.0.1"])
    proxy = build_proxy(
        domain, node_id, trusting, registrar, overlay, overlay, edge, server.respond, bytes(16), clock.seconds, random,
        Beyond(),
    )  # fmt: skip
    redirect = Redirect(domain, trusting, registrar, overlay, open_=True)
    server.serve_calls(proxy, redirect if mode == "redirect" else None)
    LoopingCall(lambda: proxy.tick(clock.seconds(), 0.0)).start(0.5)
    LoopingCall(lambda: registrar.expire(clock.seconds())).start(1.0)
    edge.listen(["127.0.0.1"], port, ("UDP",))
    gc.freeze()  # as a node does
    gc.set_threshold(COLLECT_AFTER, 20, 20)
    clock.run()


# -- the servers to be compared ---------------------------------------------------------------------------------


class Server:
    """A running server on one core, by `command`."""

    def __init__(self, name: str, port: int, command: Sequence[str], directory: Path) -> None:
        self.name = name
        self.port = port
        self._log = (directory / f"{name}-{port}.log").open("w+")
        self._process = subprocess.Popen(
            ["taskset", "-c", SERVER_CORE, *command], stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True
        )
        ready = time.monotonic() + 30
        while not self._answers():
            if time.monotonic() > ready or self._process.poll() is not None:
                self._log.seek(0)
                sys.exit(f"{name} does not answer:\n{self._log.read()[-2000:]}")

    def _answers(self) -> bool:
        try:
            return bool(ask(self.port, register(0, 0, "")))
        except OSError:
            time.sleep(0.1)
            return False

    def _processes(self) -> Iterator[Path]:
        """All of this server's: they have its session."""
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if int((entry / "stat").read_text().rpartition(")")[2].split()[3]) == self._process.pid:
                    yield entry
            except (OSError, ValueError):
                continue

    def cpu(self) -> float:
        """Seconds of CPU time so far."""
        ticks = 0
        for entry in self._processes():
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory(self) -> int:
        """Bytes of memory, what several processes share counted once."""
        found = (re.search(r"^Pss: +(\d+) kB", (e / "smaps_rollup").read_text(), re.M) for e in self._processes())
        return sum(int(match[1]) * 1024 for match in found if match)

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()
        self._log.close()


def servers(mode: str, users: int, port: int, directory: Path) -> list[Server]:
    """Ours and kamailio, which do with calls as `mode` says."""
    configuration = directory / f"kamailio-{mode}.cfg"
    configuration.write_text(KAMAILIO.format(port=port + 1))
    kamailio = ["kamailio", "-f", str(configuration), "-DD", "-E", "-w", str(directory)]
    kamailio += ["-m", "2048", "-b", f"{4 << 20}"]
    if mode == "redirect":
        kamailio += ["-A", "REDIRECT"]
    ours = [sys.executable, __file__, "--serve", f"{port}", mode, f"{users}"]
    return [Server("p2psip", port, ours, directory), Server("kamailio", port + 1, kamailio, directory)]


# -- phones -----------------------------------------------------------------------------------------------------


def hashed(text: str) -> str:
    return md5(text.encode()).hexdigest()


_URI = f"sip:{OVERLAY}"
_A2 = hashed(f"REGISTER:{_URI}")


def register(user: int, cseq: int, nonce: str, branch: str = "0") -> bytes:
    """A REGISTER of one user, with digest if there is a nonce; the CSeq is its count."""
    name, proof = f"user{user}", ""
    if nonce:
        response = hashed(f"{hashed(f'{name}:{OVERLAY}:{name}-pw')}:{nonce}:{cseq:08x}:0a4f113b:auth:{_A2}")
        proof = (
            f'Authorization: Digest username="{name}", realm="{OVERLAY}", nonce="{nonce}", uri="{_URI}", '
            f'response="{response}", algorithm=MD5, qop=auth, nc={cseq:08x}, cnonce="0a4f113b"\r\n'
        )
    return (
        f"REGISTER {_URI} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{LOAD_PORT};branch=z9hG4bK-{branch};rport\r\n"
        f"Max-Forwards: 70\r\nFrom: <sip:{name}@{OVERLAY}>;tag=t{user}\r\nTo: <sip:{name}@{OVERLAY}>\r\n"
        f"Call-ID: {user}@127.0.0.1\r\nCSeq: {cseq} REGISTER\r\n"
        f"Contact: <sip:{name}@127.0.0.1:{CALLEE_PORT}>;expires={EXPIRES}\r\n{proof}Content-Length: 0\r\n\r\n"
    ).encode()


def invite(user: int, branch: int, run: int) -> bytes:
    """An INVITE for a user, without a body."""
    return (
        f"INVITE sip:user{user}@{OVERLAY} SIP/2.0\r\n"
        f"Via: SIP/2.0/UDP 127.0.0.1:{LOAD_PORT};branch=z9hG4bK-{branch}-{run};rport\r\n"
        f"Max-Forwards: 70\r\nFrom: <sip:caller@{OVERLAY}>;tag=t{branch}\r\nTo: <sip:user{user}@{OVERLAY}>\r\n"
        f"Call-ID: {branch}.{run}@127.0.0.1\r\nCSeq: 1 INVITE\r\nContact: <sip:caller@127.0.0.1:{LOAD_PORT}>\r\n"
        "Content-Length: 0\r\n\r\n"
    ).encode()


def ask(port: int, request: bytes) -> str:
    """The first answer to a request."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as phone:
        phone.settimeout(1)
        phone.connect(("127.0.0.1", port))
        phone.send(request)
        return phone.recv(8192).decode()


_NONCE = re.compile(r'nonce="([^"]+)"(?:, (?:algorithm=MD5|qop)|\r)')


class Phones:
    """All users' phones, by sip_load."""

    def __init__(self, program: Path, directory: Path, users: int) -> None:
        self._program = program
        self._requests = directory / "requests"
        self._users = users
        self._nonces: dict[int, list[str]] = {}
        self._cseq: dict[int, int] = {}
        self._runs = 0

    def _run(self, kind: str, server: Server, window: int, *arguments: str) -> dict[str, Any]:
        command = [str(self._program), kind, "127.0.0.1", f"{server.port}", f"{window}", f"{LOAD_PORT}", *arguments]
        before = server.cpu()
        ended = subprocess.run(["taskset", "-c", LOAD_CORE, *command], stdout=subprocess.PIPE, text=True, check=True)
        result: dict[str, Any] = json.loads(ended.stdout)
        result["cpu_seconds"] = server.cpu() - before
        return result

    def _send(self, server: Server, window: int, requests: Iterable[bytes]) -> dict[str, Any]:
        with self._requests.open("wb") as file:
            for request in requests:
                file.write(struct.pack("=I", len(request)) + request)
        return self._run("requests", server, window, str(self._requests))

    def challenge(self, server: Server) -> None:
        """Have every phone challenged once; it uses that nonce from then on."""
        found = (_NONCE.search(ask(server.port, register(user, 0, ""))) for user in range(self._users))
        self._nonces[server.port] = [match[1] if match else "" for match in found]
        self._cseq[server.port] = 0

    def registrations(self, server: Server, count: int, window: int) -> dict[str, Any]:
        """Registrations and refreshes, one user after the other."""
        nonces, before = self._nonces[server.port], self._cseq[server.port]
        requests = (
            register(n % self._users, before + 1 + n // self._users, nonces[n % self._users], f"{n}-{before}")
            for n in range(count)
        )
        self._cseq[server.port] += count // self._users + 1
        return self._send(server, window, requests)

    def redirections(self, server: Server, count: int, window: int) -> dict[str, Any]:
        """INVITEs that are answered 302."""
        self._runs += 1
        return self._send(server, window, (invite(n % self._users, n, self._runs) for n in range(count)))

    def calls(self, server: Server, count: int, window: int) -> dict[str, Any]:
        """Complete calls from user to user."""
        return self._run("calls", server, window, f"{count}", f"{self._users}", OVERLAY)


# -- what is measured -------------------------------------------------------------------------------------------

Operation = Callable[[Server, int, int], dict[str, Any]]


def note(text: str) -> None:
    """Tell the person who waits."""
    print(text, file=sys.stderr, flush=True)


def rates(what: str, operation: Operation, pair: list[Server], expected: str, options: Any) -> dict[str, Any]:
    """Operations a second of each server, in turn, and ours as a part of kamailio's.  Medians of all rounds."""
    counts = {}
    for server in pair:
        trial = operation(server, 2000, options.window)
        counts[server.name] = max(2000, int(2000 / trial["seconds"] * options.seconds))
    seen: dict[str, list[dict[str, Any]]] = {server.name: [] for server in pair}
    for round_ in range(options.rounds):
        for server in pair:
            result = operation(server, counts[server.name], options.window)
            if list(result["statuses"]) != [expected] or result["failed"]:
                sys.exit(f"{server.name}: {what} failed: {result}")
            seen[server.name].append(result)
            note(f"{what}, round {round_ + 1}, {server.name}: {counts[server.name] / result['seconds']:.0f} a second")
    median = statistics.median
    figures = {
        name: {
            "per_second": round(median(counts[name] / r["seconds"] for r in results), 1),
            "cpu_us": round(median(r["cpu_seconds"] / counts[name] * 1e6 for r in results), 1),
            "resent": sum(r["resent"] for r in results),
        }
        for name, results in seen.items()
    }
    ours, theirs = seen["p2psip"], seen["kamailio"]
    of_kamailio = [
        theirs[n]["seconds"] / counts["kamailio"] / (ours[n]["seconds"] / counts["p2psip"])
        for n in range(options.rounds)
    ]
    by_cpu = figures["kamailio"]["cpu_us"] / figures["p2psip"]["cpu_us"]
    return {**figures, "of_kamailio": round(median(of_kamailio), 4), "of_kamailio_by_cpu_time": round(by_cpu, 4)}


def latencies(operation: Operation, pair: list[Server], options: Any) -> dict[str, Any]:
    """Microseconds until an answer, with one request under way."""
    found: dict[str, Any] = {}
    for server in pair:
        results = [operation(server, 3000, 1) for _ in range(options.rounds)]
        found[server.name] = {
            key: round(statistics.median(result[key] for result in results), 1) for key in ("p50_us", "p99_us")
        }
    return found


def memory(phones: Phones, pair: list[Server], users: int, settle: float) -> dict[str, Any]:
    """Bytes for each 10,000 registrations, when their transactions are over."""
    before = {}
    for server in pair:
        phones.challenge(server)
        time.sleep(1)
    note(f"memory: waiting {settle:.0f} s for transactions to end")
    time.sleep(settle)
    for server in pair:
        before[server.name] = server.memory()
        phones.registrations(server, users, 32)
    time.sleep(settle)
    used = {server.name: round((server.memory() - before[server.name]) / users * 10000) for server in pair}
    return {"bytes_of_10000_registrations": used, "times_kamailio": round(used["p2psip"] / used["kamailio"], 2)}


def compiled(directory: Path) -> Path:
    """The program that plays the phones."""
    program = directory / "sip_load"
    source = Path(__file__).with_name("sip_load.c")
    subprocess.run(["cc", "-O2", "-o", str(program), str(source)], check=True)
    return program


def run(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """The whole benchmark."""
    program = compiled(directory)
    result: dict[str, Any] = {"python": sys.version.split()[0], "window": options.window}
    running: list[Server] = []
    wanted = options.only
    try:
        if {"registrations", "redirections", "latency"} & wanted:
            running = servers("redirect", options.users, 30070, directory)
            phones = Phones(program, directory, options.users)
            for server in running:
                phones.challenge(server)
                phones.registrations(server, options.users, 1)
            if "registrations" in wanted:
                result["registrations"] = rates("registrations", phones.registrations, running, "200", options)
            if "redirections" in wanted:
                result["redirections"] = rates("redirections", phones.redirections, running, "302", options)
            if "latency" in wanted:
                result["latency"] = {
                    "registrations": latencies(phones.registrations, running, options),
                    "redirections": latencies(phones.redirections, running, options),
                }
            close(running)
        if "calls" in wanted:
            running = servers("proxy", options.users, 30080, directory)
            phones = Phones(program, directory, options.users)
            for server in running:
                phones.challenge(server)
                phones.registrations(server, options.users, 1)
            result["calls"] = rates("calls", phones.calls, running, "200", options)
            close(running)
        if "memory" in wanted:
            running = servers("proxy", options.registered, 30090, directory)
            result["memory"] = memory(Phones(program, directory, options.registered), running, options.registered, 40)
    finally:
        close(running)
    return result


def close(running: list[Server]) -> None:
    """End them."""
    while running:
        running.pop().close()


def main() -> None:
    kinds = ("registrations", "redirections", "latency", "calls", "memory")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=1000, help="phones, one for each user (default 1000)")
    parser.add_argument("--registered", type=int, default=20000, help="phones for the memory (default 20000)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement, about (default 4)")
    parser.add_argument("--rounds", type=int, default=5, help="in which both are measured (default 5)")
    parser.add_argument("--window", type=int, default=32, help="requests under way at a time (default 32)")
    parser.add_argument("--only", nargs="+", choices=kinds, default=kinds, help="what to measure (default all)")
    parser.add_argument("--serve", nargs=3, metavar=("PORT", "MODE", "USERS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(int(options.serve[0]), options.serve[1], int(options.serve[2]))
        return
    options.only = set(options.only)
    directory = Path(tempfile.mkdtemp(prefix="p2psip-benchmark-"))
    try:
        result = run(options, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
