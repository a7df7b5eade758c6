"""Credentials that nodes make themselves, in an overlay that permits it (RFC 6940 §11.3.1)."""

from __future__ import annotations

import time

from .enrollment.authority import NODE_LIFETIME, SIGNER_LIFETIME
from .security.certificates import (
    PrivateKey,
    generate_key,
    load_private_key,
    make_self_signed,
    private_key_pem,
)
from .security.identity import CertificateError, Identity, self_signed_node_ids
from .security.signing import Signer
from .startup import StartError
from .state import StateDirectory, write_file


def user_name(account: str | None, key: PrivateKey, overlay: str, digest: str) -> str:
    """The user name of a node that certifies itself: what its operator calls it, else one made of its Node-ID.

    The latter is nobody else's.
    """
    if account:
        return account if "@" in account else f"{account}@{overlay}"
    (node_id,) = self_signed_node_ids(key.public_key(), digest)
    return f"{node_id.hex()}@nodes.{overlay}"


def own_certificate(key: PrivateKey, overlay: str, digest: str, name: str) -> bytes:
    """A node's certificate (DER) of its own making, with the user name `name`.

    :raises StartError: that cannot be one.
    """
    try:
        return make_self_signed(
            key, overlay=overlay, user_name=name, digest=digest, now=time.time(), lifetime=NODE_LIFETIME
        )
    except CertificateError as e:
        raise StartError(f"{name!r} cannot be a user name (--account): {e}") from e


class DocumentKey:
    """The key that the founder of a self-signed overlay signs its documents with; not its own.

    Its certificate is made anew at each start: the Node-ID, by which the document names it, comes from the key.
    """

    def __init__(self, key: PrivateKey, overlay: str, digest: str) -> None:
        self.overlay = overlay
        self.digest = digest
        certificate = make_self_signed(
            key,
            overlay=overlay,
            user_name=f"signer@authority.{overlay}",
            digest=digest,
            now=time.time(),
            lifetime=SIGNER_LIFETIME,
        )
        self._signer = Signer(Identity.from_certificate(certificate, overlay), key)

    @classmethod
    def created(cls, state: StateDirectory, overlay: str, digest: str, key_type: str) -> DocumentKey:
        """That of a new overlay; the one that lies there, if founding was interrupted."""
        if not state.has_signer:
            write_file(state.signer_key, private_key_pem(generate_key(key_type)))
        return cls.opened(state, overlay, digest)

    @classmethod
    def opened(cls, state: StateDirectory, overlay: str, digest: str) -> DocumentKey:
        """That in the state directory.

        :raises StartError: it is damaged.
        """
        try:
            return cls(load_private_key(state.signer_key.read_bytes()), overlay, digest)
        except (OSError, CertificateError) as e:
            raise StartError(f"{state.signer_key} cannot be used: {e}") from e

    def configuration_signer(self) -> Signer:
        """Who signs the configuration document."""
        return self._signer

    def kind_signer(self) -> Signer:
        """Who signs the kind-blocks: the same."""
        return self._signer
