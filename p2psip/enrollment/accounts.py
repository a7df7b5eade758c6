"""Users and their phones.

All methods block: call them in a thread where that matters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, TypedDict, Unpack

from cryptography.fernet import Fernet
from sqlalchemy import Connection, Row, delete, func, insert, select, update

from ..sip.digest import ALGORITHMS, ha1
from ..sip.interfaces import DeviceCredential
from . import schema
from .database import AccountError, Database
from .passwords import PasswordHashes, random_password

MAXIMUM_DEVICES = 10
"""Devices of one account: a digest is tried against each of them."""
REVOCATIONS = 1000
"""Revocations that are told at once."""

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._~+-]{0,62}[A-Za-z0-9])?\Z")
_NUMBER = re.compile(r"\+[1-9][0-9]{1,14}\Z")
_CURSOR = re.compile(r"([0-9a-f]{16})\.([0-9]{1,18})\Z")


class UnknownAccount(AccountError):
    """There is no such account, device or node."""


@dataclass(frozen=True, slots=True)
class Account:
    """One user, as lists show it."""

    name: str
    node_quota: int
    created: float
    devices: Sequence[str] = ()
    number: str | None = None
    """The telephone number, `+` and digits."""
    display_name: str | None = None
    directory: str | None = None
    """The DN of the entry that the account comes from; None: it is one of our own."""
    disabled: bool = False
    """By the operator, or because the directory does not let it in."""
    barred: bool = False
    """Because the directory does not."""


@dataclass(frozen=True, slots=True)
class NewUser:
    """An account to be made, with its first device in the same step."""

    name: str
    device: str = "phone"
    """Empty: none."""
    device_password: str | None = field(default=None, repr=False)
    """None: a random one."""
    password: str | None = field(default=None, repr=False)
    """The account's own, for enrollment and the web page; without it nobody can sign in to it."""
    node_quota: int = 0
    number: str | None = None
    display_name: str | None = None
    directory: str | None = None


class AccountChanges(TypedDict, total=False):
    """What is to be changed of an account; None takes away what may be missing."""

    number: str | None
    display_name: str | None
    directory: str | None
    node_quota: int
    disabled: bool
    barred: bool


@dataclass(frozen=True, slots=True)
class Revocation:
    """An account that was removed or disabled, or one device of it (`device` not empty)."""

    account: str
    device: str
    time: float


def is_name(name: str) -> bool:
    """Whether `name` can be the user part of an AOR and of an rfc822Name without escapes."""
    return _NAME.match(name) is not None


def checked_name(name: str) -> str:
    """`name`, if it can be one.

    :raises AccountError: it has other characters than letters, digits and ``. _ ~ + -``, or the wrong length.
    """
    if not is_name(name):
        rule = "use 1 to 64 letters, digits and . _ ~ + - with a letter or digit at both ends"
        raise AccountError(f"{name[:64]!r} cannot be a name: {rule}")
    return name


def is_number(number: str) -> bool:
    """Whether `number` is a telephone number in the form in which accounts have it: E.164, `+` and digits."""
    return _NUMBER.match(number) is not None


def _checked_number(number: str) -> str:
    if not is_number(number):
        raise AccountError(f"{number[:64]!r} is no telephone number: write + and 2 to 15 digits, such as +49301234")
    return number


def _checked_display_name(display_name: str) -> str:
    if not (display_name.isprintable() and 0 < len(display_name.strip()) <= len(display_name) <= 128):
        raise AccountError(f"{display_name[:128]!r} cannot be a display name: use 1 to 128 printable characters")
    return display_name


