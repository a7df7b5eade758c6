"""Telephone numbers at a node: whose they are, where they go out, what comes from its trunks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from p2psip.errors import RequestTimeout
from p2psip.gateway import LOOK, Numbers, Trunks, longest_prefix
from p2psip.ids import NodeId
from p2psip.sip.errors import SIPFailure, Unavailable
from p2psip.sip.interfaces import INumbers, ProxyTarget, Source, Target
from p2psip.sip.locator import numeric_target
from p2psip.sip.numbers import DialPlan
from p2psip.sip.trunk import Trunk
from p2psip.sip.uri import SIPURI, parse_uri
from p2psip.usages.gateways import GatewayNode

from .sip.fakes import make_request

OURS, FIRST, SECOND, THIRD = (NodeId(bytes([number]) * 16) for number in range(1, 5))
NUMBER = "+49301234"


def sip(text: str) -> SIPURI:
    uri = parse_uri(text)
    assert isinstance(uri, SIPURI)
    return uri


class FakeDirectory:
    """Accounts with numbers."""

    def __init__(self, **numbers: str) -> None:
        self.numbers = numbers
        self.failure: Exception | None = None
        self.stopped = False

    def user_of(self, number: str) -> Deferred[str | None]:
        if self.failure is not None:
            return fail(self.failure)
        return succeed(next((name for name, its in self.numbers.items() if its == number), None))

    def number_of(self, name: str) -> Deferred[str | None]:
        return fail(self.failure) if self.failure is not None else succeed(self.numbers.get(name))

    def stop(self) -> None:
        self.stopped = True


class FakeUsage:
    def __init__(self) -> None:
        self.nodes: Sequence[GatewayNode] = ()
        self.failure: Exception | None = None

    def find(self) -> Deferred[Sequence[GatewayNode]]:
        return fail(self.failure) if self.failure is not None else succeed(self.nodes)

    def status(self) -> Mapping[str, Any]:
        return {"registered": True, "not_registered": "", "known": len(self.nodes)}


class FakeLocator:
    """Finds servers by the host of a URI."""

    def __init__(self) -> None:
        self.servers: dict[str, Sequence[Target]] = {}

    def locate(self, uri: SIPURI) -> Deferred[Sequence[Target]]:
        found = self.servers.get(uri.host) or ([target] if (target := numeric_target(uri)) is not None else None)
        return fail(SIPFailure(503, "no such name")) if found is None else succeed(found)


class NumbersTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.directory: Any = FakeDirectory(alice=NUMBER)
        self.usage: Any = FakeUsage()
        self.locator = FakeLocator()
        self.edge: Any = None
        self.numbers = self.build()

    def build(self, trunks: Trunks | None = None, seed: int = 1) -> Numbers:
        plan = DialPlan("49", "30", contexts=("example.org",))
        return Numbers(plan, "example.org", self.directory, self.usage, OURS, Random(seed), trunks)

    def trunks(
        self, *uris: str, prefixes: Sequence[str] = ("+",), priority: int = 10, number: str = "", register: bool = False
    ) -> Trunks:
        made = [Trunk(sip(uri), "us", "secret", Random(1)) for uri in uris]
        trunks = Trunks(made, prefixes, priority, number, register, self.clock, Random(1))
        self.numbers = self.build(trunks)
        return trunks

    def started(self, *uris: str, **settings: Any) -> Trunks:
        trunks = self.trunks(*uris, **settings)
        self.numbers.start(self.edge, self.locator)
        self.addCleanup(lambda: Deferred.fromCoroutine(trunks.stop()))
        return trunks

    def ways(self, number: str = NUMBER, caller: str = "") -> Sequence[ProxyTarget]:
        return self.successResultOf(self.numbers.gateways(number, caller))

    def nodes(self, number: str = NUMBER) -> list[bytes | None]:
        return [way.node for way in self.ways(number)]


class UserTests(NumbersTestCase):
    def test_interface(self) -> None:
        verifyObject(INumbers, self.numbers)

    def test_user_of(self) -> None:
        """Also with an extension, which the account does not have."""
        for number, expected in ((NUMBER, "alice@example.org"), (f"{NUMBER};ext=5", "alice@example.org"), ("+1", None)):
            self.assertEqual(self.successResultOf(self.numbers.user_of(number)), expected)
        self.directory.failure = Unavailable()
        self.failureResultOf(self.numbers.user_of(NUMBER), Unavailable)

    def test_dial_plan(self) -> None:
        self.assertEqual(self.numbers.number_of(sip("sip:030-1234@example.org")), "+49301234")
        self.assertTrue(self.numbers.is_emergency("112"))
        self.assertFalse(self.numbers.is_emergency(NUMBER))

    def test_status(self) -> None:
        status = {"registered": True, "not_registered": "", "known": 0, "trunks": []}
        self.assertEqual(self.numbers.status(), status)

    def test_stop(self) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.numbers.stop()))
        self.assertTrue(self.directory.stopped)


class CalledTests(NumbersTestCase):
    """Whom a trunk calls."""

    def called(self, uri: str, **headers: str) -> str | None:
        return self.numbers.called(make_request("INVITE", uri, **headers))

    def test_request_uri(self) -> None:
        self.trunks("sip:192.0.2.50", register=True)
        self.assertEqual(self.called("sip:+49309999@198.51.100.1", To="<sip:+49301111@a>"), "+49309999")
        self.assertEqual(self.called("tel:+49309999", To="<sip:us@a>"), "+49309999")

    def test_contact(self) -> None:
        """One that puts our Contact there says it elsewhere."""
        for number, contact in (("", "us"), ("+49300000", "+49300000")):
            self.trunks("sip:192.0.2.50", number=number, register=True)
            uri = f"sip:{contact}@198.51.100.1"
            self.assertEqual(self.called(uri, To="<sip:030-1111@trunk.example>"), "+49301111")
            self.assertEqual(
                self.called(uri, To="<sip:us@trunk.example>", P_Called_Party_ID="<tel:+49302222>"), "+49302222"
            )
            self.assertEqual(self.called(uri, To="<sip:us@trunk.example>"), number or None)
            self.assertEqual(self.called(uri, To="<tel:+49302222>", P_Called_Party_ID="<<>>"), "+49302222")
            self.assertEqual(self.numbers.counters["malformed number"], 1)

    def test_not_registered(self) -> None:
        """Then there is no Contact of ours, and a number is one."""
        self.trunks("sip:192.0.2.50", number="+49300000")
        self.assertEqual(self.called("sip:+49300000@a", To="<sip:030-1111@a>"), "+49300000")


class NodeTests(NumbersTestCase):
    """Other nodes that are gateways."""

    def test_by_prefix_and_priority(self) -> None:
        self.usage.nodes = [
            GatewayNode(FIRST, 1, ("+",)),
            GatewayNode(SECOND, 20, ("+49", "+1")),
            GatewayNode(THIRD, 10, ("+4930",)),
        ]
        self.assertEqual(self.nodes(), [THIRD, SECOND, FIRST])
        self.assertEqual(self.nodes("+4989123"), [SECOND, FIRST])
        self.assertEqual(self.nodes("+33123456"), [FIRST])
        self.usage.nodes = [GatewayNode(FIRST, 20, ("+",)), GatewayNode(SECOND, 10, ("+",))]
        self.assertEqual(self.nodes(), [SECOND, FIRST])
        self.assertEqual(self.ways()[0].uri, "tel:+49301234")

    def test_equals_at_random(self) -> None:
        self.usage.nodes = [GatewayNode(node, 10, ("+",)) for node in (FIRST, SECOND, THIRD)]
        found = set()
        for seed in range(100):
            self.numbers = self.build(seed=seed)
            found.add(tuple(self.nodes()))
        self.assertEqual(len(found), 6)

    def test_none_that_fits(self) -> None:
        self.usage.nodes = [GatewayNode(FIRST, 1, ("+1",)), GatewayNode(SECOND, 1, ())]
        self.assertEqual(self.nodes(), [])

    def test_emergency(self) -> None:
        """Every gateway will do, those for it first."""
        self.usage.nodes = [GatewayNode(FIRST, 1, ("+1",)), GatewayNode(SECOND, 9, ("112",))]
        self.assertEqual(self.nodes("112"), [SECOND, FIRST])

    def test_not_ourselves(self) -> None:
        """What this node stored is not a way over the overlay."""
        self.usage.nodes = [GatewayNode(OURS, 1, ("+",))]
        self.assertEqual(self.nodes(), [])

    def test_overlay_unavailable(self) -> None:
        self.usage.failure = RequestTimeout("nobody")
        self.failureResultOf(self.numbers.gateways(NUMBER), Unavailable)
        trunks = self.started("sip:192.0.2.50")
        self.assertEqual(len(self.ways()), 1)
        self.assertEqual(trunks.prefixes, ("+",))


class TrunkTests(NumbersTestCase):
    """This node is a gateway."""

    def test_servers(self) -> None:
        """Each of them in its order, then the next trunk; one whose servers are not known goes by its name."""
        servers = [Target("UDP", f"192.0.2.{n}", 5060) for n in (51, 52)]
        self.locator.servers["trunk.example"] = servers
        self.started("sip:trunk.example", "sip:192.0.2.60:5070;transport=tcp", "sip:unknown.example")
        ways = self.ways()
        self.assertEqual([way.server for way in ways], [*servers, Target("TCP", "192.0.2.60", 5070), None])
        self.assertEqual(ways[0].uri, "sip:+49301234@trunk.example;user=phone")
        self.assertTrue(all(way.trunk is not None for way in ways))

    def test_looked_for_again(self) -> None:
        """A trunk may move; where it cannot be found it stays where it was."""
        trunks = self.started("sip:trunk.example")
        self.assertFalse(self.numbers.from_trunk(Source("192.0.2.51", 5060, "UDP")))
        for address in ("192.0.2.51", "192.0.2.52"):
            self.locator.servers["trunk.example"] = [Target("UDP", address, 5060)]
            self.clock.advance(LOOK)
            self.assertTrue(self.numbers.from_trunk(Source(address, 5060, "UDP")))
        self.assertFalse(self.numbers.from_trunk(Source("192.0.2.51", 5060, "UDP")))
        self.locator.servers.clear()
        self.clock.advance(LOOK)
        self.assertTrue(self.numbers.from_trunk(Source("192.0.2.52", 5060, "UDP")))
        trunk = {"uri": "sip:trunk.example", "servers": ["192.0.2.52"], "registered": False}
        self.assertEqual(trunks.status(), [trunk])
        self.assertEqual(self.numbers.status()["trunks"], [trunk])

    def test_no_trunk(self) -> None:
        self.assertFalse(self.numbers.from_trunk(Source("192.0.2.51", 5060, "UDP")))
        self.numbers.start(self.edge, self.locator)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_among_nodes(self) -> None:
        """Another node may be better, by its prefix or its priority; one that is worse stands by."""
        self.started("sip:192.0.2.50", prefixes=("+49",), priority=10)
        self.usage.nodes = [GatewayNode(FIRST, 1, ("+",)), GatewayNode(SECOND, 1, ("+49",))]
        self.assertEqual(self.nodes(), [SECOND, None, FIRST])
        self.assertEqual(self.nodes("+1"), [FIRST])
        self.assertEqual(set(self.nodes("112")[:2]), {FIRST, SECOND})
        self.assertEqual(self.nodes("112")[2:], [None])

    def test_identity(self) -> None:
        """The caller's own number, else that of the gateway; nothing is asserted of another domain."""
        self.started("sip:192.0.2.50", number="+49300000")
        for caller, expected in (
            ("alice@example.org", NUMBER),
            ("bob@example.org", "+49300000"),
            ("alice@other.example", "+49300000"),
            ("", "+49300000"),
        ):
            self.assertEqual(self.ways(caller=caller)[0].headers, (("P-Asserted-Identity", f"<tel:{expected}>"),))
        self.directory.failure = Unavailable()
        self.assertEqual(
            self.ways(caller="alice@example.org")[0].headers, (("P-Asserted-Identity", "<tel:+49300000>"),)
        )
        self.assertEqual(self.numbers.counters["number of a caller unavailable"], 1)


class PrefixTests(SynchronousTestCase):
    def test_longest_prefix(self) -> None:
        for prefixes, expected in (((), 0), (("+",), 1), (("+1",), 0), (("+4", "+493", "+"), 4), (("112",), 0)):
            self.assertEqual(longest_prefix(prefixes, NUMBER), expected)
        self.assertEqual(longest_prefix(("+", "112"), "112"), 3)
