"""The authority for the certificates that SIP servers show to phones, apart from the overlay's own.

What it issues names the overlay's domain.  From the overlay's root that would be the enrollment server's identity
(RFC 6940 §11.3), for each registrar; therefore it has a root of its own, which only phones believe.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final

from ..security.certificates import (
    Authority,
    certificate_pem,
    certificates_of_pem,
    generate_key,
    load_private_key,
    make_authority,
    private_key_pem,
)
from ..security.identity import PublicKey
from ..state import write_file

CERTIFICATE: Final = "sip-ca.crt"
KEY: Final = "sip-ca.key"
MOST_ADDRESSES: Final = 16
_LIFETIME: Final = 20 * 365 * 86400.0


class SIPAuthority:
    """Issues the certificates of the SIP servers of one overlay; it is made where there is none in `directory`.

    :param now: answers the time in seconds since the epoch.
    :raises OSError, CertificateError: its files cannot be used.
    """

    def __init__(self, directory: Path, overlay: str, now: Callable[[], float]) -> None:
        self._overlay = overlay
        self._now = now
        certificate, key = directory / CERTIFICATE, directory / KEY
        # The key comes last: with it the authority is whole.
        if not key.exists():
            made = make_authority(f"{overlay} SIP", generate_key(), now(), _LIFETIME)
            write_file(certificate, certificate_pem(made.certificate), 0o644)
            write_file(key, private_key_pem(made.private_key))
        root = certificates_of_pem(certificate.read_bytes())[0]
        self._authority = Authority(root, load_private_key(key.read_bytes()))

    @property
    def root_certificate(self) -> bytes:
        """DER: what phones have to believe."""
        return self._authority.certificate

    def issue(self, public_key: PublicKey, addresses: Iterable[str], lifetime: float) -> list[bytes]:
        """The chain (DER) of a server of the overlay's domain that is reached at `addresses`."""
        certificate = self._authority.issue_server(
            public_key,
            hosts=[self._overlay, *addresses],
            now=self._now(),
            lifetime=lifetime,
            sip_domain=self._overlay,
        )
        return [certificate, self._authority.certificate]


def granted(asked: Sequence[str], proven: Collection[str]) -> list[str]:
    """Those of the addresses that a node asks for which it may have in its certificate.

    These are private ones, which mean something within their own network only, and those that are `proven` to be the
    node's.  So nobody gets a certificate for an address of somebody else.

    :raises ValueError: one is no IP address, or there are too many.
    """
    if len(asked) > MOST_ADDRESSES:
        raise ValueError("too many addresses")
    known = {canonical(address) for address in proven}
    wanted = dict.fromkeys(canonical(address) for address in asked)
    return [str(address) for address in wanted if address in known or _is_private(address)]


def canonical(text: str) -> IPv4Address | IPv6Address:
    """An IP address; ValueError where it is none.  An IPv4 one that is written as IPv6 is IPv4."""
    address = ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _is_private(address: IPv4Address | IPv6Address) -> bool:
    return not (address.is_global or address.is_multicast or address.is_unspecified)
