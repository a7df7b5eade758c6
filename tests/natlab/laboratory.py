"""A laboratory that stands: built from its description, used, and taken down."""

from __future__ import annotations

import atexit
import itertools
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from . import namespaces
from .description import INTERNET, NAT, DescriptionError, Line, Node, Place, Plan
from .rules import line_table, nat_table
from .signals import DeadlySignals

RELAY = Path(__file__).with_name("relay.py")
FILES = Path("/run/natlab")
"""Where a laboratory keeps the logs of its programs, beside /run/netns, where it keeps its namespaces."""

GATEWAY6 = "fe80::1"
LABORATORY_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")

_numbers = itertools.count(1)


class Laboratory:
    """Hosts, NATs and the lines between them, in namespaces ``natlab.NAME.NODE``.

    Laboratories of different names do not touch each other; without a name it is the process's own. As a context
    manager it stands inside the ``with``. It is taken down as well when the process ends, by SIGTERM or SIGHUP too;
    what a killed process leaves goes with the `down` of another laboratory of that name. Nothing in it has a way
    out of the machine. Raises DescriptionError.
    """

    def __init__(self, *nodes: Node, name: str | None = None) -> None:
        self.name = name or f"{os.getpid()}-{next(_numbers)}"
        if not LABORATORY_NAME.fullmatch(self.name):
            raise DescriptionError(f"{self.name!r} cannot be the name of a laboratory")
        self.plan = Plan(nodes)
        self.files = FILES / self.name
        self._lines = {node.name: node.line for node in nodes if node.line}
        self._generations = dict.fromkeys((nat.name for nat in self.plan.nats), 0)
        self._programs: list[subprocess.Popen[Any]] = []
        self._signals = DeadlySignals(self.down)

    # -- Up and down

    def up(self) -> None:
        """Build it, in place of one of the same name. Raises NotPermitted, and leaves nothing when it fails."""
        atexit.register(self.down)
        self._signals.catch()
        try:
            with self._signals.held():
                namespaces.check_permitted(f"natlab-probe.{self.name}")
                self._remove()
                for _ in self._build():
                    if self._signals.waiting:
                        break
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """End whatever runs in its namespaces, and remove them. Does nothing where nothing stands."""
        self._remove()
        self._let_go()

    def leave_standing(self) -> None:
        """Let it outlive this process; the `down` of a laboratory of the same name removes it."""
        for program in self._programs:
            program.returncode = 0  # not this process's to wait for any more; else Python warns of it
        self._programs.clear()
        self._let_go()

    @property
    def standing(self) -> bool:
        """Whether there are namespaces of its name, whoever made them."""
        return bool(namespaces.names(self._namespace("")))

    def __enter__(self) -> Laboratory:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    # -- Use

    def address(self, node: str) -> str:
        """Its IPv4 address; of a NAT the outer one."""
        return str(self.plan.places[node].address)

    def address6(self, node: str) -> str:
        """Its IPv6 address. Raises LookupError when it has none."""
        address = self.plan.places[node].address6
        if address is None:
            raise LookupError(f"{node} has no IPv6 address")
        return str(address)

    def addresses(self, node: str) -> list[str]:
        """Its IPv4 address, and its IPv6 address if it has one."""
        place = self.plan.places[node]
        return [str(address) for address in (place.address, place.address6) if address]

    @property
    def hosts(self) -> list[str]:
        """The hosts of the description, without routers."""
        return [node.name for node in self.plan.nodes.values() if not isinstance(node, NAT)]

    def has(self, node: str) -> bool:
        """Whether it stands, whoever built it."""
        return self._namespace(node) in namespaces.names(self._namespace(""))

    def entering(self, node: str) -> tuple[str, ...]:
        """What a command line begins with that is to run at `node`, such as ``ip netns exec NAME``."""
        return namespaces.entering(self._namespace(node))

    def run(self, node: str, argv: Sequence[str], **keywords: Any) -> subprocess.CompletedProcess[str]:
        """Run a program at `node` to its end; what it printed. `keywords` as for subprocess.run."""
        keywords = {"capture_output": True, "text": True, "timeout": 60, "check": False, **keywords}
        return subprocess.run([*self.entering(node), *argv], **keywords)

    def popen(self, node: str, argv: Sequence[str], **keywords: Any) -> subprocess.Popen[Any]:
        """Start a program at `node`: the process is the program's own. `down` kills it if it still runs."""
        return subprocess.Popen([*self.entering(node), *argv], **keywords)

    def serve(self, node: str, argv: Sequence[str], log: str, ready: str | None = None) -> subprocess.Popen[Any]:
        """Start a program that belongs to the laboratory, and lasts as long as it.

        Its output goes to the file `log`; with `ready` its first line is awaited, which has to be this.
        """
        with open(self.files / log, "ab") as file:
            program = self.popen(
                node,
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if ready else file,
                stderr=file,
                start_new_session=True,  # so that neither Ctrl-C nor the terminal's end reaches it
            )
        self._programs.append(program)
        if ready and program.stdout is not None:
            with program.stdout:
                line = program.stdout.readline().decode().strip()
            if line != ready:
                raise namespaces.CommandFailed(f"{log} says {line!r}: {(self.files / log).read_text()}")
        return program

    def socket(self, node: str, family: int = socket.AF_INET, kind: int = socket.SOCK_DGRAM) -> socket.socket:
        """A socket of this process in the network of `node`; it is the caller's to close."""
        return namespaces.inside(self._namespace(node), lambda: socket.socket(family, kind))

    # -- Changes while it stands

    def rebind(self, nat: str) -> None:
        """The NAT forgets its mappings, and makes the next ones with other ports, as after a restart.

        Raises DescriptionError.
        """
        self._generations[nat] += 1
        self._load_nat(self.plan.nat(nat))
        namespaces.forget_flows(self._namespace(nat))

    def set_loss(self, node: str, loss: float) -> None:
        """Change the loss on the line of `node`; 1.0 cuts it. Raises DescriptionError when it has none of its own."""
        if node not in self._lines:
            raise DescriptionError(f"{node} has no line of its own")
        self._lines[node] = replace(self._lines[node], loss=loss)
        self._load_lines(node)
        self._load_lines(self.plan.places[node].router)

    # -- Building

    def _namespace(self, node: str) -> str:
        return f"natlab.{self.name}.{node}"

    def _build(self) -> Iterator[None]:
        """Stops after each part, so that a signal need not wait for the rest."""
        self.files.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in (INTERNET, *self.plan.nodes):
            namespaces.add(self._namespace(name))
            # Addresses are ours to choose, so nobody has to look for duplicates before they are used.
            for scope in ("all", "default"):
                namespaces.set_sysctl(self._namespace(name), f"ipv6/conf/{scope}/accept_dad", 0)
            yield
        for router in self.plan.networks:
            self._make_router(router)
            yield
        for place in self.plan.places.values():
            self._attach(place)
            yield
        for router in self.plan.networks:
            self._route_inwards(router)
            yield
        for nat in self.plan.nats:
            self._load_nat(nat)
            yield
        for name in (INTERNET, *self.plan.nodes):
            self._load_lines(name)
            yield

    def _make_router(self, name: str) -> None:
        """A switch named ``lan`` inside; the internet loses what belongs nowhere."""
        network = self.plan.networks[name]
        lines = [
            "link add lan type bridge",
            f"address add {network.gateway}/25 dev lan",
            f"address add {GATEWAY6}/64 dev lan",
            "link set dev lan up",
        ]
        if network.ipv6:
            lines.append(f"address add {network.ipv6[1]}/64 dev lan")
        if name == INTERNET:
            # Silently: an error for every packet to somebody's private address would end coturn's allocations.
            lines += ["route add blackhole 0.0.0.0/0", "route add blackhole ::/0"]
        namespaces.configure(self._namespace(name), lines)
        for key in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            namespaces.set_sysctl(self._namespace(name), key, 1)

    def _attach(self, place: Place) -> None:
        """Join a node to its router: at the switch, or by a line of its own."""
        node, router, inner = place.node, self._namespace(place.router), self._namespace(place.node.name)
        if node.line and node.line.slow:
            self._start_relay(place, node.line)
        else:
            mtu = node.line.mtu if node.line else Line.mtu
            namespaces.configure(
                router,
                [
                    f"link add name {node.name} mtu {mtu} type veth"
                    f" peer name {node.device} mtu {mtu} netns {inner}"
                ],
            )
        namespaces.configure(router, self._router_end(place))
        namespaces.configure(inner, self._node_end(place))

    def _start_relay(self, place: Place, line: Line) -> None:
        ends = [self._namespace(place.node.name), place.node.device, self._namespace(place.router), place.node.name]
        figures = [str(figure) for figure in (line.mtu, line.delay, line.jitter)]
        argv = [sys.executable, "-E", "-S", str(RELAY), *ends, *figures]
        self.serve(place.node.name, argv, f"relay-{place.node.name}.log", ready="ready")

    def _router_end(self, place: Place) -> list[str]:
        port = place.node.name
        if place.node.line is None:
            return [f"link set dev {port} master lan up"]
        lines = [f"link set dev {port} up", f"route add {place.address}/32 dev {port}"]
        if place.address6:
            lines += [f"address add {GATEWAY6}/64 dev {port}", f"route add {place.address6}/128 dev {port}"]
        return lines

    def _node_end(self, place: Place) -> list[str]:
        device = place.node.device
        own_line = place.node.line is not None
        lines = [f"address add {place.address}/{32 if own_line else 25} dev {device}", f"link set dev {device} up"]
        if own_line:
            lines.append(f"route add {place.gateway}/32 dev {device}")
        lines.append(f"route add 0.0.0.0/0 via {place.gateway} dev {device}")
        if place.address6:
            lines += [
                f"address add {place.address6}/{128 if own_line else 64} dev {device}",
                f"route add ::/0 via {GATEWAY6} dev {device}",
            ]
        return lines

    def _route_inwards(self, router: str) -> None:
        """Each router between a NAT and the internet knows the way to the IPv6 network inside the NAT."""
        network = self.plan.networks[router].ipv6
        below = router
        for above in self.plan.routers_above(router) if network and router != INTERNET else ():
            place = self.plan.places[below]
            device = "lan" if place.node.line is None else below
            namespaces.configure(
                self._namespace(above), [f"route add {network} via {place.address6} dev {device}"]
            )
            below = above

    def _load_nat(self, nat: NAT) -> None:
        self._load_table(nat.name, nat_table(nat.kind, self._generations[nat.name]))

    def _load_lines(self, name: str) -> None:
        """The lines that end at `name`: those of its children, and its own."""
        ends = {node.name: node.name for node in self.plan.children(name)}
        if name in self.plan.nodes:
            ends[self.plan.nodes[name].device] = name
        lines = {device: self._lines[node] for device, node in ends.items() if node in self._lines}
        if lines:
            self._load_table(name, line_table(lines))

    def _load_table(self, name: str, table: str) -> None:
        namespaces.command([*self.entering(name), "nft", "-f", "-"], table)

    # -- Ending

    def _remove(self) -> None:
        for name in namespaces.names(self._namespace("")):
            namespaces.remove(name)
        for program in self._programs:
            program.kill()
            program.wait()
        self._programs.clear()
        shutil.rmtree(self.files, ignore_errors=True)

    def _let_go(self) -> None:
        self._signals.release()
        atexit.unregister(self.down)
