"""How a running node keeps its certificate and its configuration document from ending."""

from __future__ import annotations

import time
from dataclasses import replace
from random import SystemRandom
from typing import Any, Final

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from .enrollment.client import EnrollmentClient, renewal_time
from .joining import Credentials, DocumentRefetch, certified_anew, enrollment_client
from .node import Node
from .security.certificates import certificate_pem, make_request
from .security.signing import Signer
from .selfsigned import user_name
from .state import StateDirectory, write_file
from .usages.certificate import CertificateStore

SECONDS: Final = 3600.0
"""How often is looked whether anything has to be renewed."""


class Renewal:
    """Renews the certificate of `node` at two thirds of its life, with the same Node-IDs; and the document."""

    log = Logger()

    def __init__(self, node: Node, credentials: Credentials, state: StateDirectory, reactor: Any) -> None:
        self.credentials = credentials
        self._node = node
        self._state = state
        self._reactor = reactor
        self._refetch = DocumentRefetch(self.client, SystemRandom())
        self._looking = LoopingCall(self.look)
        self._looking.clock = reactor
        certificates: Any = node.usages.get("certificate")
        if credentials.digest and isinstance(certificates, CertificateStore):
            certificates.name_taken = self.give_way

    def start(self) -> None:
        """Look now, and then again and again."""
        self._looking.start(SECONDS, now=True).addErrback(
            lambda failure: self.log.failure("the certificate is not renewed any more", failure)
        )

    def stop(self) -> None:
        """Look no more."""
        if self._looking.running:
            self._looking.stop()

    def client(self) -> EnrollmentClient:
        """Asks the enrollment servers of the configuration in use, as this node."""
        return enrollment_client(self._reactor, self._node.configuration, self.credentials)

    async def look(self) -> None:
        """Renew what it is time to renew; what fails is tried again at the next look."""
        await self._refetch.look(self._node.configuration, self._node.updates.offer, time.time())
        if time.time() < renewal_time(self.credentials.identity):
            return
        try:
            if self.credentials.digest:
                self._certify(self.credentials.identity.user_name)
            else:
                await self._enroll()
        except Exception as e:  # noqa: BLE001  (asked again within the hour, long before the certificate ends)
            self.log.warn("the certificate is not renewed yet: {error}", error=str(e))
            return
        self.log.info("the certificate is renewed")

    async def _enroll(self) -> None:
        """Have the authority certify this node anew."""
        identity, key = self.credentials.identity, self.credentials.key
        client = self.client()
        try:
            certificate = await client.renew(make_request(key, identity.user_name))
            renewed = self._node.trust.identify(certificate)
            write_file(self._state.certificate, certificate_pem(certificate), 0o644)
            self._node.renew(Signer(renewed, key))
        finally:
            await client.close()
        self.credentials = replace(self.credentials, identity=renewed)

    def _certify(self, account: str | None) -> None:
        """Have this node certify itself anew; without a name, under the one made of its Node-ID."""
        credentials = certified_anew(self.credentials, self._state, account)
        self._node.renew(Signer(credentials.identity, credentials.key))
        self.credentials = credentials

    def give_way(self) -> None:
        """Another node has the user name: take another one (RFC 6940 §11.3.1)."""
        taken = self.credentials.identity.user_name
        if taken == user_name(None, self.credentials.key, self._node.trust.overlay, self.credentials.digest):
            return  # That is made of our Node-ID, whoever else claims it.
        self._certify(None)
        self.log.warn(
            "the user name {taken} is another node's: this one is {name}, until it is started with another --account",
            taken=taken,
            name=self.credentials.identity.user_name,
        )
