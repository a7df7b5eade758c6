"""
The text of a codec under construction: atoms fuse, steps follow.

A field is *lowered* to fixed-size atoms and variable-size steps.  Neighbouring
atoms become one precompiled `struct.Struct` call, even across the borders of
fields, and the result is one Python function per direction with no loop over
fields.

Every generated line remembers the structure it serves, so that an exception
raised by the line, such as `struct.error` past the end of the data, is traced
to structure and offset afterwards and costs nothing until then.
"""

from __future__ import annotations

import itertools
import linecache
import struct
from collections.abc import Callable, Iterable
from typing import Any

from .errors import fail, fail_kind, fail_write

OWNERS = "__owners__"
"""The global of generated code that tells, line by line, which structure is served."""

Check = Callable[[int], Iterable[str]]
"""Given how far beyond `pos` a number was read, the lines that check it."""

BYTES = tuple([bytes([i]) for i in range(256)])


class Code:
    """The text of one function, and the names it may use."""

    def __init__(self, signature: str, owner: str) -> None:
        self.owner = owner
        self.indent = 1
        self.names: dict[str, Any] = {"fail": fail, "fail_kind": fail_kind, "fail_write": fail_write}
        self._lines = [signature]
        self._owners = [owner]
        self._locals = 0

    def add(self, *lines: str) -> None:
        self._lines += ["    " * self.indent + line for line in lines]
        self._owners += [self.owner] * len(lines)

    def bind(self, value: Any, name: str) -> str:
        """Make `value` visible to the function; the name it goes by is returned."""
        while self.names.setdefault(name, value) is not value:
            name += "_"
        return name

    def local(self, stem: str) -> str:
        self._locals += 1
        return f"{stem}{self._locals}"

    def failure(self, offset: str, reason: str) -> str:
        """The statement that refuses what stands at `offset`."""
        return f"fail({self.owner!r}, {offset}, {reason!r})"

    def compile(self, filename: str) -> Callable[..., Any]:
        text = "\n".join(self._lines) + "\n"
        # A linecache entry lets tracebacks and pdb show generated code.
        linecache.cache[filename] = (len(text), None, text.splitlines(True), filename)
        self.names[OWNERS] = tuple(self._owners)
        exec(compile(text, filename, "exec"), self.names)  # noqa: S102 - our own text, at import
        name = self._lines[0].split("(")[0].removeprefix("def ")
        return self.names[name]  # type: ignore[no-any-return]


def locate(error: BaseException) -> tuple[str, int]:
    """The structure and offset at which generated code raised `error`."""
    found = ("?", 0)
    trace = error.__traceback__
    while trace is not None:
        owners = trace.tb_frame.f_globals.get(OWNERS)
        if owners is not None:
            found = owners[trace.tb_lineno - 1], trace.tb_frame.f_locals.get("pos", 0)
        trace = trace.tb_next
    return found


