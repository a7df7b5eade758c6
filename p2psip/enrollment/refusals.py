"""What the authority refuses, and the checks of requests that come to that."""

from __future__ import annotations

from collections.abc import Sequence

from ..security.certificates import CertificateRequest, read_request
from ..security.identity import CertificateError, Identity
from ..sip.digest import DigestCredentials, verify_response
from ..sip.interfaces import DeviceCredential


class Refusal(Exception):
    """Why there is no certificate; `token` is all that the client is told.

    It is RFC 6940 §11.3's word; for registrars also ``bad_nonce``: the challenge was not theirs, or is old.
    """

    def __init__(self, token: str) -> None:
        super().__init__(token)
        self.token = token


def proved(known: Sequence[DeviceCredential], authorization: DigestCredentials, method: str) -> str:
    """Which of the devices made `authorization`."""
    for device in known:
        if device.algorithm == authorization.algorithm and verify_response(authorization, method, device.ha1):
            return device.device
    raise Refusal("failed_authentication")


def read_csr(csr: bytes) -> CertificateRequest:
    """A request, whoever made it."""
    try:
        return read_request(csr)
    except CertificateError as e:
        raise Refusal("bad_CSR") from e


def request_of(identity: Identity, csr: bytes) -> CertificateRequest:
    """The request, for the key of a certificate that was shown."""
    request = read_csr(csr)
    if request.public_key != identity.public_key:
        raise Refusal("bad_CSR")
    return request
