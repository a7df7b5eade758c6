"""One ICE agent, and a link whose other end moves: what is easier to see from within."""

from __future__ import annotations

import asyncio
from typing import Any

from aioice import Candidate, stun
from aioice.ice import CandidatePair
from twisted.internet.defer import Deferred

from p2psip.links import agent as agent_module
from p2psip.links.agent import MOST_EARLY, Agent
from p2psip.links.handshake import HANDSHAKE_TIMEOUT

from .lines import Place
from .test_ice import ICETestCase, candidate, place_of

State = CandidatePair.State
ALERT = b"\x15\xfe\xfd" + bytes(8) + b"\x00\x02\x02\x28"
"""Unprotected, as in a handshake: fatal, handshake_failure (RFC 5246 §7.2)."""


def as_deferred(coroutine: Any) -> Deferred[Any]:
    return Deferred.fromFuture(asyncio.ensure_future(coroutine))


class CheckTests(ICETestCase):
    async def agent(self, controlling: bool = True) -> Agent:
        made = Agent(controlling, ["127.0.0.1"])
        await as_deferred(made.gather())
        self.addCleanup(lambda: as_deferred(made.close()))
        return made

    async def choosing(self, agent: Agent, candidates: list[Candidate]) -> None:
        """Let it check pairs with `candidates`, none of which answers."""
        choosing = asyncio.ensure_future(agent.choose("ufrag", "p" * 22, candidates))
        self.addCleanup(choosing.cancel)
        await self.until(lambda: len(agent._check_list) == len(candidates))

    def remote(self, kind: str, priority: int, foundation: str = "1") -> Candidate:
        place = self.socket().place
        return Candidate(foundation, 1, "udp", priority, *place, kind)

    async def test_relayed_pairs_wait_together(self) -> None:
        """Meanwhile the others are checked, those behind them in the list and with the same foundation as well."""
        self.patch(agent_module, "DIRECT_FIRST", 3600)
        agent = await self.agent()
        relayed = [self.remote("relay", 2000 + number) for number in range(8)]
        direct = [self.remote("host", 10 + number) for number in range(3)]
        await self.choosing(agent, [*relayed, *direct])
        sent = agent._protocols[0].transactions
        await self.until(lambda: len(sent) == len(direct))
        await self.until(lambda: all(each.state is State.IN_PROGRESS for each in agent._check_list))
        self.assertEqual(len(sent), len(direct))

    async def test_roles_are_not_for_dispute(self) -> None:
        """Who answers each check with "role conflict" is asked a few times, and not as fast as the machine can."""
        agent = await self.agent()
        remote = self.socket()
        asked: list[bytes] = []

        def contest(datagram: bytes, sender: Any) -> None:
            asked.append(datagram)
            request = stun.parse_message(datagram)
            answer = stun.Message(request.message_method, stun.Class.ERROR, request.transaction_id)
            answer.attributes["ERROR-CODE"] = (487, "Role Conflict")
            answer.add_message_integrity(b"p" * 22)
            remote.send(bytes(answer), sender)

        remote.take = contest
        candidates = [Candidate("1", 1, "udp", 1000, *remote.place, "host")]
        why = await self.refused(as_deferred(agent.choose("ufrag", "p" * 22, candidates)))
        self.assertIn("no candidate pair worked", why)
        self.assertLess(len(asked), 4)

    async def test_who_does_not_control_waits_for_nothing(self) -> None:
        """Its checks open its NAT for those of the other end."""
        self.patch(agent_module, "DIRECT_FIRST", 3600)
        agent = await self.agent(controlling=False)
        await self.choosing(agent, [self.remote("relay", 2000), self.remote("host", 10)])
        await self.until(lambda: len(agent._protocols[0].transactions) == 2)

    async def test_closed_while_it_binds(self) -> None:
        """No socket is left of who is given up before it has any."""
        agent = Agent(True, ["127.0.0.1", "127.0.0.2"])
        gathering = as_deferred(agent.gather())
        await as_deferred(agent.close())
        self.assertIn("given up", await self.refused(gathering))
        self.assertEqual(agent._protocols, [])

    async def test_no_address(self) -> None:
        """Addresses that are gone are left out; without any there is an error that names them."""
        agent = Agent(True, ["192.0.2.77"])
        self.assertIn("192.0.2.77", await self.refused(as_deferred(agent.gather())))
        agent = Agent(True, ["192.0.2.77", "127.0.0.1"])
        self.assertEqual([each.host for each in await as_deferred(agent.gather())], ["127.0.0.1"])
        await as_deferred(agent.close())

    async def test_strangers_are_not_heard(self) -> None:
        """Before the data are protected only who was checked is; strangers tell nothing of which socket is in use.

        What comes before this end has chosen its pair is kept for then. [6940-6.5.1.14-1]
        """
        agent = await self.agent()
        known = self.remote("host", 10)
        await self.choosing(agent, [known])
        [protocol] = agent._protocols
        stranger = ("192.0.2.1", 9)
        agent.datagram_on(protocol, b"\x16 stranger", stranger)
        self.assertEqual((agent._early, agent._heard_on), ([], None))
        for number in range(MOST_EARLY + 5):
            agent.datagram_on(protocol, b"\x16%d" % number, (known.host, known.port))
        self.assertEqual((len(agent._early), agent._heard_on), (MOST_EARLY, protocol))
        heard: list[bytes] = []
        agent.deliver_to(heard.append)
        self.assertEqual(len(heard), MOST_EARLY)
        agent._heard_on = None
        agent.datagram_on(protocol, b"\x16 stranger", stranger)
        self.assertEqual(len(heard), MOST_EARLY)
        agent.secured = True
        agent.datagram_on(protocol, b"\x17 moved", stranger)
        self.assertEqual((heard[-1], agent._heard_on), (b"\x17 moved", None))


