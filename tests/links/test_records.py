"""Application connections over DTLS: what is written at once comes whole."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import gatherResults
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from p2psip.errors import LinkError
from p2psip.interfaces import IApplicationConnection
from p2psip.links.dtls import MOST_RECORD
from p2psip.links.dtls_links import DTLSLinkFactory, DTLSLinks

from .test_tls import A, B
from .test_tls import LinksTestCase as TLSTestCase


class Received(Protocol):
    """Keeps what comes, as it comes."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.ended = False

    def dataReceived(self, data: bytes) -> None:
        self.records.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended = True


class RecordTests(TLSTestCase):
    kind: Any = DTLSLinks
    factory: Any = DTLSLinkFactory

    async def connected(self) -> tuple[IApplicationConnection, IApplicationConnection]:
        """Both ends of a connection for SIP."""
        a, b = await self.node(A), await self.node(B)
        asking, answering = await a.negotiate(True, B, 5060), await b.negotiate(False, A, 5060)
        ours = asking.conclude(answering.ufrag, answering.password, answering.candidates, B)
        theirs = answering.conclude(asking.ufrag, asking.password, asking.candidates, A)
        one, other = await gatherResults([ours, theirs])
        return one, other

    async def test_records(self) -> None:
        """Each write is a record, up to the largest; one that is larger is an error, and nothing of it goes."""
        ends = await self.connected()
        self.assertEqual([end.candidate_pair for end in ends], ["", ""])
        protocols = Received(), Received()
        for end, protocol in zip(ends, protocols, strict=True):
            self.assertEqual((end.protocol, end.record_size), ("DTLS-UDP", MOST_RECORD))
            end.start(protocol)
        written = [b"a", b"b" * MOST_RECORD, b"c" * 1300]
        for sender, receiver in (protocols, protocols[::-1]):
            for record in written:
                cast(Any, sender.transport).write(record)
            await self.until(lambda receiver=receiver: len(receiver.records) == len(written))
            self.assertEqual(receiver.records, written)
            self.assertRaises(LinkError, cast(Any, sender.transport).write, bytes(MOST_RECORD + 1))
        self.assertEqual([end.is_open for end in ends], [True, True])
        ends[0].close()
        await self.until(lambda: all(protocol.ended for protocol in protocols))
        self.assertEqual([end.is_open for end in ends], [False, False])
        self.assertEqual([len(protocol.records) for protocol in protocols], [3, 3])
