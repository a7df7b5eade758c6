"""
The words of the RFC's presentation language as types (RFC 6940, 6.3.1).

Each word is an `Annotated` alias: to a type checker the plain Python type, to
the compiler of `p2psip.wire.codec` a `Wire` that knows how to lower itself.

===================  ==========================================  ================
RFC                  here                                        Python value
===================  ==========================================  ================
``uint16``           `uint16` (8, 16, 32, 64, 128)               int
``Boolean``          `boolean`                                   bool
``opaque<0..2^8-1>`` `opaque8` (8, 16, 24, 32: bits of length)   bytes
``Item<0..2^16-1>``  ``vec16[Item]`` (8, 16, 24, 32)             tuple
``NodeId``           `NodeId`                                    bytes
``ResourceId``       `ResourceId`                                bytes
``KindId``           `KindId`                                    int
===================  ==========================================  ================
"""

from __future__ import annotations

import copy
import operator
import struct
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Annotated, Any, TypeAlias, TypeVar

from .. import ids
from .errors import fail, fail_write
from .lowering import Reader, Writer

T = TypeVar("T")

_COUNTS = {1: "B", 2: "H", 4: "I", 8: "Q"}
NODE_ID_SIZES = range(16, 21)
"""The lengths a Node-ID may have; an overlay fixes one (RFC 6940, 6.3.1.1)."""


class Wire:
    """
    One field type: how to lower it in each direction.

    :ivar size: its size in bytes when that is fixed, else None.
    :ivar names: the enumeration its numbers are taken from, where there is one;
        decoded values stay plain integers, known or not.
    """

    size: int | None = None
    names: type[IntEnum] | None = None

    def of(self, base: Any, wire_of: Any) -> Wire:
        """This word applied to the Python type `base`."""
        return self

    def read(self, r: Reader, target: str) -> None:
        raise NotImplementedError

    def write(self, w: Writer, value: str) -> None:
        raise NotImplementedError


class Int(Wire):
    def __init__(self, size: int, names: type[IntEnum] | None = None) -> None:
        self.size = size
        self.fmt = _COUNTS[size]
        self.names = names

    def read(self, r: Reader, target: str) -> None:
        r.atom(self.fmt, target)

    def write(self, w: Writer, value: str) -> None:
        w.atom(self.fmt, value)


class Int128(Wire):
    size = 16

    def read(self, r: Reader, target: str) -> None:
        high, low = r.code.local("high"), r.code.local("low")
        r.atom("Q", high)
        r.atom("Q", low, lambda at: [f"{target} = {high} << 64 | {low}"])

    def write(self, w: Writer, value: str) -> None:
        number = w.keep(value, "number")
        w.atom("Q", f"{number} >> 64")
        w.atom("Q", f"{number} & 0xFFFFFFFFFFFFFFFF")


class Bool(Wire):
    """RFC 6940's Boolean is an enum of 0 and 1; nothing else is valid."""

    size = 1

    def read(self, r: Reader, target: str) -> None:
        flag = r.code.local("flag")
        code = r.code
        r.atom("B", flag, lambda at: [
            f"if {flag} > 1: {code.failure(f'pos + {at}', 'a Boolean is 0 or 1')}",
            f"{target} = {flag} == 1",
        ])

    def write(self, w: Writer, value: str) -> None:
        w.atom("B", f"1 if {value} else 0")


class NodeIdField(Wire):
    """A Node-ID: its size, 16 to 20 bytes, is a parameter of the overlay."""

    def read(self, r: Reader, target: str) -> None:
        r.take(target, f"{r.ctx}.node_id_length")

    def write(self, w: Writer, value: str) -> None:
        node_id = w.keep(value, "node_id")
        w.code.add(
            f"if not 16 <= len({node_id}) <= 20: fail_write({w.code.owner!r}, 'a Node-ID of a wrong length')",
        )
        w.step(node_id)


class Rest(Wire):
    """Whatever is left of the region: the contents of a case nobody declared."""

    def read(self, r: Reader, target: str) -> None:
        r.step(f"{target} = data[pos:{r.end}]", f"pos = {r.end}")

    def write(self, w: Writer, value: str) -> None:
        w.step(value)


class Prefixed(Wire):
    """A field carrying its own byte count, of 1, 2, 3 or 4 bytes."""

    def __init__(self, count: int) -> None:
        self.count = count

    def read_count(self, r: Reader) -> str:
        size = r.code.local("size")
        if self.count == 3:  # struct has no 24-bit integer
            high = r.code.local("high")
            r.atom("B", high)
            r.atom("H", size, lambda at: [f"{size} |= {high} << 16"])
        else:
            r.atom(_COUNTS[self.count], size)
        return size

    def write_count(self, w: Writer, value: str) -> None:
        if self.count == 3:
            w.atom("B", f"len({value}) >> 16")
            w.atom("H", f"len({value}) & 0xFFFF")
        else:
            w.atom(_COUNTS[self.count], f"len({value})")


