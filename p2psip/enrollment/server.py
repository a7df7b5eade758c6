"""The configuration and enrollment server, HTTPS (RFC 6940 §11.2, §11.3), and what it does for registrars."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from math import ceil
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolFactory
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.web.resource import Resource
from twisted.web.server import Request
from twisted.web.util import Redirect

from ..config.document import Configuration
from ..config.write import write_document
from ..security.certificates import PrivateKey
from ..security.identity import CertificateError, Identity
from ..security.trust import Trust
from ..sip.digest import DigestCredentials
from ..sip.errors import SIPParseError
from ..throttle import Allowance, Throttle, source_key
from .accounts import Account
from .authority import OverlayAuthority, Refusal
from .database import DatabaseUnavailable
from .http import AsynchronousLeaf, BoundedSite, Page, field, octets
from .ldap import DirectoryUnavailable, OutcomeUnknown
from .limits import BoundedConnections, Busy, Slots
from .pages import AccountPages
from .settings import PhoneSettings
from .tls import ServerCreator

RUNNING: Final = 4
"""Requests that are worked on at once, each in a thread: a password's check takes 16 MB and 50 ms."""
WAITING: Final = 200
ASKING: Final = 3
"""Sign-ins for which the directory is asked at once, each in a thread of its own pool."""
WAITING_TO_ASK: Final = 30

CERTIFICATE: Final = "application/pkix-cert"
DOCUMENT: Final = "application/p2p-overlay+xml"


