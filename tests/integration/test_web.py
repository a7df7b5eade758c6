"""The page of users, in a real browser (Chromium, headless), against a real node."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright
from twisted.trial.unittest import SynchronousTestCase

from .nodes import World, run

ARGUMENTS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-quic", "--no-first-run",
)  # fmt: skip
SCREENS = {"small": (360, 640), "large": (1280, 800)}
PASSWORD = "correct horse <battery>"


class WebTestCase(SynchronousTestCase):
    """One node with one account; screenshots are kept in the directory of the test run, under ``screenshots``."""

    def setUp(self) -> None:
        self.world = World()
        self.addCleanup(self.world.close)
        self.node = self.world.founder()
        for user in ("alice", "bob"):
            self.node.p2psip("user", "add", user, "--password-stdin", stdin=PASSWORD + "\n")
        self.url = f"https://{self.node.address}:8443/"
        self.pictures = Path("screenshots").absolute()
        self.pictures.mkdir(exist_ok=True)
        playwright = sync_playwright().start()
        self.addCleanup(playwright.stop)
        self.browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=list(ARGUMENTS))
        self.addCleanup(self.browser.close)

    def page(self, size: tuple[int, int] = SCREENS["large"], **options: Any) -> Page:
        """A page of a new browser profile; what it complains of is kept in `complaints`.

        The certificate is the overlay's, which Chromium cannot be told to trust without a profile of its own: that it
        names the node's address is what the tests of the enrollment server see.
        """
        context = self.browser.new_context(
            ignore_https_errors=True, viewport={"width": size[0], "height": size[1]}, **options
        )
        self.complaints: list[str] = []
        page = context.new_page()
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        return page

    def picture(self, page: Page, name: str) -> None:
        page.screenshot(path=str(self.pictures / f"{name}.png"), full_page=True)

    def sign_in(self, page: Page, password: str = PASSWORD, user: str = "alice") -> None:
        """By keyboard alone."""
        page.goto(self.url)
        self.tab_to(page, "name")
        page.keyboard.type(user)
        page.keyboard.press("Tab")
        page.keyboard.type(password)
        self.enter(page)

    def enter(self, page: Page) -> None:
        """Press Enter, and wait for the page that comes of it."""
        with page.expect_navigation():
            page.keyboard.press("Enter")

    def tab_to(self, page: Page, name: str) -> None:
        """Press the tab key until a field, a link or a button of this id or text has the focus."""
        for _ in range(30):
            page.keyboard.press("Tab")
            focused = page.evaluate("document.activeElement.id || document.activeElement.innerText")
            if focused == name:
                return
        self.fail(f"{name} cannot be reached by keyboard")


class FlowTests(WebTestCase):
    def test_whole_flow(self) -> None:
        """Sign in, add a phone, see its password once, register with it, revoke it, sign out: on both screens."""
        for number, (screen, size) in enumerate(SCREENS.items()):
            page = self.page(size, color_scheme="dark" if number else "light")
            page.goto(self.url)
            self.picture(page, f"{screen}-sign-in")
            user = ("alice", "bob")[number]
            self.sign_in(page, user=user)
            self.assertEqual("Your phones", page.inner_text("h1"))
            self.tab_to(page, "name")
            page.keyboard.type(f"desk{number}")
            self.enter(page)
            self.assertEqual(f"Settings of desk{number}", page.inner_text("h1"))
            self.picture(page, f"{screen}-new-phone")
            self.assertLessEqual(page.evaluate("document.documentElement.scrollWidth"), size[0])
            password = page.inner_text("tr:has-text('Password') code")
            phones = self.world.sipp()
            self.assertEqual(0, phones.register(self.node.address, [(user, password)], 17501))
            page.reload()
            self.assertNotIn(password, page.content())
            self.picture(page, f"{screen}-phones")
            self.tab_to(page, f"Revoke desk{number}")
            self.enter(page)
            self.picture(page, f"{screen}-revoke")
            self.tab_to(page, "Revoke it")
            self.enter(page)
            self.assertNotIn(f"desk{number}", page.content())
            self.tab_to(page, "Sign out")
            self.enter(page)
            self.assertEqual("Sign in", page.inner_text("h1"))
            page.goto(self.url + "account/")
            self.assertEqual("Sign in", page.inner_text("h1"))
            self.assertEqual([], self.complaints)

    def test_cookies(self) -> None:
        page = self.page()
        self.sign_in(page)
        (cookie,) = (c for c in page.context.cookies() if c["name"] == "__Host-p2psip")
        self.assertEqual((True, True, "Strict"), (cookie["secure"], cookie["httpOnly"], cookie["sameSite"]))

    def test_own_certificate(self) -> None:
        """With --web-certificate browsers see that at a port of its own, where there is the page and nothing else."""
        pem = self.world.directory / "web.pem"
        run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
             str(pem), "-out", str(pem) + ".crt", "-subj", "/CN=phones.example.org", "-days", "1"])  # fmt: skip
        pem.write_text(Path(str(pem) + ".crt").read_text() + pem.read_text())
        self.node.terminate()
        self.node.start("--web-certificate", str(pem))
        self.node.wait_joined()
        shown = run(["openssl", "s_client", "-connect", f"{self.node.address}:8444"], input="").stdout
        self.assertIn("CN = phones.example.org", shown)
        self.url = f"https://{self.node.address}:8444/"
        page = self.page()
        self.sign_in(page)
        self.assertEqual("Your phones", page.inner_text("h1"))
        answer = page.goto(self.url + ".well-known/reload-config")
        assert answer is not None
        self.assertEqual(404, answer.status)

    def test_wrong_passwords(self) -> None:
        """Ten are taken as they come; then there is a wait, and the page says how long."""
        page = self.page()
        for _ in range(10):
            self.sign_in(page, "guess")
            self.assertIn("no user of that name with that password", page.inner_text("[role=alert]"))
        self.sign_in(page, PASSWORD)
        self.picture(page, "slowed-down")
        told = re.search(r"Wait (\d+) second", page.inner_text("[role=alert]"))
        assert told is not None
        page.wait_for_timeout(int(told[1]) * 1000 + 500)
        self.sign_in(page)
        self.assertEqual("Your phones", page.inner_text("h1"))