class Opaque(Prefixed):
    """``opaque name<0..2^n-1>``."""

    def read(self, r: Reader, target: str) -> None:
        r.take(target, self.read_count(r))

    def write(self, w: Writer, value: str) -> None:
        data = w.keep(value, "opaque")
        self.write_count(w, data)
        w.step(data)


class Vector(Prefixed):
    """
    ``Item name<0..2^n-1>``.

    :ivar given: an earlier field, a Kind-ID, whose data model the items depend on.
    """

    item: Wire

    def __init__(self, count: int, given: str = "") -> None:
        super().__init__(count)
        self.given = given

    def of(self, base: Any, wire_of: Any) -> Wire:
        applied = copy.copy(self)
        applied.item = wire_of(base.__args__[0])
        return applied

    def read(self, r: Reader, target: str) -> None:
        size = self.read_count(r)
        r.flush()
        outer = r.ctx
        if self.given:
            r.ctx = enter_kind(r, self.given)
        read_items(r, target, size, self.item)
        r.ctx = outer

    def write(self, w: Writer, value: str) -> None:
        body = w.code.local("body")
        w.code.add(f"{body} = {join_items(w, self.item, value)}")
        self.write_count(w, body)
        w.step(body)


class Sized(Wire):
    """A list whose byte count travelled in an earlier `length_of` field."""

    item: Wire

    def of(self, base: Any, wire_of: Any) -> Wire:
        applied = copy.copy(self)
        applied.item = wire_of(base.__args__[0])
        return applied

    def read(self, r: Reader, target: str) -> None:
        r.flush()
        read_items(r, target, f"n_{target.rpartition('.')[2]}", self.item)

    def write(self, w: Writer, value: str) -> None:
        w.step(f"b_{value.rpartition('.')[2]}")  # made ready before the first atom was written


class ByModel(Wire):
    """``select (DataModel)``: the data model is that of the Kind around it."""

    structs: Mapping[Any, Any]

    def __init__(self, given: str = "") -> None:
        self.given = given

    def of(self, base: Any, wire_of: Any) -> Wire:
        applied = copy.copy(self)
        applied.structs = {struct._model: struct for struct in base.__args__}
        return applied

    def read(self, r: Reader, target: str) -> None:
        readers = {model: struct._read for model, struct in self.structs.items()}
        owner = r.code.owner

        def unknown(data: bytes, pos: int, end: int, ctx: Any) -> Any:
            fail(owner, pos, "the context names no Kind for the value")

        readers[None] = unknown
        r.flush()
        ctx = enter_kind(r, self.given) if self.given else r.ctx
        table = r.code.bind(readers, "by_model")
        r.step(f"{target}, pos = {table}[{ctx}.model](data, pos, {r.end}, {ctx})")

    def write(self, w: Writer, value: str) -> None:
        w.step(f"{value}._write()")


class When(Wire):
    """A field that is there for some values of an earlier field, and not for others."""

    inner: Wire

    def __init__(self, field: str, *, present: Iterable[int], absent: Iterable[int]) -> None:
        self.field = field
        self.present = tuple(map(int, present))
        self.absent = tuple(map(int, absent))

    def of(self, base: Any, wire_of: Any) -> Wire:
        applied = copy.copy(self)
        applied.inner = wire_of(next(a for a in base.__args__ if a is not type(None)))
        return applied

    def read(self, r: Reader, target: str) -> None:
        selector = f"{r.owner}.{self.field}"
        r.step(f"if {selector} in {self.present}:")
        r.code.indent += 1
        self.inner.read(r, target)
        r.flush()
        r.code.indent -= 1
        r.code.add(
            f"elif {selector} in {self.absent}: {target} = None",
            f"else: {r.code.failure('pos', f'unknown {self.field}')}",
        )

    def write(self, w: Writer, value: str) -> None:
        selector, part = f"{w.owner}.{self.field}", w.code.local("part")
        w.code.add(
            f"if {selector} in {self.present}: {part} = {value}._write()",
            f"elif {selector} in {self.absent} and {value} is None: {part} = b''",
            f"else: fail_write({w.code.owner!r}, 'a field that does not go with its {self.field}')",
        )
        w.step(part)


def enter_kind(r: Reader, field: str) -> str:
    """Emit the choice of the context of the Kind named by `field`; its variable is returned."""
    name, kind = r.code.local("ctx"), f"{r.owner}.{field}"
    r.step(f"{name} = {r.ctx}.kinds.get({kind}) or fail_kind({r.code.owner!r}, pos, {kind})")
    return name


