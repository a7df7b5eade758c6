"""What a node that holds the authority answers, and the documents that it publishes."""

from __future__ import annotations

import base64
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from p2psip.administration import Administrator
from p2psip.authority import AuthorityService
from p2psip.config.accept import accept_update
from p2psip.config.document import Configuration, ConfigurationError
from p2psip.config.write import write_document
from p2psip.enrollment.tokens import JoinToken
from p2psip.publishing import DAY, YEAR
from p2psip.security.signing import Verifier
from p2psip.startup import StartError
from p2psip.testing import World

from .enrollment import world as enrollment
from .enrollment.served import first_configuration
from .running import Service


class PublishedTo:
    """Of a `Node` what publishing needs: it takes each document as a node of the overlay does."""

    def __init__(self, authority: Any, configuration: Configuration) -> None:
        self.configuration = configuration
        self.trust = enrollment.trust(authority)
        self.updates = self
        self.unsupported = ""

    def check_support(self, configuration: Configuration) -> None:
        if self.unsupported:
            raise ConfigurationError("mandatory-extension", self.unsupported)

    def offer(self, document: bytes) -> None:
        verifier = Verifier(self.trust)
        self.configuration = accept_update(document, self.configuration, verifier, time.time())


class Reactor(MemoryReactorClock):
    """Says that ports are taken, if so told."""

    taken = False

    def listenTCP(self, *arguments: Any, **keywords: Any) -> Any:
        if self.taken:
            raise CannotListenError("127.0.0.1", 8443, OSError("Address already in use"))
        return super().listenTCP(*arguments, **keywords)


class AdministratorTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = Reactor()
        self.authority = enrollment.make(self.mktemp(), time.time())
        self.service = self.node_with(self.mktemp())
        self.service.authority = AuthorityService(self.service, self.authority)
        self.addCleanup(self.authority.close)

    def node_with(self, state: str) -> Service:
        service = Service(World(), None, state)
        node: Any = PublishedTo(self.authority, first_configuration(self.authority))
        service.node, service.reactor = node, self.reactor
        return service

    @property
    def configuration(self) -> Configuration:
        assert self.service.node is not None
        return self.service.node.configuration

    def request(self, method: str, path: str, body: Any = None, **query: str) -> tuple[int, Any]:
        return self.service.ask(Administrator(self.service).routes(), method, path, body, **query)

    def ask(self, method: str, path: str, body: Any = None, **query: str) -> Any:
        """What a request that succeeds is answered with."""
        status, answer = self.request(method, path, body, **query)
        self.assertEqual(status, 200, answer)
        return answer

    def refusal(self, method: str, path: str, body: Any = None, **query: str) -> tuple[int, str]:
        status, answer = self.request(method, path, body, **query)
        self.assertGreaterEqual(status, 400, answer)
        return status, answer["error"]


