"""Which LDAP directory knows the users, and what of it is believed: the settings, checked and kept."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography.x509 import load_pem_x509_certificates
from ldap3.core.exceptions import LDAPException
from ldap3.operation.search import parse_filter
from ldap3.utils.dn import parse_dn

from ..state import write_file
from .database import AccountError

FILE: Final = "directory.json"
"""Of the authority's directory: the settings; for us alone, since it may hold a password."""
MOST_SERVERS: Final = 8
MOST_ENTRIES: Final = 1_000_000
LONGEST: Final = 1024
"""Characters of a filter, a DN or a password."""

_ATTRIBUTE = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}\Z").match


class DirectoryError(AccountError):
    """The directory, or what it says, cannot be used; the text is one line for the operator."""


class DirectorySettingsError(DirectoryError):
    """A setting cannot be."""


@dataclass(frozen=True, slots=True)
class DirectorySettings:
    """Where the directory is and how it is read.

    A group is the DN of one (its ``member``, ``uniqueMember`` or ``memberUid`` say who is in it), or a filter in
    parentheses that a user's entry matches; empty: everybody, and for registrars nobody.

    :raises DirectorySettingsError: any of it cannot be.
    """

    urls: tuple[str, ...]
    """``ldap://HOST[:PORT]`` or ``ldaps://...``, in the order in which they are tried."""
    base: str = ""
    """The DN below which all users are."""
    filter: str = "(objectClass=person)"
    user_attribute: str = "uid"
    name_attribute: str = "cn"
    """What people are shown; empty: nothing is read."""
    number_attribute: str = "telephoneNumber"
    """Empty: numbers are given by hand."""
    start_tls: bool = True
    insecure: bool = False
    """Passwords may go over the network as they are."""
    ca: str = ""
    """PEM: who certifies the servers; empty: whom this machine believes."""
    bind_dn: str = ""
    """As whom to search; empty: as nobody."""
    bind_password: str = field(default="", repr=False)
    group: str = ""
    registrar_group: str = ""
    connect_seconds: int = 3
    answer_seconds: int = 5
    page_size: int = 500
    max_entries: int = 100_000

    def __post_init__(self) -> None:
        if not 1 <= len(self.urls) <= MOST_SERVERS:
            raise DirectorySettingsError(f"name 1 to {MOST_SERVERS} servers, such as ldap://ldap.example.org")
        for url in self.urls:
            self._check_url(url)
        for name in ("base", "bind_dn"):
            _check_dn(name, getattr(self, name))
        if not self.base:
            raise DirectorySettingsError("base is missing: the DN below which the users are")
        _check_filter("filter", self.filter)
        for name in ("group", "registrar_group"):
            group = getattr(self, name)
            (_check_filter if group.startswith("(") else _check_dn)(name, group)
        for name in ("user_attribute", "name_attribute", "number_attribute"):
            self._check_attribute(name, getattr(self, name))
        self._check_credentials()
        for name, least, most in (
            ("connect_seconds", 1, 30),
            ("answer_seconds", 1, 60),
            ("page_size", 1, 10_000),
            ("max_entries", 1, MOST_ENTRIES),
        ):
            if not least <= getattr(self, name) <= most:
                raise DirectorySettingsError(f"{name} {getattr(self, name)}: it is {least} to {most}")

    def _check_url(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            host = None
        if not host or len(url) > LONGEST or not url.isprintable() or parts.scheme not in ("ldap", "ldaps"):
            raise DirectorySettingsError(f"{url[:LONGEST]!r}: it is ldap://HOST[:PORT] or ldaps://HOST[:PORT]")
        if parts.path.strip("/") or parts.query or parts.fragment or parts.username is not None:
            raise DirectorySettingsError(f"{parts.scheme}://{host}: a server has no more than host and port")
        if parts.scheme == "ldap" and not (self.start_tls or self.insecure or _is_loopback(host)):
            raise DirectorySettingsError(
                f"ldap://{host} without StartTLS shows every password to the network: use ldaps:// or StartTLS, or "
                "say --insecure"
            )

    def _check_attribute(self, name: str, value: str) -> None:
        if _ATTRIBUTE(value) is None and (value or name == "user_attribute"):
            raise DirectorySettingsError(f"{name} {value[:64]!r} is no attribute's name")

    def _check_credentials(self) -> None:
        if bool(self.bind_dn) != bool(self.bind_password):
            raise DirectorySettingsError("the DN to search as and its password go together")
        if len(self.bind_password) > LONGEST:
            raise DirectorySettingsError("the password to search with is too long")
        if self.ca:
            try:
                load_pem_x509_certificates(self.ca.encode())
            except ValueError:
                raise DirectorySettingsError("the CA file holds no certificates (PEM)") from None

    def for_people(self) -> Mapping[str, Any]:
        """All but the password, and of the CA only the subjects."""
        shown = asdict(self) | {"bind_password": bool(self.bind_password), "ca": []}
        if self.ca:
            certificates = load_pem_x509_certificates(self.ca.encode())
            shown["ca"] = [certificate.subject.rfc4514_string() for certificate in certificates]
        return shown


def settings_of(values: Mapping[str, Any]) -> DirectorySettings:
    """The settings that `values` name; what is missing or None is as it is unless told otherwise.

    :raises DirectorySettingsError: they cannot be, or there is no such setting.
    """
    known = {f.name: f for f in fields(DirectorySettings)}
    given: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise DirectorySettingsError(f"there is no setting {name[:64]!r} of a directory")
        if value is None:
            continue
        kind = str(known[name].type)
        fits: Callable[[Any], bool] = {
            "str": lambda v: isinstance(v, str),
            "bool": lambda v: isinstance(v, bool),
            "int": lambda v: isinstance(v, int) and not isinstance(v, bool),
        }.get(kind, lambda v: isinstance(v, (list, tuple)) and all(isinstance(u, str) for u in v))
        if not fits(value):
            raise DirectorySettingsError(f"{name} has the wrong type")
        given[name] = tuple(value) if name == "urls" else value
    if "urls" not in given:
        raise DirectorySettingsError("no server is named")
    return DirectorySettings(**given)


def load(directory: Path) -> DirectorySettings | None:
    """The settings that are kept in the authority's directory; None: there are none.

    :raises DirectorySettingsError: the file is damaged.
    :raises OSError: it cannot be read.
    """
    path = directory / FILE
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text("utf-8"))
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise DirectorySettingsError(f"{path} is damaged: remove it, and set the directory anew")
    return settings_of(values)


def keep(directory: Path, settings: DirectorySettings | None) -> None:
    """Keep the settings there, or remove them."""
    if settings is None:
        (directory / FILE).unlink(missing_ok=True)
    else:
        write_file(directory / FILE, json.dumps(asdict(settings), indent=1).encode() + b"\n")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _check_dn(name: str, dn: str) -> None:
    try:
        if len(dn) > LONGEST or not dn.isprintable():
            raise ValueError(dn)
        if dn:
            parse_dn(dn)
    except (LDAPException, ValueError, LookupError):
        raise DirectorySettingsError(f"{name} {dn[:LONGEST]!r} is no DN, such as ou=people,dc=example,dc=org") from None


def _check_filter(name: str, text: str) -> None:
    try:
        if len(text) > LONGEST or not text.isprintable():
            raise ValueError(text)
        parse_filter(text, None, True, True, None, False)
    except (LDAPException, ValueError, LookupError):
        raise DirectorySettingsError(f"{name} {text[:LONGEST]!r} is no filter, such as (objectClass=person)") from None
