"""How large a message may be to go over a path in one datagram (RFC 8899).

Nothing here does I/O: it is told what arrives and what is lost.
"""

from __future__ import annotations


class PathMTU:
    """What is known of one path, in bytes of messages; `number`s are those of transmissions, in their order.

    :ivar least: what every path takes.
    :ivar most: the largest that is known to pass: `least` at first, more by `probed`.
    """

    __slots__ = ("_passed", "least", "most")

    def __init__(self, least: int) -> None:
        self.most = self.least = least
        # Of each size above the least: the last transmission that arrived.
        self._passed: dict[int, int] = {}

    def probed(self, size: int) -> None:
        """A message of `size` has arrived that was sent to find out."""
        self.most = max(self.most, size)

    def arrived(self, size: int, number: int) -> None:
        """Transmission `number`, of a message of `size`, has arrived."""
        if self.least < size <= self.most:
            self._passed[size] = max(number, self._passed.get(size, -1))

    def lost(self, size: int, first: int) -> bool:
        """A message of `size` seems to be lost though it was sent several times, first as number `first`.

        If none as large has arrived since, there may be a black hole on a new path (RFC 8899 §4.3): then `most` is the
        least again, and the answer is True.
        """
        if not self.least < size <= self.most:
            return False
        if any(passed >= size and number >= first for passed, number in self._passed.items()):
            return False
        self.most = self.least
        self._passed.clear()
        return True
