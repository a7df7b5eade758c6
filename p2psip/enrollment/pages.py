"""The web page on which users see, add and revoke their phones: what each request does."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Coroutine
from importlib import resources
from math import ceil
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import Request
from twisted.web.template import Tag, flattenString

from ..throttle import Allowance
from . import markup
from .accounts import Account, is_name
from .authority import OverlayAuthority
from .database import AccountError, DatabaseUnavailable
from .http import AsynchronousLeaf, Page, field
from .ldap import DirectoryUnavailable
from .limits import Busy
from .sessions import Session, Sessions
from .settings import PhoneSettings

SESSION: Final = "__Host-p2psip"
FORM: Final = "__Host-p2psip-form"
"""A random value that the sign-in form has to bring the counterpart of."""
HEADERS: Final = (
    (
        "content-security-policy",
        "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; frame-ancestors 'none'; "
        "base-uri 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    # With no-referrer a browser does not say either which site a form comes from.
    ("referrer-policy", "same-origin"),
)
CHANGES: Final = 60.0
"""Phones that a user may add or revoke at once; then one a minute."""
_TOO_OFTEN: Final = "These were many changes. Wait a minute for the next one."
_WRONG: Final = "There is no user of that name with that password."
_HTML: Final = "text/html; charset=utf-8"

Answer = Callable[[Request], Coroutine[Any, Any, Page]]


class SignIns(Protocol):
    """What the page needs of the enrollment server."""

    async def sign_in(self, source: str, name: str, password: str) -> Account | None: ...

    async def work(self, function: Callable[..., Any], *arguments: Any) -> Any: ...


class _Rooms(Resource):
    """What lies under ``/account``; all else is answered by `nothing`, with the same header fields."""

    def __init__(self, nothing: Answer) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._nothing = nothing

    def getChild(self, path: bytes, request: Request) -> Resource:
        """See `IResource`."""
        leaf = AsynchronousLeaf(self._nothing, "GET", "POST")
        leaf.isLeaf = True
        return leaf


class AccountPages:
    """Everything under ``/account``.

    :param settings: makes the settings of a phone, of user name, device and password.
    :param now: the time in seconds.
    """

    log = Logger()

    def __init__(
        self,
        authority: OverlayAuthority,
        server: SignIns,
        settings: Callable[[str, str, str], PhoneSettings],
        now: Callable[[], float],
    ) -> None:
        self._authority = authority
        self._server = server
        self._settings = settings
        self._now = now
        self.sessions = Sessions()
        self._changes = Allowance(rate=1 / 60, burst=CHANGES)

    def resource(self) -> Resource:
        """The resource for ``/account``."""
        root = _Rooms(self._safe(self._nothing))
        for name, answer, *methods in (
            (b"", self._devices, "GET"),
            (b"sign-in", self._sign_in, "GET", "POST"),
            (b"sign-out", self._sign_out, "POST"),
            (b"devices", self._add, "POST"),
            (b"new", self._new, "GET"),
            (b"revoke", self._revoke, "GET", "POST"),
            (b"style.css", _style, "GET"),
        ):
            leaf = AsynchronousLeaf(self._safe(answer), *methods)
            leaf.isLeaf = True
            root.putChild(name, leaf)
        return root

    def _safe(self, answer: Answer) -> Answer:
        async def answered(request: Request) -> Page:
            try:
                if request.postpath:
                    return await self._nothing(request)
                if request.method == b"POST" and not _of_this_site(request):
                    return await _html(403, markup.problem("Not from here", "The form was not sent by this page."))
                if request.method == b"POST" and b"?" in request.uri:
                    # Whatever is in a URL ends in logs and histories; it is no place for passwords.
                    return await _html(400, markup.problem("Not in the URL", "A form belongs into the body."))
                return await answer(request)
            except Busy as busy:
                text = f"There is too much to do now. Try again in {ceil(busy.seconds)} seconds."
                return await _html(429, markup.problem("Please wait", text), retry_after=ceil(busy.seconds))
            except DatabaseUnavailable as error:
                self.log.error("{error}", error=str(error))
                return await _html(503, markup.problem("Not now", "The accounts cannot be reached. Try again later."))
            except Exception:  # noqa: BLE001 - a bug must not leave the browser without an answer
                self.log.failure("the web page failed")
                return await _html(500, markup.problem("That did not work", "The node's log says more."))

        return answered

    async def _nothing(self, request: Request) -> Page:
        return await _html(404, markup.problem("Nothing here", "There is no such page."))

    # -- signing in and out ------------------------------------------------------------------------------

    async def _sign_in(self, request: Request) -> Page:
        if request.method == b"POST":
            return await self._signed_in(request)
        return await self._sign_in_form(200)

    async def _sign_in_form(self, code: int, error: str = "", name: str = "", retry_after: int = 0) -> Page:
        cookie = secrets.token_urlsafe(32)
        form = markup.sign_in(self.sessions.form_token(cookie), error, name)
        return await _html(code, form, _cookie(FORM, cookie), retry_after)

    async def _signed_in(self, request: Request) -> Page:
        name, password = field(request, b"name"), field(request, b"password")
        if not self.sessions.is_form_token(_cookie_of(request, FORM), field(request, b"form")):
            return await self._sign_in_form(403, "The form was too old, or your browser keeps no cookies. Try again.")
        shown = name if is_name(name) else ""
        try:
            account = await self._server.sign_in(_source(request), name[:255], password[:1024])
        except Busy as busy:
            seconds = ceil(busy.seconds)
            text = f"Too many passwords were wrong. Wait {seconds} second{'' if seconds == 1 else 's'}, then try again."
            return await self._sign_in_form(429, text, shown, seconds)
        except DirectoryUnavailable:
            return await self._sign_in_form(503, "The directory does not answer now. Try again later.", shown)
        if account is None:
            return await self._sign_in_form(403, _WRONG, shown)
        self.sessions.end(_cookie_of(request, SESSION))
        token = self.sessions.begin(account.name, account.created, self._now())
        return _redirect("/account/", _cookie(SESSION, token), _cookie(FORM, "", 0))

    async def _sign_out(self, request: Request) -> Page:
        session = await self._session(request)
        if session is not None and _has_token(request, session):
            self.sessions.end(_cookie_of(request, SESSION))
        return _redirect("/account/sign-in", _cookie(SESSION, "", 0))

    async def _session(self, request: Request) -> Session | None:
        """Who asks, if the account is still good."""
        token = _cookie_of(request, SESSION)
        session = self.sessions.find(token, self._now()) if token else None
        if session is None:
            return None
        account = await self._server.work(self._authority.accounts.account, session.user)
        if account is None or account.disabled or account.created != session.created:
            self.sessions.end(token)
            return None
        return session

    # -- devices -------------------------------------------------------------------------------------------

    async def _devices(self, request: Request) -> Page:
        session = await self._session(request)
        if session is None:
            return _redirect("/account/sign-in")
        return await self._list(session)

    async def _list(self, session: Session, error: str = "") -> Page:
        found = await self._server.work(self._authority.accounts.devices, session.user)
        shown = markup.devices(session.user, session.form_token, found, error)
        return await _html(400 if error else 200, shown)

    async def _add(self, request: Request) -> Page:
        session = await self._session(request)
        if session is None:
            return _redirect("/account/sign-in")
        if not _has_token(request, session):
            return await self._list(session, "The form was too old. Try again.")
        if self._too_often(session):
            return await self._list(session, _TOO_OFTEN)
        try:
            name, password = await self._server.work(
                self._authority.accounts.add_device, session.user, field(request, b"name").strip() or None
            )
        except AccountError as error:
            return await self._list(session, f"{error}.")
        self._record(request, session, "device made", name)
        session.shown = self._settings(session.user, name, password)
        return _redirect("/account/new")

    async def _new(self, request: Request) -> Page:
        session = await self._session(request)
        if session is None or session.shown is None:
            return _redirect("/account/")
        settings = session.shown
        if request.method == b"GET":  # HEAD shows nothing
            session.shown = None
        return await _html(200, markup.new_device(session.user, session.form_token, settings))

    async def _revoke(self, request: Request) -> Page:
        session = await self._session(request)
        device = field(request, b"device")
        if session is None:
            return _redirect("/account/sign-in")
        if not is_name(device):
            return _redirect("/account/")
        if request.method == b"GET":
            return await _html(200, markup.revoke(session.user, session.form_token, device))
        if not _has_token(request, session):
            return await self._list(session, "The form was too old. Try again.")
        if self._too_often(session):
            return await self._list(session, _TOO_OFTEN)
        try:
            await self._server.work(self._authority.accounts.revoke_device, session.user, device)
        except AccountError as error:
            return await self._list(session, f"{error}.")
        self._record(request, session, "device revoked", device)
        return _redirect("/account/")

    def _too_often(self, session: Session) -> bool:
        """Whether a user has changed too much: each change is a line of the audit log, and work for every registrar."""
        now = self._now()
        if self._changes.delay(session.user, now) > 0:
            return True
        self._changes.spend(session.user, now)
        return False

    def _record(self, request: Request, session: Session, event: str, device: str) -> None:
        recorded = self._server.work(
            self._authority.database.record, event, session.user, _source(request), device
        )
        Deferred.fromCoroutine(recorded).addErrback(lambda failure: self.log.failure("no audit line", failure))


async def _style(request: Request) -> Page:
    text = resources.files(__package__).joinpath("style.css").read_bytes()
    return Page(200, text, "text/css; charset=utf-8", headers=HEADERS)


async def _html(code: int, content: Tag, cookie: str = "", retry_after: int = 0) -> Page:
    body = b"<!DOCTYPE html>\n" + await flattenString(None, content)
    headers = (*HEADERS, ("set-cookie", cookie)) if cookie else HEADERS
    return Page(code, body, _HTML, retry_after, headers)


def _redirect(where: str, *cookies: str) -> Page:
    return Page(303, b"", _HTML, headers=(*HEADERS, ("location", where), *(("set-cookie", each) for each in cookies)))


def _cookie(name: str, value: str, seconds: int | None = None) -> str:
    age = "" if seconds is None else f"; Max-Age={seconds}"
    return f"{name}={value}; Path=/; Secure; HttpOnly; SameSite=Strict{age}"


def _cookie_of(request: Request, name: str) -> str:
    value = request.getCookie(name.encode())
    return "" if value is None else value.decode("ascii", "replace")[:128]


def _has_token(request: Request, session: Session) -> bool:
    return secrets.compare_digest(field(request, b"form").encode(), session.form_token.encode())


def _of_this_site(request: Request) -> bool:
    """Whether a browser that says where a form comes from says: from here."""
    if (request.getHeader("sec-fetch-site") or "same-origin") not in ("same-origin", "none"):
        return False
    origin = request.getHeader("origin")
    return origin is None or urlsplit(origin).netloc == (request.getHeader("host") or "")


def _source(request: Request) -> str:
    return str(getattr(request.getClientAddress(), "host", ""))

