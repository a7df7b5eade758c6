"""Hypothesis strategies for the structures of the wire, derived from their declarations."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

from hypothesis import strategies as st

from p2psip.wire import chord, contents, frame, gateways, header, methods, security, sip, storage, turn
from p2psip.wire.codec import Struct, WireContext, fields_of
from p2psip.wire.codes import DataModel
from p2psip.wire.fields import (
    Bool,
    ByModel,
    Int,
    Int128,
    NodeIdField,
    Opaque,
    Rest,
    Sized,
    Vector,
    When,
    Wire,
)
from p2psip.wire.header import CompressedDestination
from p2psip.wire.layout import Nested

MODELS = {1: DataModel.DICTIONARY, 0xF0000001: DataModel.SINGLE, 0xF0000002: DataModel.ARRAY}
MODULES: tuple[ModuleType, ...] = (header, contents, security, frame, methods, storage, chord, sip, turn, gateways)


def structures() -> list[type[Struct]]:
    """Every structure declared for the wire, cases and the choices they belong to included."""
    found = {
        value for module in MODULES for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Struct) and value.__module__ == module.__name__
    }
    return sorted(found, key=lambda cls: (cls.__module__, cls.__name__))


def context(node_id_length: int = 16) -> WireContext:
    return WireContext(node_id_length, MODELS)


def context_for(cls: type[Struct], node_id_length: int = 16, model: DataModel | None = None) -> WireContext:
    """The context in which one `cls` alone can be decoded; one that depends on a Kind is in a Kind's."""
    whole = context(node_id_length)
    return whole if model is None else whole.of_kind(next(k for k, m in MODELS.items() if m is model))


def instances_of(
    cls: type[Struct], *, node_id_length: int = 16, model: DataModel | None = None,
) -> st.SearchStrategy[Any]:
    """
    Instances of a structure, each of whose encodings is legal.

    :param model: for one that depends on the data model around it, that data model.
    """
    return _Instances(node_id_length, model).of(cls)


class _Instances:
    def __init__(self, node_id_length: int, model: DataModel | None) -> None:
        self._node_id_length = node_id_length
        self._model = model

    def of(self, cls: type[Struct]) -> st.SearchStrategy[Any]:
        if cls._cases is not None:
            return st.one_of([self.of(case) for case in _cases_of(cls)])
        if cls is CompressedDestination:
            return st.builds(cls, identifier=st.integers(0x8000, 0xFFFF))
        return self._composite(cls)

    def _composite(self, cls: type[Struct]) -> st.SearchStrategy[Any]:
        @st.composite
        def build(draw: st.DrawFn) -> Any:
            values: dict[str, Any] = {}
            for field, wire in fields_of(cls).items():
                values[field] = draw(self._value(cls, field, wire, values))
            return cls(**values)

        return build()

    def _value(
        self, cls: type[Struct], field: str, wire: Wire, so_far: dict[str, Any],
    ) -> st.SearchStrategy[Any]:
        if isinstance(wire, When):
            present = so_far[wire.field] in wire.present
            return self._plain(wire.inner) if present else st.none()
        given = getattr(wire, "given", "")
        if given:
            inside = _Instances(self._node_id_length, MODELS[so_far[given]])
            return inside._plain(wire)
        if cls._root is not None and field == cls._root._selector:
            # The case of every type not declared: one that is none of the declared.
            top = 0x7F if cls._root is header.Destination else 256**cls._root._select_size - 1
            return st.integers(1, top).filter(lambda number: number not in cls._root._cases.declared)
        if any(getattr(other, "given", "") == field for other in fields_of(cls).values()):
            return st.sampled_from(sorted(MODELS))
        if cls is methods.IceCandidate and field == "type":
            return st.sampled_from((1, 2, 4))
        return self._plain(wire)

    def _plain(self, wire: Wire) -> st.SearchStrategy[Any]:
        match wire:
            case Int(size=size) if size is not None:
                return st.integers(0, 256**size - 1)
            case Int128():
                return st.integers(0, 2**128 - 1)
            case Bool():
                return st.booleans()
            case NodeIdField():
                return st.binary(min_size=self._node_id_length, max_size=self._node_id_length)
            case Vector() | Sized():
                return st.lists(self._plain(wire.item), max_size=3).map(tuple)
            case Opaque() | Rest():
                return st.binary(max_size=12)
            case ByModel():
                assert self._model is not None, "a structure that depends on a Kind needs model="
                return self.of(wire.structs[self._model])
            case Nested():
                return self.of(wire.cls)
            case _:
                raise NotImplementedError(f"no strategy for {wire}")


def _cases_of(root: type[Struct]) -> Iterator[type[Struct]]:
    modules = {module.__name__ for module in MODULES}
    return (case for case in root.__subclasses__() if case.__module__ in modules)


def depends_on_model(cls: type[Struct]) -> bool:
    """Whether one of `cls` alone can be read only where a Kind is known."""
    return any(isinstance(wire, ByModel) and not wire.given for wire in fields_of(cls).values())
