"""Finding a way into the overlay: nodes met before, then the bootstrap nodes of the document (RFC 6940 §11.4)."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from ..errors import LinkError
from ..hostport import parse_address
from ..ids import NodeId
from ..interfaces import ILink
from ..state import write_file

Place = tuple[str, int]
"""An address and a port."""

CACHED = 10
"""RFC 6940 §11.4: "The suggested number of peers to cache is 10"."""
MOST_MET = 512
"""Of how many nodes is remembered where they listen, until they turn out to be peers."""
AT_ONCE = 3
"""Bootstrap nodes that are tried at the same time."""
PATIENCE = 10.0
"""Seconds that each of them is given."""
MOST_NEARBY = 6
"""How many places that somebody on the LAN names are tried at a time: they must not keep us from the others."""


class BootstrapCache:
    """Where peers listen, if this node had links to them: the latest first, at most ten (RFC 6940 §11.4).

    `save` is called at each change of which these are.
    """

    def __init__(
        self, places: Iterable[Place] = (), save: Callable[[Sequence[Place]], None] | None = None
    ) -> None:
        self._places: Sequence[Place] = tuple(dict.fromkeys(places))[:CACHED]
        self._save = save
        self._met: dict[NodeId, Place] = {}

    @property
    def places(self) -> Sequence[Place]:
        """The cached places, the latest first."""
        return self._places

    def add(self, place: Place) -> None:
        """Cache where another peer listens."""
        self._replace((place, *(other for other in self._places if other != place)))

    def met(self, link: ILink, bootstrap: bool) -> None:
        """`link` is up.  Cache its other end where it is a bootstrap node, else not before it is known for a peer."""
        place = listening_place(link)
        if place is None:
            return
        self._met.pop(link.node_id, None)
        self._met[link.node_id] = place
        if len(self._met) > MOST_MET:
            del self._met[next(iter(self._met))]
        if bootstrap:
            self.add(place)

    def refresh(self, peers: Iterable[NodeId]) -> None:
        """Cache connected `peers`, as far as it is known where they listen, in place of those that are gone."""
        # The link in use may be one that the peer has opened, beside the one that was met.
        here = dict.fromkeys(self._met[node_id] for node_id in peers if node_id in self._met)
        kept = [place for place in self._places if place in here]
        new = [place for place in here if place not in self._places]
        self._replace((*kept, *new, *(place for place in self._places if place not in here)))

    def _replace(self, places: Sequence[Place]) -> None:
        before, self._places = self._places, tuple(places[:CACHED])
        if self._save is not None and set(before) != set(self._places):
            self._save(self._places)


def listening_place(link: ILink) -> Place | None:
    """Where the other end of `link` listens, as far as that is known here."""
    return parse_address(link.listening) if link.listening else None


def load_places(path: Path) -> Sequence[Place]:
    """The places in the file `path`; none where it is missing or spoilt: a cache is never worth a failure."""
    try:
        return [
            (str(address), int(port))
            for address, port in json.loads(path.read_text(encoding="utf-8"))
            if 0 < int(port) < 65536
        ]
    except (OSError, ValueError, TypeError):
        return []


def save_places(path: Path, places: Sequence[Place]) -> None:
    """Replace the file `path`, or leave it as it is where that cannot be done."""
    with suppress(OSError):
        write_file(path, json.dumps(places).encode())


class Bootstrap:
    """Opens a link to whichever bootstrap node answers first, three being tried at once for ten seconds each.

    `nearby` answers the places that are known from the LAN now.
    """

    def __init__(
        self,
        node_id: NodeId,
        connect: Callable[[str, int], Deferred[ILink]],
        clock: IReactorTime,
        random: Random,
        cache: BootstrapCache,
        nearby: Callable[[], Sequence[Place]] = tuple,
    ) -> None:
        self._node_id = node_id
        self._connect = connect
        self._clock = clock
        self._random = random
        self._cache = cache
        self._nearby = nearby

    def contact(self, bootstrap_nodes: Iterable[Place], apart_from: Collection[Place] = ()) -> Deferred[ILink]:
        """A link to one of the cached nodes or, after these, of `bootstrap_nodes`, and then of those on the LAN.

        Fails with LinkError that names what was tried.
        """
        seen = set(apart_from)
        order: list[Place] = []
        for places, most in ((self._cache.places, None), (bootstrap_nodes, None), (self._nearby(), MOST_NEARBY)):
            new = [place for place in dict.fromkeys(places) if place not in seen]
            self._random.shuffle(new)
            order += new[:most]
            seen.update(new)
        return _Contact(self, order).found

    def peers(self, bootstrap_nodes: Sequence[Place], links: Iterable[ILink]) -> Deferred[Sequence[NodeId]]:
        """See `ITopologyHost.bootstrap_peers`: one that there is no link of ours to, else those of `links`."""
        ours = {place: link.node_id for link in links if (place := listening_place(link))}
        places = dict.fromkeys((*self._cache.places, *bootstrap_nodes, *self._nearby()))
        connected = [ours[place] for place in places if place in ours]
        found = self.contact(bootstrap_nodes, ours)
        return found.addCallbacks(lambda link: [link.node_id], lambda failure: connected)

    def contact_another(self, bootstrap_nodes: Sequence[Place], links: Sequence[ILink]) -> Deferred[Any]:
        """A link to a bootstrap node to which `links` has none: those linked may be out of the overlay themselves.

        They have to do where no other answers within ten seconds; fails with LinkError where there are none.
        """
        ours = [place for link in links if (place := listening_place(link))]
        found = self.contact(bootstrap_nodes, ours)
        return found.addTimeout(PATIENCE, self._clock).addErrback(lambda failure: None) if links else found

    def _open(self, place: Place) -> Deferred[ILink]:
        return self._connect(*place).addTimeout(PATIENCE, self._clock).addCallback(self._not_ourselves)

    def _not_ourselves(self, link: ILink) -> ILink:
        if link.node_id == self._node_id:
            error = LinkError("this node itself")
            link.close(error)
            raise error
        return link


class _Contact:
    """One search for a bootstrap node."""

    def __init__(self, bootstrap: Bootstrap, places: list[Place]) -> None:
        self._bootstrap = bootstrap
        self._left = places
        self._trying: dict[Place, Deferred[None]] = {}
        self._failures: list[str] = []
        self._done = False
        self.found: Deferred[ILink] = Deferred(lambda _: self._end())
        self._try_more()

    def _try_more(self) -> None:
        while self._left and len(self._trying) < AT_ONCE and not self._done:
            place = self._left.pop(0)
            opened = self._bootstrap._open(place)
            trial = opened.addCallbacks(self._opened, self._failed, callbackArgs=(place,), errbackArgs=(place,))
            if not trial.called:
                self._trying[place] = trial
        if not self._trying and not self._left and not self._done:
            self._done = True
            text = "; ".join(self._failures) or "none is known"
            self.found.errback(LinkError(f"no bootstrap node answers: {text}"))

    def _opened(self, link: ILink, place: Place) -> None:
        self._trying.pop(place, None)
        if self._done:
            return
        self._end()
        self.found.callback(link)

    def _failed(self, failure: Failure, place: Place) -> None:
        in_turn = self._trying.pop(place, None) is not None
        if failure.check(DeferredTimeout):
            reason = f"no answer within {PATIENCE:.0f} s"
        else:
            reason = failure.getErrorMessage() or type(failure.value).__name__
        self._failures.append(f"{place[0]} port {place[1]}: {reason}")
        if in_turn and not self._done:
            self._try_more()

    def _end(self) -> None:
        self._done = True
        self._left.clear()
        for trial in list(self._trying.values()):
            trial.cancel()
        self._trying.clear()
