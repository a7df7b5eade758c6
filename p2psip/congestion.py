"""How much may be under way, and how fast it may leave: congestion control for datagrams (RFC 8085 §3.1).

The window is TCP's (RFC 5681), in bytes: slow start, additive increase, halved by a loss, and collapsed by a timeout.
Nothing here does I/O: `now` is an argument, in seconds.
"""

from __future__ import annotations

DATAGRAM = 1280
"""Bytes of a full datagram, as the window counts: what every IPv6 path carries."""
OVERHEAD = 96
"""Bytes that a message costs beside itself: IPv6, UDP, DTLS with its nonce and tag, and the framing header."""
INITIAL_WINDOW = 10 * DATAGRAM
"""Bytes under way before anything is known of the path (RFC 6928 §2 allows 14600)."""
LEAST_WINDOW = 2 * DATAGRAM
"""Bytes under way in the worst case (RFC 9002 §7.2).  One datagram alone would leave it to five of them whether a link
that loses many is taken for dead."""
MOST_IN_FLIGHT = 1 << 18
"""The largest window: on a path of 100 ms more than 2 MB/s."""
BURST = INITIAL_WINDOW
"""Bytes that may leave back to back."""


class CongestionWindow:
    """Bytes that may be under way, and those that are.

    :ivar size: the window, in bytes.
    :ivar threshold: where slow start ends, in bytes.
    :ivar in_flight: bytes sent, and neither known to have arrived nor taken for lost.
    """

    __slots__ = ("in_flight", "size", "threshold")

    def __init__(self) -> None:
        self.size = INITIAL_WINDOW
        self.threshold = MOST_IN_FLIGHT
        self.in_flight = 0

    def admits(self, size: int) -> bool:
        """Whether `size` bytes may be sent; when nothing is in flight one message always may."""
        return not self.in_flight or self.in_flight + size <= self.size

    def sent(self, size: int) -> None:
        self.in_flight += size

    def withdrawn(self, size: int) -> None:
        """They are in flight no more: given up, or taken for lost."""
        self.in_flight -= size

    def arrived(self, size: int) -> None:
        """They left the network at its other end: there is room for more.

        A window of which less than half was in use proved nothing, and does not grow.
        """
        used = 2 * self.in_flight >= self.size
        self.in_flight -= size
        if used:
            # RFC 5681 §3.1: equations 2 and 3, counted in bytes.
            more = size if self.size < self.threshold else max(1, DATAGRAM * size // self.size)
            self.size = min(self.size + more, MOST_IN_FLIGHT)

    def halve(self) -> None:
        """Something was lost while others arrived (RFC 5681 §3.2)."""
        self.threshold = self.size = max(self.size // 2, LEAST_WINDOW)

    def collapse(self, again: bool) -> None:
        """A timer expired: the least window, and slow start to half of what it was (RFC 5681 §3.1).

        `again` says that nothing was acknowledged since the last collapse: the threshold stays.
        """
        if not again:
            self.threshold = max(self.size // 2, LEAST_WINDOW)
        self.size = LEAST_WINDOW

    def idle(self) -> None:
        """Nothing was sent for an RTO: what is known of the path is old (RFC 5681 §4.1)."""
        self.size = min(self.size, INITIAL_WINDOW)


class Pacer:
    """Spreads a window over a round trip, but for `BURST` bytes that may leave at once (RFC 8085 §3.1.6).

    :ivar free_at: when the next datagram may leave.
    """

    __slots__ = ("free_at",)

    def __init__(self) -> None:
        self.free_at = float("-inf")

    def sent(self, size: int, window: CongestionWindow, round_trip: float | None, now: float) -> None:
        """`size` bytes left at `now`; `round_trip` is in seconds, None while it is not known."""
        if not round_trip:
            return  # the initial window bounds the burst
        # Faster than a window each round trip, or pacing instead of the window would be the limit.
        gain = 2.0 if window.size < window.threshold else 1.25
        rate = gain * window.size / round_trip
        self.free_at = max(self.free_at, now - BURST / rate) + size / rate
