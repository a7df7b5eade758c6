"""Carries packets between two namespaces with a delay that differs from packet to packet.

A program, quick to start because it imports nothing of the rest. ``relay.py NAMESPACE DEVICE NAMESPACE DEVICE MTU
DELAY JITTER`` makes a TUN device in each namespace, prints ``ready``, and carries until it is killed; DELAY and JITTER
in seconds. It stands in for ``tc netem``, which not every kernel has.
"""

from __future__ import annotations

import errno
import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import sys
import time
from collections.abc import Sequence

from namespaces import enter  # beside this file, where Python looks first for a program

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
MOST_WAITING = 20_000
"""Packets on the way; the line loses what is more."""


def open_tun(namespace: str, device: str, mtu: int) -> int:
    """A TUN device in the namespace; its file gives and takes whole IP packets, and does not block."""
    enter(namespace)
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TUN | IFF_NO_PI))
    subprocess.run(["ip", "link", "set", "dev", device, "mtu", str(mtu)], check=True)
    return tun


class Relay:
    """What is on the way between two TUN devices."""

    def __init__(self, first: int, second: int, delay: float, jitter: float) -> None:
        self._other = {first: second, second: first}
        self._delay = delay
        self._jitter = jitter
        self._waiting: list[tuple[float, int, int, bytes]] = []
        self._count = 0

    def run(self) -> None:
        """Carry for ever."""
        while True:
            for tun in select.select(list(self._other), [], [], self._until_next())[0]:
                self._take(tun)
            self._give()

    def _until_next(self) -> float | None:
        return max(0.0, self._waiting[0][0] - time.monotonic()) if self._waiting else None

    def _take(self, tun: int) -> None:
        while packet := read(tun):
            if len(self._waiting) < MOST_WAITING:
                due = time.monotonic() + self._delay + random.uniform(0, self._jitter)
                self._count += 1
                heapq.heappush(self._waiting, (due, self._count, self._other[tun], packet))

    def _give(self) -> None:
        while self._waiting and self._waiting[0][0] <= time.monotonic():
            _, _, tun, packet = heapq.heappop(self._waiting)
            write(tun, packet)


def read(tun: int) -> bytes | None:
    """The next packet, None where there is none now."""
    try:
        return os.read(tun, 65536)
    except BlockingIOError:
        return None


def write(tun: int, packet: bytes) -> None:
    """Give a packet to the kernel; a device that is down, or full, loses it."""
    try:
        os.write(tun, packet)
    except OSError as error:
        if error.errno not in (errno.EIO, errno.EAGAIN):
            raise


def main(argv: Sequence[str]) -> None:
    first, first_device, second, second_device, mtu, delay, jitter = argv
    first_tun, second_tun = (
        open_tun(namespace, device, int(mtu)) for namespace, device in ((first, first_device), (second, second_device))
    )
    print("ready", flush=True)
    Relay(first_tun, second_tun, float(delay), float(jitter)).run()


if __name__ == "__main__":
    main(sys.argv[1:])
