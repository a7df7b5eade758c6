"""The configuration documents that a running node publishes, where it holds the key that signs them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from .config.document import Configuration, ConfigurationError
from .config.parse import parse
from .enrollment.publication import DocumentSigners, next_document
from .running import Running
from .transport.bootstrap import Place

DAY: Final = 86400.0
YEAR: Final = 365 * DAY
MOST_BOOTSTRAP_NODES: Final = 32
"""In one document: who joins may have to try them all."""


class Publisher:
    """Publishes the overlay's documents, and prolongs them in time."""

    log = Logger()

    def __init__(self, service: Running, signers: DocumentSigners) -> None:
        self._service = service
        self._signers = signers
        self._said = False
        self._prolonging = LoopingCall(self._prolong)
        self._prolonging.clock = service.reactor

    async def start(self) -> None:
        """Prolong the document from now on."""
        self._prolonging.start(DAY, now=True).addErrback(
            lambda failure: self.log.failure("the document is not prolonged any more", failure)
        )

    async def stop(self) -> None:
        """Prolong it no more."""
        if self._prolonging.running:
            self._prolonging.stop()

    def say_what_next(self) -> None:
        """Tell the operator of a new overlay the next commands, once."""
        if not self._said:
            self._said = True
            self.say_commands()

    def say_commands(self) -> None:
        """Tell how other nodes come in."""
        self.log.info(
            "nodes:  hand over {document}; there: twistd -n p2psip --overlay {overlay} --config overlay.xml",
            document=str(self._service.state.document),
            overlay=self._service.overlay,
        )

    @property
    def configuration(self) -> Configuration:
        """The configuration in use."""
        assert self._service.node is not None
        return self._service.node.configuration

    def publish(self, **changes: Any) -> int:
        """Sign the next configuration document, with `changes` to what is in use, and send it to every node.

        Answers its sequence number.

        :raises p2psip.config.document.ConfigurationError: it could not be used, or not by this node.
        """
        node = self._service.node
        assert node is not None
        document = next_document(self._signers, self.configuration, **changes)
        node.check_support(parse(document, self._service.overlay))
        node.updates.offer(document)
        return self.configuration.sequence

    def set_bootstrap_nodes(self, places: Sequence[Place]) -> None:
        """Have the document name `places` to bootstrap from (RFC 6940 §11.1), if it does not.

        :raises ConfigurationError: there are none, or too many.
        """
        if not 0 < len(places) <= MOST_BOOTSTRAP_NODES:
            raise ConfigurationError("bootstrap-node", f"there must be 1 to {MOST_BOOTSTRAP_NODES} of them")
        if tuple(places) != self.configuration.bootstrap_nodes:
            self.publish(bootstrap_nodes=tuple(places))

    def _prolong(self) -> None:
        """Publish the document anew when less than a third of its life is left."""
        expiration = self.configuration.expiration
        if expiration is None or expiration - time.time() >= YEAR / 3:
            return
        try:
            self.publish(expiration=float(int(time.time() + YEAR)))
        except Exception:  # noqa: BLE001  (tried again tomorrow, months before the document ends)
            self.log.failure("the configuration document is not prolonged yet")
