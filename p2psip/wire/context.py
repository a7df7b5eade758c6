"""What decoding depends on beside the bytes."""

from __future__ import annotations

from collections.abc import Mapping

from .codes import DataModel
from .errors import UnknownKindError
from .fields import NODE_ID_SIZES


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
