"""ICE with a TURN server: coturn on loopback."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import time
from pathlib import Path
from typing import Any, cast

from aioice import Candidate
from twisted.internet.defer import Deferred

from p2psip.interfaces import Relay
from p2psip.links import ice as ice_module
from p2psip.links.agent import Agent
from p2psip.wire.codes import CandType

from ..integration.turnserver import Turnserver
from .hosts import Host
from .test_ice import ICETestCase, Peer, Relays, agent_of, candidate, place_of
from .test_tls import A, B

ADDRESS = f"127.9.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"
"""Of this process alone: tests run beside each other, and the relay's ports are those of its address."""
PORT, SECRET = 3478, "not a secret"
EXPIRES = int(time.time()) + 3600


def credentials(secret: str = SECRET, port: int = PORT) -> Relay:
    """As a TURN peer makes them (the TURN REST convention)."""
    name = str(EXPIRES)
    password = base64.b64encode(hmac.digest(secret.encode(), name.encode(), hashlib.sha1)).decode()
    return Relay(ADDRESS, port, name, password, EXPIRES)


class RelayedTests(ICETestCase):
    def setUp(self) -> None:
        super().setUp()
        server = Turnserver(Path(self.mktemp()), ADDRESS, SECRET, PORT)
        self.addCleanup(server.close)

    async def behind_nat(self, relay: Relay) -> tuple[Any, Any, Any, Any, list[Relays]]:
        """Two nodes that may use `relay`, and their halves of an exchange."""
        a, b = await self.node(A), await self.node(B)
        found = []
        for links in (a, b):
            links.seen(cast(Any, Peer()), ("127.0.0.1", 9), "192.0.2.9")
            found.append(Relays(relay))
            cast(Host, links.host).relays = found[-1]
        return a, b, await a.negotiate(True, B), await b.negotiate(False, A), found

    async def test_only_relayed_pairs_work(self) -> None:
        """The candidate names its mapped address, the pair is chosen, and the allocation ends with the link."""
        a, b, asking, answering, relays = await self.behind_nat(credentials())
        ways = []
        for half in (answering, asking):
            host, relayed = half.candidates
            self.assertEqual((relayed.type, relayed.addr_port.host), (CandType.RELAY, ADDRESS))
            self.assertIsNotNone(relayed.rel_addr_port)
            self.assertLess(relayed.priority, host.priority)
            ways.append([candidate(self.socket().place, priority=host.priority), relayed])
        link, theirs = await self.conclude(asking, answering, *ways)
        self.assertIn(f"relay {ADDRESS}:", link.candidate_pair)
        self.assertIn(f"relay {ADDRESS}:", theirs.candidate_pair)
        await self.talk(a, b, link, theirs)
        self.assertEqual([each.failed for each in relays], [[], []])
        link.close()
        await self.until(lambda: self.owner(a).reasons and self.owner(b).reasons)
        await self.freed(*(place_of(half.candidates[1]) for half in (asking, answering)))

    async def test_a_direct_pair_works(self) -> None:
        """It is chosen, and the relay freed that is not needed."""
        self.patch(ice_module, "FREE_UNUSED", 0.02)
        a, b, asking, answering, _ = await self.behind_nat(credentials())
        link, theirs = await self.conclude(asking, answering)
        self.assertNotIn("relay", link.candidate_pair + theirs.candidate_pair)
        await self.freed(*(place_of(half.candidates[1]) for half in (asking, answering)))
        await self.talk(a, b, link, theirs)
        self.assertNotIn("relay", link.candidate_pair + theirs.candidate_pair)

    async def test_refused_credentials(self) -> None:
        """The usage that found the relay hears of it; there are the other candidates."""
        wrong = credentials("another secret")
        _, _, asking, _, relays = await self.behind_nat(wrong)
        self.assertEqual([each.type for each in asking.candidates], [CandType.HOST])
        self.assertEqual([each.failed for each in relays], [[wrong], [wrong]])

    async def test_abandoned(self) -> None:
        _, _, asking, answering, _ = await self.behind_nat(credentials())
        asking.abandon()
        answering.abandon()
        await self.freed(*(place_of(half.candidates[1]) for half in (asking, answering)))

    async def test_given_up_while_gathering(self) -> None:
        """Whatever has come about by then is freed: the sockets, and the allocation at the server."""
        relayed: list[Candidate] = []
        ended: list[bool] = []
        allocate = Agent._allocate

        async def allocating(agent: Agent, relay: Relay) -> Candidate | None:
            made = await allocate(agent, relay)
            relayed.extend([made] if made is not None else [])
            try:
                await asyncio.sleep(3600)
            finally:
                ended.append(True)
            return made

        self.patch(Agent, "_allocate", allocating)
        a = await self.node(A)
        a.seen(cast(Any, Peer()), ("127.0.0.1", 9), "192.0.2.9")
        cast(Host, a.host).relays = Relays(credentials())
        gathering = a.negotiate(True, B)
        await self.until(lambda: relayed)
        [negotiation] = a._negotiations
        host = agent_of(negotiation)._protocols[0].local_candidate
        gathering.addErrback(lambda _: None)
        gathering.cancel()
        await self.until(lambda: ended)
        await self.freed((host.host, host.port), (relayed[0].host, relayed[0].port))
        self.assertEqual(a._negotiations, {})

    async def test_stopped_while_gathering(self) -> None:
        """An allocation that comes too late is given back."""
        allocate = Agent._allocate
        relayed: list[Any] = []
        stopping: list[Deferred[None]] = []

        async def allocating(agent: Agent, relay: Relay) -> Candidate | None:
            stopping.append(a.stop())
            await asyncio.sleep(0)
            made = await allocate(agent, relay)
            relayed.append(made)
            return made

        self.patch(Agent, "_allocate", allocating)
        a = await self.node(A)
        a.seen(cast(Any, Peer()), ("127.0.0.1", 9), "192.0.2.9")
        cast(Host, a.host).relays = Relays(credentials())
        self.assertIn("given up", await self.refused(a.negotiate(True, B)))
        await stopping[0]
        self.assertEqual(relayed, [None])
