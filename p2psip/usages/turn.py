"""The TURN Server Usage: TURN servers are registered in the overlay and found there (RFC 6940 §9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.plugin import IPlugin
from zope.interface import implementer

from ..config.kinds import REGISTERED, TURN_SERVICE, Kind
from ..hostport import address_text
from ..interfaces import (
    IApplicationConnection,
    IOverlay,
    IRelays,
    IUsage,
    IUsageFactory,
    Relay,
)
from ..wire.codes import MessageExtensionType
from .relays import Relays
from .turn_server import TurnRegistration


@implementer(IUsage, IRelays)
class TurnUsage:
    """Finds TURN servers for its node; with `serve`, before the node starts, it offers one as well."""

    def __init__(self, overlay: IOverlay) -> None:
        self._overlay = overlay
        self._relays = Relays(overlay)
        self._server: TurnRegistration | None = None

    def serve(self, host: str, port: int, secret: bytes) -> None:
        """Offer the TURN server at an IP address, which makes passwords of `secret` (coturn's use-auth-secret).

        :raises ValueError: `host` is no IP address.
        """
        self._server = TurnRegistration(self._overlay, host, port, secret)
        self._overlay.extend_answers(MessageExtensionType.TURN_CREDENTIALS, self._server.extend_ping)

    def start(self) -> Deferred[None]:
        """Register the TURN server, if there is one; done in the background."""
        self._relays.look_again()
        if self._server is not None:
            self._server.start()
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """Withdraw the TURN server; no search goes on."""
        self._relays.stop()
        return succeed(None) if self._server is None else self._server.stop()

    def application_connected(self, connection: IApplicationConnection) -> None:
        """No application is served."""
        connection.close()

    def relay(self) -> Deferred[Relay | None]:
        """See `IRelays`; also before the node has joined, when a link is up."""
        return self._relays.relay()

    def relay_failed(self, relay: Relay) -> None:
        """See `IRelays`."""
        self._relays.relay_failed(relay)

    def status(self) -> Mapping[str, Any]:
        """For ``status --json``: addresses with ports, empty where there is none."""
        server, known = self._server, self._relays.known
        return {
            "server": "" if server is None else server.address,
            "registered": 0 if server is None else server.places,
            "not_registered": "" if server is None else server.why_not,
            "relay": "" if known is None else address_text(known.address, known.port),
        }


@implementer(IPlugin, IUsageFactory)
class TurnUsageFactory:
    """Makes the TURN Server Usage of each node."""

    name = "turn"
    kinds: Sequence[Kind] = (REGISTERED[TURN_SERVICE],)
    applications: Sequence[int] = ()

    def build(self, overlay: IOverlay) -> TurnUsage:
        """The usage of one node."""
        return TurnUsage(overlay)
