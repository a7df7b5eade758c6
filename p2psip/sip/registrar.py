"""The registrar: REGISTER becomes bindings here and a registration in the overlay (RFC 3261 §10.3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from .authentication import Authenticator
from .domain import Domain
from .errors import SIPFailure
from .features import union
from .grammar import check_utf8, write_parameters
from .gruu import device_tag, make_gruu
from .headers import NameAddr, write_date
from .interfaces import Contact, IBindingJournal, IRegistrationStore, Source
from .location import Binding, Location, Wish
from .message import Request, Response
from .query import aor_uri

_RETRY_AFTER = 30
_LONGEST_KEPT = 1024
_OURS = ("q", "expires", "pub-gruu", "temp-gruu")
"""Parameters of a Contact that the registrar itself writes, or keeps apart."""
_FLOW_TIMER = 120
"""Seconds without a keep-alive after which a phone's flow may be taken for dead (RFC 5626 §4.4)."""


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long bindings live, in seconds."""

    default: int = 3600
    shortest: int = 60
    """Less is refused with 423, unless it is 0 (RFC 3261 §10.3, step 7)."""
    longest: int = 7200
    """More is shortened to this."""


class Devices(NamedTuple):
    """What the GRUUs of a registrar are made with (RFC 7904 §6); `key` is the node's own secret."""

    node_id: bytes
    key: bytes


