"""An enrollment server on a port of 127.0.0.1, for the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import deferLater
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

from p2psip.config.accept import publish
from p2psip.config.defaults import default_configuration
from p2psip.config.document import Configuration
from p2psip.enrollment.authority import OverlayAuthority
from p2psip.enrollment.client import EnrollmentClient
from p2psip.enrollment.server import EnrollmentServer
from p2psip.enrollment.tls import TrustedServer, named_server

from . import world
from .world import OVERLAY, Member

reactor: Any = _reactor


class ServedTestCase(TestCase):
    """`self.authority` served at `self.url`, with the time of this machine."""

    server_class = EnrollmentServer

    def setUp(self) -> None:
        self.authority = OverlayAuthority.create(Path(self.mktemp()), OVERLAY, reactor.seconds, hashes=world.HASHES)
        self.addCleanup(self.authority.close)
        self.trust = world.trust(self.authority)
        self.configuration = first_configuration(self.authority)
        self.server, self.url = self.serve(self.authority)

    def serve(self, authority: OverlayAuthority, interface: str = "127.0.0.1") -> tuple[EnrollmentServer, str]:
        server = self.server_class(authority, self.trust, lambda: self.configuration, reactor, self.in_thread)
        factory: Any = server.factory(*authority.server_credentials(["127.0.0.1", "::1"]))
        port = reactor.listenTCP(0, factory, interface=interface)

        async def stop() -> None:
            await port.stopListening()
            while factory.protocols:
                for protocol in list(factory.protocols):
                    protocol.abortConnection()
                await deferLater(reactor, 0)

        self.addCleanup(lambda: Deferred.fromCoroutine(stop()))
        self.port = port
        host = f"[{interface}]" if ":" in interface else interface
        return server, f"https://{host}:{port.getHost().port}"

    def in_thread(self, function: Any, *arguments: Any) -> Deferred[Any]:
        return maybeDeferred(function, *arguments)

    def client(self, *urls: str, server: TrustedServer | None = None, member: Member | None = None) -> EnrollmentClient:
        trusted = server or named_server(
            OVERLAY,
            [self.authority.root_certificate],
            member.certificate if member else None,
            member.key if member else None,
        )
        client = EnrollmentClient(reactor, urls or (self.url,), trusted)
        self.addCleanup(client.close)
        return client

    async def run_tool(self, *command: str) -> tuple[bytes, int]:
        """Standard output and exit status of a program."""
        out, error, status = await getProcessOutputAndValue("/usr/bin/env", command)
        return out or error, status


def first_configuration(authority: OverlayAuthority) -> Configuration:
    configuration = default_configuration(
        OVERLAY,
        root_certificates=[authority.root_certificate],
        configuration_signer=authority.configuration_signer().node_id,
        kind_signer=authority.kind_signer().node_id,
        now=authority.database.now(),
        kinds=(),
    )
    return publish(configuration, authority.configuration_signer(), authority.kind_signer())
