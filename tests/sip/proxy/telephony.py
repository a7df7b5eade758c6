"""Nodes with proxies in an overlay in memory, and phones that are written by hand."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.defer import Deferred

from p2psip.interfaces import ISigner
from p2psip.node import Node
from p2psip.phones import Phones
from p2psip.sip.digest import DigestCredentials
from p2psip.sip.errors import SIPParseError
from p2psip.sip.interfaces import DeviceCredential
from p2psip.sip.message import Request, Response, parse
from p2psip.sip.proxy.build import Beyond
from p2psip.sip.transport import DatagramPort
from p2psip.testing import World
from p2psip.usages.sip import SIPUsage, SIPUsageFactory

from ..fakes import FakeCredentials, authorize

USERS = ("alice", "bob", "carol", "dave")


class Credentials:
    """What `Phones` asks of `RegistrarCredentials`: it knows the users whose phones came here, and signs for them."""

    def __init__(self, world: World, node: Node) -> None:
        self._fake = FakeCredentials(**{user: ["pw"] for user in USERS})
        self._signers = {user: world.user(f"{user}@{world.name}", node) for user in USERS}

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def known(self, user: str) -> bool:
        return user in self._signers

    def signer(self, user: str) -> ISigner | None:
        return self._signers.get(user)

    def credentials(
        self, user: str, authorization: DigestCredentials, method: str
    ) -> Deferred[Sequence[DeviceCredential]]:
        return self._fake.credentials(user, authorization, method)


class Site:
    """One node with its SIP server, whose datagrams go to the phones at their addresses."""

    def __init__(self, telephony: Telephony, node: Node, address: str, mode: str, beyond: Beyond) -> None:
        self.telephony, self.node, self.address = telephony, node, address
        self.seconds, self.callLater = telephony.world.clock.seconds, telephony.world.clock.callLater
        self.datagrams: DatagramPort | None = None
        # In the world nodes are peers; phones are for registrars.
        object.__setattr__(node.signer.identity, "role", "registrar")
        usage = node.usages["sip"]
        assert isinstance(usage, SIPUsage)
        self.usage = usage
        bindings = Path(tempfile.mkdtemp()) / "bindings.sqlite"
        credentials: Any = Credentials(telephony.world, node)
        self.phones = Phones(
            telephony.world.name, node.node_id, usage, credentials, bindings, self, Random(1), [address], False, mode,
            node.node_id, beyond,
        )  # fmt: skip
        usage.start()
        self.phones.start(["127.0.0.1"], 0)
        self.phones.domain.hosts.add(address)
        edge = self.phones.edge
        edge.listening = [where._replace(host=address, port=5060) for where in edge.listening]

    # -- a reactor with ports that nothing comes to but by `receive`

    def adoptDatagramPort(self, fileno: int, family: int, protocol: DatagramPort, size: int) -> Site:
        self.datagrams = protocol
        protocol.transport = self  # type: ignore[assignment]
        return self

    def adoptStreamPort(self, fileno: int, family: int, factory: Any) -> Site:
        return self

    def stopListening(self) -> None:
        pass

    def getHost(self) -> Any:
        return type("Address", (), {"host": self.address, "port": 5060})

    def write(self, data: bytes, address: tuple[str, int]) -> None:
        phone = self.telephony.phones.get(address)
        if phone is not None:
            try:
                phone.received.append(parse(data))
            except SIPParseError:
                pass  # an answer to rubbish repeats some of it

    def receive(self, data: bytes, source: tuple[str, int]) -> None:
        assert self.datagrams is not None
        self.datagrams.datagramReceived(data, source)


class Phone:
    """One phone at an address, with a node as its outbound proxy; `received` is all that came."""

    def __init__(self, telephony: Telephony, site: Site, user: str, host: str, port: int = 5060) -> None:
        self.telephony, self.site, self.user = telephony, site, user
        self.place = (host, port)
        self.contact = f"sip:{user}@{host}:{port}"
        self.received: list[Request | Response] = []
        self._number = 0
        telephony.phones[self.place] = self

    def send(self, message: Request | Response) -> None:
        self.site.receive(message.encode(), self.place)

    def request(
        self, method: str, uri: str, call_id: str = "", to: str = "", from_: str = "", **headers: str
    ) -> Request:
        """A new request out of a dialog."""
        self._number += 1
        host, port = self.place
        aor = f"sip:{self.user}@{self.telephony.world.name}"
        request = Request(
            method,
            uri,
            [
                ("Via", f"SIP/2.0/UDP {host}:{port};branch=z9hG4bK{self.user}{host}{self._number};rport"),
                ("Max-Forwards", "70"),
                ("From", from_ or f"<{aor}>;tag={self.user}"),
                ("To", to or f"<{aor if method == 'REGISTER' else uri}>"),
                ("Call-ID", call_id or f"{self.user}{host}{self._number}"),
                ("CSeq", f"{self._number} {method}"),
                ("Contact", f"<{self.contact}>"),
            ],
        )
        for name, value in headers.items():
            request.set(name.replace("_", "-"), value)
        return request

    def again(self, request: Request, challenge: Response) -> Request:
        """`request` once more, with the answer to a challenge."""
        self._number += 1
        request.set("CSeq", f"{self._number} {request.method}")
        host, port = self.place
        request.set("Via", f"SIP/2.0/UDP {host}:{port};branch=z9hG4bK{self.user}{host}{self._number};rport")
        return authorize(request, challenge, user=self.user)

    def register(self, contact: str = "", expires: int = 600, **headers: str) -> Response:
        """Register, and answer the response."""
        request = self.request("REGISTER", f"sip:{self.telephony.world.name}", Expires=str(expires), **headers)
        if contact:
            request.set("Contact", contact)
        return self.ask(request)

    def ask(self, request: Request) -> Response:
        """The final response, after a challenge if one comes."""
        self.send(request)
        response = self.response(request)
        if response.status in (401, 407):
            if request.method == "INVITE":
                self.send(self.ack(request, response))
            self.send(self.again(request, response))
            response = self.response(request)
        return response

    def invite(self, uri: str, **headers: str) -> Request:
        """Send an INVITE, with credentials; answers it as it was sent."""
        request = self.request("INVITE", uri, **headers)
        self.send(request)
        challenge = self.response(request)
        self.telephony.expect(challenge.status, 407)
        self.send(self.ack(request, challenge))
        self.send(self.again(request, challenge))
        return request

    def response(self, request: Request, status: int | None = None) -> Response:
        """The next final response to `request`, or the next one of `status`; it is taken out of `received`."""

        def found() -> Response | None:
            for message in self.received:
                if not isinstance(message, Response) or message.call_id != request.call_id:
                    continue
                wanted = message.status >= 200 if status is None else message.status == status
                if wanted and message.cseq == request.cseq:
                    return message
            return None

        return self._taken(found)

    def next_request(self, method: str) -> Request:
        """The next request of a method; it is taken out of `received`."""

        def found() -> Request | None:
            return next((m for m in self.received if isinstance(m, Request) and m.method == method), None)

        return self._taken(found)

    def _taken(self, found: Callable[[], Any]) -> Any:
        self.telephony.world.until(found, 60)
        message = found()
        self.received.remove(message)
        return message

    def none_of(self, method: str) -> bool:
        return not any(isinstance(m, Request) and m.method == method for m in self.received)

    def answer(self, request: Request, status: int, **headers: str) -> Response:
        """Answer a request that came."""
        response = request.response(status, to_tag=f"to-{self.user}-{self.place[0]}")
        if "Record-Route" in request.headers:
            response.headers["Record-Route"] = list(request.headers["Record-Route"])
        if status < 300:
            response.set("Contact", f"<{self.contact}>")
        for name, value in headers.items():
            response.set(name.replace("_", "-"), value)
        self.send(response)
        return response

    def ack(self, request: Request, response: Response) -> Request:
        """The ACK for a final response other than 2xx."""
        ack = Request("ACK", request.uri_text)
        ack.headers = {name: list(request.headers[name]) for name in ("Via", "From", "Call-ID", "Max-Forwards")}
        ack.set("To", response.headers["To"][0])
        ack.set("CSeq", f"{request.cseq.number} ACK")
        return ack

    def within(self, method: str, dialog: Dialog, **headers: str) -> Request:
        """A request within a dialog, as this end of it has it."""
        request = self.request(
            method, dialog.target, call_id=dialog.call_id, to=dialog.remote, from_=dialog.local, **headers
        )
        if dialog.routes:
            request.headers["Route"] = list(dialog.routes)
        if method == "ACK":
            request.set("CSeq", f"{dialog.number} ACK")
        return request


class Dialog:
    """What one end knows of a dialog (RFC 3261 §12.1)."""

    def __init__(self, request: Request, response: Response, caller: bool) -> None:
        self.call_id, self.number = request.call_id, request.cseq.number
        from_, to = request.headers["From"][0], response.headers["To"][0]
        self.local, self.remote = (from_, to) if caller else (to, from_)
        message = response if caller else request
        self.target = message.contacts[0].uri_text
        routes = message.values("Record-Route")
        self.routes = routes[::-1] if caller else routes


class Telephony:
    """An overlay whose nodes all serve phones."""

    def __init__(self, nodes: int = 2, modes: Sequence[str] = (), beyond: Sequence[Beyond] = ()) -> None:
        self.world = World(nodes, usages=[SIPUsageFactory()])
        self.phones: dict[tuple[str, int], Phone] = {}
        self.sites = [
            Site(
                self,
                node,
                f"198.51.100.{number + 1}",
                modes[number] if modes else "proxy",
                beyond[number] if beyond else Beyond(),
            )
            for number, node in enumerate(self.world.nodes)
        ]

    def phone(self, site: int, user: str, host: str, port: int = 5060) -> Phone:
        """A phone that has registered."""
        phone = Phone(self, self.sites[site], user, host, port)
        self.expect(phone.register().status, 200)
        return phone

    def uri(self, user: str) -> str:
        return f"sip:{user}@{self.world.name}"

    @staticmethod
    def expect(found: object, wanted: object) -> None:
        if found != wanted:
            raise AssertionError(f"{found!r} in place of {wanted!r}")

    def stop(self) -> None:
        for site in self.sites:
            self.world.result(Deferred.fromCoroutine(site.phones.stop()))
