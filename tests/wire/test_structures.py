"""Every structure of the wire, whatever is in it: round trips, mutations, truncation, Node-ID lengths."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2psip.wire.codec import DecodeError, Struct
from p2psip.wire.codes import DataModel
from p2psip.wire.fields import NODE_ID_SIZES
from tests.strategies import MODELS, context, context_for, depends_on_model, instances_of, structures

# Found failing examples are shrunk and printed; nothing is kept between runs, so a run depends on no other.
quick = settings(
    max_examples=25, deadline=None, database=None, derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def every_structure() -> list[tuple[type[Struct], DataModel | None]]:
    """All structures, those that depend on a data model once for each."""
    return [
        (cls, model) for cls in structures()
        for model in (tuple(DataModel) if depends_on_model(cls) else (None,))
    ]


def drawn(cls: type[Struct], model: DataModel | None, count: int, length: int = 16) -> list[Any]:
    """Some instances, the same in each run."""
    found: list[Any] = []

    @settings(quick, max_examples=count)
    @given(instances_of(cls, node_id_length=length, model=model))
    def collect(value: Any) -> None:
        found.append(value)

    collect()
    return found


class EveryStructure(SynchronousTestCase):
    def test_round_trip(self) -> None:
        """What is encoded decodes to an equal structure with an equal hash, and to the same bytes again."""
        for cls, model in every_structure():
            ctx = context_for(cls, model=model)
            for value in drawn(cls, model, 25):
                data = value.encode()
                again = cls.decode(data, ctx)
                self.assertEqual(again, value)
                self.assertEqual(hash(again), hash(value))
                self.assertEqual(again.encode(), data)

    def test_node_id_lengths(self) -> None:
        """Node-IDs of 16 to 20 bytes are read by the overlay's length."""
        for length in NODE_ID_SIZES:
            for cls, model in every_structure():
                ctx = context_for(cls, length, model)
                for value in drawn(cls, model, 4, length):
                    self.assertEqual(cls.decode(value.encode(), ctx), value)

    def test_truncated(self) -> None:
        """A structure cut short anywhere is refused, or was complete in fewer bytes."""
        for cls, model in every_structure():
            ctx = context_for(cls, model=model)
            for value in drawn(cls, model, 5):
                data = value.encode()
                for size in range(len(data)):
                    self._decode(cls, data[:size], ctx)
                self.assertEqual(cls.decode_prefix(data + b"x", ctx), (value, len(data)))

    def test_left_over(self) -> None:
        """Bytes after a structure are an error, unless its last field takes whatever there is."""
        for cls, model in every_structure():
            ctx = context_for(cls, model=model)
            for value in drawn(cls, model, 3):
                with self.assertRaises(DecodeError) as caught:
                    cls.decode(value.encode() + b"\x01", ctx)
                self.assertEqual(caught.exception.offset, len(value.encode()))

    def test_mutated(self) -> None:
        """Of changed bytes only DecodeError comes, and what is accepted encodes to just these bytes."""
        random = Random(6940)
        accepted = 0
        for cls, model in every_structure():
            ctx = context_for(cls, model=model)
            for value in drawn(cls, model, 8):
                for _ in range(40):
                    data = mutate(value.encode(), random)
                    accepted += self._decode(cls, data, ctx)
        self.assertGreater(accepted, 1000)

    def test_noise(self) -> None:
        """Bytes that never were a structure bring DecodeError, too."""
        random = Random(7904)
        for cls, model in every_structure():
            ctx = context_for(cls, model=model)
            for size in (0, 1, 2, 3, 7, 40, 200):
                for _ in range(5):
                    self._decode(cls, random.randbytes(size), ctx)
                self._decode(cls, bytes(size), ctx)
                self._decode(cls, b"\xff" * size, ctx)

    def test_replace(self) -> None:
        """`replace` changes what it is told and nothing else."""
        for cls, model in every_structure():
            for value in drawn(cls, model, 2):
                self.assertEqual(value.replace(), value)
                self.assertIsNot(value.replace(), value)

    def _decode(self, cls: type[Struct], data: bytes, ctx: Any) -> bool:
        """Whether `data` were accepted; then they encode to themselves."""
        try:
            value = cls.decode(data, ctx)
        except DecodeError as e:
            self.assertTrue(0 <= e.offset <= len(data), (cls, data, e))
            self.assertIn(f"{e.structure} at offset {e.offset}", str(e))
            self.assertNotEqual(e.structure, "?")
            return False
        self.assertEqual(value.encode(), data, cls)
        return True


def mutate(data: bytes, random: Random) -> bytes:
    """`data` with some bytes changed, removed, repeated or set to what lengths go wrong with."""
    changed = bytearray(data)
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(changed) + 1)
        match random.randrange(4):
            case 0 if at < len(changed):
                changed[at] = random.choice((0, 1, 2, 0x7F, 0x80, 0xFF, random.randrange(256)))
            case 1:
                del changed[at:at + random.randint(1, 4)]
            case 2:
                changed[at:at] = changed[at:at + random.randint(1, 20)]
            case _ if at < len(changed):
                changed[at] = (changed[at] + random.choice((1, -1))) % 256
    return bytes(changed)


class Strategies(SynchronousTestCase):
    def test_all_structures_are_found(self) -> None:
        """The structures come from the declarations themselves: more than 90, of each module."""
        self.assertGreater(len(structures()), 90)

    def test_cases_are_drawn(self) -> None:
        """A choice yields its cases, the unknown one included."""
        from p2psip.wire.header import Destination, UnknownDestination

        value = find(instances_of(Destination), lambda one: isinstance(one, UnknownDestination))
        self.assertNotIn(value.type, (1, 2, 3))

    def test_kinds(self) -> None:
        """Values of a Kind follow its data model."""
        from p2psip.wire.storage import StoreKindData

        @quick
        @given(st.data())
        def check(data: st.DataObject) -> None:
            drawn = data.draw(instances_of(StoreKindData))
            for value in drawn.values:
                self.assertEqual(value.value._model, MODELS[drawn.kind])

        check()
        self.assertIn(1, context().kinds)