def read_items(r: Reader, target: str, size: str, item: Wire) -> None:
    """Emit the reading of the items in the next `size` bytes."""
    code = r.code
    limit = code.local("limit")
    # No element is looked at before its region is known to lie within the data:
    # a forged length costs one comparison.
    code.add(
        f"{limit} = pos + {size}",
        f"if {limit} > {r.end}: {code.failure('pos', 'a list longer than its surroundings')}",
    )
    uneven = code.failure(limit, "a list that does not end with an element")
    if isinstance(item, Int):
        if item.size == 1:
            code.add(f"{target} = tuple(data[pos:{limit}])")
        else:
            code.add(
                f"if {size} % {item.size}: {uneven}",
                f"{target} = {code.bind(struct.unpack, 'unpack')}"
                f"(f'!{{{size} // {item.size}}}{item.fmt}', data[pos:{limit}])",
            )
        code.add(f"pos = {limit}")
    elif isinstance(item, NodeIdField):
        step = code.local("step")
        code.add(
            f"{step} = {r.ctx}.node_id_length",
            f"if {size} % {step}: {uneven}",
            f"{target} = tuple([data[i:i + {step}] for i in range(pos, {limit}, {step})])",
            f"pos = {limit}",
        )
    else:
        _read_loop(r, target, limit, item, uneven)


def _read_loop(r: Reader, target: str, limit: str, item: Wire, uneven: str) -> None:
    code, outer_end = r.code, r.end
    items, one = code.local("items"), code.local("item")
    code.add(f"if pos == {limit}: {target} = ()", "else:")
    code.indent += 1
    code.add(f"{items} = []", f"while pos < {limit}:")
    code.indent += 1
    r.end = limit
    item.read(r, one)
    r.step(f"{items}.append({one})")
    code.indent -= 1
    r.end = outer_end
    code.add(f"if pos != {limit}: {uneven}", f"{target} = tuple({items})")
    code.indent -= 1


def join_items(w: Writer, item: Wire, value: str) -> str:
    """The expression of the items' bytes."""
    if isinstance(item, Int):
        pack = w.code.bind(struct.pack, "pack")
        items = w.keep(value, "items")
        return f"{pack}(f'!{{len({items})}}{item.fmt}', *{items})"
    if isinstance(item, NodeIdField):
        return f"{w.code.bind(_join_node_ids, 'join_node_ids')}({value}, {w.code.owner!r})"
    if isinstance(item, Opaque):
        return f"{w.code.bind(_join_opaque, 'join_opaque')}({value}, {item.count})"
    items = w.keep(value, "items")
    return f"b''.join(map({w.code.bind(_write_each, 'write_each')}, {items})) if {items} else b''"


_write_each = operator.methodcaller("_write")


def _join_node_ids(node_ids: Iterable[bytes], owner: str) -> bytes:
    for node_id in node_ids:
        if len(node_id) not in NODE_ID_SIZES:
            fail_write(owner, "a Node-ID of a wrong length")
    return b"".join(node_ids)


def _join_opaque(items: Iterable[bytes], count: int) -> bytes:
    pack = struct.Struct("!" + _COUNTS[count]).pack
    return b"".join([pack(len(item)) + item for item in items])


# The RFC spells them so.
uint8: TypeAlias = Annotated[int, Int(1)]
uint16: TypeAlias = Annotated[int, Int(2)]
uint32: TypeAlias = Annotated[int, Int(4)]
uint64: TypeAlias = Annotated[int, Int(8)]
uint128: TypeAlias = Annotated[int, Int128()]
boolean: TypeAlias = Annotated[bool, Bool()]
opaque8: TypeAlias = Annotated[bytes, Opaque(1)]
opaque16: TypeAlias = Annotated[bytes, Opaque(2)]
opaque24: TypeAlias = Annotated[bytes, Opaque(3)]
opaque32: TypeAlias = Annotated[bytes, Opaque(4)]
rest: TypeAlias = Annotated[bytes, Rest()]
vec8: TypeAlias = Annotated[tuple[T, ...], Vector(1)]
vec16: TypeAlias = Annotated[tuple[T, ...], Vector(2)]
vec24: TypeAlias = Annotated[tuple[T, ...], Vector(3)]
vec32: TypeAlias = Annotated[tuple[T, ...], Vector(4)]
sized: TypeAlias = Annotated[tuple[T, ...], Sized()]
NodeId: TypeAlias = Annotated[ids.NodeId, NodeIdField()]
ResourceId: TypeAlias = Annotated[ids.ResourceId, Opaque(1)]