class UserTests(AdministratorTestCase):
    def test_add(self) -> None:
        """The answer is what a person types into a phone."""
        settings = self.ask("POST", "/users", {"name": "alice", "device_password": "secret"})
        self.assertEqual(
            settings,
            {
                "aor": "alice@example.org",
                "servers": ["192.0.2.1", "[2001:db8::1]"],
                "domain": "example.org",
                "mode": "proxy",
                "user": "alice",
                "device": "phone",
                "password": "secret",
            },
        )
        self.service.options["sip-port"] = 5070
        settings = self.ask("POST", "/users/alice/devices", {"name": "desk"})
        self.assertEqual(settings["servers"], ["192.0.2.1:5070", "[2001:db8::1]:5070"])
        self.assertEqual(settings["device"], "desk")
        self.assertGreater(len(settings["password"]), 10)

    def test_refused(self) -> None:
        self.ask("POST", "/users", {"name": "alice"})
        for status, body in ((409, {"name": "alice"}), (409, {"name": "a b"}), (400, {}), (400, {"name": 5})):
            self.assertEqual(self.refusal("POST", "/users", body)[0], status, body)

    def test_import(self) -> None:
        entries = [{"name": "alice", "password": "secret"}, {"name": "a b"}, {"name": "bob", "password": None}]
        alice, wrong, bob = self.ask("POST", "/users/import", entries)["results"]
        self.assertEqual(alice, {"name": "alice", "password": "secret"})
        self.assertEqual((wrong["name"], "password" in wrong), ("a b", False))
        self.assertGreater(len(bob["password"]), 10)
        for body in (None, {}, ["alice"], [{}], [{"name": "carol", "password": 5}]):
            self.assertEqual(self.refusal("POST", "/users/import", body)[0], 400, body)

    def test_list(self) -> None:
        self.ask("POST", "/users/import", [{"name": f"user{number}"} for number in range(5)])
        page = self.ask("GET", "/users", offset="1", limit="2")
        self.assertEqual((page["total"], [u["name"] for u in page["users"]]), (5, ["user1", "user2"]))
        self.assertEqual(page["users"][0]["devices"], ["phone"])

    def test_change(self) -> None:
        """What is not named stays; an empty text takes away."""
        self.ask("POST", "/users", {"name": "alice", "number": "+4930", "display_name": "Alice"})
        self.ask("POST", "/users/alice/settings", {"disabled": True})
        (alice,) = self.ask("GET", "/users")["users"]
        self.assertEqual((alice["number"], alice["display_name"], alice["disabled"]), ("+4930", "Alice", True))
        self.ask("POST", "/users/alice/settings", {"number": "", "display_name": "Al", "disabled": False})
        (alice,) = self.ask("GET", "/users")["users"]
        self.assertEqual((alice["number"], alice["display_name"], alice["disabled"]), (None, "Al", False))
        for status, body in ((409, {"number": "30"}), (400, {"number": 30}), (400, {"disabled": "yes"})):
            self.assertEqual(self.refusal("POST", "/users/alice/settings", body)[0], status, body)
        self.assertEqual(self.refusal("POST", "/users/bob/settings", {"disabled": True})[0], 409)

    def test_devices(self) -> None:
        self.ask("POST", "/users", {"name": "alice"})
        self.ask("POST", "/users/alice/devices", {"name": "desk"})
        devices = self.ask("GET", "/users/alice/devices")["devices"]
        self.assertEqual({d["name"] for d in devices}, {"phone", "desk"})
        self.ask("DELETE", "/users/alice/devices/desk")
        self.assertEqual([d["name"] for d in self.ask("GET", "/users/alice/devices")["devices"]], ["phone"])
        self.assertEqual(self.refusal("DELETE", "/users/alice/devices/desk")[0], 409)

    def test_remove(self) -> None:
        """Nodes that the user enrolled are thrown out with the account."""
        self.ask("POST", "/users", {"name": "alice", "password": "secret", "nodes": 1})
        key = enrollment.generate_key()
        csr = enrollment.make_request(key, "alice@example.org")
        member = enrollment.Member(key, self.authority.enroll("alice", "secret", 1, csr))
        self.ask("DELETE", "/users/alice")
        self.assertEqual(self.configuration.bad_nodes, {member.node_id})
        self.assertEqual(self.ask("GET", "/users")["total"], 0)
        self.assertEqual(self.refusal("DELETE", "/users/alice")[0], 409)


class NodeTests(AdministratorTestCase):
    def test_invite(self) -> None:
        """The token names every address of this node's enrollment server."""
        token = JoinToken.decode(self.ask("POST", "/invitations", {"name": "second"})["token"])
        self.assertEqual(token.urls, ("https://192.0.2.1:8443", "https://[2001:db8::1]:8443"))
        self.assertEqual((token.overlay, token.account), ("example.org", "second"))
        self.assertEqual(self.refusal("POST", "/invitations", {"name": "third", "role": "king"})[0], 409)

    def test_expel(self) -> None:
        member = enrollment.join(self.authority, "second")
        answer = self.ask("POST", "/authority/expel", {"name": "second"})
        self.assertEqual(answer, {"node_ids": [member.node_id.hex()]})
        self.assertEqual(self.configuration.bad_nodes, {member.node_id})
        self.assertEqual(self.refusal("POST", "/authority/expel", {"name": "second"})[0], 409)