class Reader:
    """
    Emits the decoding body.

    :ivar owner: the variable that holds the structure being filled.
    :ivar end: the variable (or expression) holding the end of the current region.
    :ivar ctx: the variable holding the context.
    """

    def __init__(self, code: Code) -> None:
        self.code = code
        self.owner = "self"
        self.end = "end"
        self.ctx = "ctx"
        self._formats = ""
        self._targets: list[str] = []
        self._checks: list[tuple[int, Check]] = []

    def atom(self, fmt: str, target: str, check: Check | None = None) -> None:
        """Read one number of `struct` format `fmt`; `check` sees it afterwards."""
        if check is not None:
            self._checks.append((struct.calcsize("!" + self._formats), check))
        self._formats += fmt
        self._targets.append(target)

    def skip(self, size: int) -> None:
        self._formats += "x" * size

    def flush(self) -> None:
        if ahead := self.flush_ahead():
            self.code.add(f"pos += {ahead}")

    def flush_ahead(self) -> int:
        """Read what is pending but leave `pos` where it is; how far to move it is returned."""
        size = struct.calcsize("!" + self._formats)
        if not self._targets:
            pass
        elif len(self._targets) == 1 and self._formats.strip("x") == "B":
            skipped = self._formats.index("B")
            at = f"pos + {skipped}" if skipped else "pos"
            self.code.add(f"{self._targets[0]} = data[{at}]")  # indexing beats unpacking
        else:
            layout = struct.Struct("!" + self._formats)
            unpack = self.code.bind(layout.unpack_from, f"unpack_{self._formats}")
            comma = "," if len(self._targets) == 1 else ""
            self.code.add(f"{', '.join(self._targets)}{comma} = {unpack}(data, pos)")
        for offset, check in self._checks:
            self.code.add(*check(offset))
        self._formats, self._targets, self._checks = "", [], []
        return size

    def take(self, target: str, size: str) -> None:
        """Read the next `size` bytes."""
        ahead, stop = self.flush_ahead(), self.code.local("stop")
        start = f"pos + {ahead}" if ahead else "pos"
        self.code.add(f"{stop} = {start} + {size}", f"{target} = data[{start}:{stop}]", f"pos = {stop}")

    def step(self, *lines: str) -> None:
        self.flush()
        self.code.add(*lines)


class Writer:
    """
    Collects the encoding expression.

    :ivar owner: the variable that holds the structure being written.
    """

    def __init__(self, code: Code) -> None:
        self.code = code
        self.owner = "self"
        self._items: list[tuple[str, str]] = []  # (struct format, value), or ("", bytes)

    def atom(self, fmt: str, value: str) -> None:
        """Write one number of `struct` format `fmt`."""
        self._items.append((fmt, value))

    def step(self, expression: str) -> None:
        """Write the bytes that `expression` yields."""
        self._items.append(("", expression))

    def keep(self, value: str, stem: str) -> str:
        """Put `value` in a local variable unless it is one; the text to use is returned."""
        if value.isidentifier():
            return value
        name = self.code.local(stem)
        self.code.add(f"{name} = {value}")
        return name

    def region(self, fmt: str, inner: Writer) -> None:
        """Write the byte count of what `inner` collected, and that."""
        inner._items = [
            (item_fmt, value if item_fmt else self.keep(value, "part")) for item_fmt, value in inner._items
        ]
        fixed = struct.calcsize("!" + "".join(item_fmt for item_fmt, _ in inner._items))
        sizes = [f"len({value})" for item_fmt, value in inner._items if not item_fmt]
        self.atom(fmt, " + ".join([*sizes, str(fixed)] if fixed or not sizes else sizes))
        self._items += inner._items

    def constants(self) -> tuple[str, list[int]] | None:
        """What was collected so far, if all of it is known already; it is then collected no longer."""
        if not all(fmt and value.isdigit() for fmt, value in self._items):
            return None
        formats, values = "".join(fmt for fmt, _ in self._items), [int(value) for _, value in self._items]
        self._items = []
        return formats, values

    def expression(self) -> str:
        parts: list[str] = []
        for is_atom, items in itertools.groupby(self._items, lambda item: item[0] != ""):
            run = list(items)
            parts += [self._pack(run)] if is_atom else [value for _, value in run]
        if len(parts) > 4:
            return f"b''.join(({', '.join(parts)}))"
        return " + ".join(parts) or "b''"

    def _pack(self, run: list[tuple[str, str]]) -> str:
        formats, values = "".join(fmt for fmt, _ in run), [value for _, value in run]
        layout = struct.Struct("!" + formats)
        if all(value.isdigit() for value in values):
            return repr(layout.pack(*map(int, values)))
        if formats == "B" and values[0].startswith("len("):
            # A table beats packing; a length cannot be negative.
            return f"{self.code.bind(BYTES, 'byte')}[{values[0]}]"
        return f"{self.code.bind(layout.pack, f'pack_{formats}')}({', '.join(values)})"
