"""An authority with cheap passwords, nodes and phones, for the tests of enrollment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from p2psip.enrollment.accounts import NewUser
from p2psip.enrollment.authority import OverlayAuthority
from p2psip.enrollment.passwords import PasswordHashes
from p2psip.ids import NodeId
from p2psip.security.certificates import PrivateKey, generate_key, make_request
from p2psip.security.identity import Identity
from p2psip.security.trust import Trust
from p2psip.sip.digest import DigestChallenge, DigestCredentials, NonceMint, authorization_for

OVERLAY = "example.org"
HASHES = PasswordHashes(cost=2)


@dataclass
class Member:
    """A node that has enrolled."""

    key: PrivateKey
    certificate: bytes

    @property
    def identity(self) -> Identity:
        return Identity.from_certificate(self.certificate, OVERLAY)

    @property
    def node_id(self) -> NodeId:
        return self.identity.node_ids[0]

    def request(self, user: str) -> bytes:
        return make_request(self.key, f"{user}@{OVERLAY}")

    def challenge(self, now: float, algorithm: str = "SHA-256") -> DigestChallenge:
        """As this node, a registrar, would challenge a phone."""
        return DigestChallenge(OVERLAY, NonceMint(self.node_id, bytes(16)).make(now), algorithm)


def make(path: str | Path, now: float = 0.0, key_type: str = "ec") -> OverlayAuthority:
    return OverlayAuthority.create(Path(path), OVERLAY, lambda: now, key_type, HASHES)


def join(authority: OverlayAuthority, name: str, role: str = "registrar") -> Member:
    """Invite and enroll a node."""
    token = authority.invite(name, role, 3600, ["https://127.0.0.1:8443"])
    key = generate_key()
    request = make_request(key, f"{name}@nodes.{OVERLAY}")
    return Member(key, authority.enroll(token.account, token.password, 1, request))


def trust(authority: OverlayAuthority) -> Trust:
    return Trust(OVERLAY, [authority.root_certificate], (), 16, authority.database.now)


def answer(challenge: DigestChallenge, user: str, password: str) -> DigestCredentials:
    """A phone's Authorization for REGISTER."""
    return authorization_for(challenge, "REGISTER", f"sip:{OVERLAY}", user, password, "c0ffee")


def add_user(authority: OverlayAuthority, name: str = "alice", password: str = "secret") -> None:
    authority.accounts.add(NewUser(name, "desk", password))
