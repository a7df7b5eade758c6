"""Finding overlays and peers on the LAN, by DNS-SD over multicast DNS (RFC 6762, RFC 6763).

What is found is never trusted: it gives addresses to try, and nothing else of it reaches a log or a terminal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from ipaddress import ip_address
from typing import Any, Final

import ifaddr
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zeroconf import Error as ZeroconfError
from zeroconf import InterfaceChoice, IPVersion, ServiceInfo, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from .errors import LinkError
from .links.addresses import has_ipv6, numeric, refusal
from .transport.bootstrap import Place

CONFIGURATION_SERVICE: Final = "_reload-config._tcp.local."
"""Configuration servers, by the name that they have in the DNS (RFC 6940 §11.2)."""
PEER_SERVICES: Final = {True: "_p2psip-reload._udp.local.", False: "_p2psip-reload._tcp.local."}
"""Peers where they listen for links, by whether the overlay uses ICE: DTLS over UDP, else TLS over TCP."""
SEARCH_SECONDS: Final = 4.0
"""How long a node that knows nothing of its overlay listens for one, before it founds that."""

MOST_SERVICES: Final = 16
"""How many are remembered at a time."""
MOST_ADDRESSES: Final = 4
"""How many addresses of one service are looked at, and how many are announced."""
MOST_RESOLVING: Final = 256
AT_ONCE: Final = 8
RESOLVE_MS: Final = 3000


class Nearby:
    """Where services of one overlay are, as others on the LAN say; what makes no sense is left out.

    `loopback`: whether loopback addresses do.
    """

    def __init__(self, overlay: str, loopback: bool) -> None:
        self._overlay = overlay.encode()
        self._loopback = loopback
        self._services: dict[str, Sequence[Place]] = {}

    @property
    def places(self) -> Sequence[Place]:
        """Every place, once."""
        return tuple(dict.fromkeys(place for places in self._services.values() for place in places))

    def put(self, service: str, overlay: bytes | None, addresses: Sequence[str], port: int | None) -> None:
        """`service` is there, or has changed."""
        self._services.pop(service, None)
        if overlay is None or overlay.lower() != self._overlay or len(self._services) >= MOST_SERVICES:
            return
        places = [(address, port or 0) for address in addresses[:MOST_ADDRESSES]]
        usable = [(str(numeric(address)), port) for address, port in places if self._usable(address, port)]
        if usable:
            self._services[service] = usable

    def _usable(self, address: str, port: int) -> bool:
        try:
            return not refusal(address, port, (), self._loopback)
        except LinkError:
            return False

    def remove(self, service: str) -> None:
        """`service` is gone."""
        self._services.pop(service, None)


class Lan:
    """One node's part in DNS-SD: what it looks for, and what it announces.

    It speaks on `bound` addresses, none: on all interfaces, and needs a reactor that runs on asyncio.  What goes wrong
    here is logged and no more, since a node does without; but for `search`.
    """

    log = Logger()

    def __init__(self, overlay: str, bound: Sequence[str], clock: IReactorTime) -> None:
        self._overlay = overlay
        self._bound = [] if any(ip_address(address).is_unspecified for address in bound) else list(bound)
        self._clock = clock
        self._loopback = any(ip_address(address).is_loopback for address in self._bound)
        self._peers = Nearby(overlay, self._loopback)
        self._zeroconf: AsyncZeroconf | None = None
        self._browsers: list[_Browser] = []
        self._announced: dict[str, str] = {}

    async def search(self) -> Sequence[Place]:
        """Where there are configuration servers of the overlay; takes `SEARCH_SECONDS`.

        :raises OSError: this machine cannot be made to listen on the LAN.
        """
        found = Nearby(self._overlay, self._loopback)
        browser = await self._browse(CONFIGURATION_SERVICE, found)
        try:
            await deferLater(self._clock, SEARCH_SECONDS)
        finally:
            browser.stop()
        return found.places

    async def watch(self, ice: bool) -> None:
        """Look for peers from now on, until `stop`; see `places`."""
        try:
            self._browsers.append(await self._browse(PEER_SERVICES[ice], self._peers))
        except OSError as error:
            self.log.warn("no peers are looked for on the LAN: {error}", error=str(error))

    def places(self) -> Sequence[Place]:
        """Where peers of the overlay say that they are."""
        return self._peers.places

    def announce(self, service: str, node_id: bytes, port: int) -> None:
        """Tell the LAN of a service of this node, once, until `stop`."""
        if service in self._announced:
            return
        label = f"p2psip-{node_id.hex()[:12]}"
        self._announced[service] = f"{label}.{service}"
        announced = _deferred(self._announce(service, label, port))
        announced.addErrback(self._not_announced, service)

    async def _announce(self, service: str, label: str, port: int) -> None:
        info = ServiceInfo(
            service,
            f"{label}.{service}",
            port=port,
            properties={"overlay": self._overlay},
            server=f"{label}.local.",
            parsed_addresses=self._bound[:MOST_ADDRESSES] or lan_addresses(),
        )
        await (await self._open().async_register_service(info))

    def _not_announced(self, failure: Failure, service: str) -> None:
        if not failure.check(asyncio.CancelledError):
            ours = failure.check(OSError, RuntimeError)
            why = failure.getErrorMessage() if ours else type(failure.value).__name__
            self.log.warn("{service} is not announced on the LAN: {why}", service=service, why=why)

    async def stop(self) -> None:
        """Say goodbye, and close every socket."""
        for browser in self._browsers:
            browser.stop()
        if self._zeroconf is not None:
            await _deferred(self._zeroconf.async_close())

    async def _browse(self, service: str, nearby: Nearby) -> _Browser:
        # Before the event loop runs python-zeroconf would make one of its own, in a thread.
        await deferLater(self._clock, 0)
        return _Browser(self._open().zeroconf, service, nearby, self._announced)

    def _open(self) -> AsyncZeroconf:
        if self._zeroconf is None:
            try:
                if self._bound:
                    self._zeroconf = AsyncZeroconf(list(self._bound))
                else:
                    families = IPVersion.All if has_ipv6() else IPVersion.V4Only
                    self._zeroconf = AsyncZeroconf(InterfaceChoice.All, ip_version=families)
            except RuntimeError as error:  # no interface has such an address
                raise OSError(str(error)) from error
        return self._zeroconf


class _Browser:
    """Looks for one kind of service, and asks each that it hears of for its address."""

    def __init__(self, zeroconf: Zeroconf, service: str, nearby: Nearby, own: dict[str, str]) -> None:
        self._zeroconf = zeroconf
        self._service = service
        self._nearby = nearby
        self._own = own
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._resolving: dict[str, asyncio.Task[None]] = {}
        self._browser = AsyncServiceBrowser(zeroconf, service, handlers=[self._changed])

    def _changed(
        self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:
        if state_change is ServiceStateChange.Removed:
            self._nearby.remove(name)
        elif (
            name != self._own.get(self._service)
            and name not in self._resolving
            and len(self._resolving) < MOST_RESOLVING
        ):
            self._resolving[name] = asyncio.ensure_future(self._resolve(name))

    async def _resolve(self, name: str) -> None:
        try:
            async with self._turns:
                info = AsyncServiceInfo(self._service, name)
                if await info.async_request(self._zeroconf, RESOLVE_MS):
                    overlay = info.properties.get(b"overlay")
                    self._nearby.put(name, overlay, info.parsed_addresses(), info.port)
        except (ZeroconfError, OSError, ValueError):
            pass  # what a stranger sent makes no sense
        finally:
            self._resolving.pop(name, None)

    def stop(self) -> None:
        """Look no more."""
        _deferred(self._browser.async_cancel())
        for task in self._resolving.values():
            task.cancel()


def lan_addresses() -> list[str]:
    """The addresses of this machine's interfaces that others on the LAN can connect to."""
    texts = [ip.ip if ip.is_IPv4 else ip.ip[0] for adapter in ifaddr.get_adapters() for ip in adapter.ips]
    addresses = [ip_address(str(text).partition("%")[0]) for text in texts]
    usable = [str(a) for a in addresses if not (a.is_loopback or a.is_link_local)]
    return sorted(usable, key=lambda text: ":" in text)[:MOST_ADDRESSES]


def _deferred(work: Coroutine[Any, Any, Any]) -> Deferred[Any]:
    return Deferred.fromFuture(asyncio.ensure_future(work))
