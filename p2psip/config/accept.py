"""Signing configuration documents, and judging those that arrive (RFC 6940 §6.5.4.2, §11.1).

The first document of a node comes over HTTPS or from its operator and need not be signed.  Each later one
must be newer, and signed by a configuration-signer of the one before it.  Kinds are signed always.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from ..ids import NodeId
from ..security.identity import SignedBy
from ..security.signing import Signer, VerificationError, Verifier
from ..security.trust import Trust
from .document import (
    CHORD_NAMESPACE,
    CHORD_RELOAD,
    CONFIG_NAMESPACE,
    CannotComply,
    Configuration,
    ConfigurationExpired,
    MalformedDocument,
    SequenceTooOld,
    SignatureError,
    is_newer,
)
from .domains import SIP_NAMESPACE
from .kinds import Kind, KindBlock
from .parse import parse, parse_kinds
from .write import write_configuration, write_document, write_kind

MAX_SIGNATURES: Final = 8
"""Signatures of one element that are tried."""

_PREFIXES: Final = {"": CONFIG_NAMESPACE, "chord": CHORD_NAMESPACE}


def trust_of(configuration: Configuration, now: Callable[[], float]) -> Trust:
    """Whom the members of an overlay believe by its configuration; `now` tells the time."""
    return Trust(
        configuration.instance_name,
        configuration.root_certificates,
        configuration.bad_nodes,
        configuration.node_id_length,
        now,
        self_signed=configuration.self_signed_permitted,
    )


# -- Making ------------------------------------------------------------------------------------------------


def publish(
    configuration: Configuration, signer: Signer, kind_signer: Signer, chain: Sequence[bytes] = ()
) -> Configuration:
    """Write and sign `configuration`: what comes back is as any member reads it.

    `signer` has to be a configuration-signer of the configuration *before* this one, `kind_signer` a
    kind-signer of this one.  `chain` are the certificates between theirs and a root.

    :raises MalformedDocument: a value cannot be written so that it is read again as the same.
    """
    if configuration.expiration is not None:
        configuration = replace(configuration, expiration=float(int(configuration.expiration)))
    blocks = tuple(sign_kind(kind, kind_signer, chain) for kind in configuration.kinds.values())
    raw = write_configuration(replace(configuration, kind_blocks=blocks))
    signed = replace(
        configuration, raw=raw, signatures=(signer.sign_blob(raw, chain),), kind_blocks=blocks, inherited=()
    )
    read = parse(write_document(signed), configuration.instance_name)
    if read != configuration:
        raise MalformedDocument("configuration", "a value would not be read as it was written")
    return replace(read, kinds=MappingProxyType({block.kind.kind_id: block.kind for block in blocks}))


def sign_kind(kind: Kind, signer: Signer, chain: Sequence[bytes] = ()) -> KindBlock:
    """Define `kind` by a block that `signer`, a kind-signer, signs."""
    raw = write_kind(kind)
    return KindBlock(replace(kind, signer=signer.node_id), raw, signer.sign_blob(raw, chain))


# -- Accepting ---------------------------------------------------------------------------------------------


def accept_first(data: bytes, overlay: str | None, now: float) -> Configuration:
    """Read the document that a node starts with: what brought it is trusted (HTTPS, the operator, our own
    disk).

    `overlay` None takes the only overlay that the document describes.

    :raises ConfigurationError: it cannot be used.
    """
    configuration = parse(data, overlay)
    _require_time(configuration, now)
    return _verified_kinds(configuration, Verifier(trust_of(configuration, lambda: now)))


def accept_update(data: bytes, current: Configuration, verifier: Verifier, now: float) -> Configuration:
    """Read a document that is to replace `current`, by whatever way it came; `verifier` judges by `current`.

    :raises ConfigurationError: it must not replace it, and `current` stays; see its subclasses.
    """
    configuration = parse(data, current.instance_name)
    if not is_newer(configuration.sequence, current.sequence):
        text = f"{configuration.sequence} is not newer than {current.sequence}"
        raise SequenceTooOld("sequence", text)
    verify_document(configuration, current.configuration_signers, verifier)
    _require_time(configuration, now)
    return _verified_kinds(configuration, Verifier(trust_of(configuration, lambda: now)))


def accept_kinds(fragment: bytes, current: Configuration, verifier: Verifier) -> Configuration:
    """`current` with the Kinds of a ConfigUpdate of type kind added or changed (RFC 6940 §6.5.4.2).

    They are not part of its document: a newer document decides anew.

    :raises SignatureError: no kind-signer signed them, or another one than signed the same Kind before.
    :raises ConfigurationError: they are malformed.
    """
    kinds = dict(current.kinds)
    for block in parse_kinds(fragment, current.instance_name):
        kind = verify_kind(block, verifier)
        known = kinds.get(kind.kind_id)
        if kind.signer not in current.kind_signers:
            raise SignatureError("kind-signature", "not-a-signer", "its signer is no kind-signer")
        if known is not None and known.signer not in (None, kind.signer):
            text = f"Kind {kind.kind_id:#x} was signed by another signer"
            raise SignatureError("kind-signature", "other-signer", text)
        kinds[kind.kind_id] = kind
    return replace(current, kinds=MappingProxyType(kinds))


def verify_document(
    configuration: Configuration, signers: Collection[NodeId], verifier: Verifier
) -> SignedBy:
    """Who of `signers` (Node-IDs) signed a configuration, over its bytes as received.

    :raises SignatureError: none of them.
    """
    _require_bound_names(configuration)
    failure = SignatureError("signature", "unsigned", "there is none")
    for block in configuration.signatures[:MAX_SIGNATURES]:
        try:
            signed_by = verifier.verify_blob(block, configuration.raw)
        except VerificationError as error:
            failure = SignatureError("signature", error.cause, str(error))
            continue
        if signed_by.node_id in signers:
            return signed_by
        text = f"{signed_by.node_id.hex()} is no configuration-signer"
        failure = SignatureError("signature", "not-a-signer", text)
    raise failure


def verify_kind(block: KindBlock, verifier: Verifier) -> Kind:
    """The Kind of a block with its `signer`, who is a member; whether it may sign Kinds is not asked here.

    :raises SignatureError: the signature is wrong.
    """
    try:
        signed_by = verifier.verify_blob(block.signature, block.raw)
    except VerificationError as error:
        raise SignatureError("kind-signature", error.cause, str(error)) from None
    return replace(block.kind, signer=signed_by.node_id)


def _verified_kinds(configuration: Configuration, verifier: Verifier) -> Configuration:
    """The configuration with the Kinds that its kind-signers signed.

    RFC 6940 §11.1: "If any Kind data was signed by a node that is no longer allowed to sign Kinds, that Kind
    MUST be discarded".  One whose signature is wrong makes the document unusable.
    """
    kinds = [verify_kind(block, verifier) for block in configuration.kind_blocks]
    allowed = {kind.kind_id: kind for kind in kinds if kind.signer in configuration.kind_signers}
    return replace(configuration, kinds=MappingProxyType(allowed))


def _require_time(configuration: Configuration, now: float) -> None:
    if configuration.expired(now):
        raise ConfigurationExpired("expiration", "the configuration has expired")


def _require_bound_names(configuration: Configuration) -> None:
    """Refuse namespaces declared on ``<overlay>``, outside the signature, that could change what names mean.

    A prefix of ours has to stand for what it always does, and no other prefix may stand for a namespace of
    ours.
    """
    for prefix, namespace in configuration.inherited:
        ours = prefix in _PREFIXES or namespace in _PREFIXES.values()
        if ours and _PREFIXES.get(prefix) != namespace:
            text = f"xmlns:{prefix} is declared outside of what is signed"
            raise SignatureError("overlay", "namespace", text)


# -- Complying
# ------------------------------------------------------------------------------------------------


def require_support(
    configuration: Configuration,
    *,
    topology_plugins: Collection[str] = (CHORD_RELOAD,),
    link_protocols: Collection[str] = ("TLS",),
    extensions: Collection[str] = (SIP_NAMESPACE,),
    access_controls: Collection[str] | None = None,
    ice: bool = True,
    shared_secret: bool = False,
) -> None:
    """Check that a node can do what the configuration asks; if not it must not join, or must leave.

    The arguments say what the node can do; `access_controls` None: whatever the Kinds name.

    :raises CannotComply: naming the first element that it cannot follow.
    """
    for namespace in configuration.mandatory_extensions:
        if namespace not in extensions:
            raise CannotComply("mandatory-extension", f"{namespace} is not known")
    plugin = configuration.topology_plugin
    if plugin not in topology_plugins:
        raise CannotComply("topology-plugin", f"{plugin} is not known")
    if plugin == CHORD_RELOAD and configuration.node_id_length != 16:
        # RFC 6940 §10.1: CHORD-RELOAD works "modulo 2^128".
        raise CannotComply("node-id-length", f"{CHORD_RELOAD} needs 16 bytes")
    if not set(configuration.overlay_link_protocols) & set(link_protocols):
        known = ", ".join(configuration.overlay_link_protocols)
        raise CannotComply("overlay-link-protocol", f"none of {known} is known")
    if not ice and not configuration.no_ice:
        raise CannotComply("no-ice", "this node does not speak ICE")
    if configuration.shared_secret and not shared_secret:
        raise CannotComply("shared-secret", "links keyed by a shared secret are not known")
    for kind in configuration.kinds.values():
        if access_controls is not None and kind.access_control not in access_controls:
            raise CannotComply("access-control", f"{kind.access_control} is not known")
