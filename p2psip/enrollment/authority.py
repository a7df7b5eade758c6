"""The overlay's authority: its keys, its accounts, and the rules by which it certifies (RFC 6940 §11.3).

All methods block: they run in a thread where that matters.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography.fernet import Fernet

from ..config.kinds import gateway_user_name
from ..ids import NodeId
from ..security.certificates import (
    Authority,
    CertificateRequest,
    PrivateKey,
    certificate_pem,
    certificates_of_pem,
    generate_key,
    load_private_key,
    make_authority,
    private_key_pem,
)
from ..security.identity import CertificateError, Identity
from ..security.signing import Signer
from ..sip.digest import DigestCredentials, parse_nonce
from ..sip.errors import SIPParseError
from ..sip.interfaces import DeviceCredential
from ..sip.numbers import DialPlan
from ..state import write_file
from .accounts import Account, Accounts, Revocation, is_name
from .database import AccountError, Database
from .directory import DirectorySettings, keep, load
from .ldap import LDAPDirectory
from .members import DirectoryUsers, SignedIn
from .nodes import Nodes, NotAvailable, Owner
from .passwords import PasswordHashes
from .refusals import Refusal as Refusal
from .refusals import proved, read_csr, request_of
from .relocation import accounts_url, keep_accounts_at
from .sip_authority import SIPAuthority, granted
from .tokens import JoinToken, key_fingerprint

DAY: Final = 86400.0
AUTHORITY_LIFETIME: Final = 20 * 365 * DAY
SIGNER_LIFETIME: Final = 10 * 365 * DAY
"""The configuration-signer's and kind-signer's certificates outlive every document they sign."""
NODE_LIFETIME: Final = 30 * DAY
USER_LIFETIME: Final = 7 * DAY
SERVER_LIFETIME: Final = 10 * 365 * DAY
"""It is issued anew at each start, and lasts however long a node runs without one."""
CREDENTIALS_AGE: Final = DAY
"""Seconds after which a registrar asks anew for a user's credentials."""
NONCE_AGE: Final = 3900.0
"""Seconds that a phone's nonce may be old when a registrar shows it: a little more than nonces live."""
AHEAD: Final = 60.0
"""Seconds that a registrar's clock may be ahead of ours."""
MAXIMUM_NODE_IDS: Final = 16
"""Node-IDs in one certificate."""
REGISTRAR_NODES: Final = 4
"""Node-IDs that a user may have at least whom the directory lets run registrars."""


class AuthorityError(Exception):
    """The authority's directory cannot be used; the text is for the operator."""


@dataclass(frozen=True, slots=True)
class GrantedUser:
    """What a registrar is given for one user."""

    certificate: bytes
    """DER: the user's name with the registrar's Node-ID."""
    credentials: Sequence[DeviceCredential] = field(repr=False)
    as_of: float
    """When they were read, by the clock that revocations are timed by."""
    max_age: float
    """Seconds after which the registrar asks anew."""


