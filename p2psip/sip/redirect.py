"""The redirect server: tells callers where the callee is, and takes no part in the call (RFC 3261 §8.3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from .authentication import Authenticator
from .domain import Domain
from .errors import NotRegistered, SIPFailure, SIPParseError
from .interfaces import Contact, IRegistrationStore, Source
from .message import Request, Response
from .registrar import Registrar
from .uri import SIPURI, parse_uri

_MOST_CONTACTS = 50


class Redirect:
    """Answers requests for users of one domain with 302 and their contacts, here and at other registrars.

    Callers are challenged before they learn anything, unless `open_`.
    """

    def __init__(
        self,
        domain: Domain,
        authenticator: Authenticator,
        registrar: Registrar,
        store: IRegistrationStore,
        open_: bool = False,
    ) -> None:
        self._domain = domain
        self._authenticator = authenticator
        self._registrar = registrar
        self._store = store
        self._open = open_
        self.counters: Counter[str] = Counter()

    async def answer(self, request: Request, source: Source, now: float) -> Response:
        """The response to any request for a user but CANCEL, ACK and REGISTER.

        Fails with SIPFailure or SIPParseError, which say what to answer.
        """
        if not isinstance(request.uri, SIPURI):
            raise SIPFailure(416)
        if not self._open:
            await self._authenticator.authenticate(request, source.host, now)
        aor = self._domain.aor(request.uri)
        contacts = _distinct([*self._registrar.query(aor, now), *await self._elsewhere(aor, now)])
        if request.uri.scheme == "sips":
            # RFC 5630 s5.3: to other than sips contacts a sips request must not go.
            contacts = [contact for contact in contacts if contact.uri[:5].lower() == "sips:"]
        if not contacts:
            self.counters["not registered"] += 1
            raise NotRegistered()
        self.counters["redirected"] += 1
        response = request.response(302)
        response.headers["Contact"] = [_header(contact) for contact in contacts[:_MOST_CONTACTS]]
        return response

    async def _elsewhere(self, aor: str, now: float) -> Iterable[Contact]:
        """The contacts at other registrars; what cannot be found there matters only if there is none here."""
        try:
            return (await self._store.resolve(aor)).contacts
        except SIPFailure as failure:
            if self._registrar.query(aor, now):
                return ()
            self.counters["unknown user" if failure.status == 404 else "not resolved"] += 1
            raise


def _distinct(contacts: Iterable[Contact]) -> list[Contact]:
    """`contacts` without repetitions and without what is no URI, the preferred first."""
    found: dict[str, Contact] = {}
    for contact in contacts:
        try:
            parse_uri(contact.uri)
        except SIPParseError:
            continue
        found.setdefault(contact.uri, contact)
    return sorted(found.values(), key=lambda contact: -1.0 if contact.q is None else -contact.q)


def _header(contact: Contact) -> str:
    q = "" if contact.q is None else f";q={contact.q:g}"
    return f"<{contact.uri}>{q};expires={contact.expires}"
