"""Somebody with a certificate of the overlay, or with none, who sends whatever it likes over real connections."""

from __future__ import annotations

import itertools
import json
import secrets
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from p2psip.config.accept import accept_first
from p2psip.config.document import Configuration
from p2psip.forwarding.fragments import Fragment, Reassembly
from p2psip.ids import NodeId
from p2psip.security.certificates import (
    Authority,
    PrivateKey,
    certificate_pem,
    certificates_of_pem,
    generate_key,
    load_private_key,
    private_key_pem,
)
from p2psip.security.identity import Identity
from p2psip.security.signing import Signer
from p2psip.transport.messages import request_code, seal
from p2psip.wire.codec import Struct
from p2psip.wire.codes import UNFRAGMENTED, FramedMessageType
from p2psip.wire.frame import AckFrame, DataFrame
from p2psip.wire.header import (
    FIXED_SIZE,
    Destination,
    ForwardingHeader,
    NodeDestination,
    with_header,
)
from p2psip.wire.message import decode_message
from p2psip.wire.methods import IceCandidate, IpAddressPort

from .dtls import DTLSConnection
from .nodes import DTLS, ICE, TLS, NodeProcess

DAY = 86400.0
SECONDS = 5.0
"""How long an answer may take."""


@dataclass
class Member:
    """A key with a certificate, and the Node-ID in it."""

    key: PrivateKey
    certificate: bytes
    signer: Signer

    @property
    def node_id(self) -> NodeId:
        return self.signer.node_id


class Overlay:
    """What an intruder knows of the overlay, and its authority's key, with which it makes certificates."""

    def __init__(self, founder: NodeProcess) -> None:
        directory = founder.state / "authority"
        certificate = certificates_of_pem((directory / "ca.crt").read_bytes())[0]
        self.authority = Authority(certificate, load_private_key((directory / "ca.key").read_bytes()))
        self.name = founder.overlay
        self.document = (founder.state / "overlay.xml").read_bytes()
        self.configuration: Configuration = accept_first(self.document, self.name, time.time())

    def member(
        self,
        user_name: str = "mallory@example.org",
        node_ids: tuple[NodeId, ...] = (),
        *,
        authority: Authority | None = None,
        overlay: str = "",
        key: PrivateKey | None = None,
        role: str = "peer",
        ago: float = 0.0,
        lifetime: float = DAY,
    ) -> Member:
        """A new certificate; `ago` seconds old."""
        key = key or generate_key()
        certificate = (authority or self.authority).issue(
            key.public_key(),
            overlay=overlay or self.name,
            user_name=user_name,
            node_ids=node_ids or (NodeId(secrets.token_bytes(16)),),
            role=role,
            now=time.time() - ago,
            lifetime=lifetime,
        )
        identity = Identity.from_certificate(certificate, overlay or self.name)
        return Member(key, certificate, Signer(identity, key, identity.node_ids[0]))


def credentials(directory: Path, member: Member) -> Path:
    """A file with the certificate and key of `member`."""
    path = directory / f"intruder-{member.node_id.hex()}.pem"
    path.write_bytes(certificate_pem(member.certificate) + private_key_pem(member.key))
    return path


class Listener:
    """A TLS server that shows the certificate of `member`: the passive end of an Attach."""

    def __init__(self, directory: Path, member: Member, address: str) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(credentials(directory, member))
        self._socket = socket.create_server((address, 0))
        self._socket.settimeout(SECONDS)
        host, port = self._socket.getsockname()
        self.candidates = (IceCandidate(addr_port=IpAddressPort.of(host, port), overlay_link=4),)

    def accept(self) -> ssl.SSLSocket:
        """The next connection, its handshake done."""
        plain, _ = self._socket.accept()
        plain.settimeout(SECONDS)
        return self._context.wrap_socket(plain, server_side=True)

    def close(self) -> None:
        self._socket.close()


