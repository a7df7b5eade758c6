"""What ``p2psip`` may ask of every running node, whoever it belongs to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.python.failure import Failure

from .authority import Administered
from .config.document import ConfigurationError
from .config.kinds import REGISTERED_BY_NAME, Kind
from .control import Call, ControlError, Route
from .enrollment.authority import AuthorityError
from .enrollment.database import AccountError
from .errors import LinkError, NotJoined, RELOADError
from .ids import NodeId
from .node import Node
from .phones import contact_json
from .sip.errors import SIPFailure
from .sip.interfaces import Contact, NodeRoute
from .usages.forwards import TooMany
from .usages.registrations import NotServed
from .usages.sip import SIPUsage
from .usages.turn import TurnUsage
from .wire.codes import LAST_INDEX, DataModel, ProbeInformationType
from .wire.errors import EncodeError
from .wire.header import Destination, NodeDestination, ResourceDestination
from .wire.methods import NumResources, PingReq, ProbeAns, ProbeReq, ResponsibleSet, Uptime
from .wire.storage import ArrayEntry, DataValue, DictionaryEntry, StoredData

EXPECTED: Final = (
    RELOADError,
    LinkError,
    NotJoined,
    AccountError,
    AuthorityError,
    ConfigurationError,
    SIPFailure,
    EncodeError,
)
"""What may go wrong without being a bug: told to the operator in one line."""


class Operator:
    """The requests of who operates one node."""

    def __init__(self, service: Administered) -> None:
        self._service = service

    def routes(self) -> Mapping[tuple[str, str], Route]:
        """Every request, for a `ControlServer`."""
        return {
            ("GET", "/status"): self.status,
            ("GET", "/registrations"): self.registrations,
            ("GET", "/lookup"): self.lookup,
            ("GET", "/forwards"): self.forwards,
            ("POST", "/forwards"): self.forward,
            ("POST", "/ping"): self.ping,
            ("POST", "/probe"): self.probe,
            ("POST", "/fetch"): self.fetch,
            ("POST", "/store"): self.store,
            ("POST", "/leave"): self.leave,
        }

    # -- the node ------------------------------------------------------------------------------------------

    @property
    def _node(self) -> Node:
        if self._service.node is None:
            raise ControlError(f"the node is {self._service.phase}, not in the overlay yet")
        return self._service.node

    @property
    def _joined_node(self) -> Node:
        node = self._node
        if not node.joined:
            raise ControlError(f"the node is {self._service.phase}, not in the overlay yet")
        return node

    @property
    def _usage(self) -> SIPUsage:
        usage: Any = self._joined_node.usages.get("sip")
        if not isinstance(usage, SIPUsage):
            raise ControlError("this node has no SIP usage")
        return usage

    async def status(self, call: Call) -> Mapping[str, Any]:
        """`p2psip status`."""
        service = self._service
        node, phones = service.node, service.phones
        if node is None:
            return {
                "node_id": "", "overlay": service.overlay, "user_name": "", "role": "", "joined": False, "uptime": 0,
                "neighbors": {"predecessors": [], "successors": []}, "fingers": [], "links": [],
                "applications": [],
                "stored": {"resources": 0, "values": 0, "bytes": 0},
                "registrations": {"total": 0, "page": []}, "listeners": [], "rejected": {}, "turn": {}, "gateway": {},
                "media": {},
                "phase": service.phase,
            }  # fmt: skip
        status = dict(node.status())
        status["phase"] = "joined" if node.joined else service.phase
        status["registrations"] = {"total": 0, "page": []} if phones is None else phones.registrations(0, 100)
        turn: Any = node.usages.get("turn")
        status["turn"] = turn.status() if isinstance(turn, TurnUsage) else {}
        status["gateway"] = {} if service.numbers is None else service.numbers.status()
        status["media"] = {} if service.media is None else service.media.status()
        rejected = dict(status["rejected"])
        if phones is not None:
            rejected.update(phones.rejected())
        if service.numbers is not None:
            rejected.update({f"sip: {cause}": count for cause, count in service.numbers.counters.items()})
        if service.authority is not None and service.authority.server is not None:
            counters = service.authority.server.counters
            rejected.update({f"enrollment: {cause}": count for cause, count in counters.items()})
        status["listeners"], status["rejected"] = service.listeners(), rejected
        status["authority"] = service.authority is not None
        return status

    async def registrations(self, call: Call) -> Mapping[str, Any]:
        """A page of the registrations of phones here."""
        if self._service.phones is None:
            return {"total": 0, "page": []}
        return self._service.phones.registrations(*call.page())

    async def leave(self, call: Call) -> None:
        """`p2psip leave`."""
        await self._service.leave()

    # -- the overlay ---------------------------------------------------------------------------------------

    async def lookup(self, call: Call) -> Mapping[str, Any]:
        """`p2psip lookup`: the nodes of an AOR and, where known, its contacts there."""
        usage, node = self._usage, self._joined_node
        aor = self._aor(call.text("aor"))
        located = await usage.locate(aor)
        asking = [self._contacts_at(usage, node, route).addErrback(_unanswered) for route in located.routes]
        asked = await DeferredList(asking)
        return {
            "aor": aor,
            "nodes": [
                {
                    "node_id": route.node_id.hex(),
                    "contacts": _contacts(contacts),
                    **({"aor": route.aor} if route.aor != aor else {}),
                }
                for route, (_, contacts) in zip(located.routes, asked, strict=True)
            ],
        }

    def _contacts_at(self, usage: SIPUsage, node: Node, route: NodeRoute) -> Deferred[Sequence[Contact] | None]:
        """The contacts of an AOR at one node, or of the AOR to which it is forwarded; None: that is not known."""
        if not route.node_id or (route.node_id == node.node_id and self._service.phones is None):
            return succeed(None)
        if route.node_id != node.node_id:
            return usage.contacts_at(NodeId(route.node_id), route.aor).addCallback(lambda contacts: contacts)
        assert self._service.phones is not None
        return succeed(self._service.phones.registrar.query(route.aor, self._service.reactor.seconds()))

    async def forwards(self, call: Call) -> Mapping[str, Any]:
        """`p2psip forward`: what is forwarded at this node, of one AOR or of all."""
        wanted = call.query.get("aor")
        aor = None if wanted is None else self._aor(wanted)
        every = sorted(self._usage.forwards.items())
        return {"forwards": [{"aor": a, "target": target} for a, target in every if aor in (None, a)]}

    async def forward(self, call: Call) -> Mapping[str, Any]:
        """`p2psip forward USER TARGET`, and `--off`."""
        aor, target = self._aor(call.text("aor")), call.optional("target")
        if target is not None:
            target = self._aor(_number(target) or target)
            if target == aor:
                raise ControlError("calls cannot be forwarded to where they come from", 400)
        try:
            await self._usage.forward(aor, target)
        except NotServed:
            raise ControlError(f"this node serves no phone of {aor}: ask one that does") from None
        except TooMany:
            raise ControlError("this node keeps no more forwardings") from None
        return {"aor": aor, "target": target}

    def _aor(self, text: str) -> str:
        text = text.removeprefix("sips:").removeprefix("sip:")
        user, at, host = text.rpartition("@")
        return f"{user}@{host.lower()}" if at else f"{text}@{self._service.overlay}"

    async def ping(self, call: Call) -> Mapping[str, Any]:
        """`p2psip ping`."""
        node = self._joined_node
        destination = _destination(node, call.optional("target"))
        start = self._service.reactor.seconds()
        answer = await node.messaging.request([destination], PingReq(padding=b""))
        elapsed = self._service.reactor.seconds() - start
        return {
            "node_id": answer.signer.node_id.hex(),
            "rtt_ms": round(1000 * elapsed, 3),
            "hops": answer.hops,
        }

    async def probe(self, call: Call) -> Mapping[str, Any]:
        """`p2psip probe`."""
        node = self._joined_node
        asked = (ProbeInformationType.RESPONSIBLE_SET, ProbeInformationType.NUM_RESOURCES, ProbeInformationType.UPTIME)
        probe = ProbeReq(requested_info=asked)
        answer = await node.messaging.request([_destination(node, call.optional("target"))], probe)
        found: dict[str, Any] = {"node_id": answer.signer.node_id.hex()}
        for told in answer.body.probe_info if isinstance(answer.body, ProbeAns) else ():
            if isinstance(told, ResponsibleSet):
                found["responsible_ppb"] = told.responsible_ppb
            elif isinstance(told, NumResources):
                found["num_resources"] = told.num_resources
            elif isinstance(told, Uptime):
                found["uptime"] = told.uptime
        return found

    async def fetch(self, call: Call) -> Mapping[str, Any]:
        """`p2psip fetch`."""
        node = self._joined_node
        kind = self._kind(call.text("kind"))
        keys = [_bytes_of("hex:" + call.text("key"))] if call.optional("key") else []
        values = await node.overlay.fetch(_bytes_of(call.text("name")), kind.kind_id, keys)
        return {"values": [_value_json(v.data, v.signer.identity.user_name) for v in values]}

    async def store(self, call: Call) -> Mapping[str, Any]:
        """`p2psip store`."""
        node = self._joined_node
        kind = self._kind(call.text("kind"))
        exists = bool(call.body.get("exists", True))
        value = DataValue(exists=exists, value=_bytes_of(call.text("value")) if exists else b"")
        entry: Any = value
        if kind.data_model == DataModel.DICTIONARY:
            key = _bytes_of("hex:" + call.text("key")) if call.optional("key") else node.node_id
            entry = DictionaryEntry(key=key, value=value)
        elif kind.data_model == DataModel.ARRAY:
            entry = ArrayEntry(index=call.number("index", LAST_INDEX), value=value)
        name = call.optional("name")
        resource_name = _bytes_of(name) if name else self._own_name(node, kind)
        stored = await node.overlay.store(resource_name, kind.kind_id, [entry], call.number("lifetime", 3600))
        return {"generation": stored.generation, "replicas": [r.hex() for r in stored.replicas]}

    def _own_name(self, node: Node, kind: Kind) -> bytes:
        """The Resource Name that the Kind's access control lets this node write (RFC 6940 §7.3)."""
        if kind.access_control == "NODE-MATCH":
            return node.node_id
        if kind.access_control == "NODE-MULTIPLE":
            return node.node_id + b"\x01"
        return node.signer.identity.user_name.encode()

    def _kind(self, text: str) -> Kind:
        kinds = self._node.configuration.kinds
        try:
            kind_id = int(text, 0)
        except ValueError:
            registered = REGISTERED_BY_NAME.get(text.upper())
            kind_id = registered.kind_id if registered is not None else -1
        if kind_id not in kinds:
            known = ", ".join(k.name or hex(k.kind_id) for k in kinds.values())
            raise ControlError(f"the overlay has no Kind {text}; it has {known}", 400)
        return kinds[kind_id]


