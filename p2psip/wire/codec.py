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
from typing import Any, ClassVar, Self, dataclass_transform

from .codes import DataModel
from .context import DEFAULT_CONTEXT, WireContext
from .errors import DecodeError, EncodeError, UnknownKindError
from .fields import Sized, Wire
from .layout import (
    Cases,
    Derived,
    Select,
    declared,
    length_of,
    length_of_rest,
    make_init,
    make_read,
    make_write,
    select,
)
from .lowering import locate

__all__ = [
    "DEFAULT_CONTEXT", "Choice", "DecodeError", "EncodeError", "Struct", "UnknownKindError", "WireContext",
    "fields_of", "length_of", "length_of_rest", "select",
]

TRUNCATED = "the data end too early"


def _compile(cls: Any) -> None:
    cls._layout = layout = declared(cls)
    cls._defaults = {
        field: value for base in reversed(cls.__mro__)
        for field, value in vars(base).get("_own_defaults", {}).items() if not isinstance(value, Derived)
    }
    cls._has_lists = any(isinstance(wire, Sized) for wire, _ in layout.values())
    cls.__match_args__ = tuple(f for f, (_, derived) in layout.items() if derived is None)  # type: ignore[misc]
    cls.__init__ = make_init(cls)
    cls._read = staticmethod(make_read(cls))
    cls._enter = cls._read if cls._root is None else staticmethod(_only(cls))
    if cls._cases is None and "_write" not in vars(cls):
        cls._write = make_write(cls)


def _only(cls: Any) -> Callable[..., Any]:
    """The reading of a case alone, where any case may stand."""

    def read(data: bytes, pos: int, end: int, ctx: WireContext) -> tuple[Any, int]:
        value, stop = cls._root._read(data, pos, end, ctx)
        if type(value) is not cls:
            raise DecodeError(cls.__name__, pos, f"found {type(value).__name__}")
        return value, stop

    return read


def _refusal(error: Exception, end: int) -> DecodeError:
    """What to raise for what generated code raised."""
    if isinstance(error, UnknownKindError):
        return UnknownKindError(error.structure, error.offset, error.kinds)
    if isinstance(error, DecodeError) and error.offset <= end:
        return DecodeError(error.structure, error.offset, error.reason)
    structure, offset = locate(error)
    return DecodeError(structure, min(offset, end), TRUNCATED)


UNFIT = (struct.error, TypeError, AttributeError, LookupError, OverflowError)
"""What generated code raises for a value that does not fit its field."""


def unfit(error: Exception, name: str) -> EncodeError:
    """What to raise for one of `UNFIT`; `name` is the structure if the traceback does not tell."""
    structure, _ = locate(error)
    return EncodeError(structure if structure != "?" else name, str(error))


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
        stored = [field for field in own if not isinstance(defaults.get(field), Derived)]
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
    _layout: ClassVar[Mapping[str, tuple[Wire, Derived | None]]] = {}
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
        except UNFIT as e:
            raise unfit(e, type(self).__name__) from e

    @classmethod
    def decode(cls, data: bytes, ctx: WireContext = DEFAULT_CONTEXT) -> Self:
        """
        Read `data`, all of it, as one of these.

        :raises DecodeError: it is not one, or more than one.
        """
        end = len(data)
        try:
            value, pos = cls._enter(data, 0, end, ctx)
        except (struct.error, IndexError, DecodeError) as e:
            raise _refusal(e, end) from e
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
        except (struct.error, IndexError, DecodeError) as e:
            raise _refusal(e, end) from e
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
    each ``case``, the commonest first: its fields follow the common ones.
    Third parties add cases in the same way.  ``other=True`` makes the subclass the case of every type
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
        if taken := [selector for selector in selectors if selector in cases.declared]:
            raise TypeError(f"case {taken[0]} of {root.__name__} is already taken")
        cls._case = selectors[0] if selectors else None
        if selectors and not bare:
            setattr(cls, root._selector, int(selectors[0]))  # type: ignore[attr-defined]
        cls._bare = bare
        super().__init_subclass__(**kw)
        for selector in selectors:
            cases.declare(selector, cls)
        if other:
            cases.declare_other(cls._read)

    @classmethod
    def _open_cases(cls: Any) -> None:
        at = 0
        for field, (wire, derived) in declared(cls).items():
            if isinstance(derived, Select) and wire.size is not None:
                cls._selector, cls._select_at, cls._select_size = field, at, wire.size
                cls._cases = Cases(cls.__name__, at, wire.size)
                return
            if wire.size is None:
                raise TypeError(f"{cls.__name__}: {field} before the select has no fixed size")
            at += wire.size
        raise TypeError(f"{cls.__name__} has no select()")


def fields_of(cls: type[Struct]) -> Mapping[str, Wire]:
    """The fields of a structure that are set, by name, in their order on the wire."""
    return {field: cls._layout[field][0] for field in cls.__match_args__}
