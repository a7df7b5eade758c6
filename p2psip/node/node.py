"""One node of an Overlay Instance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..config.accept import require_support, trust_of
from ..config.document import CannotComply, Configuration
from ..config.kinds import Kind
from ..config.write import write_document
from ..errors import LinkError
from ..forwarding.router import Router
from ..ids import NodeId
from ..interfaces import (
    ILink,
    ILinkProtocol,
    IOverlay,
    ISigner,
    ITopologyPlugin,
    IUsage,
    IVerifier,
)
from ..links.dialing import Race
from ..security.certificates import PrivateKey
from ..security.identity import Identity, has_own_node_ids
from ..security.signing import Verifier
from ..storage.answers import StorageAnswers
from ..storage.interfaces import IStorage
from ..storage.replication import Replication
from ..storage.verify import FetchVerifier
from ..transport.app_attach import AppAttachments
from ..transport.attach import Attachments, AttachQuota
from ..transport.bootstrap import Bootstrap, BootstrapCache, Place
from ..transport.configuration import ConfigurationUpdates
from ..transport.connections import ConnectionTable
from ..transport.dispatch import Dispatch
from ..transport.liveness import Doubts, Liveness
from ..transport.messaging import Messaging
from ..transport.path_mtu import PathMTUs
from ..transport.transactions import Transactions
from ..wire.chord import ChordUpdate
from ..wire.methods import (
    AppAttachReq,
    AttachReqAns,
    ConfigUpdateReq,
    IceCandidate,
    IPv4AddrPort,
    IPv6AddrPort,
    JoinReq,
    LeaveReq,
    PingReq,
    ProbeReq,
    RouteQueryReq,
)
from .hosts import LinkHost, Overlay, Rejected, RenewableSigner, Routes, TopologyHost
from .membership import Membership
from .plugins import Plugins
from .status import status_of
from .values import Values

ENVELOPE = 2048
"""Bytes of a message beside the values and their writers' certificates: header, signature, our certificate."""

STOP_PATIENCE = 10.0
"""Seconds that links are given to close."""