class Registrar:
    """Serves REGISTER of one domain.  Without `devices` it gives no GRUUs.

    A change is told to the overlay first and made here when the overlay has it; so what the phone was told holds.
    """

    log = Logger()

    def __init__(
        self,
        domain: Domain,
        authenticator: Authenticator,
        location: Location,
        store: IRegistrationStore,
        journal: IBindingJournal | None = None,
        lifetimes: Lifetimes | None = None,
        devices: Devices | None = None,
    ) -> None:
        self._domain = domain
        self._authenticator = authenticator
        self._location = location
        self._store = store
        self._journal = journal
        self._lifetimes = lifetimes or Lifetimes()
        self._devices = devices
        self._locks: dict[str, DeferredLock] = {}
        self.counters: Counter[str] = Counter()

    def load(self, now: float) -> None:
        """Take over what the journal kept."""
        if self._journal is not None:
            self._location.load(self._journal.load(), now)

    def register(self, request: Request, source: Source, now: float) -> Coroutine[Any, Any, Response]:
        """The response to REGISTER.  Fails with SIPFailure or SIPParseError, which say what to answer."""
        return self._register(request, source, now)

    def query(self, aor: str, now: float) -> Sequence[Contact]:
        """The contacts of `aor` (user@domain, see `Domain.aor`) at this registrar, the preferred first."""
        return [binding.contact(now) for binding in self._location.bindings(aor, now)]

    def bindings(self, aor: str, now: float) -> Sequence[Binding]:
        """The bindings of `aor` at this registrar, the preferred first."""
        return self._location.bindings(aor, now)

    def lasting(self, aor: str, now: float) -> tuple[int, str]:
        """How many seconds phones of `aor` stay registered here at most, and what they can do; 0: none is."""
        return _lasting(self._location.bindings(aor, now), now)

    def device(self, aor: str, tag: bytes, now: float) -> Sequence[Binding]:
        """The bindings of the one device of `aor` that `tag` of a GRUU means; an empty tag means all."""
        bindings = self._location.bindings(aor, now)
        if not tag or self._devices is None:
            return bindings
        key = self._devices.key
        return [b for b in bindings if b.instance and device_tag(key, aor, b.instance) == tag]

    def answer_query(self, request: Request, now: float) -> Response:
        """The response to a REGISTER without Contact of another registrar, which needs no digest.

        Who may ask is up to the caller (the node's role in its certificate, and how often).

        :raises SIPFailure: it is no query, or of another domain.
        """
        if request.method != "REGISTER" or "Contact" in request.headers:
            raise SIPFailure(403)
        return self._listing(request, self._location.bindings(self._domain.aor(request.to.uri), now), now)

    def remove(self, aor: str, now: float, device: str | None = None) -> Deferred[None]:
        """Forget all bindings of `aor`, whose account is gone, or those of one revoked device.

        They are gone from here at once; the overlay hears of it.  Fails as the store does.
        """
        return Deferred.fromCoroutine(self._remove(aor, now, device))

    def expire(self, now: float) -> Deferred[None]:
        """Forget bindings that have ended; the overlay hears of users who have none left.  Never fails."""
        return Deferred.fromCoroutine(self._expire(now))

    async def _remove(self, aor: str, now: float, device: str | None) -> None:
        lock = await self._acquire(aor)
        try:
            bindings = self._location.bindings(aor, now)
            left = [] if device is None else [binding for binding in bindings if binding.device != device]
            if len(left) == len(bindings):
                return
            self._location.commit(aor, left)
            self._save(aor, left)
            self.counters["removed as revoked"] += 1
            await self._tell(aor, left, now)
        finally:
            self._release(aor, lock)

    async def _expire(self, now: float) -> None:
        for aor in self._location.expire(now):
            self.counters["expired"] += 1
            lock = await self._acquire(aor)
            try:
                if not self._location.bindings(aor, now):
                    self._save(aor, [])
                    await self._store.unregister(aor)
            except Exception:  # noqa: BLE001  (nobody waits for it)
                self.log.failure("a registration that ended stays in the overlay until its lifetime ends")
            finally:
                self._release(aor, lock)

    async def _acquire(self, aor: str) -> DeferredLock:
        """Changes of one AOR happen one after the other, since each waits for the overlay."""
        lock = self._locks.get(aor)
        if lock is None:
            lock = self._locks[aor] = DeferredLock()
        await lock.acquire()
        return lock

    def _release(self, aor: str, lock: DeferredLock) -> None:
        lock.release()
        # Whoever waited has gone on meanwhile, and may have been done and released it too.
        if not lock.locked and self._locks.get(aor) is lock:
            del self._locks[aor]

    async def _register(self, request: Request, source: Source, now: float) -> Response:
        if not self._domain.covers(request.uri):
            raise SIPFailure(404)
        proven = await self._authenticator.authenticate(request, source.host, now)
        try:
            aor = self._domain.aor(request.to.uri)
        except SIPFailure as failure:
            # RFC 3261 s10.3: "If the address-of-record is not valid [...] 404"; RFC 4475 s3.3.4 for the scheme.
            raise SIPFailure(400 if failure.status == 416 else 404) from failure
        if aor != f"{proven.user}@{self._domain.name}":
            self.counters["another user's AOR"] += 1
            raise SIPFailure(403)
        if "Contact" not in request.headers:
            self.counters["query"] += 1
            return self._listing(request, self._location.bindings(aor, now), now)
        lock = await self._acquire(aor)
        try:
            bindings = await self._change(aor, request, source, proven.device, now)
        finally:
            self._release(aor, lock)
        return self._listing(request, bindings, now)

    async def _change(
        self, aor: str, request: Request, source: Source, device: str, now: float
    ) -> list[Binding]:
        """Do what the Contacts ask for; the bindings after it."""
        call_id, cseq = _to_keep(request.call_id), request.cseq.number
        if request.wildcard_contact:
            if request.get("Expires") != "0":
                raise SIPFailure(400, "Wildcard Contact Without Expires 0")
            prepared = self._location.prepare_removal(aor, call_id, cseq, now)
        else:
            wishes = [self._wish(contact, request.expires) for contact in request.contacts]
            where = f"{source.transport} {source.host} {source.port}"
            prepared = self._location.prepare(aor, wishes, call_id, cseq, now, where, device)
        known = bool(self._location.bindings(aor, now))
        try:
            if prepared or known:
                await self._tell(aor, prepared, now)
        except SIPFailure:
            self.counters["overlay refused"] += 1
            raise
        except Exception as error:
            self.counters["overlay failed"] += 1
            self.log.error("the overlay did not take a registration: {error!r}", error=error)
            raise SIPFailure(500, headers=(("Retry-After", str(_RETRY_AFTER)),)) from error
        if prepared or known:
            self._save(aor, prepared)
        self._location.commit(aor, prepared)
        self.counters["registered" if prepared else "removed"] += 1
        return self._location.bindings(aor, now)

    async def _tell(self, aor: str, bindings: list[Binding], now: float) -> None:
        """Tell the overlay that `bindings` are those of `aor`."""
        if bindings:
            await self._store.register(aor, *_lasting(bindings, now))
        else:
            await self._store.unregister(aor)

    def _wish(self, contact: NameAddr, expires_header: int | None) -> Wish:
        expires = contact.expires
        if expires is None:
            expires = self._lifetimes.default if expires_header is None else expires_header
        if 0 < expires < self._lifetimes.shortest:
            self.counters["interval too brief"] += 1
            raise SIPFailure(423, headers=(("Min-Expires", str(self._lifetimes.shortest)),))
        parameters = {name: value for name, value in contact.parameters.items() if name not in _OURS}
        _to_keep(contact.uri_text + write_parameters(parameters))
        return Wish(contact.uri_text, contact.uri, parameters, contact.q, min(expires, self._lifetimes.longest))

    def _listing(self, request: Request, bindings: list[Binding], now: float) -> Response:
        response = request.response(200)
        if bindings:
            tags = _supported(request)
            gruu = "gruu" in tags and request.to.uri.scheme != "tel"
            aor = self._domain.aor(request.to.uri)
            response.headers["Contact"] = [
                binding.header(now, self._gruu(aor, binding) if gruu else "") for binding in bindings
            ]
            if "outbound" in tags and len(request.vias) == 1 and _has_flow(request):
                # RFC 5626 s6: it is the phone's first hop, and will use the flow.
                response.set("Require", "outbound")
                response.set("Flow-Timer", str(_FLOW_TIMER))
        response.set("Date", write_date(now))
        return response

    def _gruu(self, aor: str, binding: Binding) -> str:
        if self._devices is None or not binding.instance:
            return ""
        tag = device_tag(self._devices.key, aor, binding.instance)
        return make_gruu(aor_uri(aor), self._devices.node_id, tag)

    def _save(self, aor: str, bindings: list[Binding]) -> None:
        if self._journal is not None:
            self._journal.save(aor, [binding.row(aor) for binding in bindings])


def _lasting(bindings: Sequence[Binding], now: float) -> tuple[int, str]:
    remaining = max((binding.remaining(now) for binding in bindings), default=0)
    return remaining, union(binding.features for binding in bindings)


def _supported(request: Request) -> frozenset[str]:
    """The option tags that the phone supports."""
    if "Supported" not in request.headers:
        return frozenset()
    return frozenset(tag.lower() for tag in request.values("Supported"))


def _has_flow(request: Request) -> bool:
    """Whether a Contact is to be reached over the flow of its request (RFC 5626 §4.2)."""
    if "Contact" not in request.headers or request.wildcard_contact:
        return False
    return any("reg-id" in contact.parameters and "+sip.instance" in contact.parameters for contact in request.contacts)


def _to_keep(text: str) -> str:
    """`text` of a stranger, which can be kept: it is UTF-8 and not too long."""
    if len(text) > _LONGEST_KEPT:
        raise SIPFailure(400, "Contact Or Call-ID Too Long")
    return check_utf8(text)