class OverlayAuthority:
    """The authority of one Overlay Instance, kept in a directory.

    The accounts are in ``accounts.sqlite`` there, unless a file ``accounts.url`` names another database by
    SQLAlchemy URL; ``directory.json``, where there is one, says which LDAP directory knows users too.

    :param now: answers the time in seconds since the epoch.
    :param accounts: SQLAlchemy URL of the database in which they are to be from now on.
    :raises AuthorityError: the directory holds no whole authority, or its accounts cannot be used.
    """

    def __init__(
        self,
        directory: Path,
        overlay: str,
        now: Callable[[], float],
        hashes: PasswordHashes | None = None,
        accounts: str | None = None,
    ) -> None:
        self.directory = directory
        self.overlay = overlay
        self._now = now
        try:
            self._ca = Authority(self._certificate("ca"), self._key("ca"))
            self._server_key = self._key("server")
            self.sip = SIPAuthority(directory, overlay, now)
            key = (directory / "secrets.key").read_bytes()
            name = sha256(self._ca.certificate).hexdigest()
            if accounts is not None:
                keep_accounts_at(directory, accounts, name, now)
            self.database = Database(accounts_url(directory), now)
            self.database.claim(name)
            self.accounts = Accounts(self.database, key, overlay, hashes or PasswordHashes())
            settings = load(directory)
        except (OSError, CertificateError, ValueError) as e:
            raise AuthorityError(f"the authority in {directory} cannot be used: {e}") from e
        self.nodes = Nodes(self.database)
        self.dialled: Callable[[str], str | None] = DialPlan().dialled
        """The normal form of a number as the directory writes it."""
        self.directory_users = self._users_of(settings)
        """Those of the directory; None: there is none."""

    @classmethod
    def create(
        cls,
        directory: Path,
        overlay: str,
        now: Callable[[], float],
        key_type: str = "ec",
        hashes: PasswordHashes | None = None,
        accounts: str | None = None,
    ) -> OverlayAuthority:
        """Make the authority of a new overlay: its keys, certificates and an empty accounts database.

        Where this was begun and interrupted it begins again: ca.key comes last, and counts as the whole.

        :param accounts: SQLAlchemy URL of the accounts database, if it is not to be a file in `directory`.
        :raises AuthorityError: there is one already, or the accounts cannot be there.
        """
        if (directory / "ca.key").exists():
            raise AuthorityError(f"there is an authority in {directory} already")
        if accounts is not None:
            try:
                keep_accounts_at(directory, accounts, None, now)
            except (AccountError, OSError) as e:
                raise AuthorityError(f"the accounts cannot be kept there: {e}") from e
        ca = make_authority(overlay, generate_key(key_type), now(), AUTHORITY_LIFETIME)
        for name in ("signer", "kind-signer"):
            key = generate_key(key_type)
            certificate = ca.issue(
                key.public_key(),
                overlay=overlay,
                user_name=f"{name}@authority.{overlay}",
                node_ids=[NodeId(secrets.token_bytes(16))],
                role="user",
                now=now(),
                lifetime=SIGNER_LIFETIME,
            )
            write_file(directory / f"{name}.crt", certificate_pem(certificate), 0o644)
            write_file(directory / f"{name}.key", private_key_pem(key))
        write_file(directory / "server.key", private_key_pem(generate_key(key_type)))
        write_file(directory / "secrets.key", Fernet.generate_key())
        write_file(directory / "ca.crt", certificate_pem(ca.certificate), 0o644)
        write_file(directory / "ca.key", private_key_pem(ca.private_key))
        return cls(directory, overlay, now, hashes)

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    def _key(self, name: str) -> PrivateKey:
        return load_private_key((self.directory / f"{name}.key").read_bytes())

    def _certificate(self, name: str) -> bytes:
        return certificates_of_pem((self.directory / f"{name}.crt").read_bytes())[0]

    # -- its own identities ----------------------------------------------------------------------------

    @property
    def root_certificate(self) -> bytes:
        """The root certificate, DER: the document's root-cert."""
        return self._ca.certificate

    def configuration_signer(self) -> Signer:
        """Who signs the configuration document."""
        return self._signer("signer")

    def kind_signer(self) -> Signer:
        """Who signs the kind-blocks."""
        return self._signer("kind-signer")

    def _signer(self, name: str) -> Signer:
        return Signer(Identity.from_certificate(self._certificate(name), self.overlay), self._key(name))

    def server_credentials(self, hosts: Sequence[str]) -> tuple[list[bytes], PrivateKey]:
        """The chain (DER) and key of the HTTPS server, certified anew for the overlay's name and `hosts`.

        The key is always the same, also at another node that has imported this authority: tokens name it.
        """
        names = list(dict.fromkeys([self.overlay, *hosts]))
        certificate = self._ca.issue_server(
            self._server_key.public_key(), hosts=names, now=self._now(), lifetime=SERVER_LIFETIME
        )
        return [certificate, self._ca.certificate], self._server_key

    def invite(self, name: str, role: str, lifetime: float, urls: Sequence[str]) -> JoinToken:
        """A token with which one node, called `name`, may join within `lifetime` seconds.

        :param urls: base URLs of the enrollment servers, best first.
        :raises AccountError: name or role cannot be.
        """
        password = self.nodes.invite(name, role, self._now() + lifetime)
        self.database.record("invited", name, detail=role)
        fingerprint = key_fingerprint(self._server_key.public_key())
        return JoinToken(self.overlay, tuple(urls), fingerprint, name, password)

    # -- users -----------------------------------------------------------------------------------------

    def use_directory(self, settings: DirectorySettings | None) -> None:
        """Ask this directory from now on; None: none."""
        keep(self.directory, settings)
        self.directory_users = self._users_of(settings)
        self.database.record("directory", " ".join(settings.urls) if settings is not None else "none")

    def _users_of(self, settings: DirectorySettings | None) -> DirectoryUsers | None:
        if settings is None:
            return None
        directory = LDAPDirectory(settings, self._now, lambda text: self.dialled(text))
        return DirectoryUsers(directory, self.accounts, self.nodes, self.overlay)

    def asks_directory(self, name: str) -> bool:
        """Whether it is for the directory to say if somebody is `name`.

        Not for names of accounts of our own, nor of nodes that are invited.
        """
        if self.directory_users is None or not is_name(name):
            return False
        account = self.accounts.account(name)
        return account.directory is not None if account is not None else not self.nodes.has_invitation(name)

    def sign_in(self, name: str, password: str) -> Account | None:
        """The account `name`, if `password` is its own, or the directory takes it.

        Whoever calls this slows down guessing first.

        :raises DirectoryUnavailable: the directory would have to be asked, and cannot be.
        """
        signed_in = self._signed_in(name, password)
        return None if signed_in is None else signed_in.account

    def _signed_in(self, name: str, password: str) -> SignedIn | None:
        if self.directory_users is not None and self.asks_directory(name):
            return self.directory_users.sign_in(name, password)
        account = self.accounts.with_password(name, password)
        return None if account is None else SignedIn(account)

    # -- nodes -----------------------------------------------------------------------------------------

    def enroll(self, username: str, password: str, count: int, csr: bytes, source: str = "") -> bytes:
        """The certificate (DER) for a request as RFC 6940 §11.3 has it.

        `username` is an invited node's or an account's.  The user name in the certificate is ours to set; a
        request that names another one is refused.

        :param source: from where it was asked, for the audit log.
        :raises Refusal: with the token that the client is to be told.
        """
        try:
            user_name, node_ids, role, request = self._admit(username, password, count, csr)
            certificate = self._issue(request, user_name, node_ids, role, NODE_LIFETIME)
        except Refusal as refusal:
            self.database.record("refused", username, source, refusal.token)
            raise
        self.database.record("enrolled", user_name, source, ", ".join(n.hex() for n in node_ids))
        return certificate

    def _admit(
        self, username: str, password: str, count: int, csr: bytes
    ) -> tuple[str, list[NodeId], str, CertificateRequest]:
        # Nobody learns anything, not even that the request is malformed, before the password is right.
        role = self.nodes.invited(username, password)
        own_role = "peer"
        if role is not None:
            user_name, quota = f"{username}@nodes.{self.overlay}", 1
        else:
            signed_in = self._signed_in(username, password)
            if signed_in is None:
                raise Refusal("failed_authentication")
            user_name, quota = f"{signed_in.account.name}@{self.overlay}", signed_in.account.node_quota
            if signed_in.registrar:
                quota, own_role = max(quota, REGISTRAR_NODES), "registrar"
        request = read_csr(csr)
        if request.user_name not in ("", user_name):
            raise Refusal("username_not_available")
        if not 1 <= count <= min(quota, MAXIMUM_NODE_IDS):
            raise Refusal("Node-IDs_not_available")
        key = key_fingerprint(request.public_key)
        try:
            if role is not None:
                node_ids = self.nodes.redeem(username, key, user_name, role)
            else:
                node_ids = self.nodes.assign(user_name, key, count, quota, own_role)
        except NotAvailable:
            raise Refusal("Node-IDs_not_available") from None
        if node_ids is None:
            raise Refusal("failed_authentication")
        return user_name, node_ids, role or own_role, request

    def enroll_founder(self, name: str, key: PrivateKey) -> bytes:
        """The certificate (DER) of the overlay's first node, a registrar, which needs no invitation."""
        user_name = f"{name}@nodes.{self.overlay}"
        request = CertificateRequest(user_name, key.public_key())
        node_ids = self.nodes.assign(user_name, key_fingerprint(request.public_key), 1, 1, "registrar")
        self.database.record("founded", user_name, detail=node_ids[0].hex())
        return self._issue(request, user_name, node_ids, "registrar", NODE_LIFETIME)

    def renew(self, identity: Identity, csr: bytes, source: str = "") -> bytes:
        """A new certificate with the same key, name and Node-IDs, for a node that showed the old one.

        :raises Refusal: the Node-IDs are not (or no longer) those of that name, its account is disabled, or the
            request is not for it.
        """
        try:
            owner = self._owner(identity)
            self._require_enabled(owner.user_name)
            request = request_of(identity, csr)
            if request.user_name not in ("", identity.user_name):
                raise Refusal("username_not_available")
            certificate = self._issue(request, owner.user_name, identity.node_ids, owner.role, NODE_LIFETIME)
        except Refusal as refusal:
            self.database.record("refused", identity.user_name, source, f"{refusal.token} (renewal)")
            raise
        self.database.record("renewed", identity.user_name, source)
        return certificate

    def _owner(self, identity: Identity) -> Owner:
        """The node that `identity` belongs to, as it is known here and now."""
        owner = self.nodes.owner(identity.node_ids)
        if owner is None or owner.user_name != identity.user_name:
            raise Refusal("failed_authentication")
        return owner

    def _require_enabled(self, user_name: str) -> None:
        """Refuse what belongs to an account that is disabled; nodes of the overlay itself have none."""
        name, _, domain = user_name.partition("@")
        account = self.accounts.account(name) if domain == self.overlay else None
        if account is not None and account.disabled:
            raise Refusal("failed_authentication")

    def _issue(
        self,
        request: CertificateRequest,
        user_name: str,
        node_ids: Sequence[NodeId],
        role: str,
        lifetime: float,
    ) -> bytes:
        try:
            return self._ca.issue(
                request.public_key,
                overlay=self.overlay,
                user_name=user_name,
                node_ids=node_ids,
                role=role,
                now=self._now(),
                lifetime=lifetime,
            )
        except CertificateError as e:
            raise Refusal("username_not_available") from e

    # -- registrars --------------------------------------------------------------------------------------

    def user_credentials(
        self, registrar: Identity, csr: bytes, method: str, authorization: DigestCredentials, source: str = ""
    ) -> GrantedUser:
        """For the user whose phone sent `authorization` to `registrar`: certificate and secrets.

        The nonce shows that this registrar challenged the phone, lately; the response that the phone is the
        user's.  So a registrar learns only of users whose phones speak to it.

        :raises Refusal: any of it does not hold.
        """
        name = authorization.username
        as_of = self.database.moment()
        try:
            self._require_registrar(registrar)
            request = request_of(registrar, csr)
            node_id = self._challenger(registrar, authorization)
            known = self.accounts.device_credentials(name)
            device = proved(known, authorization, method)
            user_name = f"{name}@{self.overlay}"
            if request.user_name not in ("", user_name):
                raise Refusal("username_not_available")
            certificate = self._issue(request, user_name, [node_id], "user", USER_LIFETIME)
        except Refusal as refusal:
            detail = f"{refusal.token} (credentials for {registrar.user_name})"
            self.database.record("refused", name, source, detail)
            raise
        self.database.record("credentials", name, source, f"device {device}, for {registrar.user_name}")
        return GrantedUser(certificate, known, as_of, CREDENTIALS_AGE)

    def sip_certificate(
        self, registrar: Identity, csr: bytes, addresses: Sequence[str], proven: Collection[str], source: str = ""
    ) -> list[bytes]:
        """The chain (DER) that `registrar` shows to phones: it names the overlay, and of `addresses` what it may.

        :param csr: for a key that is not the node's own.
        :param proven: addresses that are known to be the node's; see `sip_authority.granted`.
        :raises Refusal: it is no registrar, or what it asks for cannot be.
        """
        try:
            self._require_registrar(registrar)
            request = read_csr(csr)
            if request.user_name not in ("", registrar.user_name):
                raise Refusal("username_not_available")
            if request.public_key == registrar.public_key:
                raise Refusal("bad_CSR")
            try:
                names = granted(addresses, proven)
            except ValueError:
                raise Refusal("bad_CSR") from None
            chain = self.sip.issue(request.public_key, names, NODE_LIFETIME)
        except Refusal as refusal:
            self.database.record("refused", registrar.user_name, source, f"{refusal.token} (SIP certificate)")
            raise
        self.database.record("SIP certificate", registrar.user_name, source, ", ".join([self.overlay, *names]))
        return chain

    def gateway_certificate(self, registrar: Identity, csr: bytes, source: str = "") -> bytes:
        """The certificate (DER) with which `registrar` stores that it is a gateway, for its own key and Node-IDs.

        :raises Refusal: it is no registrar, or the request is not for it.
        """
        user_name = gateway_user_name(self.overlay)
        try:
            self._require_registrar(registrar)
            request = request_of(registrar, csr)
            if request.user_name not in ("", user_name):
                raise Refusal("username_not_available")
            certificate = self._issue(request, user_name, registrar.node_ids, "user", USER_LIFETIME)
        except Refusal as refusal:
            detail = f"{refusal.token} (gateway)"
            self.database.record("refused", registrar.user_name, source, detail)
            raise
        self.database.record("gateway", registrar.user_name, source)
        return certificate

    def with_number(self, registrar: Identity, number: str) -> tuple[str, str] | None:
        """The name and the number of the account that has a telephone number; none for one that is disabled.

        :raises Refusal: who asks is no registrar.
        """
        self._require_registrar(registrar)
        return _name_and_number(self.accounts.by_number(number))

    def number_of(self, registrar: Identity, name: str) -> tuple[str, str] | None:
        """The same of the account of this name."""
        self._require_registrar(registrar)
        return _name_and_number(self.accounts.account(name))

    def revocations(self, registrar: Identity, cursor: str) -> tuple[str, list[Revocation]]:
        """What `registrar` has to forget, as `Accounts.revocations`.

        :raises Refusal: it is no registrar.
        """
        self._require_registrar(registrar)
        return self.accounts.revocations(cursor)

    def _require_registrar(self, identity: Identity) -> None:
        if identity.role != "registrar" or self._owner(identity).role != "registrar":
            raise Refusal("failed_authentication")
        self._require_enabled(identity.user_name)

    def _challenger(self, registrar: Identity, authorization: DigestCredentials) -> NodeId:
        """The Node-ID of `registrar` with which it challenged the phone."""
        try:
            maker, made = parse_nonce(authorization.nonce)
        except SIPParseError:
            raise Refusal("bad_nonce") from None
        node_id = NodeId(maker)
        if node_id not in registrar.node_ids or not -AHEAD <= self._now() - made <= NONCE_AGE:
            raise Refusal("bad_nonce")
        if authorization.realm != self.overlay:
            raise Refusal("failed_authentication")
        return node_id


def _name_and_number(account: Account | None) -> tuple[str, str] | None:
    return None if account is None or account.disabled else (account.name, account.number or "")
