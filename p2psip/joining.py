"""How a node comes by its document, key and certificate: by founding, by enrolling, or from its state."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

from twisted.logger import Logger

from .config.accept import accept_first, trust_of
from .config.document import Configuration, ConfigurationError
from .config.kinds import Kind
from .enrollment.authority import OverlayAuthority
from .enrollment.client import (
    ENROLL,
    EnrollmentClient,
    EnrollmentError,
    document_url,
    fetch_document,
    renewal_time,
    with_patience,
)
from .enrollment.publication import first_document, first_self_signed_document
from .enrollment.tls import named_server, pinned_server
from .security.certificates import (
    PrivateKey,
    certificate_pem,
    certificates_of_pem,
    generate_key,
    load_private_key,
    make_request,
    private_key_pem,
)
from .security.identity import CertificateError, Identity, has_own_node_ids
from .selfsigned import DocumentKey, own_certificate, user_name
from .startup import Discovered, JoinByDocument, JoinByToken, StartError
from .state import StateDirectory, write_file

REFETCH_BEFORE = 7 * 86400.0, 60 * 86400.0
"""Seconds before a document expires: between these is the time to fetch it anew."""

Waiting = Callable[[str, float], None]
"""Told why an enrollment has to wait, and for how many seconds."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """All that a node needs to join."""

    configuration: Configuration
    key: PrivateKey = field(repr=False)
    identity: Identity

    @property
    def digest(self) -> str:
        """By which this node certifies itself (RFC 6940 §11.3.1); empty: an authority certified it."""
        digest = self.configuration.self_signed_permitted
        return digest if digest and has_own_node_ids(self.identity, digest) else ""


def from_state(state: StateDirectory) -> Credentials:
    """What an earlier run left.

    :raises StartError: a file of it cannot be used; says which.
    """
    try:
        document = state.document.read_bytes()
        key = load_private_key(state.key.read_bytes())
        certificate = certificates_of_pem(state.certificate.read_bytes())[0]
        configuration = accept_first(document, None, time.time())
        identity = Identity.from_certificate(
            certificate, configuration.instance_name, configuration.node_id_length
        )
    except (OSError, ConfigurationError, CertificateError) as e:
        raise StartError(f"the state in {state.path} cannot be used: {e}") from e
    return Credentials(configuration, key, identity)


def found(
    authority: OverlayAuthority,
    state: StateDirectory,
    bootstrap_nodes: Sequence[tuple[str, int]],
    enrollment_servers: Sequence[str],
    kinds: Sequence[Kind],
    key_type: str,
    no_ice: bool = False,
) -> Credentials:
    """Found the overlay of `authority` in `state`: its first document and this node's certificate.

    Each file is whole or not there, and the certificate comes last: whatever interrupts this, it can go on.
    """
    key = _key(state, key_type)
    document = first_document(authority, bootstrap_nodes, enrollment_servers, time.time(), kinds, no_ice)
    certificate = authority.enroll_founder("founder", key)
    return _keep(state, document, key, certificate)


def found_self_signed(
    signer: DocumentKey,
    state: StateDirectory,
    account: str | None,
    bootstrap_nodes: Sequence[tuple[str, int]],
    kinds: Sequence[Kind],
    key_type: str,
    no_ice: bool = False,
) -> Credentials:
    """Found the overlay of `signer`, whose nodes certify themselves; the files as in `found`."""
    key, overlay, digest = _key(state, key_type), signer.overlay, signer.digest
    document = first_self_signed_document(signer, overlay, digest, bootstrap_nodes, time.time(), kinds, no_ice)
    certificate = own_certificate(key, overlay, digest, user_name(account, key, overlay, digest))
    return _keep(state, document, key, certificate)


def certified_anew(credentials: Credentials, state: StateDirectory, account: str | None = None) -> Credentials:
    """`credentials` of a node that certifies itself, with a new certificate for the same key, and so Node-ID.

    :param account: as in `user_name`; an address is taken as it is.
    :raises StartError: that cannot be one.
    """
    overlay, digest, key = credentials.configuration.instance_name, credentials.digest, credentials.key
    certificate = own_certificate(key, overlay, digest, user_name(account, key, overlay, digest))
    write_file(state.certificate, certificate_pem(certificate), 0o644)
    return replace(credentials, identity=Identity.from_certificate(certificate, overlay))


def rejoining(state: StateDirectory, account: str | None) -> Credentials:
    """What an earlier run left; a node that certifies itself does so anew if it has to, or has another name now.

    :raises StartError: a file cannot be used, or the name.
    """
    credentials = from_state(state)
    if not credentials.digest:
        return credentials
    overlay, name = credentials.configuration.instance_name, credentials.identity.user_name
    wanted = user_name(account, credentials.key, overlay, credentials.digest) if account else name
    if wanted == name and time.time() < renewal_time(credentials.identity):
        return credentials
    return certified_anew(credentials, state, wanted)


class Enrollment:
    """Enrolls this node at an enrollment server, asking again for ever while none answers.

    :raises StartError: by its methods, where asking again cannot help.
    """

    def __init__(self, state: StateDirectory, reactor: Any, waiting: Waiting, key_type: str = "ec") -> None:
        self._state = state
        self._key_type = key_type
        self._reactor = reactor
        self._waiting = waiting

    async def by_token(self, start: JoinByToken) -> Credentials:
        """With a token from `p2psip invite`."""
        token = start.token
        client = EnrollmentClient(self._reactor, token.urls, pinned_server(token.server_key, token.overlay))
        try:
            document = await self._patiently(client.configuration)
            configuration = _accepted(document, token.overlay)
            user_name = f"{token.account}@nodes.{token.overlay}"
            return await self._enroll(
                client, configuration, document, user_name, token.account, token.password
            )
        finally:
            await client.close()

    async def by_document(self, start: JoinByDocument, overlay: str) -> Credentials:
        """By a document out of a file or from an https URL: with an account, or certifying itself."""
        if start.source.startswith("https://"):
            document = await self._download(start.source)
        else:
            try:
                document = Path(start.source).read_bytes()
            except OSError as e:
                raise StartError(f"cannot read {start.source}: {e.strerror}") from e
        if start.account is None or start.password is None:
            return self._by_itself(document, overlay, start.account)
        return await self._by_account(document, overlay, start.account, start.password)

    def _by_itself(self, document: bytes, overlay: str, account: str | None) -> Credentials:
        digest = _accepted(document, overlay).self_signed_permitted
        if not digest:
            raise StartError(
                f"--config needs --account and --password-file to enroll with: {overlay} does not permit "
                "self-signed certificates"
            )
        key = _key(self._state, self._key_type)
        certificate = own_certificate(key, overlay, digest, user_name(account, key, overlay, digest))
        return _keep(self._state, document, key, certificate)

    async def discovered(
        self, start: Discovered, overlay: str, account: str | None, password: str | None
    ) -> Credentials:
        """By the configuration server that the DNS names (RFC 6940 §11.2), with an account."""
        if account is None or password is None:
            raise StartError(
                f"{overlay} exists at {start.host}:{start.port}: join it with --join TOKEN (from "
                "`p2psip invite` there), or with --account and --password-file"
            )
        document = await self._download(document_url(overlay), (start.host, start.port))
        return await self._by_account(document, overlay, account, password)

    async def _by_account(self, document: bytes, overlay: str, account: str, password: str) -> Credentials:
        configuration = _accepted(document, overlay)
        if not configuration.enrollment_servers:
            raise StartError(f"the configuration document of {overlay} names no enrollment server")
        client = enrollment_client(self._reactor, configuration)
        try:
            return await self._enroll(
                client, configuration, document, f"{account}@{overlay}", account, password
            )
        finally:
            await client.close()

    async def _enroll(
        self,
        client: EnrollmentClient,
        configuration: Configuration,
        document: bytes,
        user_name: str,
        account: str,
        password: str,
    ) -> Credentials:
        key = _key(self._state, "ec")
        csr = make_request(key, user_name)
        certificate = await self._patiently(lambda: client.enroll(csr, account, password))
        try:
            trust_of(configuration, time.time).identify(certificate)
        except CertificateError as e:
            raise StartError(f"the enrollment server gave a certificate that is no good: {e}") from e
        return _keep(self._state, document, key, certificate)

    async def _patiently(self, ask: Callable[[], Awaitable[bytes]]) -> bytes:
        try:
            return await with_patience(ask, self._reactor, self._waiting)
        except EnrollmentError as e:
            raise StartError(str(e)) from e

    async def _download(self, url: str, connect_to: tuple[str, int] | None = None) -> bytes:
        return await self._patiently(lambda: fetch_document(self._reactor, url, connect_to=connect_to))


def enrollment_client(
    reactor: Any, configuration: Configuration, credentials: Credentials | None = None
) -> EnrollmentClient:
    """Asks the enrollment servers of a configuration, showing this node's certificate if there is one.

    RFC 6940 §11.3: the server's certificate has to match the overlay's name.
    """
    name, roots = configuration.instance_name, configuration.root_certificates
    server = (
        named_server(name, roots)
        if credentials is None
        else named_server(name, roots, credentials.identity.certificate, credentials.key)
    )
    urls = [url.removesuffix(ENROLL) for url in configuration.enrollment_servers]
    return EnrollmentClient(reactor, urls, server, configuration.enrollment_servers)


class DocumentRefetch:
    """Fetches the document anew before it expires, each node at another time (RFC 6940 §11.1).

    Mostly a ConfigUpdate brings a newer one long before that.

    :param client: makes a client of the enrollment servers of the configuration in use.
    """

    log = Logger()

    def __init__(self, client: Callable[[], EnrollmentClient], random: Random) -> None:
        self._client = client
        self._before = random.uniform(*REFETCH_BEFORE)

    async def look(self, configuration: Configuration, offer: Callable[[bytes], bool], now: float) -> None:
        """Fetch it if it is time, and `offer` it to the node; never fails: it is called again."""
        if configuration.expiration is None or now < configuration.expiration - self._before:
            return
        client = self._client()
        try:
            offer(await client.configuration())
        except (EnrollmentError, ConfigurationError) as e:
            self.log.warn("the document expires and there is no newer one: {error}", error=str(e))
        finally:
            await client.close()


def _accepted(document: bytes, overlay: str) -> Configuration:
    try:
        return accept_first(document, overlay, time.time())
    except ConfigurationError as e:
        raise StartError(f"the configuration document cannot be used: {e}") from e


def _key(state: StateDirectory, key_type: str) -> PrivateKey:
    """This node's key: the one of an earlier attempt, or a new one."""
    if state.key.exists():
        try:
            return load_private_key(state.key.read_bytes())
        except CertificateError as e:
            raise StartError(f"{state.key} cannot be used: {e}") from e
    key = generate_key(key_type)
    write_file(state.key, private_key_pem(key))
    return key


def _keep(state: StateDirectory, document: bytes, key: PrivateKey, certificate: bytes) -> Credentials:
    write_file(state.document, document)
    write_file(state.certificate, certificate_pem(certificate), 0o644)
    return from_state(state)
