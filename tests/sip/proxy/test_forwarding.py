"""What becomes of a branch whose flow comes late, or never, or whose message cannot be made."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from p2psip.errors import LinkError
from p2psip.sip.interfaces import ProxyTarget, Source
from p2psip.sip.message import Request, Response
from p2psip.sip.proxy.fork import Branch, Passage, ResponseContext
from p2psip.sip.proxy.forwarding import PATIENCE, SET_UP, Forwarding
from p2psip.sip.proxy.tokens import TokenMint

from ..fakes import make_request

FIRST, SECOND = b"1" * 16, b"2" * 16


class Flow:
    """The flow to a node."""

    reliable = True

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.source = Source("192.0.2.1", 1, "TLS")


class Edge:
    """Keeps what is sent, over which flow."""

    def __init__(self) -> None:
        self.time = 0.0
        self.sent: list[tuple[bytes, Request]] = []
        self.broken = False

    def now(self) -> float:
        return self.time

    def via(self, flow: Flow, branch: str) -> str:
        if self.broken:
            raise ZeroDivisionError("a bug")
        return f"SIP/2.0/TLS 192.0.2.9;branch={branch}"

    def send(self, request: Request, flow: Flow, user: Branch) -> None:
        self.sent.append((flow.name, request))


class Nodes:
    """Flows that come when a test says so."""

    def __init__(self) -> None:
        self.asked: dict[bytes, list[Deferred[Any]]] = {}
        self.known: dict[bytes, Flow] = {}

    def established(self, node_id: bytes) -> Flow | None:
        return self.known.get(node_id)

    def flow_to(self, node_id: bytes) -> Deferred[Any]:
        self.asked.setdefault(node_id, []).append(Deferred())
        return self.asked[node_id][-1]

    def unanswered(self, node_id: bytes, seconds: float) -> None:
        pass


class LateTests(SynchronousTestCase):
    """Two gateways are other nodes: the request has the same URI on both ways."""

    def setUp(self) -> None:
        self.edge, self.nodes = Edge(), Nodes()
        edge: Any = self.edge
        nodes: Any = self.nodes
        self.forwarding = Forwarding(edge, nodes, None, None, TokenMint(bytes(32)), "own", Random(1))
        self.responses: list[int] = []
        second = ProxyTarget("tel:+49301234", node=SECOND)
        self.target = ProxyTarget("tel:+49301234", node=FIRST, fallback=(second,))
        request = make_request("INVITE", uri="tel:+49301234")
        self.context = ResponseContext(request, Passage("0" * 16, {}), self.forwarding, self.respond)

    def respond(self, branch: Branch | None, response: Response) -> None:
        self.responses.append(response.status)

    def after(self, seconds: float) -> None:
        self.edge.time += seconds
        self.forwarding.tick(self.edge.time)

    def sent(self) -> list[bytes]:
        return [name for name, _ in self.edge.sent]

    def test_late_flow(self) -> None:
        """A flow that comes when the next way is tried carries nothing: the call would go out twice."""
        self.context.start([[self.target]])
        self.after(PATIENCE)
        self.nodes.asked[FIRST][0].callback(Flow(FIRST))
        self.assertEqual(self.sent(), [])
        self.nodes.asked[SECOND][0].callback(Flow(SECOND))
        self.assertEqual(self.sent(), [SECOND])

    def test_late_failure(self) -> None:
        """One that fails then does not fail the next."""
        self.context.start([[self.target]])
        self.after(PATIENCE)
        self.nodes.asked[FIRST][0].errback(LinkError("gone"))
        self.assertEqual(len(self.nodes.asked[SECOND]), 1)
        self.nodes.asked[SECOND][0].callback(Flow(SECOND))
        self.assertEqual((self.sent(), self.responses), ([SECOND], []))

    def test_both_silent(self) -> None:
        self.context.start([[self.target]])
        self.after(PATIENCE)
        self.after(PATIENCE + SET_UP)
        self.assertEqual((self.responses, len(self.forwarding)), ([408], 0))

    def test_bug(self) -> None:
        """Whatever goes wrong, the branch ends: it would count as a call under way for three minutes."""
        self.nodes.known = {FIRST: Flow(FIRST), SECOND: Flow(SECOND)}
        self.edge.broken = True
        self.context.start([[self.target]])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        self.assertEqual((self.responses, len(self.forwarding)), ([500], 0))
