"""Real nodes for the integration tests: `twistd` processes on loopback addresses, driven by the shipped commands."""

from __future__ import annotations

import json
import os
import queue
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from p2psip.cli.connection import NodeConnection

from .phones import Sipp

BIN = Path(sys.executable).parent
JOIN_SECONDS = 30.0
"""How long a node may take to join before a test fails: far more than it should, for slow machines."""


TLS, DTLS, ICE = "TLS-TCP-FH-NO-ICE", "DTLS-UDP-SR-NO-ICE", "DTLS-UDP-SR"
"""The link protocols; with ICE overlays are founded without a word."""


def only(protocol: str) -> Sequence[str]:
    """The options of nodes that speak this link protocol and no other."""
    return (*(() if protocol == ICE else ("--no-ice",)), "--link-protocol", protocol)


class NodeFailed(AssertionError):
    """A node did not do what it should; the text ends with the last lines of its log."""


class NodeProcess:
    """One node: a state directory, an address, and the process while it runs."""

    def __init__(self, directory: Path, name: str, address: str, overlay: str = "example.org") -> None:
        self.name = name
        self.address = address
        self.overlay = overlay
        self.state = directory / name
        self.log: list[str] = []
        self.process: subprocess.Popen[str] | None = None
        self.environment: dict[str, str] = {}
        self.options: Sequence[str] = ()
        """Given whenever it is started."""
        self.prefix: Sequence[str] = ()
        """What the command line begins with, such as ``ip netns exec NAME``."""
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._scratch = directory

    def start(self, *options: str) -> None:
        """Start `twistd -n p2psip` with this node's address and state, its own options, and `options`."""
        command = [
            *self.prefix, str(BIN / "twistd"), "-n", "--pidfile=", "p2psip", "--overlay", self.overlay,
            "--state", str(self.state), "--bind", self.address, "--no-discovery", *self.options, *options,
        ]  # fmt: skip
        self._lines = queue.Queue()
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self._scratch,
            env={**os.environ, **self.environment},
        )
        threading.Thread(target=self._read, args=(self.process, self._lines), daemon=True).start()

    def _read(self, process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.log.append(line.rstrip())
            lines.put(line)
        lines.put(None)

    def wait_for(self, text: str, seconds: float = JOIN_SECONDS) -> str:
        """The next line of the log that contains `text`."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                line = self._lines.get(timeout=left)
            except queue.Empty:
                break
            if line is None:
                raise self.failed(f"ended while {text!r} was awaited")
            if text in line:
                return line
        raise self.failed(f"did not say {text!r} within {seconds} s")

    def failed(self, what: str) -> NodeFailed:
        """An error that shows the log's end."""
        return NodeFailed(f"{self.name} {what}; its log ends:\n" + "\n".join(self.log[-30:]))

    def wait_joined(self, seconds: float = JOIN_SECONDS) -> None:
        """Wait until the node says that it serves."""
        self.wait_for("is part of", seconds)

    def kill(self) -> None:
        """End the process by SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def terminate(self, seconds: float = 30.0) -> int:
        """End the process by SIGTERM; its exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.poll() is None

    def p2psip(self, *arguments: str, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of `p2psip` against this node."""
        result = subprocess.run(
            [str(BIN / "p2psip"), *arguments, "--state", str(self.state)],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "COLUMNS": "200"},
            check=False,
        )
        if check and result.returncode:
            raise self.failed(f"answered {' '.join(arguments)!r} with {result.returncode}: {result.stderr}")
        return result

    def ask(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """A request to the control socket, for what is asked too often for a process each."""
        return NodeConnection(self.state).ask(method, path, body, **query)

    def registered_at(self, aor: str) -> list[str]:
        """The Node-IDs where this node finds `aor` registered; raises click.ClickException."""
        return [entry["node_id"] for entry in self.ask("GET", "/lookup", aor=aor)["nodes"]]

    def add_users(self, users: Mapping[str, str]) -> None:
        """Make accounts with these names and device passwords by `p2psip user import`."""
        self.p2psip("user", "import", "-", stdin="".join(f"{n},{p}\n" for n, p in users.items()))

    def json(self, *arguments: str) -> Any:
        """What a command prints with --json."""
        return json.loads(self.p2psip(*arguments, "--json").stdout)

    def status(self) -> dict[str, Any]:
        """`p2psip status --json`."""
        answer = self.json("status")
        assert isinstance(answer, dict)
        return answer


class World:
    """Nodes that are ended, and whose files are removed, when the test is over; all are started with `options`."""

    def __init__(
        self, overlay: str = "example.org", prefix: Sequence[str] = (), options: Sequence[str] = ()
    ) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="p2psip-test-"))
        self.overlay = overlay
        self.nodes: list[NodeProcess] = []
        self._command = prefix
        self._options = options
        self._phones = 0
        # An own part of 127.0.0.0/8, so that default ports are free whatever else runs on the machine.
        self._prefix = f"127.{random.randint(64, 250)}.{random.randint(1, 250)}"

    def node(self, name: str | None = None, address: str | None = None) -> NodeProcess:
        """A node that is not started yet, on the next address."""
        number = len(self.nodes) + 1
        node = NodeProcess(
            self.directory, name or f"n{number}", address or f"{self._prefix}.{number}", self.overlay
        )
        node.prefix = self._command
        node.options = self._options
        self.nodes.append(node)
        return node

    def founder(self, *options: str, address: str | None = None) -> NodeProcess:
        """The first node, founded."""
        node = self.node(address=address)
        node.start(*options)
        node.wait_joined()
        return node

    def join_all(
        self, by: NodeProcess, count: int, *options: str, seconds: float = JOIN_SECONDS
    ) -> list[NodeProcess]:
        """So many more nodes, all at the same time."""
        nodes = [self.node() for _ in range(count)]
        for node in nodes:
            node.start("--join", by.p2psip("invite", node.name).stdout.strip(), *options)
        for node in nodes:
            node.wait_joined(seconds)
        return nodes

    def sipp(self, address: str | None = None) -> Sipp:
        """Phones on an address of their own."""
        return Sipp(address or self.address(), self.directory, self._command)

    def address(self) -> str:
        """An address for phones that no other phone or node has."""
        self._phones += 1
        return f"{self._prefix}.{100 + self._phones}"

    def join(self, by: NodeProcess, *options: str, address: str | None = None) -> NodeProcess:
        """One more node, joined with a token made at `by`."""
        node = self.node(address=address)
        token = by.p2psip("invite", node.name).stdout.strip()
        node.start("--join", token, *options)
        node.wait_joined()
        return node

    def close(self) -> None:
        """End every node and remove its files."""
        for node in self.nodes:
            node.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


def until(condition: Callable[[], Any], seconds: float, what: str, nodes: Iterable[NodeProcess] = ()) -> Any:
    """Ask `condition` again and again until it is true; what it answered.

    For what a node gives no sign of by itself.  Fails after `seconds`, naming `what`.
    """
    end = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            logs = "\n".join(str(node.failed("at that time")) for node in nodes)
            raise AssertionError(f"not within {seconds} s: {what}\n{logs}")
        time.sleep(0.2)


def run(command: Sequence[str], **keywords: Any) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; what it printed."""
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **keywords)