def tls_connection(
    address: str, port: int, directory: Path, member: Member | None, seconds: float = SECONDS
) -> ssl.SSLSocket:
    """A TLS connection that believes everybody, showing the certificate of `member`, if any."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if member is not None:
        context.load_cert_chain(credentials(directory, member))
    plain = socket.create_connection((address, port), seconds)
    try:
        return context.wrap_socket(plain)
    except BaseException:
        plain.close()
        raise


def dtls_connection(
    address: str, port: int, directory: Path, member: Member | None, seconds: float = SECONDS
) -> DTLSConnection:
    """As `tls_connection`, over DTLS."""
    return DTLSConnection(address, port, member and credentials(directory, member), seconds)


Connection = ssl.SSLSocket | DTLSConnection
CONNECT: dict[str, Callable[..., Connection]] = {TLS: tls_connection, DTLS: dtls_connection, ICE: dtls_connection}
"""What makes a link to a node that speaks this link protocol."""


class Intruder:
    """One link of `member` to `node`, on which anything can be sent."""

    def __init__(self, overlay: Overlay, node: NodeProcess, member: Member, protocol: str = TLS) -> None:
        self.overlay = overlay
        self.member = member
        self.victim = NodeId(bytes.fromhex(status(node)["node_id"]))
        self.there = NodeDestination(node_id=self.victim)
        self.tls = CONNECT[protocol](node.address, 6084, node.state.parent, member)
        self._buffer = b""
        self._sequence = itertools.count()
        self._transactions = itertools.count(secrets.randbits(40))
        self._reassembly = Reassembly(lambda cause: None)
        self.acknowledges = True
        self.closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.tls.close()

    # -- sending

    def write(self, data: bytes) -> bool:
        """Send bytes as they are; False where the node has closed the link."""
        try:
            self.tls.sendall(data)
        except OSError:
            self.closed = True
        return not self.closed

    def frame(self, message: bytes) -> bytes:
        """A message in its frame."""
        return DataFrame(sequence=next(self._sequence), message=message).encode()

    def transaction(self) -> int:
        """A transaction ID that was not used yet."""
        return next(self._transactions)

    def message(
        self,
        body: Struct | bytes,
        destination: Destination | None = None,
        transaction_id: int | None = None,
        signer: Signer | None = None,
        code: int | None = None,
        certificates: tuple[bytes, ...] = (),
        extensions: tuple[Any, ...] = (),
        **header: Any,
    ) -> bytes:
        """A message, `header` fields of it changed."""
        configuration = self.overlay.configuration
        transaction_id = self.transaction() if transaction_id is None else transaction_id
        overlay = header.get("overlay", configuration.overlay_hash)
        encoded = body if isinstance(body, bytes) else body.encode()
        code = request_code(body) if code is None and isinstance(body, Struct) else code
        assert code is not None
        sealed = seal(
            overlay, transaction_id, code, encoded, signer or self.member.signer, certificates, extensions
        )
        fields: dict[str, Any] = {
            "overlay": overlay,
            "configuration_sequence": configuration.sequence,
            "ttl": 10,
            "transaction_id": transaction_id,
            "destination_list": (destination or self.there,),
            **header,
        }
        return with_header(ForwardingHeader(**fields), sealed)

    # -- receiving

    def frames(self, seconds: float) -> Any:
        """The messages that come within `seconds`, each acknowledged; ends early when the link is closed."""
        end = time.monotonic() + seconds
        while True:
            while (message := self._take()) is not None:
                if (whole := self._whole(message)) is not None:
                    yield whole
            left = end - time.monotonic()
            if left <= 0 or self.closed:
                return
            self.tls.settimeout(left)
            try:
                data = self.tls.recv(65536)
            except (TimeoutError, ssl.SSLWantReadError):
                return
            except OSError:
                data = b""
            finally:
                self.tls.settimeout(SECONDS)
            if not data:
                self.closed = True
                return
            self._buffer += data

    def _whole(self, message: bytes) -> bytes | None:
        if int.from_bytes(message[12:16]) == UNFRAGMENTED:
            return message
        start = FIXED_SIZE + sum(int.from_bytes(message[at : at + 2]) for at in (32, 34, 36))
        assembled = self._reassembly.add(Fragment(message, start, self.victim), time.monotonic())
        return assembled and assembled.data

    def _take(self) -> bytes | None:
        while self._buffer:
            if self._buffer[0] == FramedMessageType.ACK:
                if len(self._buffer) < 9:
                    return None
                self._buffer = self._buffer[9:]
                continue
            if len(self._buffer) < 8:
                return None
            size = 8 + int.from_bytes(self._buffer[5:8])
            if len(self._buffer) < size:
                return None
            sequence, message = int.from_bytes(self._buffer[1:5]), self._buffer[8:size]
            self._buffer = self._buffer[size:]
            if self.acknowledges:
                self.write(AckFrame(ack_sequence=sequence, received=0).encode())
            return message
        return None

    def answer(self, transaction_id: int, seconds: float = SECONDS) -> Any:
        """The body of the answer in `transaction_id`; None if there is none within `seconds`."""
        ctx = self.overlay.configuration.context
        for message in self.frames(seconds):
            read = decode_message(message, ctx)
            if read.header.transaction_id == transaction_id and not read.contents.message_code % 2:
                return read.body(ctx)
            if read.header.transaction_id == transaction_id and read.contents.message_code == 0xFFFF:
                return read.body(ctx)
        return None

    def ask(self, body: Struct | bytes, destination: Destination | None = None, **how: Any) -> Any:
        """Send a request; the body of its answer, None if there is none."""
        seconds = how.pop("seconds", SECONDS)
        transaction_id = how.pop("transaction_id", None) or self.transaction()
        self.write(self.frame(self.message(body, destination, transaction_id, **how)))
        return self.answer(transaction_id, seconds)

    def silence(self, data: bytes, seconds: float = 0.3) -> None:
        """Send a message that must not be answered; raises AssertionError if it is."""
        self.write(self.frame(data))
        transaction = int.from_bytes(data[20:28]) if len(data) >= 28 else -1
        if self.answer(transaction, seconds) is not None:
            raise AssertionError("there was an answer")


def status(node: NodeProcess) -> dict[str, Any]:
    """What `p2psip status` shows, without the time that starting a command takes."""
    with socket.socket(socket.AF_UNIX) as control:
        control.settimeout(SECONDS)
        control.connect(str(node.state / "control.sock"))
        control.sendall(b"GET /status HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: control.recv(65536), b""))
    found = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert isinstance(found, dict)
    return found


def grown(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """Which counters have grown, and by how much."""
    return dict(Counter(after) - Counter(before))


def resident(node: NodeProcess) -> int:
    """Kilobytes of memory that the process of a node has in use."""
    assert node.process is not None
    for line in Path(f"/proc/{node.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def descriptors(node: NodeProcess) -> int:
    """How many files and sockets the process of a node has open."""
    assert node.process is not None
    return len(list(Path(f"/proc/{node.process.pid}/fd").iterdir()))
