"""Asking an LDAP directory (RFC 4511, by ldap3): who a user is, whether a password is theirs, who there is.

All methods block, for a bounded time: call them in a thread.  Whatever the directory says is checked here; what
does not hold is left out and counted.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from ldap3 import BASE, DEREF_NEVER, NONE, SAFE_SYNC, SUBTREE, Connection, Server, Tls
from ldap3.core.exceptions import LDAPException
from ldap3.protocol.sasl.sasl import validate_simple_password
from ldap3.utils.conv import escape_filter_chars
from pyasn1.error import PyAsn1Error
from twisted.logger import Logger

from .accounts import is_name
from .directory import DirectoryError, DirectorySettings
from .entries import Contents, Entry, EntryReader, Group, Member, dn_key, text_of, values_of

T = TypeVar("T")

AVOID_SECONDS: Final = 30.0
"""How long a server that failed is tried after the others only."""
ASK_SECONDS: Final = 15.0
"""How long questions about one user may take in all, at one server."""
READ_SECONDS: Final = 240.0
"""How long reading the whole directory may take."""
MEMBERS: Final = ("member", "uniqueMember", "memberUid")
"""What groups name their members by: by DN, and memberUid by user name (RFC 2307)."""

_NO_SUCH_OBJECT, _INVALID_CREDENTIALS = 32, 49
_REFUSALS: Final = {19, 48, 49, 50, 53}
"""Results of a bind that say no to this user: constraint, method, credentials, rights, unwilling."""
PAUSE: Final = 600.0
"""Seconds before the password of who searches is tried again after it was refused: tries may count to a lock."""


def _can_be_sent(password: str) -> bool:
    """Whether it can be a password of LDAP (RFC 4013): else no server knows it, and none is to blame."""
    try:
        return bool(validate_simple_password(password)) and "\0" not in password
    except LDAPException:
        return False


_FAILURES = (LDAPException, OSError, PyAsn1Error, LookupError, ValueError, TypeError, AttributeError)
"""What ldap3 raises when a server is silent or talks nonsense."""


class DirectoryUnavailable(DirectoryError):
    """No server answers as it should, now."""


class OutcomeUnknown(DirectoryUnavailable):
    """A password was sent, and may have been counted as wrong, but no answer came."""


class LDAPDirectory:
    """One directory, on several servers.

    :param now: seconds of a clock that never goes back.
    :param dialled: the normal form, ``+`` and digits, of a number as people write it; None: it is none.
    """

    log = Logger()

    def __init__(
        self, settings: DirectorySettings, now: Callable[[], float], dialled: Callable[[str], str | None]
    ) -> None:
        self.settings = settings
        self._now = now
        self._reader = EntryReader(settings, dialled)
        self._failed_at: dict[str, float] = {}
        self._refused_until = 0.0
        """When who searches may be tried again, after it was refused."""
        self.counters: Counter[str] = Counter()

    # -- questions ---------------------------------------------------------------------------------

    def member(self, name: str) -> Member | None:
        """The user of this name; None: there is none, or not exactly one.

        :raises DirectoryUnavailable: it cannot be asked now.
        """
        if not is_name(name):
            return None
        return self._first(lambda connection: self._member(connection, name.lower()), ASK_SECONDS)

    def proves(self, dn: str, password: str) -> bool:
        """Whether `password` is that of the entry `dn`, by a bind as it (RFC 4513 §5.1.3).

        One server is asked, once: two would count a wrong password twice.

        :raises DirectoryUnavailable: it could not be asked.
        :raises OutcomeUnknown: it was asked, and did not answer.
        """
        # An empty one would be an unauthenticated bind, which succeeds (RFC 4513 s5.1.2).
        if not password or not dn or not _can_be_sent(password):
            return False
        last: DirectoryUnavailable | None = None
        for url in self._servers():
            try:
                with self._connected(url, ASK_SECONDS) as connection:
                    return self._proves(connection, url, dn, password)
            except OutcomeUnknown:
                raise
            except DirectoryUnavailable as e:
                last = e
        raise last or DirectoryUnavailable("the directory has no servers")

    def read(self) -> Contents:
        """All users.

        :raises DirectoryError: it cannot be read now, the base is not there, or there are too many.
        """
        return self._first(self._read, READ_SECONDS)

    def named(self, dns: Collection[str]) -> dict[str, str | None]:
        """Of `dns` those that are there, whatever the filter, with the user name that each has now."""
        return self._first(lambda connection: self._named(connection, dns), READ_SECONDS)

    def candidates(self, name: str) -> Sequence[str]:
        """The DNs of at most ten entries with this user name, whatever the filter says of them."""
        query = f"({self.settings.user_attribute}={escape_filter_chars(name)})"
        found = self._first(
            lambda connection: self._search(
                connection, self.settings.base, query, SUBTREE, attributes=["1.1"], size_limit=10
            ),
            ASK_SECONDS,
        )
        return [str(item["dn"]) for item in found or ()]

    def check(self) -> Mapping[str, str]:
        """What is wrong with each server, for people; empty: it answers, and has the base."""
        return {url: self._check(url) for url in self.settings.urls}

    def _check(self, url: str) -> str:
        try:
            with self._connected(url, ASK_SECONDS) as connection:
                self._bind(connection, anyway=True)
                found = self._search(connection, self.settings.base, "(objectClass=*)", BASE, attributes=["1.1"])
        except DirectoryUnavailable as e:
            return str(e)
        return "" if found else f"the base {self.settings.base!r} is not there, or not to be seen"

    # -- servers -----------------------------------------------------------------------------------

    def _servers(self) -> list[str]:
        now = self._now()
        avoided = {url for url, at in self._failed_at.items() if now - at < AVOID_SECONDS}
        return sorted(self.settings.urls, key=lambda url: url in avoided)

    def _first(self, ask: Callable[[Connection], T], seconds: float) -> T:
        """What the first server that can be asked answers."""
        last: DirectoryUnavailable | None = None
        for url in self._servers():
            try:
                with self._connected(url, seconds) as connection:
                    self._bind(connection)
                    return ask(connection)
            except DirectoryUnavailable as e:
                last = e
        raise last or DirectoryUnavailable("the directory has no servers")

    @contextmanager
    def _connected(self, url: str, seconds: float) -> Iterator[Connection]:
        """A connection, protected as the settings have it, that breaks after so many seconds.

        A server that sends an octet now and then would hold the thread for ever: its timeout begins anew with each.
        """
        connection = self._connection(url)
        watch = threading.Timer(seconds, _break, [connection])
        watch.daemon = True
        watch.start()
        try:
            connection.open(read_server_info=False)
            if self.settings.start_tls and not connection.server.ssl:
                connection.start_tls(read_server_info=False)
            yield connection
            self._failed_at.pop(url, None)
        except DirectoryError as e:
            if isinstance(e, DirectoryUnavailable):
                self._fail(url, e)
            raise
        except _FAILURES as e:
            self._fail(url, e)
            raise DirectoryUnavailable(f"the directory {url} cannot be used now: {_one_line(e)}") from e
        finally:
            watch.cancel()
            with suppress(*_FAILURES):
                connection.strategy.close()

    def _fail(self, url: str, error: Exception) -> None:
        self.counters["server failed"] += 1
        if url not in self._failed_at:
            self.log.warn("the directory {url} fails: {error}", url=url, error=_one_line(error))
        self._failed_at[url] = self._now()

    def _connection(self, url: str) -> Connection:
        settings, parts = self.settings, urlsplit(url)
        secure = parts.scheme == "ldaps"
        # The client's context has no protocol older than TLS 1.2; ldap3 compares the name with the certificate.
        tls = Tls(
            validate=ssl.CERT_REQUIRED,
            version=ssl.PROTOCOL_TLS_CLIENT,
            ca_certs_data=settings.ca or None,
            sni=parts.hostname,
        )
        server = Server(
            parts.hostname,
            parts.port or (636 if secure else 389),
            use_ssl=secure,
            tls=tls,
            get_info=NONE,
            connect_timeout=settings.connect_seconds,
        )
        # A referral would carry the password to whatever server it names.
        return Connection(
            server,
            client_strategy=SAFE_SYNC,
            auto_referrals=False,
            auto_range=False,
            check_names=False,
            read_only=True,
            receive_timeout=settings.answer_seconds,
            raise_exceptions=False,
        )

    def _bind(self, connection: Connection, anyway: bool = False) -> None:
        """Be who may search; `anyway`: also soon after that was refused."""
        settings = self.settings
        if not settings.bind_dn:
            return
        wait = self._refused_until - self._now()
        if wait > 0 and not anyway:
            raise DirectoryUnavailable(
                f"the directory refused {settings.bind_dn!r}: tried again in {wait:.0f} s, lest it be locked"
            )
        done, result, _, _ = connection.rebind(settings.bind_dn, settings.bind_password, read_server_info=False)
        if result["result"] == _INVALID_CREDENTIALS:
            self._refused_until = self._now() + PAUSE
        if not done:
            raise DirectoryUnavailable(f"the directory refuses {settings.bind_dn!r}: {result['description']}")

    def _proves(self, connection: Connection, url: str, dn: str, password: str) -> bool:
        self.counters["binds"] += 1
        try:
            done, result, _, _ = connection.rebind(dn, password, read_server_info=False)
        except _FAILURES as e:
            raise OutcomeUnknown(f"the directory {url} did not answer a sign-in: {_one_line(e)}") from e
        if done:
            return True
        if result["result"] in _REFUSALS:
            if result["result"] != _INVALID_CREDENTIALS:
                self.log.info("the directory refuses {dn!r}: {why}", dn=dn, why=result["description"])
            return False
        raise DirectoryUnavailable(f"the directory {url} lets nobody sign in now: {result['description']}")

    # -- searching ---------------------------------------------------------------------------------

    def _search(self, connection: Connection, base: str, query: str, scope: str, **options: Any) -> list[Any] | None:
        """The entries found; None: the base is not there."""
        _, result, response, _ = connection.search(
            base, query, scope, DEREF_NEVER, time_limit=self.settings.answer_seconds, **options
        )
        if result["result"] == _NO_SUCH_OBJECT:
            return None
        # More than were asked for (4) is an answer too: more than one.
        if result["result"] not in (0, 4):
            raise DirectoryUnavailable(f"the directory refuses a search below {base!r}: {result['description']}")
        return [item for item in response or () if item.get("type") == "searchResEntry"]

    def _member(self, connection: Connection, name: str) -> Member | None:
        settings = self.settings
        query = f"(&{settings.filter}({settings.user_attribute}={escape_filter_chars(name)}))"
        wanted = self._reader.attributes
        found = self._search(connection, settings.base, query, SUBTREE, attributes=wanted, size_limit=2)
        if found is None:
            raise DirectoryUnavailable(f"the directory has no entry {settings.base!r}")
        if len(found) != 1:
            self.counters["several of one name" if found else "no such name"] += 1
            return None
        entry = self._reader.entry(found[0], self.counters)
        if entry is None or entry.name != name:
            return None
        permitted = not settings.group or self._is_in(connection, settings.group, entry)
        registrar = bool(settings.registrar_group) and self._is_in(connection, settings.registrar_group, entry)
        return Member(entry, permitted, registrar)

    def _is_in(self, connection: Connection, group: str, entry: Entry) -> bool:
        if group.startswith("("):
            return bool(self._search(connection, entry.dn, group, BASE, attributes=["1.1"]))
        dn, name = escape_filter_chars(entry.dn), escape_filter_chars(entry.name)
        query = f"(|(member={dn})(uniqueMember={dn})(memberUid={name}))"
        return bool(self._search(connection, group, query, BASE, attributes=["1.1"]))

    def _pages(self, connection: Connection, query: str, attributes: list[str]) -> Iterator[Any]:
        """Every entry below the base, by pages (RFC 2696)."""
        settings, cookie, count = self.settings, None, 0
        while True:
            _, result, response, _ = connection.search(
                settings.base, query, SUBTREE, DEREF_NEVER, attributes=attributes,
                paged_size=settings.page_size, paged_cookie=cookie,
            )  # fmt: skip
            if result["result"]:
                # A server may have its own limits for pages, and for all of them.
                raise DirectoryUnavailable(f"the directory cannot be read by pages: {result['description']}")
            for item in response or ():
                if item.get("type") == "searchResEntry":
                    count += 1
                    if count > settings.max_entries:
                        raise DirectoryError(
                            f"the directory has more than {settings.max_entries} entries for {query}: "
                            "see --filter and --max-entries"
                        )
                    yield item
            control = (result.get("controls") or {}).get("1.2.840.113556.1.4.319")
            cookie = control["value"]["cookie"] if control else None
            if not cookie:
                return

    def _read(self, connection: Connection) -> Contents:
        settings = self.settings
        counters: Counter[str] = Counter()
        found: dict[str, list[Entry]] = {}
        for item in self._pages(connection, settings.filter, self._reader.attributes):
            entry = self._reader.entry(item, counters)
            if entry is not None:
                found.setdefault(entry.name, []).append(entry)
        return Contents(
            found,
            self._group(connection, settings.group) if settings.group else Group(everybody=True),
            self._group(connection, settings.registrar_group) if settings.registrar_group else Group(),
            counters,
        )

    def _group(self, connection: Connection, group: str) -> Group:
        if group.startswith("("):
            query = f"(&{self.settings.filter}{group})"
            return Group(dns=frozenset(dn_key(str(item["dn"])) for item in self._pages(connection, query, ["1.1"])))
        found = self._search(connection, group, "(objectClass=*)", BASE, attributes=list(MEMBERS))
        if not found:
            raise DirectoryUnavailable(f"the directory has no group {group!r}")
        values = values_of(found[0])
        if any(";range=" in name for name in values):
            raise DirectoryError(f"the group {group!r} is told in parts only: use a filter, such as (memberOf={group})")
        texts = {name: [text for v in values.get(name.lower(), ()) if (text := text_of(v))] for name in MEMBERS}
        dns = frozenset(dn_key(dn) for name in MEMBERS[:2] for dn in texts[name])
        return Group(dns=dns, names=frozenset(name.lower() for name in texts["memberUid"]))

    def _named(self, connection: Connection, dns: Collection[str]) -> dict[str, str | None]:
        there: dict[str, str | None] = {}
        for dn in dns:
            options = {"attributes": [self.settings.user_attribute]}
            if found := self._search(connection, dn, "(objectClass=*)", BASE, **options):
                there[dn] = self._reader.user_name(values_of(found[0]))
        return there

def _break(connection: Connection) -> None:
    """End what another thread waits for at this connection."""
    if connection.socket is not None:
        with suppress(OSError):
            socket.socket.shutdown(connection.socket, socket.SHUT_RDWR)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
