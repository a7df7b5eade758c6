"""What a fetching node believes of a FetchAns (RFC 6940 §7.4.2.2, §13.5.3)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from ..config.kinds import Kind
from ..ids import ResourceId
from ..interfaces import FetchedValue, IAccessPolicy
from ..security.interfaces import IVerifier
from ..security.signing import VerificationError, verify_value
from ..wire.codes import LAST_INDEX, DataModel
from ..wire.security import NoIdentity
from ..wire.storage import (
    ArrayRange,
    ArraySpecifier,
    DictionarySpecifier,
    FetchAns,
    SingleSpecifier,
    StoredData,
    StoredDataSpecifier,
)
from .interfaces import Key
from .models import data_value, key_of

REMEMBERED = 20_000


def specifier(kind: Kind, keys: Sequence[bytes] = (), generation: int = 0) -> StoredDataSpecifier:
    """Asks for all values of `kind`, or of a dictionary for those under `keys`, if any are given."""
    model: SingleSpecifier | ArraySpecifier | DictionarySpecifier = SingleSpecifier()
    if kind.data_model == DataModel.ARRAY:
        model = ArraySpecifier(indices=(ArrayRange(first=0, last=LAST_INDEX),))
    elif kind.data_model == DataModel.DICTIONARY:
        model = DictionarySpecifier(keys=tuple(keys))
    return StoredDataSpecifier(kind=kind.kind_id, generation=generation, model_specifier=model)


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was believable of one Kind in a FetchAns."""

    values: Sequence[FetchedValue]
    """Signed values, also those that say that there is none."""
    generation: int
    dropped: int
    """How many values were not believable: then `values` is but a part (RFC 6940 §7.4.2.2)."""

    @property
    def existing(self) -> list[FetchedValue]:
        """The values that exist."""
        return [value for value in self.values if data_value(value.data.value).exists]


class FetchVerifier:
    """Sorts out what a storing peer may have made up, taken from another place, or kept from earlier.

    The newest storage_time seen of each value is remembered, of the `remembered` values seen last.  `count` is
    told why values were dropped.
    """

    def __init__(
        self,
        verifier: IVerifier,
        policies: Mapping[str, IAccessPolicy],
        resource_id: Callable[[bytes], ResourceId],
        count: Callable[[str], None] = lambda cause: None,
        remembered: int = REMEMBERED,
    ) -> None:
        self._verifier = verifier
        self._policies = policies
        self._resource_id = resource_id
        self._count = count
        self._remembered = remembered
        self._newest: OrderedDict[tuple[ResourceId, int, Key], int] = OrderedDict()

    def read(
        self,
        answer: FetchAns,
        certificates: Sequence[bytes],
        resource: ResourceId,
        kind: Kind,
        keys: Collection[bytes] = (),
    ) -> Fetched:
        """The believable values of `kind` in the answer to a Fetch from `resource`.

        `resource`, `kind` and `keys` (of a dictionary; none for all) are what was asked for: a value that is
        signed for another place is dropped.
        """
        values: list[FetchedValue] = []
        generation = dropped = 0
        seen: set[Key] = set()
        for response in answer.kind_responses:
            if response.kind != kind.kind_id:
                continue
            generation = response.generation
            for data in response.values:
                if isinstance(data.signature.identity, NoIdentity) and not data_value(data.value).exists:
                    continue
                cause, value = self._judge(data, certificates, resource, kind)
                key = key_of(data.value)
                if key in seen or (keys and key not in keys):
                    cause = "unasked"
                seen.add(key)
                if cause or value is None:
                    self._count(f"fetched {cause}")
                    dropped += 1
                else:
                    self._remember((resource, kind.kind_id, key), data.storage_time)
                    values.append(value)
        return Fetched(values, generation, dropped)

    def _judge(
        self, data: StoredData, certificates: Sequence[bytes], resource: ResourceId, kind: Kind
    ) -> tuple[str, FetchedValue | None]:
        """Why `data` must not be believed, or the value."""
        if data.storage_time < self._newest.get((resource, kind.kind_id, key_of(data.value)), 0):
            return "rollback", None
        try:
            signer = verify_value(self._verifier, data, resource, kind.kind_id, certificates)
        except VerificationError as error:
            return error.cause, None
        policy = self._policies.get(kind.access_control)
        # Else the storing peer could answer with what somebody else has signed for this very place.
        if policy is None or not policy.permits(signer, resource, kind, data, self._resource_id):
            return "access", None
        return "", FetchedValue(data, signer)

    def _remember(self, place: tuple[ResourceId, int, Key], storage_time: int) -> None:
        self._newest[place] = storage_time
        self._newest.move_to_end(place)
        while len(self._newest) > self._remembered:
            self._newest.popitem(last=False)
