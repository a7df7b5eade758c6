"""Documents for tests."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from p2psip.config.accept import publish, trust_of
from p2psip.config.defaults import default_configuration
from p2psip.config.document import CONFIG_NAMESPACE, Configuration
from p2psip.config.write import write_document
from p2psip.ids import NodeId
from p2psip.security.certificates import Authority
from p2psip.security.signing import Signer, Verifier
from tests.security.credentials import NODE_A, NODE_B, NOW, OVERLAY, authority, signer

KIND_SIGNER = NodeId(bytes(range(0x40, 0x50)))


@dataclass
class Founder:
    """An authority with a configuration-signer (NODE_A), a kind-signer, and the documents that they make."""

    ca: Authority = field(default_factory=authority)

    def __post_init__(self) -> None:
        self.signer: Signer = signer(self.ca)
        self.kind_signer: Signer = signer(self.ca, (KIND_SIGNER,))
        self.stranger: Signer = signer(self.ca, (NODE_B,))

    def configuration(self, **changes: Any) -> Configuration:
        """A configuration not yet published."""
        made = default_configuration(
            OVERLAY,
            root_certificates=[self.ca.certificate],
            configuration_signer=NODE_A,
            kind_signer=KIND_SIGNER,
            now=NOW,
            bootstrap_nodes=[("192.0.2.1", 6084), ("2001:db8::1", 7000)],
            enrollment_servers=["https://overlay.example.org:8443/enroll"],
        )
        return replace(made, **changes)

    def published(
        self, by: Signer | None = None, kinds_by: Signer | None = None, **changes: Any
    ) -> Configuration:
        """A configuration signed by the right signers, or by others."""
        return publish(self.configuration(**changes), by or self.signer, kinds_by or self.kind_signer)

    def document(self, **changes: Any) -> bytes:
        """The bytes of a published configuration."""
        return write_document(self.published(**changes))

    def verifier(self) -> Verifier:
        """Judges by this founder's configuration, NOW."""
        return Verifier(trust_of(self.configuration(), lambda: NOW))


def overlay(content: str, attributes: str = "", namespaces: str = "") -> bytes:
    """A document with `content` as the elements of its only configuration."""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<overlay xmlns="{CONFIG_NAMESPACE}" '
        f'xmlns:chord="urn:ietf:params:xml:ns:p2p:config-chord" {namespaces}>'
        f'<configuration instance-name="{OVERLAY}" {attributes}>{content}</configuration></overlay>'
    ).encode()


def kind(content: str = "", named: str = 'name="SIP-REGISTRATION"', **changes: str) -> str:
    """A kind-block with a signature that is none."""
    elements = {
        "data-model": "DICTIONARY",
        "access-control": "USER-NODE-MATCH",
        "max-count": "5",
        "max-size": "100",
    } | {name.replace("_", "-"): text for name, text in changes.items()}
    inner = "".join(f"<{name}>{text}</{name}>" for name, text in elements.items() if text)
    return (
        f"<kind-block><kind {named}>{inner}{content}</kind>"
        "<kind-signature>VGhpcyBpcyBub3QgcmlnaHQhCg==</kind-signature></kind-block>"
    )
