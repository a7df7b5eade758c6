"""Which calls go through the media relay, and what becomes of their session descriptions (RFC 3264).

All that has to be known of a call comes with its messages: Call-ID and tags name it at the relay, and which way a
description goes follows from the message that it is in.  So calls survive a restart of this program.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from ipaddress import ip_address
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..errors import SIPParseError
from ..interfaces import IMedia, Source
from ..message import Message, Request, Response
from . import ng
from .calls import Call, Calls
from .client import RelayError, RelayRefused
from .nat import contact_is_behind_nat, is_behind_nat
from .relays import Relay, Relays
from .sdp import Description, SDPError, read_description, without_ice

_OFFERING: Final = frozenset(("INVITE", "UPDATE", "PRACK"))
_ALWAYS: Final[Mapping[str, ng.Value]] = {
    "replace": ("origin", "session-connection"),
    "ICE": "remove",
    "supports": ("load limit",),
}
_FLAGS: Final = (
    # What is encrypted between the phones stays so.
    "passthrough",
    # Media are sent to where they come from, and if there is a choice, to the address that the phone is known by.
    "endpoint-learning-heuristic",
)


@implementer(IMedia)
class Media:
    """The media relays of this node.

    :param name: of this node, so that two nodes may share a relay: a call that both relay is two calls there.
    :param clock: the time in seconds.
    """

    log = Logger()

    def __init__(self, relays: Relays, name: str, clock: Callable[[], float]) -> None:
        self._relays = relays
        self._name = name
        self._clock = clock
        self._calls = Calls()
        self.counters: Counter[str] = Counter()

    def start(self) -> None:
        """Begin to look after the relays.  Raises SIPListenError."""
        self._relays.start()

    async def stop(self) -> None:
        """Ask the relays nothing any more; calls go on."""
        await self._relays.stop()

    def status(self) -> Mapping[str, Any]:
        """For ``status --json``."""
        return {
            "relays": self._relays.status(),
            "calls": len(self._calls),
            "counters": dict(self.counters + self._relays.counters),
        }

    # -- IMedia -----------------------------------------------------------------------------------------------

    def wanted(self, request: Request, caller: Source | None, callee_source: str, callee_uri: str) -> bool:
        """See `IMedia`."""
        offer = self._description(request)
        if offer is None and request.body:
            return False
        words = callee_source.split()
        behind_nat = len(words) == 3 and contact_is_behind_nat(callee_uri, words[1])
        if not behind_nat and caller is not None:
            if offer is not None:
                behind_nat = is_behind_nat(offer, caller)
            else:
                behind_nat = any(contact_is_behind_nat(each.uri_text, caller.host) for each in request.contacts)
        if behind_nat and offer is not None and offer.ice:
            # For a callee behind a NAT, too: who does ICE finds a way by itself, or learns that the other does not.
            self.counters["left to ICE"] += 1
            return False
        return behind_nat

    def request_passes(self, request: Request, branch: str, sender: Source | None) -> Deferred[None]:
        """See `IMedia`."""
        return self._never_failing(self._request_passes(request, branch, sender))

    def response_passes(
        self, response: Response, request: Request, branch: str, sender: Source | None
    ) -> Deferred[None]:
        """See `IMedia`."""
        return self._never_failing(self._response_passes(response, request, branch, sender))

    def ended(self, call_id: str, from_tag: str, to_tag: str | None, branch: str) -> None:
        """See `IMedia`."""
        call = self._calls.get(call_id)
        if call is None:
            # Of an earlier run, and any of the relays may have it.
            self._delete(self._relays.for_call(call_id), call_id, from_tag, to_tag, branch)
            return
        call.branches.discard(branch)
        if branch in call.under_way:
            call.ended.add(branch)  # else the relay might hear of the end before the beginning
        elif call.relay is not None and branch not in call.bypassing:
            self._delete([call.relay], call_id, from_tag, to_tag, branch)
        if to_tag or not call.branches:
            self._calls.forget(call_id)

    # -- messages ---------------------------------------------------------------------------------------------

    async def _request_passes(self, request: Request, branch: str, sender: Source | None) -> None:
        from_tag, to_tag = request.from_.tag, request.to.tag
        if not from_tag or not (request.body or request.method == "INVITE"):
            return
        call = self._calls.heard(request.call_id, self._clock())
        if request.method == "INVITE":
            call.late, call.ignored = not request.body, False
            if to_tag is None:
                call.branches.add(branch)
        if not request.body:
            return
        if request.method == "ACK" or (request.method == "PRACK" and call.late):
            if to_tag and not call.ignored:
                await self._exchange("answer", request, call, (to_tag, from_tag), branch, sender)
        elif request.method in _OFFERING:
            if to_tag is None and not call.comes_by(from_tag, _way(request)):
                # Who knows a call's names from being called must not get hold of its media by calling with them.
                self.counters["call of another"] += 1
                call.bypass(branch)
            elif not await self._exchange("offer", request, call, (from_tag, to_tag), branch, sender):
                call.bypass(branch)

    async def _response_passes(
        self, response: Response, request: Request, branch: str, sender: Source | None
    ) -> None:
        from_tag, to_tag = request.from_.tag, response.to.tag
        if not response.body or response.status >= 300 or not from_tag or not to_tag:
            return
        if request.method not in _OFFERING:
            return
        call = self._calls.heard(request.call_id, self._clock())
        if branch in call.bypassing:
            return
        if request.body:
            await self._exchange("answer", response, call, (from_tag, to_tag), branch, sender)
            return
        offer = self._description(response)
        if offer is not None and offer.ice and request.to.tag is None:
            self.counters["left to ICE"] += 1
            call.ignored = True
        else:
            call.ignored = not await self._exchange("offer", response, call, (to_tag, from_tag), branch, sender)

    async def _exchange(
        self,
        command: str,
        message: Message,
        call: Call,
        tags: tuple[str, str | None],
        branch: str,
        sender: Source | None,
    ) -> bool:
        """Have the relay rewrite the body of `message`; whether it did.

        `tags` are those of who offered and of who answered; `sender` is the phone that `message` comes from.
        """
        description = self._description(message)
        if description is None:
            return False
        arguments = {**_ALWAYS, **self._names(message.call_id, *tags, branch)}
        # The relay is the way; candidates would lead past it, and it leaves them where it passes through what it gets.
        arguments["sdp"] = without_ice(message.body) if description.ice else message.body
        flags = [*_FLAGS]
        if sender is not None and not description.unspecified and is_behind_nat(description, sender):
            flags.append("SIP-source-address")
            arguments["received-from"] = _family_and_address(sender.host)
        arguments["flags"] = flags
        call.under_way.add(branch)
        try:
            call.relay, answer = await self._relays.ask(message.call_id, command, arguments, call.relay)
            body = answer.get("sdp")
            if not isinstance(body, bytes) or not body:
                raise RelayRefused("an answer without a session description")
        except RelayError as error:
            self._failed(command, error)
            return False
        finally:
            call.under_way.discard(branch)
            if branch in call.ended:
                call.ended.discard(branch)
                relays = [] if call.relay is None else [call.relay]
                self._delete(relays, message.call_id, tags[0], None, branch)
        message.body = body
        self.counters[command] += 1
        return True

    def _description(self, message: Message) -> Description | None:
        """The session description of `message`; None if there is none that could be handled."""
        if not message.body:
            return None
        content_type = (message.get("Content-Type") or "").partition(";")[0].strip().lower()
        if content_type != "application/sdp" or "Content-Encoding" in message.headers:
            self.counters["other body"] += 1
            return None
        try:
            return read_description(message.body)
        except SDPError:
            self.counters["malformed description"] += 1
            return None

    # -- the relay --------------------------------------------------------------------------------------------

    def _names(self, call_id: str, from_tag: str, to_tag: str | None, branch: str) -> dict[str, ng.Value]:
        names: dict[str, ng.Value] = {"call-id": f"{self._name}-{call_id}", "from-tag": from_tag}
        if to_tag:
            names["to-tag"] = to_tag
        if branch:
            names["via-branch"] = branch
        return names

    def _delete(
        self, relays: Sequence[Relay], call_id: str, from_tag: str, to_tag: str | None, branch: str
    ) -> None:
        arguments = {**self._names(call_id, from_tag, to_tag, branch), "delete-delay": 0}
        self._never_failing(self._relays.tell(relays, "delete", arguments))

    def _failed(self, command: str, error: RelayError) -> None:
        """Of each kind one line in the log; that no relay is there is said elsewhere."""
        kind = f"{command} failed, {error.cause}"
        self.counters[kind] += 1
        if self.counters[kind] == 1 and self._relays.any_up:
            self.log.warn(
                "the media relay did not take an {command} ({why}): it passed unchanged; further ones are counted",
                command=command, why=str(error),
            )  # fmt: skip

    def _never_failing(self, going: Coroutine[Any, Any, None]) -> Deferred[None]:
        return Deferred.fromCoroutine(going).addErrback(self._unexpected)

    def _unexpected(self, failure: Failure) -> None:
        if failure.check(SIPParseError):
            self.counters["malformed message"] += 1
        else:
            self.log.failure("a message did not get to the media relay", failure)


def _way(request: Request) -> str:
    """The hosts that `request` came by, as those who passed it on noted them; ours is not among them."""
    return " ".join(via.parameters.get("received") or via.host for via in request.vias[1:])


def _family_and_address(host: str) -> tuple[str, str]:
    address = ip_address(host.partition("%")[0])
    return f"IP{address.version}", str(address)