class Accounts:
    """The accounts of one Overlay Instance.

    :param key: a Fernet key that is kept outside the database; the devices' secrets are encrypted with it.
    :param realm: the overlay's name, which is the SIP realm.
    """

    def __init__(self, database: Database, key: bytes, realm: str, hashes: PasswordHashes) -> None:
        self._database = database
        self._cipher = Fernet(key)
        self._realm = realm
        self._hashes = hashes

    # -- users -------------------------------------------------------------------------------------

    def add(self, user: NewUser) -> str:
        """Make an account and its device; answers the device's password.

        :raises AccountError: a name cannot be one, or is taken.
        """
        (result,) = self.add_many([user])
        if isinstance(result, AccountError):
            raise result
        return result

    def add_many(self, users: Sequence[NewUser]) -> list[str | AccountError]:
        """Make accounts, in one transaction.

        Answers for each, in their order, its device's password, or why there is no such account now.
        """
        results: list[str | AccountError] = []
        accounts: dict[str, dict[str, object]] = {}
        devices: dict[str, dict[str, object]] = {}
        numbers: set[str] = set()
        for user in users:
            try:
                _check_new(user)
                if user.name in accounts:
                    raise AccountError(f"the account {user.name!r} is named twice")
                if user.number in numbers:
                    raise AccountError(f"the number {user.number} is given twice")
            except AccountError as e:
                results.append(e)
                continue
            password = (user.device_password or random_password()) if user.device else ""
            accounts[user.name] = self._account_row(user)
            if user.number:
                numbers.add(user.number)
            if user.device:
                devices[user.name] = self._device_row(user.name, user.device, password)
            results.append(password)
        with self._database.writing("the accounts were made by another at the same time") as connection:
            known = self._ids(connection, accounts)
            taken = self._taken(connection, numbers)
            new = [row for name, row in accounts.items() if name not in known and row["number"] not in taken]
            if new:
                connection.execute(insert(schema.accounts), new)
            ids = self._ids(connection, devices.keys() & {str(row["name"]) for row in new})
            rows = [{**row, "account_id": ids[name]} for name, row in devices.items() if name in ids]
            if rows:
                connection.execute(insert(schema.devices), rows)
        for index, user in enumerate(users):
            if isinstance(results[index], str):
                if user.name in known:
                    results[index] = AccountError(f"the account {user.name!r} exists already")
                elif user.number in taken:
                    results[index] = AccountError(f"the number {user.number} is another account's")
        return results

    def _account_row(self, user: NewUser) -> dict[str, object]:
        return {
            "name": user.name,
            "password": self._hashes.make(user.password) if user.password else None,
            "node_quota": user.node_quota,
            "created": self._database.now(),
            "number": user.number,
            "display_name": user.display_name,
            "directory": user.directory,
        }

    def _device_row(self, name: str, device: str, password: str) -> dict[str, object]:
        digests = {a: ha1(a, name, self._realm, password) for a in ALGORITHMS}
        secrets = self._cipher.encrypt(json.dumps(digests).encode())
        return {"name": device, "secrets": secrets, "created": self._database.now()}

    def _ids(self, connection: Connection, names: Iterable[str]) -> dict[str, int]:
        table = schema.accounts
        found: dict[str, int] = {}
        everything = list(names)
        for start in range(0, len(everything), 500):
            some = table.c.name.in_(everything[start : start + 500])
            found |= {row.name: row.id for row in connection.execute(select(table.c.name, table.c.id).where(some))}
        return found

    def _taken(self, connection: Connection, numbers: Iterable[str]) -> set[str]:
        """Those of `numbers` that accounts have."""
        column = schema.accounts.c.number
        found: set[str] = set()
        everything = list(numbers)
        for start in range(0, len(everything), 500):
            some = column.in_(everything[start : start + 500])
            found |= {str(number) for number in connection.execute(select(column).where(some)).scalars()}
        return found

    def _id(self, connection: Connection, name: str) -> int:
        found = self._ids(connection, [name] if is_name(name) else [])
        if not found:
            raise UnknownAccount(f"there is no account {name[:64]!r}")
        return found[name]

    def remove(self, name: str) -> list[bytes]:
        """Remove an account and its devices, and tell the registrars by a revocation.

        Answers the Node-IDs of the account's own nodes: they are not renewed, but until their certificates
        end only the document's bad-nodes keep them out.
        """
        nodes = schema.node_ids
        with self._database.writing() as connection:
            account_id = self._id(connection, name)
            connection.execute(delete(schema.devices).where(schema.devices.c.account_id == account_id))
            connection.execute(delete(schema.accounts).where(schema.accounts.c.id == account_id))
            own = (nodes.c.user_name == f"{name}@{self._realm}") & nodes.c.revoked.is_(False)
            gone = [bytes.fromhex(row.node_id) for row in connection.execute(select(nodes).where(own))]
            connection.execute(update(nodes).where(own).values(revoked=True))
            self._revoke(connection, name, "")
        return gone

    def set_password(self, name: str, password: str) -> None:
        """Set the account's own password, for enrollment and the web page.

        :raises AccountError: it is empty, the account is the directory's, or there is no such account.
        """
        if not password:
            raise AccountError("the password is empty")
        row = self._row(name)
        if row is not None and row.directory is not None:
            raise AccountError(f"the password of {name} is the directory's")
        self._change(name, password=self._hashes.make(password))

    def set_node_quota(self, name: str, node_quota: int) -> None:
        """Let the account enroll nodes of its own, with at most `node_quota` Node-IDs in all."""
        self.change(name, node_quota=node_quota)

    def set_number(self, name: str, number: str | None) -> None:
        """Give the account a telephone number, `+` and digits (E.164), or take it away.

        :raises AccountError: it is none, another account has it, or there is no such account.
        """
        self.change(name, number=number)

    def set_display_name(self, name: str, display_name: str | None) -> None:
        """Set the name that people are shown.

        :raises AccountError: it cannot be one, or there is no such account.
        """
        self.change(name, display_name=display_name)

    def disable(self, name: str) -> None:
        """Let nobody sign in, enroll or register as this user, and tell the registrars by a revocation."""
        self.change(name, disabled=True)

    def enable(self, name: str) -> None:
        """Undo `disable`; an account that the directory bars is one until it is read again."""
        self.change(name, disabled=False)

    def change(self, name: str, **changes: Unpack[AccountChanges]) -> None:
        """Change what is named of an account, in one transaction.

        :raises AccountError: a value cannot be, or is another account's; there is no such account.
        """
        if (number := changes.get("number")) is not None:
            _checked_number(number)
        if (display_name := changes.get("display_name")) is not None:
            _checked_display_name(display_name)
        if changes.get("disabled") is False:
            changes.setdefault("barred", False)
        self._change(name, f"the number {number} is another account's", **changes)

    def _change(self, name: str, taken: str = "", **values: object) -> None:
        table = schema.accounts
        with self._database.writing(taken) as connection:
            row = table.c.id == self._id(connection, name)
            usable = ~table.c.disabled & ~table.c.barred
            before = connection.execute(select(usable).where(row)).scalar_one()
            if values:
                connection.execute(update(table).where(row).values(**values))
            if before and not connection.execute(select(usable).where(row)).scalar_one():
                self._revoke(connection, name, "")

    def exists(self, name: str) -> bool:
        """Whether there is an account of this name."""
        return self._row(name) is not None

    def _row(self, name: str) -> Row[Any] | None:
        if not is_name(name):
            return None
        with self._database.reading() as connection:
            return connection.execute(select(schema.accounts).where(schema.accounts.c.name == name)).first()

    def page(self, offset: int = 0, limit: int = 100) -> tuple[int, list[Account]]:
        """How many accounts there are, and `limit` of them by name from `offset` on."""
        table, devices = schema.accounts, schema.devices
        with self._database.reading() as connection:
            total = connection.execute(select(func.count()).select_from(table)).scalar_one()
            rows = connection.execute(select(table).order_by(table.c.name).offset(offset).limit(limit)).all()
            ids = [row.id for row in rows]
            found = connection.execute(
                select(devices.c.account_id, devices.c.name)
                .where(devices.c.account_id.in_(ids))
                .order_by(devices.c.name)
            ).all()
        names: dict[int, list[str]] = {}
        for account_id, device in found:
            names.setdefault(account_id, []).append(device)
        return total, [_account(row, tuple(names.get(row.id, ()))) for row in rows]

    def account(self, name: str) -> Account | None:
        """The account of this name, without its devices."""
        row = self._row(name)
        return None if row is None else _account(row)

    def by_number(self, number: str) -> Account | None:
        """The account with this telephone number, without its devices."""
        if not is_number(number):
            return None
        with self._database.reading() as connection:
            row = connection.execute(select(schema.accounts).where(schema.accounts.c.number == number)).first()
        return None if row is None else _account(row)

    def of_directory(self) -> list[Account]:
        """Every account that comes from the directory, by name, without its devices."""
        table = schema.accounts
        query = select(table).where(table.c.directory.is_not(None)).order_by(table.c.name)
        with self._database.reading() as connection:
            return [_account(row) for row in connection.execute(query)]

    def with_password(self, name: str, password: str) -> Account | None:
        """The account, if `password` is its own and it is not disabled.

        It takes the same time for names that do not exist.
        """
        row = self._row(name)
        if not self._hashes.matches(password, row.password if row else None) or row is None:
            return None
        account = _account(row)
        return None if account.disabled or account.directory is not None else account

    # -- devices -----------------------------------------------------------------------------------

    def add_device(self, name: str, device: str | None = None, password: str | None = None) -> tuple[str, str]:
        """Add a phone to the account `name`: called phone, phone2 ... with a random password, unless given.

        Answers both.

        :raises AccountError: no such account, the device's name is taken, or there are ten already.
        """
        if device is not None:
            checked_name(device)
        password = password or random_password()
        with self._database.writing(f"{name!r} has a device {device!r} already") as connection:
            account_id = self._id(connection, name)
            table = schema.devices
            there = set(connection.execute(select(table.c.name).where(table.c.account_id == account_id)).scalars())
            if len(there) >= MAXIMUM_DEVICES:
                raise AccountError(f"{name!r} has {MAXIMUM_DEVICES} devices already; revoke one first")
            chosen = device or next(n for i in count(1) if (n := "phone" if i == 1 else f"phone{i}") not in there)
            row = self._device_row(name, chosen, password)
            connection.execute(insert(table), {**row, "account_id": account_id})
        return chosen, password

    def devices(self, name: str) -> list[tuple[str, float]]:
        """The devices of an account and when each was made.

        :raises UnknownAccount: there is none of this name.
        """
        table = schema.devices
        with self._database.reading() as connection:
            account_id = self._id(connection, name)
            rows = connection.execute(
                select(table.c.name, table.c.created).where(table.c.account_id == account_id).order_by(table.c.name)
            )
            return [(row.name, row.created) for row in rows]

    def revoke_device(self, name: str, device: str) -> None:
        """Remove a phone from an account, and tell the registrars by a revocation.

        :raises UnknownAccount: there is no such account or device.
        """
        table = schema.devices
        with self._database.writing() as connection:
            account_id = self._id(connection, name)
            gone = connection.execute(delete(table).where(table.c.account_id == account_id, table.c.name == device))
            if not gone.rowcount:
                raise UnknownAccount(f"{name!r} has no device {device[:64]!r}")
            self._revoke(connection, name, device)

    def device_credentials(self, name: str) -> list[DeviceCredential]:
        """What the digests of the account's phones are checked with; empty for one that is unknown or disabled."""
        if not is_name(name):
            return []
        with self._database.reading() as connection:
            rows = connection.execute(
                select(schema.devices.c.name, schema.devices.c.secrets)
                .join(schema.accounts, schema.accounts.c.id == schema.devices.c.account_id)
                .where(schema.accounts.c.name == name)
                .where(schema.accounts.c.disabled.is_(False), schema.accounts.c.barred.is_(False))
                .order_by(schema.devices.c.name)
            ).all()
        return [
            DeviceCredential(device, algorithm, digest)
            for device, sealed in rows
            for algorithm, digest in json.loads(self._cipher.decrypt(sealed)).items()
        ]

    # -- revocations -------------------------------------------------------------------------------

    def _revoke(self, connection: Connection, account: str, device: str) -> None:
        row = {"account": account, "device": device, "time": self._database.time(connection)}
        connection.execute(insert(schema.revocations), row)

    def revocations(self, cursor: str = "") -> tuple[str, list[Revocation]]:
        """What was revoked since `cursor` was answered, oldest first, at most `REVOCATIONS` of them.

        Answers the next cursor with it.  One that this database did not make means: from the beginning.
        """
        match = _CURSOR.match(cursor)
        since = int(match[2]) if match is not None and match[1] == self._database.id else 0
        table = schema.revocations
        with self._database.reading() as connection:
            rows = connection.execute(
                select(table).where(table.c.sequence > since).order_by(table.c.sequence).limit(REVOCATIONS)
            ).all()
        newest = rows[-1].sequence if rows else since
        return f"{self._database.id}.{newest}", [Revocation(r.account, r.device, r.time) for r in rows]


def _check_new(user: NewUser) -> None:
    checked_name(user.name)
    if user.device:
        checked_name(user.device)
    if user.number is not None:
        _checked_number(user.number)
    if user.display_name is not None:
        _checked_display_name(user.display_name)


def _account(row: Row[Any], devices: Sequence[str] = ()) -> Account:
    return Account(
        row.name,
        row.node_quota,
        row.created,
        devices,
        number=row.number,
        display_name=row.display_name,
        directory=row.directory,
        disabled=row.disabled or row.barred,
        barred=row.barred,
    )
