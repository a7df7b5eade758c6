"""
The text of a codec under construction: atoms fuse, steps follow.

A field is *lowered* to fixed-size atoms and variable-size steps.  Neighbouring
atoms become one precompiled `struct.Struct` call, even across the borders of
fields and of nested structures, and the result is one Python function per
direction with no loop over fields.

Every generated line remembers the structure it serves, so that an exception
raised by the line, such as `struct.error` past the end of the data, is traced
to structure and offset afterwards and costs nothing until then.
"""

from __future__ import annotations

import linecache
import struct
from collections.abc import Callable, Iterable
from typing import Any

from p2psip.wire.errors import fail, fail_kind, fail_write

OWNERS = "__owners__"
"""The global of generated code that tells, line by line, which structure is served."""

Check = Callable[[str], Iterable[str]]
"""Given the text of an offset, the lines that check what was read there."""


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
        if not self._formats:
            return
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
            self.code.add(*check(f"pos + {offset}"))
        self.code.add(f"pos += {size}")
        self._formats, self._targets, self._checks = "", [], []

    def step(self, *lines: str) -> None:
        self.flush()
        self.code.add(*lines)


class Writer:
    """Collects the encoding expression."""

    def __init__(self, code: Code) -> None:
        self.code = code
        self.owner = "self"
        self._formats = ""
        self._values: list[str] = []
        self._parts: list[str] = []

    def atom(self, fmt: str, value: str) -> None:
        self._formats += fmt
        self._values.append(value)

    def flush(self) -> None:
        if not self._formats:
            return
        layout = struct.Struct("!" + self._formats)
        if all(value.isdigit() for value in self._values):
            constant = layout.pack(*map(int, self._values))
            self._parts.append(repr(constant))
        else:
            pack = self.code.bind(layout.pack, f"pack_{self._formats}")
            self._parts.append(f"{pack}({', '.join(self._values)})")
        self._formats, self._values = "", []

    def step(self, expression: str) -> None:
        self.flush()
        self._parts.append(expression)

    def prefix_table(self, fmt: str, sizes: Iterable[int]) -> dict[int, bytes] | None:
        """
        The finished bytes for each of a few possible lengths, if all else pending is constant.

        What was pending is then in the table, and no longer pending.
        """
        if not all(value.isdigit() for value in self._values):
            return None
        layout = struct.Struct("!" + self._formats + fmt)
        constants = [int(value) for value in self._values]
        self._formats, self._values = "", []
        return {size: layout.pack(*constants, size) for size in sizes}

    def expression(self) -> str:
        self.flush()
        if len(self._parts) > 4:
            return f"b''.join(({', '.join(self._parts)}))"
        return " + ".join(self._parts) or "b''"

    def keep(self, value: str, stem: str) -> str:
        """Put `value` in a local variable when it is worth it; the text to use is returned."""
        if "." not in value:
            return value
        name = self.code.local(stem)
        self.code.add(f"{name} = {value}")
        return name
