"""
Structures of the wire, declared once and compiled to straight-line Python when the class is made.

RFC 6940 gives its structures in the TLS presentation language.  A `Struct` is
meant to be laid beside the RFC and read off field by field::

    struct {                                class MessageContents(Struct):
      uint16  message_code;                     message_code: uint16
      opaque  message_body<0..2^32-1>;          message_body: opaque32
      MessageExtension                          extensions: vec32[MessageExtension] = ()
              extensions<0..2^32-1>;
    } MessageContents;

`Struct` is a ``struct``; `Choice` is a ``struct`` holding a ``select`` whose
cases are its subclasses; `p2psip.wire.fields` has the types.  Structures are
plain values: keyword arguments, equality, hash, pattern matching.  Type
checkers see frozen dataclasses; there is no freezing to pay for at run time,
but nobody changes one.

Reads inside a region are not checked one by one.  Every region (vector, length,
message) must lie within the one around it when it is entered, and must be used
up exactly when it is left; positions only grow, so no overrun survives.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    Self,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

from .codes import DataModel
from .errors import DecodeError, EncodeError, UnknownKindError
from .fields import (
    NODE_ID_SIZES,
    NodeIdField,
    Rest,
    Sized,
    Wire,
    join_items,
)
from .lowering import Check, Code, Reader, Writer, locate

__all__ = [
    "Choice", "DecodeError", "EncodeError", "Struct", "UnknownKindError", "WireContext",
    "fields_of", "length_of", "length_of_rest", "select",
]

# -- What decoding depends on beside the bytes ------------------------------


class WireContext:
    """
    What must be known of an overlay to read its messages.

    :param node_id_length: bytes of a Node-ID, 16 to 20 (RFC 6940, 11.1).
    :param models: the data model of each known Kind-ID (RFC 6940, 7.2).
    :ivar kinds: for each known Kind the context in which its values are read.
    :ivar model: in such a context the data model, else None.
    """

    __slots__ = ("kinds", "model", "node_id_length")

    def __init__(self, node_id_length: int = 16, models: Mapping[int, DataModel] | None = None) -> None:
        if node_id_length not in NODE_ID_SIZES:
            raise ValueError(f"a Node-ID has 16 to 20 bytes, not {node_id_length}")
        self.node_id_length = node_id_length
        self.model: DataModel | None = None
        self.kinds: Mapping[int, WireContext] = {
            int(kind): self._with_model(model) for kind, model in (models or {}).items()
        }

    def _with_model(self, model: DataModel) -> WireContext:
        context = WireContext(self.node_id_length)
        context.model = DataModel(model)
        return context

    def of_kind(self, kind: int) -> WireContext:
        """
        The context in which a single value of `kind` can be decoded.

        :raises UnknownKindError: this node does not know the Kind.
        """
        try:
            return self.kinds[kind]
        except KeyError:
            raise UnknownKindError("KindId", 0, (kind,)) from None


DEFAULT_CONTEXT = WireContext()
TRUNCATED = "the data end too early"
DISAGREE = "contents and length disagree"

# -- Words of a declaration -------------------------------------------------


class _Derived:
    """The value of a field that is worked out, never set."""


class _LengthOf(_Derived):
    def __init__(self, field: str) -> None:
        self.field = field


class _LengthOfRest(_Derived):
    pass


class _Select(_Derived):
    pass


def length_of(field: str, *, init: Literal[False] = False) -> Any:
    """This field is the byte count of the list `field`, further on."""
    return _LengthOf(field)


def length_of_rest(*, init: Literal[False] = False) -> Any:
    """This field is the byte count of everything after it in the structure."""
    return _LengthOfRest()


def select(*, init: Literal[False] = False) -> Any:
    """This field of a `Choice` says which case follows; each case class has it as a constant."""
    return _Select()


# -- Structures inside structures -------------------------------------------


class Nested(Wire):
    """A structure as a field: its fields are read in line, without a call."""

    def __init__(self, cls: Any) -> None:
        self.cls = cls
        if cls._root is not None:
            raise TypeError(f"{cls.__name__} is a case: declare the field as {cls._root.__name__}")

    def read(self, r: Reader, target: str) -> None:
        name = self.cls.__name__
        if self.cls._cases is not None:
            r.flush()
            _add_dispatch(r.code, self.cls, f"{target}, pos = ", r.end, r.ctx)
            return
        new = r.code.bind(object.__new__, "new")
        value = r.code.local("value")
        r.code.add(f"{value} = {new}({r.code.bind(self.cls, name)})")
        outer = r.owner, r.end, r.code.owner
        r.flush()
        r.owner, r.code.owner = value, name
        read_layout(r, self.cls)
        r.flush()
        r.owner, r.end, r.code.owner = outer
        r.code.add(f"{target} = {value}")

    def write(self, w: Writer, value: str) -> None:
        if self.cls._cases is not None or self.cls._has_lists:
            w.step(f"{value}._write()")
            return
        outer = w.owner, w.code.owner
        w.owner, w.code.owner = w.keep(value, "value"), self.cls.__name__
        write_layout(w, self.cls)
        w.owner, w.code.owner = outer


def _add_dispatch(code: Code, root: Any, target: str, end: str, ctx: str) -> None:
    """Emit the reading of whichever case the selector announces."""
    name, at = root.__name__, root._select_at
    cases = code.bind(root._cases, f"cases_{name}")
    place = f"pos + {at}" if at else "pos"
    if root._select_size == 1:
        reader = f"{cases}[data[{place}]]"
    else:
        reader = f"{cases}[data[{place}] << 8 | data[{place} + 1]]"
    outer, code.owner = code.owner, name
    code.add(f"{target}{reader}(data, pos, {end}, {ctx})")
    code.owner = outer


class _Cases(dict[int, Callable[..., Any]]):
    """The reader of each case by selector; one that was never declared is looked up here, too."""

    def __init__(self, name: str, at: int) -> None:
        self._name = name
        self._at = at
        self.other: Callable[..., Any] | None = None

    def __missing__(self, selector: int) -> Callable[..., Any]:
        # 0 is the "invalid" of every enumeration of RFC 6940.
        if self.other is not None and selector:
            return self.other
        return self._refuse

    def _refuse(self, data: bytes, pos: int, end: int, ctx: Any) -> Any:
        raise DecodeError(self._name, pos + self._at, "no such type")


# -- Compiling a declaration ------------------------------------------------


def read_layout(r: Reader, cls: Any) -> None:
    """Emit the reading of all fields of `cls` into the variable `r.owner`."""
    layout = list(cls._layout.items())
    for i, (field, (wire, derived)) in enumerate(layout):
        target = f"{r.owner}.{field}"
        if isinstance(derived, _Select):
            r.skip(wire.size)
        elif isinstance(derived, _LengthOf):
            wire.read(r, f"n_{derived.field}")
        elif isinstance(derived, _LengthOfRest):
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
        if isinstance(derived, _Select):
            w.atom(wire.fmt, str(cls._case))
        elif isinstance(derived, _LengthOf):
            wire.write(w, f"len(b_{derived.field})")
        elif isinstance(derived, _LengthOfRest):
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


def _make_read(cls: Any) -> Callable[..., Any]:
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


def _make_write(cls: Any) -> Callable[..., bytes]:
    code = Code("def write(self):", cls.__name__)
    w = Writer(code)
    for field, (wire, _) in cls._layout.items():
        if isinstance(wire, Sized):
            code.add(f"b_{field} = {join_items(w, wire.item, f'self.{field}')}")
    write_layout(w, cls)
    code.add(f"return {w.expression()}")
    return code.compile(f"<wire {cls.__module__}.{cls.__name__}.write>")


def _make_init(cls: Any) -> Callable[..., None]:
    fields, defaults = cls.__match_args__, cls._defaults
    names = {f"default_{f}": defaults[f] for f in fields if f in defaults}
    parameters = [f"{f}=default_{f}" if f in defaults else f for f in fields]
    signature = ", ".join(["self", "*", *parameters] if fields else ["self"])
    code = Code(f"def __init__({signature}):", cls.__name__)
    code.names.update(names)
    code.add(*[f"self.{f} = {f}" for f in fields] or ["pass"])
    return code.compile(f"<wire {cls.__module__}.{cls.__name__}.init>")


def _only(cls: Any) -> Callable[..., Any]:
    """The reading of a case alone, where any case may stand."""

    def read(data: bytes, pos: int, end: int, ctx: WireContext) -> tuple[Any, int]:
        value, stop = cls._root._read(data, pos, end, ctx)
        if type(value) is not cls:
            raise DecodeError(cls.__name__, pos, f"found {type(value).__name__}")
        return value, stop

    return read


def _truncated(error: Exception) -> DecodeError:
    structure, offset = locate(error)
    return DecodeError(structure, offset, TRUNCATED)


def _wire_of(hint: Any) -> Wire:
    if get_origin(hint) is Annotated:
        base, *words = get_args(hint)
        wire = next(word for word in words if isinstance(word, Wire))
        return wire.of(base, _wire_of)
    return Nested(hint)


def _declared(cls: Any) -> dict[str, tuple[Wire, _Derived | None]]:
    """The fields of `cls` in their order on the wire, those of its `Choice` first."""
    hints = get_type_hints(cls, include_extras=True)
    fields: dict[str, tuple[Wire, _Derived | None]] = {}
    for base in (cls,) if cls._bare else reversed(cls.__mro__):
        for field in vars(base).get("_own_fields", ()):
            derived = vars(base)["_own_defaults"].get(field)
            fields[field] = _wire_of(hints[field]), derived if isinstance(derived, _Derived) else None
    return fields


def _compile(cls: Any) -> None:
    cls._layout = layout = _declared(cls)
    cls._defaults = {
        field: value for base in reversed(cls.__mro__)
        for field, value in vars(base).get("_own_defaults", {}).items() if not isinstance(value, _Derived)
    }
    cls._has_lists = any(isinstance(wire, Sized) for wire, _ in layout.values())
    cls.__match_args__ = tuple(f for f, (_, derived) in layout.items() if derived is None)  # type: ignore[misc]
    cls.__init__ = _make_init(cls)
    cls._read = staticmethod(_make_read(cls))
    cls._enter = cls._read if cls._root is None else staticmethod(_only(cls))
    if cls._cases is None:
        cls._write = _make_write(cls)


# -- Struct and Choice ------------------------------------------------------


class _StructType(type):
    """Turns the annotations of a class body into slots."""

    def __new__(
        mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], *,
        keep: Iterable[str] = (), **kw: Any,
    ) -> Any:
        own = [
            field for field, hint in namespace.get("__annotations__", {}).items()
            if "ClassVar" not in str(hint)
        ]
        defaults = {field: namespace.pop(field) for field in own if field in namespace}
        stored = [field for field in own if not isinstance(defaults.get(field), _Derived)]
        namespace["__slots__"] = (*stored, *(f"_raw_{field}" for field in keep))
        namespace.update(_own_fields=tuple(own), _own_defaults=defaults, _kept=frozenset(keep))
        return super().__new__(mcls, name, bases, namespace, **kw)


@dataclass_transform(
    kw_only_default=True, frozen_default=True, field_specifiers=(length_of, length_of_rest, select),
)
class Struct(metaclass=_StructType):
    """
    A structure of the wire, declared by annotations alone.

    The class keyword ``keep=("field",)`` makes decoding remember the received
    bytes of these fields; `raw` answers them.
    """

    _own_fields: ClassVar[tuple[str, ...]]
    _own_defaults: ClassVar[dict[str, Any]]
    _layout: ClassVar[Mapping[str, tuple[Wire, _Derived | None]]] = {}
    _defaults: ClassVar[Mapping[str, Any]] = {}
    _kept: ClassVar[frozenset[str]]
    _has_lists: ClassVar[bool] = False
    _model: ClassVar[DataModel | None] = None
    _root: ClassVar[Any] = None
    _cases: ClassVar[Any] = None
    _case: ClassVar[int | None] = None
    _bare: ClassVar[bool] = False
    _read: ClassVar[Callable[[bytes, int, int, WireContext], tuple[Any, int]]]
    _enter: ClassVar[Callable[[bytes, int, int, WireContext], tuple[Any, int]]]
    __match_args__: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, *, model: DataModel | None = None, **kw: Any) -> None:
        """:param model: in a ``select (DataModel)``, this structure is the case of that data model."""
        super().__init_subclass__(**kw)
        if model is not None:
            cls._model = model
        _compile(cls)

    def _write(self) -> bytes:
        raise NotImplementedError

    def encode(self) -> bytes:
        """
        The bytes of this structure.

        :raises EncodeError: a value does not fit its field.
        """
        try:
            return self._write()
        except (struct.error, TypeError, AttributeError, LookupError, OverflowError) as e:
            structure, _ = locate(e)
            raise EncodeError(structure if structure != "?" else type(self).__name__, str(e)) from e

    @classmethod
    def decode(cls, data: bytes, ctx: WireContext = DEFAULT_CONTEXT) -> Self:
        """
        Read `data`, all of it, as one of these.

        :raises DecodeError: it is not one, or more than one.
        """
        end = len(data)
        try:
            value, pos = cls._enter(data, 0, end, ctx)
        except (struct.error, IndexError) as e:
            raise _truncated(e) from e
        if pos > end:
            raise DecodeError(cls.__name__, end, TRUNCATED)
        if pos < end:
            raise DecodeError(cls.__name__, pos, f"{end - pos} bytes left over")
        return value  # type: ignore[no-any-return]

    @classmethod
    def decode_prefix(
        cls, data: bytes, ctx: WireContext = DEFAULT_CONTEXT, start: int = 0,
    ) -> tuple[Self, int]:
        """
        Read one of these from `data` at `start`; what was read and the position after it are returned.

        :raises DecodeError: there is none.
        """
        end = len(data)
        try:
            value, pos = cls._enter(data, start, end, ctx)
        except (struct.error, IndexError) as e:
            raise _truncated(e) from e
        if pos > end:
            raise DecodeError(cls.__name__, end, TRUNCATED)
        return value, pos

    def raw(self, field: str) -> bytes:
        """The bytes of a structure that is a field: as received where they were kept, else as encoded."""
        try:
            return getattr(self, f"_raw_{field}")  # type: ignore[no-any-return]
        except AttributeError:
            return getattr(self, field).encode()  # type: ignore[no-any-return]

    def replace(self, **changes: Any) -> Self:
        """A copy in which `changes` are made."""
        values = {field: getattr(self, field) for field in self.__match_args__}
        return type(self)(**values | changes)

    def _values(self) -> tuple[Any, ...]:
        return tuple([getattr(self, field) for field in self.__match_args__])

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def __repr__(self) -> str:
        shown = ", ".join(f"{field}={getattr(self, field)!r}" for field in self.__match_args__)
        return f"{type(self).__name__}({shown})"


class Choice(Struct):
    """
    A structure whose contents are chosen by one of its fields, a ``select``.

    Declare the fields common to all cases, among them one ``= select()`` that
    everything before has a fixed size; then subclass that, with ``case=``, for
    each ``case``: its fields follow the common ones.  Third parties add cases
    in the same way.  ``other=True`` makes the subclass the case of every type
    not declared; it declares the selecting field again, to store it.
    ``bare=True`` makes a case that has its own fields only.
    """

    def __init_subclass__(
        cls, *, case: int | Iterable[int] | None = None, other: bool = False, bare: bool = False, **kw: Any,
    ) -> None:
        if Choice in cls.__bases__:
            cls._open_cases()
            super().__init_subclass__(**kw)
            return
        root = cls.__mro__[1]
        cases = root._cases  # type: ignore[attr-defined]
        cls._root, cls._cases = root, None
        selectors = [case] if isinstance(case, int) else list(case or ())
        if taken := [selector for selector in selectors if selector in cases]:
            raise TypeError(f"case {taken[0]} of {root.__name__} is already taken")
        cls._case = selectors[0] if selectors else None
        if selectors and not bare:
            setattr(cls, root._selector, int(selectors[0]))  # type: ignore[attr-defined]
        cls._bare = bare
        super().__init_subclass__(**kw)
        for selector in selectors:
            cases[selector] = cls._read
        if other:
            cases.other = cls._read

    @classmethod
    def _open_cases(cls: Any) -> None:
        at = 0
        for field, (wire, derived) in _declared(cls).items():
            if isinstance(derived, _Select):
                cls._selector, cls._select_at, cls._select_size = field, at, wire.size
                cls._cases = _Cases(cls.__name__, at)
                return
            if wire.size is None:
                raise TypeError(f"{cls.__name__}: {field} before the select has no fixed size")
            at += wire.size
        raise TypeError(f"{cls.__name__} has no select()")


def fields_of(cls: type[Struct]) -> Mapping[str, Wire]:
    """The fields of a structure that are set, by name, in their order on the wire."""
    return {field: cls._layout[field][0] for field in cls.__match_args__}
