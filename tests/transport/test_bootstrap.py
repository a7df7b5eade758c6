"""Contacting a bootstrap node, and the cache of those met before."""

from __future__ import annotations

from pathlib import Path
from random import Random

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from p2psip.errors import LinkError
from p2psip.ids import NodeId
from p2psip.interfaces import ILink
from p2psip.transport.bootstrap import (
    MOST_MET,
    MOST_NEARBY,
    Bootstrap,
    BootstrapCache,
    Place,
    listening_place,
    load_places,
    save_places,
)

from .fakes import FakeLink

OURS = NodeId(b"m" * 16)
OTHER = NodeId(b"o" * 16)


class BootstrapTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.tried: list[Place] = []
        self.opening: dict[Place, Deferred[ILink]] = {}

    def connect(self, address: str, port: int) -> Deferred[ILink]:
        self.tried.append((address, port))
        opened: Deferred[ILink] = Deferred()
        self.opening[address, port] = opened
        return opened

    def bootstrap(self, cached: list[Place] | None = None) -> Bootstrap:
        return Bootstrap(OURS, self.connect, self.clock, Random(3), BootstrapCache(cached or []))

    def test_cached_first(self) -> None:
        """Nodes met before are tried before those of the document, three at once. [6940-11.4-2]"""
        cached = [("10.0.0.1", 1), ("10.0.0.2", 2), ("10.0.0.3", 3)]
        self.bootstrap(cached).contact([("10.0.0.9", 9)])
        self.assertEqual(sorted(self.tried), cached)

    def test_first_wins(self) -> None:
        """The first link is the answer and the other attempts are given up."""
        found = self.bootstrap().contact([("a", 1), ("b", 2)])
        link = FakeLink(OTHER)
        self.opening["b", 2].callback(link)
        self.assertIs(self.successResultOf(found), link)
        self.assertTrue(self.opening["a", 1].called)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_next_after_failure(self) -> None:
        """Those that refuse or stay silent make place for the next ones."""
        places = [(name, 1) for name in "abcd"]
        found = self.bootstrap().contact(places)
        self.assertEqual(len(self.tried), 3)
        self.opening[self.tried[0]].errback(LinkError("refused"))
        self.assertEqual(len(self.tried), 4)
        self.clock.advance(10)
        failure = self.failureResultOf(found, LinkError)
        for name, _ in places:
            self.assertIn(f"{name} port 1", str(failure.value))
        self.assertIn("no answer within 10 s", str(failure.value))

    def test_nobody_known(self) -> None:
        """An overlay without bootstrap nodes cannot be joined."""
        self.failureResultOf(self.bootstrap().contact([]), LinkError)

    def test_ourselves(self) -> None:
        """A bootstrap node that is down for a while finds its own address in the document."""
        found = self.bootstrap().contact([("a", 1)])
        link = FakeLink(OURS)
        self.opening["a", 1].callback(link)
        self.failureResultOf(found, LinkError)
        self.assertTrue(link.closed)

    def test_on_the_lan(self) -> None:
        """What the LAN names comes after all others, each place once, and six of them at most."""
        nearby = [("b", 1), *((f"10.0.0.{number}", 1) for number in range(20))]
        bootstrap = Bootstrap(
            OURS, self.connect, self.clock, Random(3), BootstrapCache([("a", 1)]), lambda: nearby
        )
        self.assertEqual(self.trials(bootstrap.contact([("b", 1)]))[:2], [("a", 1), ("b", 1)])
        self.assertEqual(len(set(self.tried)), len(self.tried))
        self.assertEqual(len(self.tried), 2 + MOST_NEARBY)

    def trials(self, found: Deferred[ILink]) -> list[Place]:
        """Every place that is tried, when none answers."""
        failed = found.addErrback(lambda failure: None)
        while not failed.called:
            next(each for each in self.opening.values() if not each.called).errback(LinkError("refused"))
        return self.tried

    def test_another(self) -> None:
        """Who is linked but not in the overlay does not keep us from the others; without these he has to do."""
        link = FakeLink(OTHER, outgoing=True, address="10.0.0.1:1")
        places = [("10.0.0.1", 1), ("10.0.0.2", 2)]
        another = self.bootstrap().contact_another(places, [link])
        self.assertEqual(self.tried, [("10.0.0.2", 2)])
        self.clock.advance(10)
        self.assertIsNone(self.successResultOf(another))
        self.assertIsNone(self.successResultOf(self.bootstrap().contact_another(places[:1], [link])))
        self.failureResultOf(self.bootstrap().contact_another([], []), LinkError)

    def test_cancel(self) -> None:
        """Giving up ends every attempt."""
        found = self.bootstrap().contact([("a", 1), ("b", 1)])
        found.cancel()
        self.failureResultOf(found)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class CacheTests(SynchronousTestCase):
    def test_refresh(self) -> None:
        """Peers that we reached ourselves take the place of those that are gone; ten at most. [6940-11.4-6]"""
        saved: list[list[Place]] = []
        cache = BootstrapCache([("gone", 1)], lambda places: saved.append(list(places)))
        peers = [NodeId(bytes((number,)) * 16) for number in range(10)]
        for number, peer in enumerate(peers):
            cache.met(FakeLink(peer, outgoing=True, address=f"127.0.0.{number}:6084"), bootstrap=False)
            cache.met(FakeLink(peer, outgoing=False, address=f"127.0.0.{number}:50000"), bootstrap=False)
        self.assertEqual(saved, [])
        cache.refresh([*peers[:9], OTHER])
        self.assertEqual(cache.places[-1], ("gone", 1))
        cache.refresh(peers[1:])
        self.assertEqual(cache.places[-2:], (("127.0.0.9", 6084), ("127.0.0.0", 6084)))
        self.assertEqual(len(cache.places), 10)
        cache.refresh(reversed(peers[1:]))
        self.assertEqual(saved[1:], [list(cache.places)])

    def test_bootstrap_node(self) -> None:
        """By whom we joined is cached at once, the latest first; of all others a bounded number is remembered."""
        cache = BootstrapCache([("gone", 1)])
        cache.met(FakeLink(OTHER, outgoing=True, address="[::1]:6085"), bootstrap=True)
        self.assertEqual(cache.places, (("::1", 6085), ("gone", 1)))
        first, *others = [NodeId(number.to_bytes(16)) for number in range(1, MOST_MET + 2)]
        for node_id in (first, *others):
            cache.met(FakeLink(node_id, outgoing=True, address="127.0.0.1:6084"), bootstrap=False)
        cache.refresh([first])
        self.assertEqual(len(cache.places), 2)
        cache.refresh(others[:1])
        self.assertEqual(cache.places[0], ("127.0.0.1", 6084))

    def test_where_it_listens(self) -> None:
        """The address of a link is no place to find a peer again where it came to us, or ICE connected us."""
        link = FakeLink(OTHER, outgoing=True, address="[::1]:6085")
        self.assertEqual(listening_place(link), ("::1", 6085))
        link.listening = ""
        self.assertIsNone(listening_place(link))
        self.assertIsNone(listening_place(FakeLink(OTHER, outgoing=False)))

    def test_add(self) -> None:
        """Where a node says that it listens is as good as where it was reached."""
        saved: list[list[Place]] = []
        cache = BootstrapCache((("a", 1), ("b", 2)), lambda places: saved.append(list(places)))
        cache.add(("c", 3))
        cache.add(("b", 2))
        self.assertEqual(cache.places, (("b", 2), ("c", 3), ("a", 1)))
        self.assertEqual(saved, [[("c", 3), ("a", 1), ("b", 2)]])

    def test_file(self) -> None:
        """What is saved is loaded again; a spoilt file is an empty one."""
        path = Path(self.mktemp())
        self.assertEqual(load_places(path), [])
        save_places(path, [("127.0.0.1", 6084), ("::1", 6085)])
        self.assertEqual(load_places(path), [("127.0.0.1", 6084), ("::1", 6085)])
        for spoilt in "{", "5", "[5]", '[["a", "b"]]', '[["a", 70000, 1]]':
            path.write_text(spoilt)
            self.assertEqual(load_places(path), [])

    def test_file_that_cannot_be_written(self) -> None:
        """A full disk, say, must not keep links from opening."""
        path = Path(self.mktemp())
        path.write_text("no directory")
        save_places(path / "cache", [("127.0.0.1", 6084)])
        self.assertEqual(path.read_text(), "no directory")
