"""Nodes with SIP servers, for the tests of the SIP usage."""

from __future__ import annotations

import sqlite3
from random import Random

from twisted.internet.defer import succeed

from p2psip.node import Node
from p2psip.sip.authentication import Authenticator
from p2psip.sip.digest import NonceMint
from p2psip.sip.domain import Domain
from p2psip.sip.edge import SIPEdge
from p2psip.sip.location import Location, Wish
from p2psip.sip.registrar import Registrar
from p2psip.sip.server import SIPServer
from p2psip.sip.uri import parse_uri
from p2psip.testing import World
from p2psip.usages.sip import SIPUsage

ALICE = "alice@example.org"


class NoCredentials:
    """Nobody registers by digest in these tests."""

    def credentials(self, user: str, authorization: object, method: str) -> object:
        return succeed(())


class Site:
    """One node with a SIP server, and the users whose phones are there."""

    def __init__(self, world: World, node: Node, users: tuple[str, ...]) -> None:
        usage = node.usages["sip"]
        assert isinstance(usage, SIPUsage)
        self.world, self.node, self.usage = world, node, usage
        self.signers = {user: world.user(f"{user}@{world.name}", node) for user in users}
        self.known: set[str] = set()
        self.location = Location()
        domain = Domain(world.name)
        authenticator = Authenticator(domain, NoCredentials(), NonceMint(node.node_id, bytes(32)))
        self.registrar = Registrar(domain, authenticator, self.location, usage)
        self.server = SIPServer(domain, self.registrar, world.clock.seconds, Random(2))
        self.edge = SIPEdge(world.clock, self, Random(1))
        database = sqlite3.connect(":memory:", isolation_level=None)
        usage.serve(self.signers.get, self.known.__contains__, self.edge, self.registrar, self.server, database)

    def bind(self, aor: str, uri: str, expires: int = 600) -> None:
        """A phone's binding, as the registrar keeps it."""
        now = self.world.clock.seconds()
        wish = Wish(uri, parse_uri(uri), {}, 0.5, expires)
        self.location.commit(aor, self.location.prepare(aor, [wish], "call", 1, now))

    def request_received(self, incoming: object) -> None:
        raise AssertionError("a request outside of an AppAttach connection")

    def ack_received(self, request: object, source: object) -> None:
        raise AssertionError("an ACK outside of an AppAttach connection")
