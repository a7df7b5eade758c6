"""The seams of security: what the floors above sign and verify with (named again by `p2psip.interfaces`).

A simulation puts something cheaper behind them.
"""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import Attribute, Interface

from ..ids import NodeId
from ..wire.security import Signature
from .identity import Identity, SignedBy


class ISigner(Interface):
    """One identity of ours and its key."""

    identity: Identity = Attribute("Whom the signatures name; `identity.certificate` is the DER certificate.")
    node_id: NodeId = Attribute("The Node-ID that the signatures speak for.")

    def sign(data: bytes) -> Signature:
        """Sign `data` || SignerIdentity, as RFC 6940 §6.3.4 lays it out."""


class IVerifier(Interface):
    """Whom this Overlay Instance believes."""

    def verify(signature: Signature, data: bytes, certificates: Sequence[bytes]) -> SignedBy:
        """Who signed `data` || SignerIdentity with a certificate out of `certificates` (DER) or already
        known.

        :raises p2psip.security.signing.VerificationError: nobody whom the overlay believes; it names the
        cause.
        """
