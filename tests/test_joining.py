"""How a node comes by its document, key and certificate, from a server that is really there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from p2psip.config.accept import publish
from p2psip.config.write import write_document
from p2psip.enrollment.accounts import NewUser
from p2psip.enrollment.http import Page
from p2psip.enrollment.server import CERTIFICATE, EnrollmentServer
from p2psip.joining import DocumentRefetch, Enrollment, from_state
from p2psip.startup import JoinByDocument, JoinByToken, StartError
from p2psip.state import StateDirectory
from tests.enrollment import world
from tests.enrollment.served import ServedTestCase, reactor
from tests.enrollment.world import OVERLAY


class JoiningTests(ServedTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.state = StateDirectory(self.mktemp())
        self.state.prepare()
        self.addCleanup(self.state.release)
        self.waited: list[str] = []
        self.enrollment = Enrollment(self.state, reactor, lambda why, seconds: self.waited.append(why))

    def by_token(self) -> Any:
        token = self.authority.invite("second", "peer", 60, [self.url])
        return self.enrollment.by_token(JoinByToken(token))

    def document(self, **changes: Any) -> Path:
        """A file that somebody gave us."""
        changed = replace(self.configuration, enrollment_servers=(self.url + "/enroll",), **changes)
        signed = publish(changed, self.authority.configuration_signer(), self.authority.kind_signer())
        path = Path(self.mktemp())
        path.write_bytes(write_document(signed))
        return path

    async def refused(self, joining: Any) -> str:
        """Why it fails; nothing that could be taken for credentials is left."""
        try:
            await joining
        except StartError as e:
            self.assertFalse(self.state.has_credentials)
            return str(e)
        raise AssertionError("joined")

    async def test_token(self) -> None:
        """Document, key and certificate are had, and kept for the next start. [6940-11.3-2]"""
        credentials = await self.by_token()
        self.assertEqual(credentials.identity.user_name, f"second@nodes.{OVERLAY}")
        self.assertEqual(credentials.configuration.instance_name, OVERLAY)
        kept = from_state(self.state)
        self.assertEqual((kept.identity, kept.configuration), (credentials.identity, credentials.configuration))
        self.assertEqual(kept.key.public_key(), credentials.identity.public_key)

    async def test_document(self) -> None:
        """The document comes as a file, and says where to enroll with an account. [6940-11.2-10]"""
        self.authority.accounts.add(NewUser("alice", password="right", node_quota=1))
        start = JoinByDocument(str(self.document()), "alice", "right")
        credentials = await self.enrollment.by_document(start, OVERLAY)
        self.assertEqual(credentials.identity.user_name, f"alice@{OVERLAY}")
        wrong = JoinByDocument(start.source, "alice", "wrong")
        self.state = StateDirectory(self.mktemp())
        self.enrollment = Enrollment(self.state, reactor, lambda why, seconds: None)
        self.assertIn("account and password", await self.refused(self.enrollment.by_document(wrong, OVERLAY)))

    async def test_document_of_another_overlay(self) -> None:
        """It is not used. [6940-11.2-8]"""
        start = JoinByDocument(str(self.document()), "alice", "right")
        self.assertIn("example.com", await self.refused(self.enrollment.by_document(start, "example.com")))

    async def test_refetch(self) -> None:
        """From some time before it expires on the document is fetched anew, each node at another time. [6940-11.1-5]"""
        offered: list[bytes] = []
        expiration = self.configuration.expiration
        assert expiration is not None
        begun = set()
        for seed in range(3):
            refetch = DocumentRefetch(lambda: self.client(), Random(seed))
            offered.clear()
            day = 61
            while not offered:
                day -= 1
                await refetch.look(self.configuration, lambda one: not offered.append(one), expiration - day * 86400)
            self.assertEqual(offered, [write_document(self.configuration)])
            begun.add(day)
        self.assertEqual(len(begun), 3)
        self.assertGreaterEqual(min(begun), 7)
        nobody = DocumentRefetch(lambda: self.client("https://127.0.0.1:1"), Random(1))
        await nobody.look(self.configuration, offered.append, expiration)
        await nobody.look(replace(self.configuration, expiration=None), self.fail, expiration)

    async def test_certificate_of_another_authority(self) -> None:
        """A certificate that no root of the document stands behind is thrown away. [6940-11.3-27]"""
        other = world.make(self.mktemp(), reactor.seconds())
        self.addCleanup(other.close)
        member = world.join(other, "second")

        class Strange(EnrollmentServer):
            async def _enroll(self, request: Any) -> Page:
                return Page(200, member.certificate, CERTIFICATE)

        self.server_class = Strange
        self.server, self.url = self.serve(self.authority)
        self.assertIn("no good", await self.refused(self.by_token()))