class SpoilingTests(ICETestCase):
    async def test_alert_of_a_stranger(self) -> None:
        """It ends no handshake, whenever it comes. [6940-13.2-1]"""
        a, b, asking, answering = await self.halves()
        stranger = self.socket()
        line = self.line_to(place_of(answering.candidates[0]))
        records: list[int] = []

        def passes(datagram: bytes, onwards: bool) -> bool:
            if datagram[0] == 22:
                records.append(len(datagram))
                for half in (asking, answering):
                    stranger.send(ALERT, place_of(half.candidates[0]))
            return True

        line.passes = passes
        link, theirs = await self.conclude(asking, answering, [candidate(line.place)], [candidate(self.socket().place)])
        self.assertGreater(len(records), 3)
        await self.talk(a, b, link, theirs)
        self.assertEqual((self.owner(a).rejected, self.owner(b).rejected), ([], []))

    async def test_silence_after_the_choice(self) -> None:
        """A pair that was chosen, over which no handshake passes: the usual time, and no socket is left."""
        a, b, asking, answering = await self.halves()
        line = self.line_to(place_of(answering.candidates[0]))
        line.passes = lambda datagram, onwards: datagram[0] < 4
        concluding = self.conclude(asking, answering, [candidate(line.place)], [candidate(self.socket().place)])
        concluding.addErrback(lambda _: None)
        await self.until(lambda: a._connections and b._connections)
        for links in (a, b):
            [connection] = links._connections
            self.assertLess(connection._timer.getTime() - links.clock.seconds(), HANDSHAKE_TIMEOUT)
            connection._timer.reset(0)
        await concluding
        self.assertEqual((self.owner(a).rejected, self.owner(b).rejected), (["handshake timeout"],) * 2)
        await self.freed(*(place_of(half.candidates[0]) for half in (asking, answering)))


class MovingTests(ICETestCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(agent_module, "INTERVAL", 0.02)
        self.patch(stun, "RETRY_RTO", 0.05)

    async def test_there_and_back(self) -> None:
        """The other end changes to another way out, and back to the first: it is followed each time."""
        for controlling_moves in (True, False):
            a, b, link, theirs, line, asking, answering = await self.by_line(controlling_moves)
            follows = answering if controlling_moves else asking
            places: list[Place] = []
            for _ in range(4):
                places.append(follows.pair.remote_addr)
                line.switch()
                await self.until(lambda line=line, agent=follows: [agent.pair.remote_addr] == line.seen_at)
                await self.talk(a, b, link, theirs)
            self.assertEqual((places[0], places[1]), (places[2], places[3]))
            self.assertNotEqual(places[0], places[1])
            self.assertEqual((self.owner(a).reasons, self.owner(b).reasons), ([], []))

    async def test_a_direct_pair_is_not_left_for_a_relay(self) -> None:
        """Checks that come by way of a relay are answered, and change nothing while the chosen pair works."""
        _, _, link, _, _, asking, _ = await self.by_line()
        chosen = asking.pair
        protocol = chosen.protocol
        relayed = Candidate("9", 1, "udp", 1, "192.0.2.9", 9, "relay")
        asking._remote_candidates.append(relayed)
        message = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
        message.attributes["PRIORITY"] = 1
        pairs = len(asking._check_list)
        asking.check_incoming(message, ("192.0.2.9", 9), protocol)
        self.assertEqual((len(asking._check_list), asking.pair), (pairs, chosen))
        asking._unanswered = 1
        asking.check_incoming(message, ("192.0.2.9", 9), protocol)
        self.assertEqual(len(asking._check_list), pairs + 1)
        asking._check_list[-1].task.cancel()
        self.assertIn("host", link.candidate_pair)
