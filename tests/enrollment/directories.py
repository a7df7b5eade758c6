"""A directory in memory, for the tests of its users."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection
from typing import Any

from p2psip.enrollment.authority import OverlayAuthority
from p2psip.enrollment.directory import DirectorySettings
from p2psip.enrollment.entries import Contents, Entry, Group, Member, dn_key
from p2psip.enrollment.ldap import DirectoryUnavailable, OutcomeUnknown
from p2psip.enrollment.members import DirectoryUsers

BASE = "ou=people,dc=example,dc=org"
SETTINGS = DirectorySettings(("ldaps://ldap.example.org",), base=BASE)


def dn_of(name: str) -> str:
    return f"uid={name},{BASE}"


def entry(name: str, **values: Any) -> Entry:
    return Entry(**{"dn": dn_of(name), "name": name, **values})


class Directory:
    """What `DirectoryUsers` asks of an `LDAPDirectory`; every password is ``right``."""

    def __init__(self, *entries: Entry) -> None:
        self.settings = SETTINGS
        self.entries = {entry.dn: entry for entry in entries}
        self.outside: dict[str, str | None] = {}
        """User names of entries that the filter does not find, by DN."""
        self.banned: set[str] = set()
        self.registrars: set[str] = set()
        self.binds: list[str] = []
        self.searches: list[str] = []
        self.down = False
        self.silent = False
        self.hold: threading.Event | None = None
        self.counters: Counter[str] = Counter()

    def put(self, entry: Entry) -> None:
        self.entries[entry.dn] = entry

    def remove(self, name: str) -> None:
        del self.entries[dn_of(name)]

    def _ask(self) -> None:
        if self.down:
            raise DirectoryUnavailable("the directory is down")

    def member(self, name: str) -> Member | None:
        self.searches.append(name)
        self._ask()
        found = [entry for entry in self.entries.values() if entry.name == name.lower()]
        if len(found) != 1:
            return None
        return Member(found[0], name not in self.banned, name in self.registrars)

    def proves(self, dn: str, password: str) -> bool:
        self._ask()
        self.binds.append(dn)
        if self.silent:
            raise OutcomeUnknown("no answer")
        return password == "right"

    def read(self) -> Contents:
        self._ask()
        found: dict[str, list[Entry]] = {}
        for known in self.entries.values():
            found.setdefault(known.name, []).append(known)
        permitted = frozenset(dn_key(e.dn) for e in self.entries.values() if e.name not in self.banned)
        return Contents(found, Group(dns=permitted), Group(names=frozenset(self.registrars)), {})

    def named(self, dns: Collection[str]) -> dict[str, str | None]:
        self._ask()
        there = {dn: known.name for dn, known in self.entries.items()} | self.outside
        return {dn: there[dn] for dn in dns if dn in there}

    def candidates(self, name: str) -> list[str]:
        return [dn for dn, known in {**{d: e.name for d, e in self.entries.items()}, **self.outside}.items()
                if known == name]  # fmt: skip


def use(authority: OverlayAuthority, *entries: Entry) -> Directory:
    """Give an authority a directory with these entries."""
    directory: Any = Directory(*entries)
    authority.directory_users = DirectoryUsers(directory, authority.accounts, authority.nodes, authority.overlay)
    made: Directory = directory
    return made
