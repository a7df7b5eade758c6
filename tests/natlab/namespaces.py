"""Network namespaces by name: made, entered, listed and removed with what runs in them."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

DIRECTORY = Path("/run/netns")
CLONE_NEWNET = 0x40000000
NETLINK_NETFILTER = 12
DELETE_FLOWS = struct.pack("=IHHIIBBH", 20, 1 << 8 | 2, 5, 1, 0, 0, 0, 0)
"""Netlink: subsystem conntrack, delete; request with acknowledgement; every family, no filter."""


class NotPermitted(Exception):
    """This machine or user cannot have network namespaces; the text says why."""


class CommandFailed(Exception):
    """A program that builds the laboratory failed; the text has its words."""

PROBE = """\
table inet probe {
  chain postrouting { type nat hook postrouting priority srcnat; }
}
"""


def command(argv: Sequence[str], text: str = "") -> str:
    """What a program prints that reads `text`. Raises CommandFailed, NotPermitted when it is not there."""
    try:
        done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise NotPermitted(f"there is no program {argv[0]!r}") from None
    if done.returncode:
        raise CommandFailed(f"{' '.join(argv)}: {done.stderr.strip()}\n{text}".rstrip())
    return done.stdout


def check_permitted(probe: str) -> None:
    """Make a namespace of this name with a table in it, and remove it. Raises NotPermitted."""
    for program in ("ip", "nft"):
        if shutil.which(program) is None:
            raise NotPermitted(f"there is no program {program!r}")
    try:
        add(probe)
        command([*entering(probe), "nft", "-f", "-"], PROBE)
    except (CommandFailed, OSError) as error:
        raise NotPermitted(f"network namespaces need CAP_SYS_ADMIN and CAP_NET_ADMIN: {error}") from error
    finally:
        if (DIRECTORY / probe).exists():
            subprocess.run(["ip", "netns", "del", probe], capture_output=True, check=False)


def entering(name: str) -> tuple[str, ...]:
    """What a command line begins with that is to run in the namespace."""
    return ("ip", "netns", "exec", name)


def add(name: str) -> None:
    """A new namespace, with nothing but its loopback device up."""
    command(["ip", "netns", "add", name])
    command(["ip", "-n", name, "link", "set", "lo", "up"])


def configure(name: str, lines: Sequence[str]) -> None:
    """Run lines of ``ip`` in the namespace."""
    command(["ip", "-n", name, "-batch", "-"], "".join(f"{line}\n" for line in lines))


def names(prefix: str) -> list[str]:
    """The namespaces whose names begin with `prefix`."""
    return sorted(path.name for path in DIRECTORY.glob(f"{prefix}*")) if DIRECTORY.is_dir() else []


def remove(name: str) -> None:
    """Kill whatever runs in the namespace, and remove it; also one of which no more than the name was made."""
    pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False).stdout
    for pid in pids.split():
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            pass
    command(["ip", "netns", "del", name])


def inside(name: str, call: Callable[[], T]) -> T:
    """What `call` returns in the namespace: in a thread of its own, since the thread cannot be used afterwards."""
    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            enter(name)
            outcome.append(call())
        except BaseException as error:  # noqa: BLE001 - it is raised again in the thread that asked
            failure.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def enter(name: str) -> None:
    """Move this thread to the namespace. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(DIRECTORY / name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(descriptor, CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), name)
    finally:
        os.close(descriptor)


def set_sysctl(name: str, key: str, value: int) -> None:
    """Set e.g. ``ipv4/ip_forward`` in the namespace."""
    inside(name, lambda: Path("/proc/sys/net", key).write_text(str(value)))


def forget_flows(name: str) -> None:
    """Empty the namespace's table of tracked connections, and so drop the mappings of a NAT. Raises OSError."""

    def flush() -> None:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as netlink:
            netlink.send(DELETE_FLOWS)
            error = -struct.unpack_from("=i", netlink.recv(4096), 16)[0]
            if error:
                raise OSError(error, os.strerror(error), name)

    inside(name, flush)
