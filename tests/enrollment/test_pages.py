"""The page of users: sessions, forms, what is shown once, and what a browser is told."""

from __future__ import annotations

import re
import ssl
from http.client import HTTPSConnection
from typing import Any
from urllib.parse import urlencode, urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.template import flattenString

from p2psip.enrollment import markup, sessions
from p2psip.enrollment.accounts import NewUser
from p2psip.enrollment.authority import OverlayAuthority
from p2psip.enrollment.pages import CHANGES
from p2psip.enrollment.server import EnrollmentServer
from p2psip.enrollment.sessions import IDLE, LONGEST, MOST_OF_ONE, Sessions
from p2psip.enrollment.settings import PhoneSettings

from .served import ServedTestCase

PASSWORD = "correct horse"


def settings(user: str, device: str, password: str) -> PhoneSettings:
    return PhoneSettings(f"{user}@example.org", ["192.0.2.1"], "example.org", "proxy", user, device, password)


class SessionTests(SynchronousTestCase):
    def test_it_ends(self) -> None:
        """When it was idle for long, and in any case after some hours."""
        every = Sessions()
        idle, busy = every.begin("alice", 0.0, 0.0), every.begin("bob", 0.0, 0.0)
        now = 0.0
        while now < LONGEST:
            now += IDLE
            found = every.find(busy, now)
        self.assertIsNone(every.find(idle, IDLE + 1))
        assert found is not None
        self.assertEqual(found.user, "bob")
        self.assertIsNone(every.find(busy, now + 1))
        self.assertEqual(len(every), 0)

    def test_signed_out(self) -> None:
        every = Sessions()
        token = every.begin("alice", 0.0, 0.0)
        self.assertIsNone(every.find("guess", 0.0))
        every.end(token)
        self.assertIsNone(every.find(token, 0.0))

    def test_not_too_many(self) -> None:
        """The one that was idle longest gives way."""
        self.patch(sessions, "MOST", 2)
        every = Sessions()
        first, second = every.begin("a", 0.0, 0.0), every.begin("b", 0.0, 0.0)
        every.find(first, 1.0)
        third = every.begin("c", 0.0, 2.0)
        self.assertEqual([every.find(t, 3.0) is not None for t in (first, second, third)], [True, False, True])

    def test_not_too_many_of_one(self) -> None:
        """Who signs in again and again ends only sessions of its own."""
        every = Sessions()
        other = every.begin("bob", 0.0, 0.0)
        tokens = [every.begin("alice", 0.0, 1.0) for _ in range(MOST_OF_ONE + 1)]
        self.assertIsNone(every.find(tokens[0], 2.0))
        self.assertEqual(len(every), MOST_OF_ONE + 1)
        self.assertIsNotNone(every.find(other, 2.0))

    def test_forms(self) -> None:
        """A form goes with the cookie that it was sent with."""
        every = Sessions()
        token = every.form_token("cookie")
        self.assertTrue(every.is_form_token("cookie", token))
        for cookie, form in (("other", token), ("cookie", token[:-1]), ("cookie", ""), ("", every.form_token(""))):
            self.assertFalse(every.is_form_token(cookie, form))
        self.assertFalse(Sessions().is_form_token("cookie", token))


class MarkupTests(SynchronousTestCase):
    def test_escaped(self) -> None:
        """Whatever stands in a name is text."""
        evil = "<script>alert(1)</script>\"'"
        for page in (
            markup.sign_in("t", evil, evil),
            markup.devices(evil, "t", [(evil, 0.0)], evil),
            markup.revoke(evil, "t", evil),
            markup.new_device(evil, "t", settings(evil, evil, evil)),
        ):
            html = self.successResultOf(flattenString(None, page)).decode()
            self.assertNotIn("<script", html)
            self.assertNotIn(f'"{evil}', html)


