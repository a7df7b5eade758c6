"""The certificate that a node's SIP server shows over TLS: where it comes from, and that it stays good."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from cryptography import x509
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from .enrollment.authority import OverlayAuthority, Refusal
from .enrollment.client import EnrollmentError, Refused
from .enrollment.database import DatabaseUnavailable
from .enrollment.sip_authority import canonical
from .renewal import Renewal
from .security.certificates import (
    PrivateKey,
    certificate_pem,
    certificates_of_pem,
    generate_key,
    load_private_key,
    make_request,
    private_key_pem,
)
from .security.identity import CertificateError
from .sip.errors import SIPListenError
from .sip.tls import ClientTLS, ServerTLS, TLSError, shows
from .startup import StartError
from .state import StateDirectory, write_file

SECONDS: Final = 60.0
"""How often is looked whether there is another certificate."""
REFUSED: Final = 3600.0
"""Seconds before an authority that refused is asked again."""


class Loaded(NamedTuple):
    """What a server shows, its own certificate first; and the authorities that it came with."""

    chain: Sequence[x509.Certificate]
    private_key: Any
    roots: Sequence[x509.Certificate] = ()


class NotYet(Exception):
    """There is no certificate now; the text says why."""


class Origin(Protocol):
    """Where certificates come from."""

    async def look(self, now: float) -> Loaded | None:
        """What there is, if that is new since the last look; `now` in seconds since the epoch.

        :raises NotYet: something is wrong; what was there before is still good as long as it is.
        """


class CertificateFile:
    """A PEM file of the operator's, chain and key in one; read anew when it has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None

    def load(self) -> Loaded | None:
        """What is in it, if that is new.

        :raises NotYet: it cannot be used; says why.
        """
        try:
            status = self._path.stat()
            seen = status.st_mtime_ns, status.st_size, status.st_ino
            if seen == self._seen:
                return None
            pem = self._path.read_bytes()
            loaded = Loaded(x509.load_pem_x509_certificates(pem), load_private_key(_key_of(pem)))
            ServerTLS(loaded.chain, loaded.private_key)
        except OSError as e:
            raise NotYet(f"cannot read {self._path}: {e.strerror}") from e
        except (ValueError, CertificateError, TLSError) as e:
            raise NotYet(f"{self._path} has no certificates and key that can be used: {e}") from e
        self._seen = seen
        return loaded

    async def look(self, now: float) -> Loaded | None:
        """See `Origin`."""
        return self.load()


class IssuedCertificate:
    """One of the overlay's authority, kept in the state directory, where the key is made and stays.

    :param ask: has the authority certify a request for addresses; the chain, DER.  Fails with EnrollmentError or
        Refusal.
    :param user_name: the node's, for requests.
    """

    log = Logger()

    def __init__(
        self,
        state: StateDirectory,
        overlay: str,
        addresses: Sequence[str],
        user_name: str,
        ask: Callable[[bytes, Sequence[str]], Awaitable[Sequence[bytes]]],
    ) -> None:
        self._state = state
        self._overlay = overlay
        self._addresses = addresses
        self._user_name = user_name
        self._ask = ask
        self._renew_at = 0.0
        self._ask_at = 0.0
        self._begun = False

    async def look(self, now: float) -> Loaded | None:
        """See `Origin`."""
        kept = None if self._begun else self._kept(now)
        if kept is not None:
            self._renew_at = 0.0 if self._lacks(kept.chain[0]) else _renewal_time(kept.chain[0])
        if now < self._renew_at or now < self._ask_at:
            self._begun = True
            return kept
        try:
            loaded = await self._certified(now)
        except NotYet:
            if kept is None:
                raise
            # It may be that it only lacks an address that the authority does not give.
            self._begun, self._renew_at = True, _renewal_time(kept.chain[0])
            return kept
        self._begun, self._renew_at = True, _renewal_time(loaded.chain[0])
        return loaded

    def _kept(self, now: float) -> Loaded | None:
        """What an earlier run left, if it is still good."""
        try:
            key = load_private_key(self._state.sip_key.read_bytes())
            chain = certificates_of_pem(self._state.sip_certificate.read_bytes())
            return self._accepted(chain, key, now)
        except (OSError, CertificateError, NotYet):
            return None

    def _lacks(self, certificate: x509.Certificate) -> list[str]:
        return [address for address in self._addresses if not shows(certificate, str(canonical(address)))]

    async def _certified(self, now: float) -> Loaded:
        key = self._key()
        try:
            chain = await self._ask(make_request(key, self._user_name), self._addresses)
        except (Refused, Refusal) as e:
            self._ask_at = now + REFUSED
            raise NotYet(str(e)) from e
        except (EnrollmentError, DatabaseUnavailable) as e:
            raise NotYet(str(e)) from e
        loaded = self._accepted(chain, key, now)
        write_file(self._state.sip_certificate, b"".join(certificate_pem(each) for each in chain), 0o644)
        write_file(self._state.sip_root, certificate_pem(chain[-1]), 0o644)
        if lacking := self._lacks(loaded.chain[0]):
            self.log.info(
                "the SIP server's certificate does not name {addresses}: the authority knows this node by another "
                "address", addresses=", ".join(lacking),
            )  # fmt: skip
        return loaded

    def _accepted(self, chain: Sequence[bytes], key: PrivateKey, now: float) -> Loaded:
        try:
            own, *others = [x509.load_der_x509_certificate(each) for each in chain]
            ServerTLS([own, *others], key)
        except (ValueError, TLSError) as e:
            raise NotYet(f"the authority's certificate is no good: {e}") from e
        if not shows(own, self._overlay) or now >= own.not_valid_after_utc.timestamp():
            raise NotYet("the authority's certificate is for another domain, or too old")
        return Loaded([own, *others], key, others[-1:])

    def _key(self) -> PrivateKey:
        try:
            return load_private_key(self._state.sip_key.read_bytes())
        except (OSError, CertificateError):
            key = generate_key()
            write_file(self._state.sip_key, private_key_pem(key))
            return key