class DocumentTests(AdministratorTestCase):
    def test_publish(self) -> None:
        """What an operator changed in a document counts; how it was numbered and signed does not."""
        before = self.configuration
        document = write_document(before).decode()
        changed = document.replace("<initial-ttl>30<", "<initial-ttl>50<").replace('sequence="1"', 'sequence="7"')
        answer = self.ask("POST", "/authority/publish", {"document": changed})
        self.assertEqual(answer, {"sequence": before.sequence + 1})
        self.assertEqual(self.configuration.initial_ttl, 50)

    def test_refused(self) -> None:
        before = self.configuration
        document = write_document(before).decode()
        self.assertEqual(self.refusal("POST", "/authority/publish", {"document": "<overlay"})[0], 409)
        node: Any = self.service.node
        node.unsupported = "this node knows no such thing"
        status, error = self.refusal("POST", "/authority/publish", {"document": document})
        self.assertEqual(status, 409)
        self.assertIn("this node knows no such thing", error)
        self.assertIs(self.configuration, before)

    def test_bootstrap_nodes(self) -> None:
        """One more or less is a new document; what is there already is none. [6940-11.1-13]"""
        first = self.ask("POST", "/authority/bootstrap", {"add": "192.0.2.1"})["bootstrap_nodes"]
        for added, text in (
            ("192.0.2.7", "192.0.2.7:6084"),
            ("192.0.2.7:7000", "192.0.2.7:7000"),
            ("2001:DB8::0:7", "[2001:db8::7]:6084"),
            ("[2001:db8::7]", "[2001:db8::7]:6084"),
            ("[2001:db8::7]:7000", "[2001:db8::7]:7000"),
        ):
            self.assertIn(text, self.ask("POST", "/authority/bootstrap", {"add": added})["bootstrap_nodes"])
        self.assertEqual(self.configuration.sequence, 6)
        self.assertIn(("2001:db8::7", 7000), self.configuration.bootstrap_nodes)
        for place in self.ask("GET", "/authority/bootstrap")["bootstrap_nodes"][len(first) :]:
            self.ask("POST", "/authority/bootstrap", {"remove": place})
        self.assertEqual(self.ask("GET", "/authority/bootstrap")["bootstrap_nodes"], first)

    def test_bootstrap_nodes_refused(self) -> None:
        """What is no address; one that is not there; the last one; more than a node can try."""
        before = self.configuration
        wrong = ("", "example.org", "192.0.2.7:0", "192.0.2.7:65536", "0.0.0.0", "224.0.0.1:1", "[::1", "fe80::1%lo")
        for text in wrong:
            self.assertEqual(self.refusal("POST", "/authority/bootstrap", {"add": text})[0], 400, text)
        self.assertEqual(self.refusal("POST", "/authority/bootstrap", {"remove": "192.0.2.99"})[0], 409)
        node: Any = self.service.node
        node.configuration = replace(before, bootstrap_nodes=(("192.0.2.1", 6084),))
        self.assertEqual(self.refusal("POST", "/authority/bootstrap", {"remove": "192.0.2.1"})[0], 409)
        node.configuration = replace(before, bootstrap_nodes=tuple(("192.0.2.1", n) for n in range(1, 33)))
        self.assertEqual(self.refusal("POST", "/authority/bootstrap", {"add": "192.0.2.2"})[0], 409)

    def test_prolonged_in_time(self) -> None:
        """A failure does not end the trying."""
        authority = self.service.authority
        assert authority is not None
        node: Any = self.service.node
        node.configuration = replace(node.configuration, expiration=time.time() + YEAR / 3 - DAY)
        node.unsupported = "not now"
        self.successResultOf(Deferred.fromCoroutine(authority.start()))
        self.assertEqual(len(self.flushLoggedErrors(ConfigurationError)), 1)
        self.assertEqual(self.configuration.sequence, 1)
        node.unsupported = ""
        self.reactor.advance(DAY)
        self.assertEqual(self.configuration.sequence, 2)
        self.assertGreater(self.configuration.expiration or 0, time.time() + YEAR - DAY)
        self.reactor.advance(DAY)
        self.assertEqual(self.configuration.sequence, 2)
        self.successResultOf(Deferred.fromCoroutine(authority.stop()))
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class MovingTests(AdministratorTestCase):
    """The authority goes from one node to another."""

    def setUp(self) -> None:
        super().setUp()
        self.archive = self.ask("POST", "/authority/export", {"passphrase": "open sesame"})["archive"]
        self.body = {"archive": self.archive, "passphrase": "open sesame"}
        self.service = self.node_with(self.mktemp())
        self.service.advertised = ("192.0.2.2",)

    def tearDown(self) -> None:
        if self.service.authority is not None:
            self.successResultOf(Deferred.fromCoroutine(self.service.authority.stop()))

    def test_none_here(self) -> None:
        document = write_document(self.configuration).decode()
        everything = {"name": "x", "password": "x", "passphrase": "x", "document": document}
        for method, path in Administrator(self.service).routes():
            if path != "/authority/import":
                body = [] if path.endswith("import") else everything
                path = path.format(name="alice", device="phone")
                status, error = self.refusal(method, path, body)
                self.assertEqual(status, 409, path)
                self.assertIn("does not hold the authority", error)

    def test_import(self) -> None:
        """From then on it enrolls, and the document says so."""
        answer = self.ask("POST", "/authority/import", self.body)
        self.assertEqual(answer, {"overlay": "example.org", "url": "https://192.0.2.2:8443/enroll"})
        self.assertEqual([(port, at) for port, _, _, at in self.reactor.tcpServers], [(8443, "127.0.0.1")])
        self.assertIn("https://192.0.2.2:8443/enroll", self.configuration.enrollment_servers)
        self.assertIn(("192.0.2.2", 6084), self.configuration.bootstrap_nodes)
        self.ask("POST", "/users", {"name": "alice"})
        events = [line["event"] for line in self.ask("GET", "/authority/log", limit="10")["log"]]
        self.assertIn("imported", events)
        self.assertEqual(self.refusal("POST", "/authority/import", self.body)[0], 409)

    def test_refused(self) -> None:
        for status, change in (
            (409, {"passphrase": "wrong"}),
            (400, {"archive": "no base64!"}),
            (409, {"archive": base64.b64encode(b"another file").decode()}),
            (400, {"archive": None}),
        ):
            self.assertEqual(self.refusal("POST", "/authority/import", {**self.body, **change})[0], status, change)
            self.assertFalse(self.service.state.has_authority)
        self.ask("POST", "/authority/import", self.body)

    def test_before_there_is_a_node(self) -> None:
        self.service.node = None
        self.assertEqual(self.refusal("POST", "/authority/import", self.body)[0], 409)
        self.assertFalse(self.service.state.has_authority)

    def test_port_is_taken(self) -> None:
        """The node does not hold half an authority."""
        self.reactor.taken = True
        status, error = self.refusal("POST", "/authority/import", self.body)
        self.assertEqual(status, 409)
        self.assertIn("--enrollment-port", error)
        self.assertIsNone(self.service.authority)


class OpeningTests(AdministratorTestCase):
    def test_damaged(self) -> None:
        """One line, where a file of it is no key."""
        (self.service.state.authority).mkdir(parents=True)
        Path(self.service.state.authority / "ca.key").write_text("no key")
        self.assertRaises(StartError, AuthorityService.opened, self.service)

    def test_created_once(self) -> None:
        """Founding that was interrupted goes on with the authority that is there."""
        first = AuthorityService.created(self.service).authority
        again = AuthorityService.created(self.service).authority
        self.assertEqual(first.root_certificate, again.root_certificate)
        first.close()
        again.close()