class PageTests(ServedTestCase):
    """Over HTTPS, as a browser would."""

    def serve(self, authority: OverlayAuthority, interface: str = "127.0.0.1") -> tuple[EnrollmentServer, str]:
        self.server_class = lambda *args: EnrollmentServer(*args, None, settings)  # type: ignore[assignment]
        return super().serve(authority, interface)

    def setUp(self) -> None:
        super().setUp()
        for user in ("alice", "bob"):
            self.authority.accounts.add(NewUser(user, password=PASSWORD))
        self.cookies: dict[str, str] = {}

    def ask(
        self, method: str, path: str, form: dict[str, str] | None = None, **headers: str
    ) -> Deferred[tuple[int, str, dict[str, str]]]:
        """Status, body and header fields; cookies are kept."""
        return deferToThread(self._ask, method, path, form, headers)

    def _ask(self, method: str, path: str, form: Any, headers: dict[str, str]) -> tuple[int, str, dict[str, str]]:
        where = urlsplit(self.url)
        connection = HTTPSConnection(where.netloc, context=ssl._create_unverified_context(), timeout=10)
        sent = {"Cookie": "; ".join(f"{n}={v}" for n, v in self.cookies.items() if v)}
        if form is not None:
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, None if form is None else urlencode(form), sent)
        answer = connection.getresponse()
        body = answer.read().decode()
        for name, value in answer.getheaders():
            if name.lower() == "set-cookie":
                self.assertRegex(value, r"; Path=/; Secure; HttpOnly; SameSite=Strict")
                cookie, _, rest = value.partition("=")
                self.cookies[cookie] = rest.partition(";")[0]
        connection.close()
        return answer.status, body, {name.lower(): value for name, value in answer.getheaders()}

    @staticmethod
    def token(html: str) -> str:
        found = re.search(r'name="form" value="([^"]+)"', html) or re.search(r'value="([^"]+)"[^>]*name="form"', html)
        assert found is not None, html
        return found[1]

    async def sign_in(self, user: str = "alice", password: str = PASSWORD) -> int:
        _, html, _ = await self.ask("GET", "/account/sign-in")
        form = {"form": self.token(html), "name": user, "password": password}
        status, self.answer, _ = await self.ask("POST", "/account/sign-in", form)
        return status

    async def test_headers(self) -> None:
        for path in ("/account/sign-in", "/account/", "/account/style.css", "/account/nothing", "/account/new/x"):
            _, _, headers = await self.ask("GET", path)
            self.assertIn("default-src 'none'", headers["content-security-policy"])
            self.assertIn("frame-ancestors 'none'", headers["content-security-policy"])
            self.assertEqual((headers["x-content-type-options"], headers["cache-control"]), ("nosniff", "no-store"))

    async def test_sign_in(self) -> None:
        """A session is new with each sign-in: one that somebody set before is worth nothing."""
        self.cookies["__Host-p2psip"] = "set-by-somebody"
        self.assertEqual(await self.sign_in(), 303)
        first = self.cookies["__Host-p2psip"]
        self.assertNotEqual(first, "set-by-somebody")
        self.assertIn("Signed in as alice", (await self.ask("GET", "/account/"))[1])
        await self.sign_in()
        self.assertNotEqual(self.cookies["__Host-p2psip"], first)
        self.cookies["__Host-p2psip"] = first
        self.assertEqual((await self.ask("GET", "/account/"))[0], 303)

    async def test_refused(self) -> None:
        """The same for a wrong password, no such user, and what is no name; and told when it is too often."""
        said = set()
        for user in ("alice", "nobody", "*)(uid=*", "a\0b", "x" * 10_000, ""):
            self.assertEqual(await self.sign_in(user, "wrong"), 403)
            said.add(re.search(r'role="alert"[^>]*>([^<]+)<', self.answer)[1])  # type: ignore[index]
        self.assertEqual(said, {"There is no user of that name with that password."})
        for _ in range(20):
            status = await self.sign_in("alice", "wrong")
        self.assertEqual(status, 429)
        self.assertIn("Wait ", self.answer)
        self.assertEqual(await self.sign_in(), 429)

    async def test_foreign_forms(self) -> None:
        """Without the page's own token, or from another site, nothing is done."""
        _, html, _ = await self.ask("GET", "/account/sign-in")
        good = {"form": self.token(html), "name": "alice", "password": PASSWORD}
        for form, headers in (
            ({**good, "form": ""}, {}),
            ({**good, "form": "x" * 64}, {}),
            (good, {"Origin": "https://evil.example"}),
            (good, {"Origin": "null"}),
            (good, {"Sec_Fetch_Site": "cross-site"}),
        ):
            status, _, _ = await self.ask("POST", "/account/sign-in", form, **headers)
            self.assertEqual(status, 403, (form, headers))
        self.assertEqual((await self.ask("POST", f"/account/sign-in?{urlencode(good)}", {}))[0], 400)
        await self.sign_in("bob")
        bobs = self.token((await self.ask("GET", "/account/"))[1])
        self.cookies.clear()
        await self.sign_in("alice")
        for token in ("", bobs):
            status, _, _ = await self.ask("POST", "/account/devices", {"form": token, "name": "x"})
            self.assertEqual(status, 400)
            await self.ask("POST", "/account/revoke", {"form": token, "device": "phone"})
        self.assertEqual([name for name, _ in self.authority.accounts.devices("alice")], ["phone"])

    async def test_devices(self) -> None:
        """A password is shown once; a name can be wrong or taken; what is revoked is gone; all is in the audit log."""
        await self.sign_in()
        token = self.token((await self.ask("GET", "/account/"))[1])
        status, _, headers = await self.ask("POST", "/account/devices", {"form": token, "name": "desk"})
        self.assertEqual((status, headers["location"]), (303, "/account/new"))
        await self.ask("HEAD", "/account/new")
        _, html, _ = await self.ask("GET", "/account/new")
        password = re.search(r"Password</th><td><code>([^<]+)<", html)
        assert password is not None
        self.assertEqual((await self.ask("GET", "/account/new"))[0], 303)
        for name in ("desk", "<b>"):
            status, html, _ = await self.ask("POST", "/account/devices", {"form": token, "name": name})
            self.assertEqual(status, 400)
            self.assertNotIn("<b>", html)
        _, html, _ = await self.ask("GET", "/account/revoke?device=desk")
        self.assertIn("Revoke desk?", html)
        await self.ask("POST", "/account/revoke", {"form": token, "device": "desk"})
        self.assertEqual([name for name, _ in self.authority.accounts.devices("alice")], ["phone"])
        events = [line["event"] for line in self.authority.database.audit_log()]
        self.assertEqual([e for e in events if "device" in e][:2], ["device revoked", "device made"])

    async def test_not_for_ever(self) -> None:
        """A user makes so many changes, signed in anew or not; a disabled account's session ends at once."""
        for _ in range(2):
            await self.sign_in()
            token = self.token((await self.ask("GET", "/account/"))[1])
            for _ in range(int(CHANGES) // 2):
                await self.ask("POST", "/account/revoke", {"form": token, "device": "none"})
        for path, form in (("devices", {"name": "x"}), ("revoke", {"device": "phone"})):
            status, html, _ = await self.ask("POST", f"/account/{path}", {"form": token, **form})
            self.assertEqual(status, 400)
            self.assertIn("many changes", html)
        self.assertEqual([name for name, _ in self.authority.accounts.devices("alice")], ["phone"])
        self.authority.accounts.disable("alice")
        self.assertEqual((await self.ask("GET", "/account/"))[0], 303)
        self.assertEqual(await self.sign_in(), 403)

    async def test_sign_out(self) -> None:
        await self.sign_in()
        token = self.token((await self.ask("GET", "/account/"))[1])
        cookie = self.cookies["__Host-p2psip"]
        await self.ask("POST", "/account/sign-out", {"form": token})
        self.cookies["__Host-p2psip"] = cookie
        self.assertEqual((await self.ask("GET", "/account/"))[0], 303)