class EnrollmentServer:
    """Serves one overlay's configuration document, and certificates of its authority.

    ``GET /.well-known/reload-config``, ``POST /enroll``; for nodes, which show their certificate,
    ``POST /renew``; for registrars ``POST /registrar/credentials``, ``GET /registrar/revocations``,
    ``GET /registrar/number``, ``POST /registrar/gateway`` and ``POST /registrar/server-certificate``.

    :param configuration: answers the overlay's configuration as it is now.
    :param reactor: IReactorTime.
    :param in_thread: runs a blocking function off the reactor's thread.
    :param in_directory_thread: the same for what may wait for the directory; other threads than those.
    :param settings: makes the settings of a phone, for the page of users under ``/account``; None: there is no page.
    """

    log = Logger()

    def __init__(
        self,
        authority: OverlayAuthority,
        trust: Trust,
        configuration: Callable[[], Configuration],
        reactor: Any,
        in_thread: Callable[..., Deferred[Any]],
        in_directory_thread: Callable[..., Deferred[Any]] | None = None,
        settings: Callable[[str, str, str], PhoneSettings] | None = None,
    ) -> None:
        self._authority = authority
        self._trust = trust
        self._configuration = configuration
        self._reactor = reactor
        self._in_thread = in_thread
        self._in_directory_thread = in_directory_thread or in_thread
        self._pages = None if settings is None else AccountPages(authority, self, settings, reactor.seconds)
        self._slots = Slots(RUNNING, WAITING)
        self._directory_slots = Slots(ASKING, WAITING_TO_ASK)
        self._by_source = Throttle(free=20)
        self._by_account = Throttle(free=9, ceiling=60.0)
        # Three at once, then one after more than half an hour: directories that lock an entry after five have
        # forgotten the earlier ones by then, whether they count within half an hour or from the last one.
        self._by_directory_account = Throttle(free=2, base=1860.0, ceiling=1860.0)
        self._by_registrar_and_user = Throttle(free=10, ceiling=60.0)
        self._by_registrar = Allowance(rate=100.0, burst=2000.0)
        self._gateways_by_node = Allowance(rate=1 / 600, burst=10.0)
        self._numbers_by_registrar = Allowance(rate=50.0, burst=1000.0)
        self._wrong_by_registrar = Allowance(rate=1.0, burst=300.0)
        self._renewals_by_node = Allowance(rate=1 / 600, burst=10.0)
        self._certificates_by_registrar = Allowance(rate=1 / 600, burst=10.0)
        self.counters: Counter[str] = Counter()

    def factory(self, chain: Sequence[bytes], private_key: PrivateKey) -> IProtocolFactory:
        """The server as a factory for TCP ports; see `OverlayAuthority.server_credentials`."""
        site = BoundedSite(self._resources(), self._reactor)
        tls = TLSMemoryBIOFactory(ServerCreator(chain, private_key), False, site, self._reactor)
        tls.noisy = False
        return BoundedConnections(tls, self._reactor)

    def page_site(self) -> IProtocolFactory:
        """The users' page alone, as a factory for connections that are secured already."""
        root = Resource()
        self._put_page(root)
        return BoundedSite(root, self._reactor)

    def _put_page(self, root: Resource) -> None:
        if self._pages is not None:
            root.putChild(b"", Redirect(b"/account/"))
            root.putChild(b"account", self._pages.resource())

    def _resources(self) -> Resource:
        root, well_known, registrar = Resource(), Resource(), Resource()
        root.putChild(b".well-known", well_known)
        root.putChild(b"registrar", registrar)
        for place, name, method, answer in (
            (well_known, b"reload-config", "GET", self._document),
            (root, b"enroll", "POST", self._enroll),
            (root, b"renew", "POST", self._renew),
            (registrar, b"credentials", "POST", self._credentials),
            (registrar, b"revocations", "GET", self._revocations),
            (registrar, b"server-certificate", "POST", self._server_certificate),
            (registrar, b"number", "GET", self._number),
            (registrar, b"gateway", "POST", self._gateway),
        ):
            place.putChild(name, AsynchronousLeaf(self._guarded(answer), method))
        self._put_page(root)
        return root

    def _guarded(
        self, answer: Callable[[Request], Coroutine[Any, Any, Page]]
    ) -> Callable[[Request], Coroutine[Any, Any, Page]]:
        async def guarded(request: Request) -> Page:
            try:
                if request.method == b"POST" and b"?" in request.uri:
                    # Whatever is in a URL ends in logs; it is no place for passwords.
                    return Page(400, b"the form belongs into the body")
                return await answer(request)
            except Refusal as refusal:
                self.counters[refusal.token] += 1
                return Page(403, refusal.token.encode())
            except Busy as busy:
                self.counters["throttled"] += 1
                return Page(429, b"too many attempts", retry_after=ceil(busy.seconds))
            except DatabaseUnavailable as e:
                self.counters["database unavailable"] += 1
                self.log.error("{error}", error=str(e))
                return Page(503, b"the accounts database is not available")
            except DirectoryUnavailable as e:
                self.counters["directory unavailable"] += 1
                self.log.debug("nobody can sign in: {error}", error=str(e))
                return Page(503, b"the directory is not available")
            except Exception:  # noqa: BLE001 - a bug must not leave the client without an answer
                self.counters["failed"] += 1
                self.log.failure("the enrollment server failed")
                return Page(500, b"internal error")

        return guarded

    # -- for everybody -------------------------------------------------------------------------------

    async def _document(self, request: Request) -> Page:
        configuration = self._configuration()
        if configuration.confidential:
            self._identity(request)
        return Page(200, write_document(configuration), DOCUMENT)

    async def _enroll(self, request: Request) -> Page:
        source = _source(request)
        username, password = field(request, b"username"), field(request, b"password")
        wanted = field(request, b"nodeids") or "1"
        # The authority refuses zero Node-IDs, after it has looked at the password.
        count = int(wanted) if wanted.isascii() and wanted.isdigit() and len(wanted) < 6 else 0
        certificate = await self._guess(
            source, username, self._authority.enroll, username, password, count, octets(request, b"csr"), source
        )
        return Page(200, certificate, CERTIFICATE)

    async def sign_in(self, source: str, name: str, password: str) -> Account | None:
        """The account `name`, if `password` is its own or the directory's; None: it is not.

        :param source: the address that asks.
        :raises Busy: too many were wrong, or too many ask.
        :raises DirectoryUnavailable: the directory cannot be asked now.
        """

        def signed_in() -> Account:
            account = self._authority.sign_in(name, password)
            if account is None:
                self._authority.database.record("refused", name, source, "sign-in")
                raise Refusal("failed_authentication")
            self._authority.database.record("signed in", account.name, source)
            return account

        try:
            account: Account = await self._guess(source, name, signed_in)
        except Refusal:
            return None
        return account

    async def _guess(self, source: str, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Try a password for `name` by a blocking function, unless too many were wrong."""
        self._require_patience(self._by_source.delay(source_key(source), self._reactor.seconds()))
        if not await self._work(self._authority.asks_directory, name):
            with self._one_guess(source, name, self._by_account):
                return await self._work(function, *arguments)
        # For the directory Alice is alice.
        with self._one_guess(source, name.lower(), self._by_directory_account):
            return await self._directory_slots.run(lambda: self._in_directory_thread(function, *arguments))

    @contextmanager
    def _one_guess(self, source: str, account: str, by_account: Throttle) -> Iterator[None]:
        """Lets a password be tried unless too many were wrong; it counts before its outcome is known."""
        now = self._reactor.seconds()
        source, account = source_key(source), account[:64]
        self._require_patience(self._by_source.delay(source, now), by_account.delay(account, now))
        self._by_source.failed(source, now)
        by_account.failed(account, now)
        try:
            yield
        except OutcomeUnknown:
            raise  # the directory may have counted it
        except Refusal as refusal:
            if refusal.token == "failed_authentication":
                raise
            self._by_source.forgive(source)
            by_account.forgive(account)
            raise
        except BaseException:
            self._by_source.forgive(source)
            by_account.forgive(account)
            raise
        self._by_source.forgive(source)
        by_account.succeeded(account)

    # -- for nodes, which show their certificate -------------------------------------------------------

    async def _renew(self, request: Request) -> Page:
        identity = self._identity(request)
        # Each one is a line of the audit log, which must not be pushed out by them.
        self._spend(self._renewals_by_node, identity)
        certificate = await self._work(self._authority.renew, identity, octets(request, b"csr"), _source(request))
        return Page(200, certificate, CERTIFICATE)

    async def _credentials(self, request: Request) -> Page:
        registrar = self._registrar(request)
        try:
            authorization = DigestCredentials.parse(field(request, b"authorization"))
        except SIPParseError:
            raise Refusal("failed_authentication") from None
        csr, method = octets(request, b"csr"), field(request, b"method")
        with self._one_proof(registrar, authorization.username):
            granted = await self._work(
                self._authority.user_credentials, registrar, csr, method, authorization, _source(request)
            )
        answer = {
            "certificate": base64.b64encode(granted.certificate).decode(),
            "credentials": [{"device": c.device, "algorithm": c.algorithm, "ha1": c.ha1} for c in granted.credentials],
            "as_of": granted.as_of,
            "max_age": granted.max_age,
        }
        return _json(answer)

    @contextmanager
    def _one_proof(self, registrar: Identity, user: str) -> Iterator[None]:
        """Lets a registrar show what a phone answered, unless it showed too much that was wrong.

        It is slowed down for each user by itself, so that one registrar cannot lock a user out of the others,
        and a phone with a wrong password not all users out of its registrar.
        """
        now = self._reactor.seconds()
        key = registrar.node_ids[0].hex()
        pair = f"{key} {user[:64]}"
        self._require_patience(
            self._by_registrar.delay(key, now),
            self._wrong_by_registrar.delay(key, now),
            self._by_registrar_and_user.delay(pair, now),
        )
        self._by_registrar.spend(key, now)
        self._by_registrar_and_user.failed(pair, now)
        try:
            yield
        except Refusal:
            self._wrong_by_registrar.spend(key, now)
            raise
        except BaseException:
            self._by_registrar_and_user.forgive(pair)
            raise
        self._by_registrar_and_user.succeeded(pair)

    async def _revocations(self, request: Request) -> Page:
        registrar = self._registrar(request)
        self._spend(self._by_registrar, registrar)
        cursor, entries = await self._work(self._authority.revocations, registrar, field(request, b"since")[:64])
        revoked = [{"account": e.account, "device": e.device, "time": e.time} for e in entries]
        return _json({"cursor": cursor, "revocations": revoked})

    async def _server_certificate(self, request: Request) -> Page:
        registrar = self._registrar(request)
        self._spend(self._certificates_by_registrar, registrar)
        addresses = field(request, b"addresses").split()
        source = _source(request)
        chain = await self._work(
            self._authority.sip_certificate, registrar, octets(request, b"csr"), addresses, [source], source
        )
        return _json({"chain": [base64.b64encode(certificate).decode() for certificate in chain]})

    async def _number(self, request: Request) -> Page:
        """Whose a number is, or the number of an account; nothing is said of either that does not exist."""
        registrar = self._registrar(request)
        self._spend(self._numbers_by_registrar, registrar)
        number, account = field(request, b"number")[:32], field(request, b"account")[:64]
        if number:
            found = await self._work(self._authority.with_number, registrar, number)
        else:
            found = await self._work(self._authority.number_of, registrar, account)
        account, number = found or ("", "")
        return _json({"account": account, "number": number})

    async def _gateway(self, request: Request) -> Page:
        registrar = self._registrar(request)
        self._spend(self._gateways_by_node, registrar)
        csr = octets(request, b"csr")
        certificate = await self._work(self._authority.gateway_certificate, registrar, csr, _source(request))
        return Page(200, certificate, CERTIFICATE)

    # -- who asks, and how often ---------------------------------------------------------------------

    def _identity(self, request: Request) -> Identity:
        """The holder of the certificate that the client showed, if the overlay believes it."""
        transport: Any = request.transport
        shown = transport.getPeerCertificate()
        if shown is None:
            raise Refusal("failed_authentication")
        try:
            return self._trust.identify(shown.to_cryptography().public_bytes(Encoding.DER))
        except CertificateError as e:
            self.counters[f"certificate {e.cause}"] += 1
            raise Refusal("failed_authentication") from e

    def _registrar(self, request: Request) -> Identity:
        identity = self._identity(request)
        if identity.role != "registrar":
            raise Refusal("failed_authentication")
        return identity

    def _spend(self, allowance: Allowance, node: Identity) -> None:
        key, now = node.node_ids[0].hex(), self._reactor.seconds()
        self._require_patience(allowance.delay(key, now))
        allowance.spend(key, now)

    def _require_patience(self, *seconds: float) -> None:
        longest = max(seconds)
        if longest > 0:
            raise Busy(longest)

    async def work(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Do blocking work in its turn.

        :raises Busy: too many are waiting.
        """
        return await self._work(function, *arguments)

    async def _work(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await self._slots.run(lambda: self._in_thread(function, *arguments))


def _source(request: Request) -> str:
    return str(getattr(request.getClientAddress(), "host", ""))


def _json(answer: object) -> Page:
    return Page(200, json.dumps(answer).encode(), "application/json")
