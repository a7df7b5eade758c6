"""The certificate with which a registrar stores that it is a gateway, and how it comes to have it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..config.kinds import gateway_user_name
from ..ids import NodeId
from ..interfaces import ISigner
from ..security.certificates import PrivateKey, certificate_pem, certificates_of_pem, make_request
from ..security.identity import CertificateError
from ..security.signing import Signer
from ..security.trust import Trust
from ..state import write_file
from .client import EnrollmentClient, EnrollmentError, renewal_time

RETRY: Final = 900.0
"""Seconds before a renewal that failed is tried again."""


class GatewayCertificate:
    """Kept in a file, so that a gateway is one again after a restart, whether the server is there or not.

    :param client: makes who asks the enrollment servers that the configuration names now.
    """

    log = Logger()

    def __init__(
        self,
        client: Callable[[], EnrollmentClient],
        trust: Trust,
        private_key: PrivateKey,
        node_id: NodeId,
        file: Path,
        clock: IReactorTime,
    ) -> None:
        self._client = client
        self._trust = trust
        self._key = private_key
        self._node_id = node_id
        self._file = file
        self._clock = clock
        self._renew_at = 0.0

    def signer(self) -> Deferred[ISigner]:
        """Who signs now.  Fails with EnrollmentError where there is no certificate and none to be had."""
        return Deferred.fromCoroutine(self._signer())

    async def _signer(self) -> ISigner:
        kept, now = self._kept(), self._clock.seconds()
        if kept is not None and now < max(self._renew_at, renewal_time(kept.identity)):
            return kept
        self._renew_at = now + RETRY
        try:
            return await self._asked()
        except EnrollmentError:
            if kept is None:
                raise
            return kept

    def _kept(self) -> Signer | None:
        try:
            return self._accept(certificates_of_pem(self._file.read_bytes())[0])
        except (OSError, CertificateError, EnrollmentError, LookupError):
            return None

    async def _asked(self) -> Signer:
        client = self._client()
        try:
            csr = make_request(self._key, gateway_user_name(self._trust.overlay))
            certificate = await client.gateway_certificate(csr)
        finally:
            await client.close()
        signer = self._accept(certificate)
        try:
            write_file(self._file, certificate_pem(certificate), 0o644)
        except OSError as error:
            # It is good all the same; after a restart there will be another.
            self.log.error("the gateway's certificate is not saved: {error}", error=str(error))
        return signer

    def _accept(self, certificate: bytes) -> Signer:
        try:
            identity = self._trust.identify(certificate)
            if identity.user_name != gateway_user_name(self._trust.overlay):
                raise EnrollmentError("the enrollment server gave another certificate than a gateway's")
            return Signer(identity, self._key, self._node_id)
        except (CertificateError, ValueError) as error:
            raise EnrollmentError(f"the enrollment server gave a certificate that is no good: {error}") from error
