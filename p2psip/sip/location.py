"""The bindings of one registrar: which contacts each AOR has (RFC 3261 §10.3)."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from math import ceil
from typing import NamedTuple

from .errors import SIPFailure, SIPParseError, Unavailable
from .features import predicate
from .grammar import Parameters, parse_parameters, write_parameters
from .interfaces import BindingRow, Contact
from .uri import URI, parse_uri


class Wish(NamedTuple):
    """What a REGISTER asks for one contact; 0 seconds remove it."""

    uri_text: str
    uri: URI
    parameters: Parameters
    """Those of the Contact other than q and expires."""
    q: float | None
    expires: int


class Binding:
    """One contact of an AOR."""

    __slots__ = ("_uri", "call_id", "cseq", "device", "expires_at", "parameters", "q", "source", "uri_text")

    def __init__(
        self,
        uri_text: str,
        parameters: str,
        q: float | None,
        expires_at: float,
        call_id: str,
        cseq: int,
        source: str,
        device: str,
        uri: URI | None = None,
    ) -> None:
        self.uri_text = uri_text
        self.parameters = parameters
        self.q = q
        self.expires_at = expires_at
        self.call_id = call_id
        self.cseq = cseq
        self.source = source
        self.device = device
        self._uri = uri

    @property
    def uri(self) -> URI:
        if self._uri is None:
            self._uri = parse_uri(self.uri_text)
        return self._uri

    @property
    def instance(self) -> str:
        """The device, as it names itself (``+sip.instance``, RFC 5626 §4.1); empty when it does not."""
        return parse_parameters(self.parameters).get("+sip.instance") or ""

    @property
    def features(self) -> str:
        """What the device can do; see `features.predicate`."""
        return predicate(parse_parameters(self.parameters), self.uri.scheme)

    def remaining(self, now: float) -> int:
        """Whole seconds left, at least 1 for a binding that lives."""
        return max(0, ceil(self.expires_at - now))

    def contact(self, now: float) -> Contact:
        return Contact(self.uri_text, self.q, self.remaining(now))

    def header(self, now: float, gruu: str = "") -> str:
        """The Contact value of a response to REGISTER, with the public GRUU of the device where it has one."""
        q = "" if self.q is None else f";q={self.q:g}"
        public = f';pub-gruu="{gruu}"' if gruu else ""
        return f"<{self.uri_text}>{self.parameters}{public}{q};expires={self.remaining(now)}"

    def row(self, aor: str) -> BindingRow:
        return BindingRow(
            aor,
            self.uri_text,
            self.parameters,
            self.q,
            self.expires_at,
            self.call_id,
            self.cseq,
            self.source,
            self.device,
        )


class Location:
    """Contacts by AOR, bounded, each with its expiry.

    A change is made in two steps, because the overlay has to hear of it in between: `prepare` says what the
    bindings would be, `commit` makes it so.
    """

    def __init__(self, most_contacts: int = 10, most_aors: int = 100000) -> None:
        self._most_contacts = most_contacts
        self._most_aors = most_aors
        self._bindings: dict[str, list[Binding]] = {}
        self._expiries: list[tuple[float, str]] = []

    def __len__(self) -> int:
        """How many AORs have bindings, the expired ones counted until `expire` finds them."""
        return len(self._bindings)

    def aors(self) -> Sequence[str]:
        """All AORs, in the order of their registration."""
        return list(self._bindings)

    def bindings(self, aor: str, now: float) -> list[Binding]:
        """The living bindings of `aor`, the preferred first."""
        found = [binding for binding in self._bindings.get(aor, ()) if binding.expires_at > now]
        if len(found) > 1:
            found.sort(key=lambda binding: 1.0 if binding.q is None else binding.q, reverse=True)
        return found

    def prepare(
        self,
        aor: str,
        wishes: Iterable[Wish],
        call_id: str,
        cseq: int,
        now: float,
        source: str = "",
        device: str = "",
    ) -> list[Binding]:
        """What the bindings of `aor` would be (RFC 3261 §10.3, step 7).

        Where they would be too many, those that end first give way.

        :raises SIPFailure: the request is older than one that was served; nothing may be changed then.
        """
        bindings = [binding for binding in self._bindings.get(aor, ()) if binding.expires_at > now]
        if not bindings and len(self._bindings) >= self._most_aors and aor not in self._bindings:
            raise Unavailable("Too Many Registrations")
        new: list[Binding] = []
        for wish in wishes:
            old = _find(bindings, wish)
            if old is not None:
                _check_order(old, call_id, cseq)
                bindings.remove(old)
            new = [binding for binding in new if not binding.uri.equivalent(wish.uri)]
            if wish.expires:
                parameters = write_parameters(wish.parameters)
                new.append(
                    Binding(
                        wish.uri_text,
                        parameters,
                        wish.q,
                        now + wish.expires,
                        call_id,
                        cseq,
                        source,
                        device,
                        wish.uri,
                    )
                )
        if len(new) > self._most_contacts:
            raise SIPFailure(403, "Too Many Contacts")
        room = self._most_contacts - len(new)
        if len(bindings) > room:
            bindings.sort(key=lambda binding: binding.expires_at)
            del bindings[: len(bindings) - room]
        return bindings + new

    def prepare_removal(self, aor: str, call_id: str, cseq: int, now: float) -> list[Binding]:
        """What would be left if all were removed, which "*" asks for: nothing (RFC 3261 §10.3, step 6).

        :raises SIPFailure: as `prepare`.
        """
        for binding in self.bindings(aor, now):
            _check_order(binding, call_id, cseq)
        return []

    def commit(self, aor: str, bindings: list[Binding]) -> None:
        """`bindings` are from now on those of `aor`."""
        if not bindings:
            self._bindings.pop(aor, None)
            return
        self._bindings[aor] = bindings
        heapq.heappush(self._expiries, (_last(bindings), aor))
        if len(self._expiries) > 2 * len(self._bindings) + 1024:
            self._expiries = [(_last(bindings), aor) for aor, bindings in self._bindings.items()]
            heapq.heapify(self._expiries)

    def expire(self, now: float) -> list[str]:
        """Forget the AORs whose last binding has ended, and say which."""
        gone = []
        while self._expiries and self._expiries[0][0] <= now:
            _, aor = heapq.heappop(self._expiries)
            bindings = self._bindings.get(aor)
            if bindings is not None and _last(bindings) <= now:
                del self._bindings[aor]
                gone.append(aor)
        return gone

    def load(self, rows: Iterable[BindingRow], now: float) -> None:
        """Take over what a journal kept, but for what has ended meanwhile or cannot be read."""
        found: dict[str, list[Binding]] = {}
        for row in rows:
            try:
                parse_parameters(row.parameters)
                binding = Binding(*row[1:], parse_uri(row.uri))
            except SIPParseError:
                continue
            if binding.expires_at > now:
                found.setdefault(row.aor, []).append(binding)
        for aor, bindings in found.items():
            self.commit(aor, bindings)


def _last(bindings: list[Binding]) -> float:
    return max(binding.expires_at for binding in bindings)


def _find(bindings: list[Binding], wish: Wish) -> Binding | None:
    """The binding that `wish` is about: of an equivalent URI, or of the same flow of the same phone (RFC 5626 §6)."""
    for binding in bindings:
        if binding.uri_text == wish.uri_text or binding.uri.equivalent(wish.uri):
            return binding
    instance, reg_id = wish.parameters.get("+sip.instance"), wish.parameters.get("reg-id")
    if instance is not None and reg_id is not None:
        for binding in bindings:
            parameters = parse_parameters(binding.parameters)
            if parameters.get("+sip.instance") == instance and parameters.get("reg-id") == reg_id:
                return binding
    return None


def _check_order(binding: Binding, call_id: str, cseq: int) -> None:
    """RFC 3261 §10.3, step 7: of one Call-ID, only a higher CSeq counts."""
    if binding.call_id == call_id and cseq <= binding.cseq:
        raise SIPFailure(500, "Request Out Of Order")
