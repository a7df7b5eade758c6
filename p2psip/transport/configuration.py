"""Keeping the whole overlay at one Configuration Document (RFC 6940 §6.3.2.1, §6.5.4).

A node that accepts a newer document sends it to every node of its Connection Table, each of which does the same; and
whoever is met with an older one in its requests gets it as well.  Of one document there is at most one ConfigUpdate
under way to a node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..config.accept import accept_kinds, accept_update
from ..config.document import (
    Configuration,
    ConfigurationError,
    SequenceTooOld,
    SignatureError,
    is_newer,
)
from ..config.write import write_document, write_kinds
from ..errors import (
    ConfigTooNew,
    ConfigTooOld,
    Forbidden,
    InvalidMessage,
    RELOADError,
    UnknownKind,
)
from ..forwarding.router import answer_destinations
from ..ids import NodeId
from ..interfaces import Answer, Request
from ..security.signing import Verifier
from ..wire.codec import Struct
from ..wire.codes import MessageCode
from ..wire.contents import UnknownKinds
from ..wire.errors import DecodeError
from ..wire.header import Destination, NodeDestination
from ..wire.methods import ConfigUpdate, ConfigUpdateAns, KindUpdate
from .messages import ANY_SEQUENCE, Arrived

PATIENCE = 5.0
"""Seconds that a request waits for the document which its Error_Config_Too_Old announced."""
PUSH_AGAIN = 10.0
"""Seconds before a document is sent again to a node that keeps asking with an old one."""
MAX_PUSHED = 1024


class ConfigurationUpdates:
    """Who has which configuration, and what is done about it.

    `current` answers the configuration in use; `verifier` judges by it, at the time `now` (seconds since 1970).
    `adopt` puts a new one to use.
    """

    log = Logger()

    def __init__(
        self,
        current: Callable[[], Configuration],
        verifier: Verifier,
        now: Callable[[], float],
        adopt: Callable[[Configuration], None],
        request: Callable[[Sequence[Destination], Struct], Deferred[Answer]],
        connected: Callable[[], Sequence[NodeId]],
        clock: IReactorTime,
        count: Callable[[str], None],
    ) -> None:
        self._current = current
        self._verifier = verifier
        self._now = now
        self._adopt = adopt
        self._request = request
        self._connected = connected
        self._clock = clock
        self._count = count
        self._pushed: dict[tuple[NodeId, int], float] = {}
        self._waiting: list[Deferred[None]] = []

    # -- Requests of others -------------------------------------------------------------------------------

    def check(self, arrived: Arrived) -> None:
        """Compare the configuration_sequence of a request with ours (§6.3.2.1).

        :raises ConfigTooOld: the requester's is older, and a ConfigUpdate is on its way to it.
        :raises ConfigTooNew: ours is older: the requester has to send its own.
        """
        theirs, ours = arrived.header.configuration_sequence, self._current().sequence
        if theirs == ours:
            return
        if theirs == ANY_SEQUENCE and arrived.contents.message_code == MessageCode.CONFIG_UPDATE_REQ:
            return
        if is_newer(theirs, ours):
            raise ConfigTooNew(f"here it is {ours}")
        destinations = answer_destinations(arrived.header, arrived.previous_hop)
        self._push(arrived.signer.node_id, destinations)
        raise ConfigTooOld(f"here it is {ours}")

    def answer_config_update(self, request: Request) -> ConfigUpdateAns:
        """Answer a ConfigUpdate, and put what is new to use."""
        body = request.body
        current = self._current()
        try:
            if isinstance(body, ConfigUpdate):
                new = accept_update(body.config_data, current, self._verifier, self._now())
            elif isinstance(body, KindUpdate):
                new = accept_kinds(b"".join(body.kinds), current, self._verifier)
            else:
                raise InvalidMessage("a ConfigUpdate of a type that is not known here")
        except ConfigurationError as error:
            self._count(f"configuration refused: {type(error).__name__}")
            raise _refusal(error) from error
        self._use(new, spread=isinstance(body, ConfigUpdate), source=request.signer.node_id)
        return ConfigUpdateAns()

    # -- Updates of ours ------------------------------------------------------------------------------------

    def offer(self, document: bytes) -> bool:
        """Use a document that came by another way, from the operator or the configuration server.

        Answers False if it is not newer than the one in use.
        :raises p2psip.config.document.ConfigurationError: it cannot be used.
        """
        try:
            new = accept_update(document, self._current(), self._verifier, self._now())
        except SequenceTooOld:
            return False
        self._use(new, spread=True, source=None)
        return True

    def _use(self, new: Configuration, *, spread: bool, source: NodeId | None) -> None:
        self._adopt(new)
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(None)
        if spread:
            for node_id in self._connected():
                if node_id != source:
                    self._push(node_id, [NodeDestination(node_id=node_id)])

    def _push(self, node_id: NodeId, destinations: Sequence[Destination]) -> Deferred[None]:
        """Send our document to `node_id`, unless that was done just now; never fails."""
        configuration = self._current()
        now = self._clock.seconds()
        key = (node_id, configuration.sequence)
        done: Deferred[None] = Deferred()
        if not configuration.raw or now - self._pushed.get(key, -PUSH_AGAIN) < PUSH_AGAIN:
            done.callback(None)
            return done
        self._pushed.pop(key, None)
        self._pushed[key] = now
        if len(self._pushed) > MAX_PUSHED:
            del self._pushed[next(iter(self._pushed))]

        def ended(result: Answer | Failure) -> None:
            if isinstance(result, Failure):
                self._count("configuration not taken")
                if result.check(RELOADError) is None:
                    self.log.failure("no ConfigUpdate to {node_id}", result, node_id=node_id.hex())
            done.callback(None)

        self._request(destinations, ConfigUpdate(config_data=write_document(configuration))).addBoth(ended)
        return done

    def mend(self, error: RELOADError) -> Deferred[None]:
        """Do what an error of configuration or Kind asks for; then the request may be tried again.

        Fails with `error` where that is of no use.
        """
        if isinstance(error, ConfigTooNew) and error.signer is not None:
            return self._push(error.signer, [NodeDestination(node_id=error.signer)])
        if isinstance(error, UnknownKind) and error.signer is not None:
            return self._push_kinds(error.signer, error)
        newer: Deferred[None] = Deferred(self._forget)
        self._waiting.append(newer)
        newer.addTimeout(PATIENCE, self._clock)
        return newer.addErrback(lambda failure: Failure(error))

    def _push_kinds(self, node_id: NodeId, error: UnknownKind) -> Deferred[None]:
        """Send the definitions of the Kinds that `error` names (§7.4.1.2)."""
        configuration = self._current()
        try:
            unknown = UnknownKinds.decode(error.error_info, configuration.context).unknown_kinds
        except DecodeError:
            unknown = ()
        blocks = [block for block in configuration.kind_blocks if block.kind.kind_id in unknown]
        if not unknown or len(blocks) != len(unknown):
            return fail(error)
        body = KindUpdate(kinds=tuple([write_kinds([block]) for block in blocks]))
        pushed = self._request([NodeDestination(node_id=node_id)], body)
        return pushed.addCallbacks(lambda answer: None, lambda failure: Failure(error))

    def _forget(self, waiting: Deferred[None]) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)


def _refusal(error: ConfigurationError) -> RELOADError:
    if isinstance(error, SequenceTooOld):
        return ConfigTooOld(str(error))
    if isinstance(error, SignatureError):
        return Forbidden(str(error))
    return InvalidMessage(str(error))
