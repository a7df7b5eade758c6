"""Slows down guessing: of passwords above all, whether in SIP, in enrollment or on a web page."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict


class Throttle:
    """Counts failures by key (an address, an account) and says how long the next attempt has to wait.

    The first `free` failures cost nothing; each further one doubles the wait, from `base` seconds on, up to
    `ceiling`.
    A key without failures for `forget` seconds is forgotten.  At most `size` keys are kept; those that failed
    longest ago give way.  `now` is in seconds and never goes back.
    """

    def __init__(
        self,
        free: int = 5,
        base: float = 1.0,
        ceiling: float = 300.0,
        forget: float = 3600.0,
        size: int = 10000,
    ) -> None:
        if ceiling > forget:
            raise ValueError("a wait longer than the memory of its reason")
        self._free = free
        self._base = base
        self._ceiling = ceiling
        self._forget = forget
        self._size = size
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._failures)

    def delay(self, key: str, now: float) -> float:
        """Seconds until `key` may try again; 0 when it may at once."""
        found = self._failures.get(key)
        if found is None:
            return 0.0
        count, last = found
        if now - last >= self._forget:
            del self._failures[key]
            return 0.0
        if count <= self._free:
            return 0.0
        wait = min(self._ceiling, self._base * 2.0 ** min(count - self._free - 1, 32))
        return max(0.0, last + wait - now)

    def failed(self, key: str, now: float) -> None:
        """`key` failed once more; or is about to try, when many tries at once must not be free of charge."""
        count, last = self._failures.pop(key, (0, now))
        if now - last >= self._forget:
            count = 0
        self._failures[key] = count + 1, now
        while len(self._failures) > self._size:
            self._failures.popitem(last=False)

    def forgive(self, key: str) -> None:
        """Take back one `failed`: it was none."""
        found = self._failures.get(key)
        if found is not None:
            if found[0] <= 1:
                del self._failures[key]
            else:
                self._failures[key] = found[0] - 1, found[1]

    def succeeded(self, key: str) -> None:
        """`key` proved itself: all is forgiven."""
        self._failures.pop(key, None)


class Allowance:
    """How often each key may do something: `burst` times at once, and `rate` times a second in the long run.

    Of at most `size` keys it is known how often they did; those that did it longest ago give way.
    """

    def __init__(self, rate: float, burst: float, size: int = 10000) -> None:
        self._rate = rate
        self._burst = burst
        self._size = size
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def delay(self, key: str, now: float) -> float:
        """Seconds until `key` may do it once more; 0 when it may at once."""
        return max(0.0, (1.0 - self._current(key, now)) / self._rate)

    def spend(self, key: str, now: float) -> None:
        """`key` did it."""
        left = self._current(key, now)
        self._left[key] = max(0.0, left - 1.0), now
        self._left.move_to_end(key)
        while len(self._left) > self._size:
            self._left.popitem(last=False)

    def _current(self, key: str, now: float) -> float:
        left, since = self._left.get(key, (self._burst, now))
        return min(self._burst, left + (now - since) * self._rate)


def source_key(address: str) -> str:
    """What an IP address is counted under: itself, or for IPv6 the /64 that one customer can choose from."""
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))
