"""The configuration documents of an overlay, as whoever signs them publishes them (RFC 6940 §11.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

from ..config.accept import publish
from ..config.defaults import KINDS, default_configuration
from ..config.document import Configuration, next_sequence
from ..config.kinds import Kind
from ..config.write import write_document
from ..security.signing import Signer
from .authority import OverlayAuthority

ENVELOPE: Final = 4096
"""Bytes of a message beside the document that it carries, and more."""


class DocumentSigners(Protocol):
    """Whoever holds the keys that an overlay's documents are signed with: an authority, or the founder alone."""

    def configuration_signer(self) -> Signer:
        """Who signs the configuration document."""

    def kind_signer(self) -> Signer:
        """Who signs the kind-blocks."""


def first_document(
    authority: OverlayAuthority,
    bootstrap_nodes: Sequence[tuple[str, int]],
    enrollment_servers: Sequence[str],
    now: float,
    kinds: Sequence[Kind] = KINDS,
    no_ice: bool = False,
) -> bytes:
    """The document with which the authority's overlay is founded.

    :param enrollment_servers: URLs to POST requests to, ``https://192.0.2.1:8443/enroll``.
    :param kinds: those that the installed usages define.
    """
    configuration = default_configuration(
        authority.overlay,
        root_certificates=[authority.root_certificate],
        configuration_signer=authority.configuration_signer().node_id,
        kind_signer=authority.kind_signer().node_id,
        now=now,
        bootstrap_nodes=bootstrap_nodes,
        enrollment_servers=enrollment_servers,
        kinds=kinds,
        no_ice=no_ice,
    )
    return _published(authority, configuration)


def first_self_signed_document(
    signers: DocumentSigners,
    overlay: str,
    digest: str,
    bootstrap_nodes: Sequence[tuple[str, int]],
    now: float,
    kinds: Sequence[Kind] = KINDS,
    no_ice: bool = False,
) -> bytes:
    """The document with which an overlay is founded whose nodes certify themselves by `digest` (RFC 6940 §11.3.1)."""
    configuration = default_configuration(
        overlay,
        root_certificates=(),
        configuration_signer=signers.configuration_signer().node_id,
        kind_signer=signers.kind_signer().node_id,
        now=now,
        bootstrap_nodes=bootstrap_nodes,
        kinds=kinds,
        no_ice=no_ice,
    )
    return _published(signers, replace(configuration, self_signed_permitted=digest))


def next_document(signers: DocumentSigners, current: Configuration, **changes: Any) -> bytes:
    """The document after `current`, with `changes` to its attributes.

    max-message-size grows with the document.

    :raises p2psip.config.document.ConfigurationError: it could not be used.
    """
    return _published(signers, replace(current, **changes, sequence=next_sequence(current.sequence)))


def _published(signers: DocumentSigners, configuration: Configuration) -> bytes:
    """The signed document of `configuration`, with room for itself in max-message-size."""
    signed = publish(configuration, signers.configuration_signer(), signers.kind_signer())
    document = write_document(signed)
    # It travels in one ConfigUpdate, to nodes that still go by the document before it.  So there has to be room
    # for the next one already.
    if 4 * (len(document) + ENVELOPE) > 3 * configuration.max_message_size:
        return _published(signers, replace(configuration, max_message_size=2 * configuration.max_message_size))
    return document