class Node:
    """One node: built stopped, `start`ed once, and in the end `leave`s or `stop`s.

    `storage` is closed by whoever made it, after `stop`.  `now` answers the time in seconds since 1970; `clock`
    and `random` are all the node's time and chance.  The link protocols are bound to `addresses` (none: all) and
    `port`, and offered to others at `advertise`.  `nearby` answers where there are bootstrap nodes on the LAN.
    `verifier` replaces the one that judges by certificates, for simulations.  With `client` the node does not become
    a peer.  After `found_after` seconds alone it founds the overlay anew; None: never.

    `save_configuration` is given each newer document.  `joined` is called each time that the node has become part
    of the overlay, `excluded` when it has left because it cannot follow a newer document.
    """

    log = Logger()

    def __init__(
        self,
        configuration: Configuration,
        signer: ISigner,
        private_key: PrivateKey,
        storage: IStorage,
        plugins: Plugins,
        *,
        clock: Any,
        now: Callable[[], float],
        random: Random,
        addresses: Sequence[str] = (),
        port: int = 6084,
        advertise: Sequence[str] = (),
        bootstrap_cache: BootstrapCache | None = None,
        nearby: Callable[[], Sequence[Place]] = tuple,
        save_configuration: Callable[[bytes], None] = lambda document: None,
        client: bool = False,
        found_after: float | None = None,
        joined: Callable[[], None] = lambda: None,
        excluded: Callable[[CannotComply], None] = lambda error: None,
        verifier: IVerifier | None = None,
    ) -> None:
        self.configuration = configuration
        self.signer = RenewableSigner(signer)
        self.node_id: NodeId = signer.node_id
        self.clock = clock
        self.random = random
        self.storage = storage
        self._plugins = plugins
        self._client = client
        self._now = now
        self._started_at = clock.seconds()
        self._running = False
        self._usages_started = False
        self._save_configuration = save_configuration
        self._tell_joined = joined
        self._tell_excluded = excluded
        self.check_support(configuration)
        self.rejected = Rejected()
        self.count = self.rejected.count
        self.trust = trust_of(configuration, now)
        self.bootstrap_cache = bootstrap_cache or BootstrapCache()
        self._nearby = nearby
        verifier = verifier or Verifier(self.trust)
        self._wire_messages(verifier)
        self._wire_links(private_key, addresses, port, advertise)
        self._wire_topology(found_after)
        self._wire_storage(verifier)
        self._wire_answers()
        self.overlay: IOverlay = Overlay(self)
        self.usages: dict[str, IUsage] = {}
        self._build_usages()

    # -- Wiring -------------------------------------------------------------------------------------------

    def _wire_messages(self, verifier: IVerifier) -> None:
        def configuration() -> Configuration:
            return self.configuration

        clock, count = self.clock, self.count
        drain = 5 * self.configuration.overlay_reliability_timer / 1000
        self.table = ConnectionTable(
            self.node_id,
            clock,
            self._connected,
            self._disconnected,
            self._routes_over,
            drain,
            recovered=self._recovered,
        )
        self.router = Router(self.node_id, self.configuration, Routes(self))
        self.transactions = Transactions(clock, self.random, count)
        self.messaging = Messaging(
            self.node_id,
            configuration,
            self.signer,
            verifier,
            self.router,
            self.table.link_to,
            lambda resource, signer: self.topology.answers_for(resource, signer),
            lambda resource, signer: self._doubts.answered(resource, signer),
            lambda error: self.updates.mend(error),
            self.transactions,
            clock,
            count,
        )
        self.path_mtus = PathMTUs(configuration, self.signer, self.transactions, clock, self.random)
        self._doubts: Doubts = Doubts(self.table.connected, self._routes_over, self.messaging.request)
        self.updates: ConfigurationUpdates = ConfigurationUpdates(
            configuration,
            Verifier(self.trust),
            self._now,
            self.configuration_changed,
            self.messaging.request,
            self.table.connected,
            clock,
            count,
        )
        self.dispatch = self.messaging.dispatch = Dispatch(
            configuration, self.signer, clock, count, self.updates.check, self.messaging.send_answer
        )

    def _wire_links(
        self, private_key: PrivateKey, addresses: Sequence[str], port: int, advertise: Sequence[str]
    ) -> None:
        self._link_host = LinkHost(self, private_key, self.trust)
        ice = not self.configuration.no_ice
        self.link_protocols: Sequence[ILinkProtocol] = [
            factory.build(self._link_host, self.clock, addresses, port, advertise)
            for factory in sorted(self._plugins.links, key=lambda factory: -factory.link_type)
            if factory.ice == ice
        ]
        if not self.link_protocols:
            raise CannotComply("overlay-link-protocol", "no link protocol of this overlay is installed")
        quota = AttachQuota(self.clock)
        request, clock, count = self.messaging.request, self.clock, self.count
        self.attachments = Attachments(
            self.node_id,
            self.table,
            self.link_protocols,
            request,
            lambda node_id: self.topology.update_requested(node_id),
            clock,
            count,
            quota,
            self._remember,
        )
        self.app_attachments = AppAttachments(
            self.node_id, self.link_protocols, request, clock, count, quota
        )

    def _wire_topology(self, found_after: float | None) -> None:
        name = self.configuration.topology_plugin
        factory = next(found for found in self._plugins.topologies if found.name == name)
        host = TopologyHost(self)
        build = factory.build_client if self._client else factory.build
        self.topology: ITopologyPlugin = build(host)
        self.bootstrap = Bootstrap(
            self.node_id,
            self._connect_to_bootstrap,
            self.clock,
            self.random,
            self.bootstrap_cache,
            self._nearby,
        )
        self.membership = Membership(
            self.topology,
            self.table,
            self.bootstrap,
            lambda: self.configuration,
            self._joined,
            self.messaging.request,
            self.clock,
            self.random,
            None if self._client else found_after,
        )

    def _connect_to_bootstrap(self, address: str, port: int) -> Deferred[ILink]:
        # A bootstrap node's entry does not say which protocol it speaks (RFC 6940 §11.4).
        protocols = self.link_protocols
        tries = iter([(address, number) for number in range(len(protocols))])
        race = Race(self.clock, tries, lambda host, number: protocols[number].connect_to_bootstrap(host, port))
        return race.won

    def _remember(self, candidates: Sequence[IceCandidate]) -> None:
        """Another node said where it listens, and has connected to us: it could be bootstrapped from."""
        if not self.configuration.no_ice:
            return  # those are made for one link; the link itself tells where its other end listens
        types = {protocol.link_type for protocol in self.link_protocols}
        addresses = [candidate.addr_port for candidate in candidates if candidate.overlay_link in types]
        if addresses and isinstance(addresses[0], (IPv4AddrPort, IPv6AddrPort)):
            self.bootstrap_cache.add((addresses[0].host, addresses[0].port))

    def _wire_storage(self, verifier: IVerifier) -> None:
        policies = {policy.name: policy for policy in self._plugins.policies}

        def kinds() -> Mapping[int, Kind]:
            return self.configuration.kinds

        fetched = FetchVerifier(verifier, policies, self.topology.resource_id, self.count)
        self.replication = Replication(
            self.storage,
            self.topology,
            self.messaging,
            kinds,
            fetched,
            self.clock,
            self.random,
            lambda: self.configuration.max_message_size - ENVELOPE,
            self.count,
            self._now,
        )
        self.storage_answers = StorageAnswers(
            self.storage, self.topology, kinds, verifier, policies, self.replication.stored, self.count
        )
        self.values = Values(
            self.messaging.request, self.topology, self.signer, kinds, fetched, self._now
        )

    def _wire_answers(self) -> None:
        answerers = self.dispatch.answerers
        answerers.update(self.storage_answers.answerers(self._now))
        liveness = Liveness(
            self.random,
            self._now,
            self._uptime,
            self.topology.responsible_ppb,
            lambda: self.storage.resources,
        )
        answerers[PingReq] = liveness.answer_ping
        answerers[ProbeReq] = liveness.answer_probe
        answerers[AttachReqAns] = self.attachments.answer_attach
        answerers[AppAttachReq] = self.app_attachments.answer_app_attach
        answerers[ConfigUpdateReq] = self.updates.answer_config_update
        answerers[JoinReq] = self.topology.answer_join
        answerers[LeaveReq] = self.topology.answer_leave
        answerers[ChordUpdate] = self.topology.answer_update
        answerers[RouteQueryReq] = self.topology.answer_route_query

    def _build_usages(self) -> None:
        for factory in self._plugins.usages:
            usage = self.usages[factory.name] = factory.build(self.overlay)
            for application in factory.applications:
                self.app_attachments.applications[application] = usage.application_connected

    # -- Life ----------------------------------------------------------------------------------------------

    def start(self, found: bool = False) -> Deferred[None]:
        """Listen, and then join the overlay in the background; with `found` be its first node.

        Fails with LinkError where an address cannot be bound: the node is stopped then.
        """
        return Deferred.fromCoroutine(self._start(found))

    def listen(self) -> Deferred[None]:
        """Take links, and do nothing else: for a node that is put into its place in a simulation. Fails as `start`."""
        return Deferred.fromCoroutine(self._listen())

    async def _listen(self) -> None:
        self._running = True
        try:
            for protocol in self.link_protocols:
                await protocol.listen()
        except LinkError:
            await self.stop()
            raise

    async def _start(self, found: bool) -> None:
        await self._listen()
        if found:
            self.membership.found()
        else:
            self.membership.enter()

    def leave(self) -> Deferred[None]:
        """Withdraw the usages, hand on the data, tell the neighbors, and stop; never fails."""
        return Deferred.fromCoroutine(self._leave())

    async def _leave(self) -> None:
        self.membership.stop()
        await self._stop_usages()
        await self.topology.leave()
        await self.stop()

    def stop(self) -> Deferred[None]:
        """End at once: as if the process were killed, but that the links are closed."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._running = False
        self.membership.stop()
        self.topology.stop()
        self.replication.stop()
        self.transactions.stop()
        await self._stop_usages()
        self.path_mtus.stop()
        self.table.stop()
        stopping = [protocol.stop() for protocol in self.link_protocols]
        closed = DeferredList([stopped.addErrback(self._log_failure) for stopped in stopping])
        await closed.addTimeout(STOP_PATIENCE, self.clock).addErrback(lambda failure: [])
        self.messaging.stop()

    async def _stop_usages(self) -> None:
        started, self._usages_started = self._usages_started, False
        if started:
            await DeferredList([usage.stop() for usage in self.usages.values()])

    # -- What happens to it --------------------------------------------------------------------------------

    def _joined(self) -> None:
        self.log.debug("{node_id} is in the overlay", node_id=self.node_id.hex())
        self._usages_started = True
        for usage in self.usages.values():
            usage.start().addErrback(self._log_failure)
        self._tell_joined()

    def _connected(self, node_id: NodeId) -> None:
        self.topology.link_opened(node_id)

    def _recovered(self, node_id: NodeId) -> None:
        self.topology.link_recovered(node_id)

    def _disconnected(self, node_id: NodeId) -> None:
        if self._running:
            self.topology.link_closed(node_id)
            self.replication.peer_lost(node_id)

    def _routes_over(self, node_id: NodeId) -> bool:
        return self.topology.routes_over(node_id)

    def _log_failure(self, failure: Failure) -> None:
        self.log.failure("unexpected", failure)

    def configuration_changed(self, configuration: Configuration) -> None:
        """Put a newer configuration to use; a node that cannot follow it leaves (RFC 6940 §6.5.4.2)."""
        old, self.configuration = self.configuration, configuration
        self.router.configuration = configuration
        self.trust.update(
            configuration.root_certificates,
            configuration.bad_nodes,
            self_signed=configuration.self_signed_permitted,
        )
        if configuration.raw != old.raw:
            self._save_configuration(write_document(configuration))
        self._discard_kinds(old)
        for link in self.table.links():
            if not configuration.bad_nodes.isdisjoint(link.identity.node_ids):
                self.table.close(link.node_id, LinkError("its Node-ID was revoked"))
            elif self._is_certified_no_more(link.identity, old):
                self.table.close(link.node_id, LinkError("self-signed certificates are not permitted any more"))
        try:
            if self._is_certified_no_more(self.signer.identity, old):
                raise CannotComply("self-signed-permitted", "this node's certificate is of its own making")
            self.check_support(configuration)
        except CannotComply as error:
            self.log.error("this node leaves, because of the new configuration: {error}", error=error)
            why = error
            self.leave().addCallback(lambda _: self._tell_excluded(why)).addErrback(self._log_failure)

    def _is_certified_no_more(self, identity: Identity, old: Configuration) -> bool:
        """Whether the certificate is self-signed, as `old` permitted and the new configuration does not."""
        digest = old.self_signed_permitted
        withdrawn = digest != "" and digest != self.configuration.self_signed_permitted
        return withdrawn and has_own_node_ids(identity, digest)

    def _discard_kinds(self, old: Configuration) -> None:
        """Forget the data of Kinds that are defined no longer, or otherwise (RFC 6940 §11.1)."""
        for kind_id, kind in old.kinds.items():
            new = self.configuration.kinds.get(kind_id)
            if new is None or new.data_model != kind.data_model:
                self.storage.discard_kind(kind_id)
        self.storage.durable().addErrback(self._log_failure)

    def check_support(self, configuration: Configuration) -> None:
        """See that this node can do what `configuration` asks; raises CannotComply."""
        require_support(
            configuration,
            topology_plugins=[factory.name for factory in self._plugins.topologies],
            access_controls=[policy.name for policy in self._plugins.policies],
            ice=any(factory.ice for factory in self._plugins.links),
        )
        if not self._client_permitted(configuration):
            raise CannotComply("clients-permitted", "this node is a client")

    def _client_permitted(self, configuration: Configuration) -> bool:
        return configuration.clients_permitted or not self._client

    def renew(self, signer: ISigner) -> None:
        """Use a renewed certificate from now on; ValueError if its Node-ID is another."""
        self.signer.renew(signer)

    # -- What it is asked -----------------------------------------------------------------------------------

    def _uptime(self) -> float:
        return float(self.clock.seconds() - self._started_at)

    @property
    def joined(self) -> bool:
        """Whether this node is part of the overlay now."""
        return self.topology.joined

    def status(self) -> Mapping[str, Any]:
        """For ``status --json``; see `p2psip.node.status`."""
        identity = self.signer.identity
        role = "client" if self._client else identity.role or "peer"
        return {**status_of(self), "user_name": identity.user_name, "role": role, "uptime": int(self._uptime())}
