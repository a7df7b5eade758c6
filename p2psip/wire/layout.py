"""
The compiler: from the fields of a structure to the functions that read and write it.

A *layout* is the fields of a structure in their order on the wire, each with
its `Wire` and, when its value is worked out instead of set, what it is worked
out from.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from .errors import DecodeError
from .fields import NODE_ID_SIZES, NodeIdField, Rest, Sized, Wire, join_items
from .lowering import Check, Code, Reader, Writer

DISAGREE = "contents and length disagree"

# -- Words of a declaration -------------------------------------------------


class Derived:
    """The value of a field that is worked out, never set."""


class LengthOf(Derived):
    def __init__(self, field: str) -> None:
        self.field = field


class LengthOfRest(Derived):
    pass


class Select(Derived):
    pass


def length_of(field: str, *, init: Literal[False] = False) -> Any:
    """This field is the byte count of the list `field`, further on."""
    return LengthOf(field)


def length_of_rest(*, init: Literal[False] = False) -> Any:
    """This field is the byte count of everything after it in the structure."""
    return LengthOfRest()


def select(*, init: Literal[False] = False) -> Any:
    """This field of a `Choice` says which case follows; each case class has it as a constant."""
    return Select()


# -- Structures inside structures -------------------------------------------


class Nested(Wire):
    """A structure as a field: its fields are read in line, without a call."""

    def __init__(self, cls: Any) -> None:
        self.cls = cls
        if cls._root is not None:
            raise TypeError(f"{cls.__name__} is a case: declare the field as {cls._root.__name__}")

    def read(self, r: Reader, target: str) -> None:
        r.flush()
        if self.cls._cases is None:
            _read_in_line(r, self.cls, target)
            return
        dispatch = f"{target}, pos = "
        commonest = self.cls._cases.first
        if commonest is None or self.cls._select_size != 1:
            _add_dispatch(r.code, self.cls, dispatch, r.end, r.ctx)
            return
        # The case that was declared first is read without a call.
        r.code.add(f"if data[{_place(self.cls)}] == {commonest._case}:")
        r.code.indent += 1
        _read_in_line(r, commonest, target)
        r.code.indent -= 1
        r.code.add("else:")
        r.code.indent += 1
        _add_dispatch(r.code, self.cls, dispatch, r.end, r.ctx)
        r.code.indent -= 1

    def write(self, w: Writer, value: str) -> None:
        if self.cls._cases is not None or self.cls._has_lists:
            w.step(f"{value}._write()")
            return
        outer = w.owner, w.code.owner
        w.owner, w.code.owner = w.keep(value, "value"), self.cls.__name__
        write_layout(w, self.cls)
        w.owner, w.code.owner = outer


def _read_in_line(r: Reader, cls: Any, target: str) -> None:
    new, value = r.code.bind(object.__new__, "new"), r.code.local("value")
    outer = r.owner, r.code.owner
    r.owner, r.code.owner = value, cls.__name__
    r.code.add(f"{value} = {new}({r.code.bind(cls, cls.__name__)})")
    read_layout(r, cls)
    r.owner, r.code.owner = outer
    r.code.add(f"{target} = {value}")


def _add_dispatch(code: Code, root: Any, target: str, end: str, ctx: str) -> None:
    """Emit the reading of whichever case the selector announces."""
    name = root.__name__
    cases = code.bind(root._cases.table, f"cases_{name}")
    place = _place(root)
    selector = f"data[{place}]" if root._select_size == 1 else f"data[{place}] << 8 | data[{place} + 1]"
    outer, code.owner = code.owner, name
    code.add(f"{target}{cases}[{selector}](data, pos, {end}, {ctx})")
    code.owner = outer


def _place(root: Any) -> str:
    return f"pos + {root._select_at}" if root._select_at else "pos"


Read = Callable[..., Any]


class Cases:
    """
    The cases of a choice.

    :ivar declared: the reader of each declared case, by selector.
    :ivar first: the case declared first; declare the commonest so.
    :ivar table: a reader for every selector there can be: a list where it has one byte,
        since nothing is looked up faster.
    """

    def __init__(self, name: str, at: int, size: int) -> None:
        self._name = name
        self._at = at
        self._other: Read | None = None
        self.first: Any = None
        self.declared: dict[int, Read] = {}
        self.table: list[Read] | dict[int, Read] = [self._refuse] * 256 if size == 1 else _Wide(self)

    def declare(self, selector: int, case: Any) -> None:
        self.first = self.first or case
        self.declared[selector] = self.table[selector] = case._read

    def declare_other(self, read: Read) -> None:
        """`read` is for all that are not declared."""
        self._other = read
        if isinstance(self.table, list):
            self.table[:] = [self.declared.get(i) or self.undeclared(i) for i in range(256)]

    def withdraw(self, selector: int) -> None:
        """Forget a case."""
        del self.declared[selector]
        self.table[selector] = self.undeclared(selector)

    def undeclared(self, selector: int) -> Read:
        # 0 is the "invalid" of every enumeration of RFC 6940.
        return self._refuse if self._other is None or selector == 0 else self._other

    def _refuse(self, data: bytes, pos: int, end: int, ctx: Any) -> Any:
        raise DecodeError(self._name, pos + self._at, "no such type")


class _Wide(dict[int, Read]):
    """A table that is too wide for a list."""

    def __init__(self, cases: Cases) -> None:
        self._cases = cases

    def __missing__(self, selector: int) -> Read:
        return self._cases.undeclared(selector)


# -- Compiling a declaration ------------------------------------------------


def read_layout(r: Reader, cls: Any) -> None:
    """Emit the reading of all fields of `cls` into the variable `r.owner`."""
    layout = list(cls._layout.items())
    for i, (field, (wire, derived)) in enumerate(layout):
        target = f"{r.owner}.{field}"
        if isinstance(derived, Select):
            r.skip(wire.size)
        elif isinstance(derived, LengthOf):
            wire.read(r, f"n_{derived.field}")
        elif isinstance(derived, LengthOfRest):
            _read_region(r, cls, wire, layout[i + 1:])
            break
        elif field in cls._kept:
            start = r.code.local("start")
            r.step(f"{start} = pos")
            wire.read(r, target)
            r.step(f"{r.owner}._raw_{field} = data[{start}:pos]")
        else:
            wire.read(r, target)
    r.flush()


def _read_region(r: Reader, cls: Any, length: Any, following: list[tuple[str, Any]]) -> None:
    """Emit the reading of a length and of the fields that it bounds."""
    code, end, size = r.code, r.end, r.code.local("size")
    wires = [wire for _, (wire, _) in following]

    def disagree(test: str) -> Check:
        return lambda at: [f"if {size} != {test}: {code.failure(f'pos + {at}', DISAGREE)}"]

    # Where the contents are of known size one comparison is all, and the region needs no end of its own.
    if all(wire.size is not None for wire in wires):
        r.atom(length.fmt, size, disagree(str(sum(wire.size for wire in wires))))
    elif len(wires) == 1 and isinstance(wires[0], NodeIdField):
        r.atom(length.fmt, size, disagree(f"{r.ctx}.node_id_length"))
        r.take(f"{r.owner}.{following[0][0]}", size)
        return
    elif len(wires) == 1 and isinstance(wires[0], Rest):
        r.atom(length.fmt, size)
        r.take(f"{r.owner}.{following[0][0]}", size)
        return
    else:
        stop = code.local("stop")
        r.atom(length.fmt, size, lambda at: [
            f"{stop} = pos + {at + length.size} + {size}",
            f"if {stop} > {end}: {code.failure(f'pos + {at}', 'a length beyond the surroundings')}",
        ])
        r.end = stop
    read_layout(r, _Part(cls, dict(following)))
    if r.end != end:
        code.add(f"if pos != {r.end}: {code.failure('pos', DISAGREE)}")
        r.end = end


class _Part:
    """Some of the fields of a structure."""

    def __init__(self, cls: Any, layout: Mapping[str, Any]) -> None:
        self._layout = layout
        self._kept = cls._kept


def write_layout(w: Writer, cls: Any) -> None:
    """Emit the writing of all fields of the `cls` in the variable `w.owner`."""
    _write_fields(w, cls, list(cls._layout.items()))


def _write_fields(w: Writer, cls: Any, fields: list[tuple[str, Any]]) -> None:
    for i, (field, (wire, derived)) in enumerate(fields):
        if isinstance(derived, Select):
            w.atom(wire.fmt, str(cls._case))
        elif isinstance(derived, LengthOf):
            wire.write(w, f"len(b_{derived.field})")
        elif isinstance(derived, LengthOfRest):
            _write_region(w, cls, wire, fields[i + 1:])
            return
        else:
            wire.write(w, f"{w.owner}.{field}")


def _write_region(w: Writer, cls: Any, length: Any, following: list[tuple[str, Any]]) -> None:
    """Emit the writing of a length and of the fields that it bounds."""
    if len(following) == 1 and isinstance(following[0][1][0], NodeIdField):
        # The commonest of all: what precedes a lone Node-ID is one of five constants.
        constants = w.constants()
        if constants is not None:
            formats, values = constants
            layout = struct.Struct("!" + formats + length.fmt)
            prefixes = {size: layout.pack(*values, size) for size in NODE_ID_SIZES}
            node_id = w.keep(f"{w.owner}.{following[0][0]}", "node_id")
            w.step(f"{w.code.bind(prefixes, 'prefixes')}[len({node_id})]")
            w.step(node_id)
            return
    inner = Writer(w.code)
    inner.owner = w.owner
    _write_fields(inner, cls, following)
    w.region(length.fmt, inner)


def make_read(cls: Any) -> Callable[..., Any]:
    name = cls.__name__
    code = Code("def read(data, pos, end, ctx):", name)
    if cls._cases is not None:
        _add_dispatch(code, cls, "return ", "end", "ctx")
    else:
        code.bind(cls, "cls")
        code.bind(object.__new__, "new")
        code.add("self = new(cls)")
        read_layout(Reader(code), cls)
        code.add("return self, pos")
    return code.compile(f"<wire {cls.__module__}.{name}.read>")


def make_write(cls: Any) -> Callable[..., bytes]:
    code = Code("def write(self):", cls.__name__)
    w = Writer(code)
    for field, (wire, _) in cls._layout.items():
        if isinstance(wire, Sized):
            code.add(f"b_{field} = {join_items(w, wire.item, f'self.{field}')}")
    write_layout(w, cls)
    code.add(f"return {w.expression()}")
    return code.compile(f"<wire {cls.__module__}.{cls.__name__}.write>")


def make_init(cls: Any) -> Callable[..., None]:
    fields, defaults = cls.__match_args__, cls._defaults
    names = {f"default_{f}": defaults[f] for f in fields if f in defaults}
    parameters = [f"{f}=default_{f}" if f in defaults else f for f in fields]
    signature = ", ".join(["self", "*", *parameters] if fields else ["self"])
    code = Code(f"def __init__({signature}):", cls.__name__)
    code.names.update(names)
    code.add(*[f"self.{f} = {f}" for f in fields] or ["pass"])
    return code.compile(f"<wire {cls.__module__}.{cls.__name__}.init>")


def wire_of(hint: Any) -> Wire:
    if get_origin(hint) is Annotated:
        base, *words = get_args(hint)
        wire = next(word for word in words if isinstance(word, Wire))
        return wire.of(base, wire_of)
    return Nested(hint)


def declared(cls: Any) -> dict[str, tuple[Wire, Derived | None]]:
    """The fields of `cls` in their order on the wire, those of its `Choice` first."""
    hints = get_type_hints(cls, include_extras=True)
    fields: dict[str, tuple[Wire, Derived | None]] = {}
    for base in (cls,) if cls._bare else reversed(cls.__mro__):
        for field in vars(base).get("_own_fields", ()):
            derived = vars(base)["_own_defaults"].get(field)
            fields[field] = wire_of(hints[field]), derived if isinstance(derived, Derived) else None
    return fields
