"""Users as a directory has them: what is believed of its entries and groups, which are as untrusted as any input."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ldap3.core.exceptions import LDAPException
from ldap3.utils.dn import parse_dn

from .accounts import is_name, is_number
from .directory import DirectorySettings

LONGEST_DN: Final = 512
"""Characters, as the accounts database has room for."""
LONGEST_VALUE: Final = 1024
"""Octets of an attribute's value that are looked at."""

_LOCKS = ("pwdAccountLockedTime", "nsAccountLock", "userAccountControl")
_LOCKED_BY_HAND: Final = b"000001010000Z"
_DISABLED: Final = 2
"""ADS_UF_ACCOUNTDISABLE of userAccountControl."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A user as the directory has them, checked."""

    dn: str
    name: str
    """The user name in lower case, since a directory does not tell the cases apart."""
    display_name: str | None = None
    number: str | None = None
    locked: bool = False


@dataclass(frozen=True, slots=True)
class Member:
    """A user who asks to be let in."""

    entry: Entry
    permitted: bool
    """By the group of who may use telephony, if there is one."""
    registrar: bool


@dataclass(frozen=True, slots=True)
class Group:
    """Who is in a group; `everybody` for one that is not set."""

    everybody: bool = False
    dns: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()

    def has(self, entry: Entry) -> bool:
        """Whether a user is in it."""
        return self.everybody or dn_key(entry.dn) in self.dns or entry.name in self.names


@dataclass(frozen=True, slots=True)
class Contents:
    """The whole directory, as far as it concerns us."""

    entries: Mapping[str, Sequence[Entry]]
    """By user name; of a name that is no one's alone all who have it."""
    permitted: Group
    registrars: Group
    counters: Mapping[str, int]

    def entry(self, name: str, dn: str) -> Entry | None:
        """The entry of a user name; where several have it that at `dn`."""
        found = self.entries.get(name, ())
        if len(found) > 1:
            found = [entry for entry in found if dn_key(entry.dn) == dn_key(dn)]
        return found[0] if len(found) == 1 else None


def dn_key(dn: str) -> str:
    """What two spellings of a DN have in common."""
    try:
        return "".join(f"{name}={value}{separator}" for name, value, separator in parse_dn(dn, strip=True)).lower()
    except (LDAPException, LookupError):
        return dn.lower()


class EntryReader:
    """Reads entries as the settings map them.

    :param dialled: the normal form, ``+`` and digits, of a number as people write it; None: it is none.
    """

    def __init__(self, settings: DirectorySettings, dialled: Callable[[str], str | None]) -> None:
        self._settings = settings
        self._dialled = dialled

    @property
    def attributes(self) -> list[str]:
        """What is to be asked for of an entry."""
        settings = self._settings
        wanted = (settings.user_attribute, settings.name_attribute, settings.number_attribute, *_LOCKS)
        return [name for name in wanted if name]

    def entry(self, item: Mapping[str, Any], counters: Counter[str]) -> Entry | None:
        """What an entry says; None: it has not exactly one user name that can be one."""
        dn, values = str(item["dn"]), values_of(item)
        name = self.user_name(values)
        if name is None or not 0 < len(dn) <= LONGEST_DN:
            counters["no usable user name"] += 1
            return None
        return Entry(dn, name, self._display_name(values, counters), self._number(values, counters), _locked(values))

    def user_name(self, values: Mapping[str, list[bytes]]) -> str | None:
        """The only user name, in lower case; None: there is none, several, or one that cannot be."""
        names = {text_of(value) for value in values.get(self._settings.user_attribute.lower(), ())}
        name = names.pop() if len(names) == 1 else ""
        return name.lower() if is_name(name) else None

    def _display_name(self, values: Mapping[str, list[bytes]], counters: Counter[str]) -> str | None:
        found = values.get(self._settings.name_attribute.lower(), ())
        if not found:
            return None
        text = " ".join(text_of(found[0]).split())[:128].strip()
        if not text or not text.isprintable():
            counters["no usable display name"] += 1
            return None
        return text

    def _number(self, values: Mapping[str, list[bytes]], counters: Counter[str]) -> str | None:
        """The first value that is a number."""
        found = values.get(self._settings.number_attribute.lower(), ())
        for value in found[:10]:
            # "+49 (0)30 1234": the zero is not dialled from abroad.
            text = "".join(text_of(value).split()).replace("(0)", "").replace("/", "")
            number = self._dialled(text) if text else None
            if number is not None and is_number(number):
                return number
        if found:
            counters["no usable number"] += 1
        return None


def values_of(item: Mapping[str, Any]) -> dict[str, list[bytes]]:
    """The values by the attributes' names in lower case."""
    return {
        str(name).lower(): [value for value in values if isinstance(value, bytes)]
        for name, values in item["raw_attributes"].items()
        if name
    }


def text_of(value: bytes) -> str:
    """A value as text; empty: it is none, or too long."""
    try:
        return value.decode() if len(value) <= LONGEST_VALUE else ""
    except UnicodeDecodeError:
        return ""


def _locked(values: Mapping[str, list[bytes]]) -> bool:
    """Whether somebody has disabled the entry.

    A lock after wrong passwords is none of ours: else whoever guesses anywhere would silence the user's phones.
    """
    first = {name: values.get(name.lower(), [b""])[:1] for name in _LOCKS}
    control = text_of(b"".join(first["userAccountControl"]))
    return (
        first["pwdAccountLockedTime"] == [_LOCKED_BY_HAND]
        or [value.lower() for value in first["nsAccountLock"]] == [b"true"]
        or (control.isascii() and control.isdigit() and len(control) < 12 and bool(int(control) & _DISABLED))
    )