def _number(text: str) -> str:
    """A telephone number without what makes it readable; empty when it is none."""
    digits = re.sub(r"[-. ()]", "", text.removeprefix("tel:"))
    return digits if re.fullmatch(r"\+[0-9]{2,15}", digits) else ""


def _unanswered(failure: Failure) -> None:
    """No contacts, for whatever reason another node has not to answer."""
    failure.trap(RELOADError, LinkError, SIPFailure, DeferredTimeout)


def _destination(node: Node, target: str | None) -> Destination:
    """Where a request for a Node-ID in hex, a name, or any place of the overlay goes."""
    if target is not None and len(target) == 2 * len(node.node_id) and _is_hex(target):
        return NodeDestination(node_id=NodeId(bytes.fromhex(target)))
    name = target.encode() if target is not None else node.random.randbytes(16)
    return ResourceDestination(resource_id=node.topology.resource_id(name))


def _contacts(contacts: Sequence[Contact] | None) -> list[Mapping[str, Any]] | None:
    return None if contacts is None else [contact_json(contact) for contact in contacts]


def _is_hex(text: str) -> bool:
    try:
        bytes.fromhex(text)
    except ValueError:
        return False
    return True


def _bytes_of(text: str) -> bytes:
    """Text, or what follows ``hex:``."""
    if not text.startswith("hex:"):
        return text.encode()
    try:
        return bytes.fromhex(text.removeprefix("hex:"))
    except ValueError:
        raise ControlError(f"{text!r} is not hexadecimal", 400) from None


def _value_json(data: StoredData, signer: str) -> Mapping[str, Any]:
    value: Any = data.value
    answer: dict[str, Any] = {"signer": signer, "storage_time": data.storage_time, "lifetime": data.lifetime}
    if isinstance(value, DictionaryEntry):
        answer["key"], value = value.key.hex(), value.value
    elif isinstance(value, ArrayEntry):
        answer["index"], value = value.index, value.value
    answer["value"] = _text(value.value)
    return answer


def _text(value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return "hex:" + value.hex()
    return text if text.isprintable() else "hex:" + value.hex()