class SIPCertificate:
    """Sees to it that a SIP server has a certificate, and serves TLS as soon as it does.

    :param listen: begins to serve; called once.
    :param client: believes the authority that the certificate came from, from then on.
    :param clock: tells when to look again; `now` the time in seconds since the epoch.
    """

    log = Logger()

    def __init__(
        self,
        origin: Origin,
        listen: Callable[[ServerTLS], None],
        client: ClientTLS,
        clock: IReactorTime,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._origin = origin
        self._listen = listen
        self._client = client
        self._now = now
        self._server: ServerTLS | None = None
        self._new: Loaded | None = None
        """What is not in use yet."""
        self._said = ""
        self._looking = LoopingCall(self.look)
        self._looking.clock = clock

    def start(self) -> None:
        """Look now, and then again and again."""
        self._looking.start(SECONDS, now=True).addErrback(
            lambda failure: self.log.failure("the SIP server's certificate is not renewed any more", failure)
        )

    def stop(self) -> None:
        """Look no more."""
        if self._looking.running:
            self._looking.stop()

    async def look(self) -> None:
        """Take over what is new; what fails is tried again at the next look."""
        try:
            self._new = await self._origin.look(self._now()) or self._new
            if self._new is not None and self._looking.running:
                self._use(self._new)
        except (NotYet, TLSError, SIPListenError, OSError) as e:
            self._say(str(e))
        except Exception:  # noqa: BLE001  (the next look may do; it must not be the last)
            self.log.failure("no certificate for the SIP server")

    def _use(self, loaded: Loaded) -> None:
        self._client.trust(loaded.roots)
        if self._server is not None:
            self._server.use(loaded.chain, loaded.private_key)
            self.log.info("the SIP server has another certificate")
        else:
            server = ServerTLS(loaded.chain, loaded.private_key)
            self._listen(server)
            self._server = server
        self._new, self._said = None, ""

    def _say(self, why: str) -> None:
        """Once, until it is something else."""
        if why == self._said:
            return
        self._said = why
        if self._server is None:
            self.log.warn("no SIP over TLS yet: {why}; tried again each minute", why=why)
        else:
            self.log.warn("the SIP server keeps its certificate: {why}", why=why)


def own_certificate(path: Path, option: str = "--sip-certificate") -> CertificateFile:
    """The operator's own, which `option` names.

    :raises StartError: it cannot be used.
    """
    try:
        CertificateFile(path).load()
    except NotYet as e:
        raise StartError(f"{option}: {e}") from e
    return CertificateFile(path)


def issued_certificate(
    state: StateDirectory,
    overlay: str,
    addresses: Sequence[str],
    renewal: Renewal,
    authority: Callable[[], OverlayAuthority | None],
    in_thread: Callable[..., Deferred[Any]],
) -> IssuedCertificate:
    """One that the overlay's authority makes for this node.

    :param addresses: where phones reach it.
    :param authority: the overlay's own, where this node holds that; else an enrollment server is asked.
    :param in_thread: runs a blocking function off the reactor's thread.
    """

    async def ask(csr: bytes, addresses: Sequence[str]) -> Sequence[bytes]:
        held = authority()
        if held is not None:
            own = renewal.credentials.identity
            chain: Sequence[bytes] = await in_thread(held.sip_certificate, own, csr, addresses, addresses)
            return chain
        client = renewal.client()
        try:
            return await client.server_certificate(csr, addresses)
        finally:
            await client.close()

    return IssuedCertificate(state, overlay, addresses, renewal.credentials.identity.user_name, ask)


def _renewal_time(certificate: x509.Certificate) -> float:
    """After two thirds of its life."""
    start, end = (moment.timestamp() for moment in (certificate.not_valid_before_utc, certificate.not_valid_after_utc))
    return start + (end - start) * 2 / 3


def _key_of(pem: bytes) -> bytes:
    """The part of `pem` from its private key on."""
    start = pem.find(b"PRIVATE KEY-----")
    return pem[pem.rfind(b"-----BEGIN", 0, start) :] if start >= 0 else b""
