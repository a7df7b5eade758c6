"""Deadlines of many things that all have equally long: no timer each, a queue in the order they end."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Deadlines(Generic[T]):
    """Items, each with `seconds` from when it was `set` last; `now` comes with every call and never goes back."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._ends: OrderedDict[T, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._ends)

    def set(self, item: T, now: float) -> None:
        """Give `item` its time, anew if it had some."""
        self._ends[item] = now + self.seconds
        self._ends.move_to_end(item)

    def clear(self, item: T) -> None:
        """`item` needs none any more."""
        self._ends.pop(item, None)

    def over(self, now: float) -> Iterator[T]:
        """The items whose time is over; each is told once."""
        while self._ends:
            item, end = next(iter(self._ends.items()))
            if end > now:
                return
            del self._ends[item]
            yield item
