"""Users whom a directory knows: their accounts, made when they first come, and kept as the directory has them.

All methods block: call them in a thread of the directory's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from twisted.logger import Logger

from .accounts import Account, AccountChanges, Accounts, NewUser, UnknownAccount, checked_name, is_name
from .database import AccountError, DatabaseUnavailable
from .directory import DirectoryError
from .entries import Contents, Entry
from .ldap import LDAPDirectory
from .nodes import Nodes

FEW: Final = 5
"""Accounts that may go at once, however many there are."""
MOST_PROBLEMS: Final = 100
"""Of what is reported of one reading."""


class TooManyGone(DirectoryError):
    """More accounts than may be would be lost: somebody has to confirm it."""


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Who has signed in."""

    account: Account
    registrar: bool = False
    """Whether nodes of this account may be registrars."""


@dataclass(slots=True)
class Changes:
    """What one reading of the directory has led to; all but the first two are names."""

    entries: int = 0
    accounts: int = 0
    changed: list[str] = field(default_factory=list)
    barred: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    demoted: list[str] = field(default_factory=list)
    """User names whose nodes are registrars no more."""
    problems: list[str] = field(default_factory=list)
    node_ids: list[bytes] = field(default_factory=list)
    """Of nodes whose accounts are gone: they are to be expelled."""


class DirectoryUsers:
    """The users of one directory in one overlay's accounts."""

    log = Logger()

    def __init__(self, directory: LDAPDirectory, accounts: Accounts, nodes: Nodes, overlay: str) -> None:
        self.directory = directory
        self._accounts = accounts
        self._nodes = nodes
        self._overlay = overlay
        self._told: frozenset[str] = frozenset()

    # -- one user ----------------------------------------------------------------------------------

    def sign_in(self, name: str, password: str) -> SignedIn | None:
        """Who `name` is, if the directory lets them in and takes `password` for theirs.

        :raises DirectoryUnavailable: it cannot be asked now.
        """
        if not password or not is_name(name):
            return None
        account = self._accounts.account(name.lower())
        if account is not None and (account.directory is None or (account.disabled and not account.barred)):
            return None
        member = self.directory.member(name)
        if member is None or not member.permitted or member.entry.locked:
            return None
        if not self.directory.proves(member.entry.dn, password):
            return None
        account = self._account_of(member.entry)
        return None if account.disabled else SignedIn(account, member.registrar)

    def provide(self, name: str) -> Account:
        """The account of this name; one of the directory is made if it is not there yet.

        :raises AccountError: nobody has this name, or may use telephony.
        :raises DirectoryUnavailable: the directory would have to be asked, and cannot be.
        """
        account = self._accounts.account(checked_name(name)) or self._accounts.account(name.lower())
        if account is not None:
            return account
        member = self.directory.member(name)
        if member is None:
            raise UnknownAccount(f"there is no account {name!r}, here or in the directory")
        if not member.permitted or member.entry.locked:
            raise DirectoryError(f"the directory does not let {name!r} in: p2psip directory test {name} says why")
        return self._account_of(member.entry)

    def _account_of(self, entry: Entry) -> Account:
        """The account of who was found in the directory just now, made or brought up to date."""
        account = self._accounts.account(entry.name)
        if account is None:
            self._make(entry)
        elif account.directory is None:
            raise DirectoryError(f"{entry.name} is an account of its own, not the directory's")
        else:
            self._adapt(account, entry)
        account = self._accounts.account(entry.name)
        if account is None:
            raise UnknownAccount(f"the account {entry.name!r} is being removed")
        return account

    def _make(self, entry: Entry) -> None:
        number = entry.number
        if number is not None and self._accounts.by_number(number) is not None:
            self.log.warn("the number {number} of {name} is another account's", number=number, name=entry.name)
            number = None
        user = NewUser(
            entry.name, device="", number=number, display_name=entry.display_name, directory=entry.dn
        )
        self._accounts.add(user)
        self.log.info("{name} of the directory has an account now", name=entry.name)

    def _adapt(self, account: Account, entry: Entry) -> bool:
        """Let an account be as its entry, but for the number; answers whether it was not."""
        changes = AccountChanges()
        if account.directory != entry.dn:
            changes["directory"] = entry.dn
        if self.directory.settings.name_attribute and account.display_name != entry.display_name:
            changes["display_name"] = entry.display_name
        if account.barred:
            changes["barred"] = False
        if changes:
            self._accounts.change(account.name, **changes)
        return bool(changes)

    def explain(self, name: str) -> Mapping[str, Any]:
        """What the directory says of a user, for people, and in ``why`` what keeps them out."""
        if not is_name(name):
            return {"why": f"{name[:64]!r} cannot be a user name"}
        member = self.directory.member(name)
        if member is None:
            return {"why": self._why_nobody(name)}
        entry, account = member.entry, self._accounts.account(member.entry.name)
        why = ""
        if account is not None and account.directory is None:
            why = "there is an account of this name that is not the directory's"
        elif entry.locked:
            why = "the directory has the entry disabled"
        elif not member.permitted:
            why = f"not in the group {self.directory.settings.group}"
        elif account is not None and account.disabled and not account.barred:
            why = "the account is disabled here"
        return {
            "dn": entry.dn,
            "name": entry.name,
            "display_name": entry.display_name,
            "number": entry.number,
            "registrar": member.registrar,
            "account": account is not None,
            "why": why,
        }

    def _why_nobody(self, name: str) -> str:
        settings, found = self.directory.settings, self.directory.candidates(name)
        if not found:
            return f"no entry below {settings.base} has {settings.user_attribute}={name}"
        if len(found) > 1:
            return f"several entries have {settings.user_attribute}={name}: {'; '.join(found)}"
        return f"{found[0]} does not match {settings.filter}, or has not this one user name only"

    # -- all of them -------------------------------------------------------------------------------

    def synchronize(self, force: bool = False) -> Changes:
        """Read the directory, and let all accounts that come from it be as it has them.

        An entry that may not use telephony any more has its account barred; one that is gone or has another name, has
        it removed.

        :param force: also if most accounts are lost by it.
        :raises DirectoryError: it cannot be read now, or too many accounts would be lost; nothing is changed.
        """
        # First the accounts: one that is made while the directory is read is looked at the next time.
        accounts = self._accounts.of_directory()
        contents = self.directory.read()
        entries = sum(len(found) for found in contents.entries.values())
        changes = Changes(entries=entries, accounts=len(accounts), problems=_problems(contents))
        staying = [(a, e) for a in accounts if (e := self._admitted(contents, a)) is not None]
        away = self._away(contents, accounts, {account.name for account, _ in staying})
        lost = [account for account, gone in away if gone or not account.barred]
        if not force and accounts and (not entries or (len(lost) > FEW and 2 * len(lost) > len(accounts))):
            raise TooManyGone(
                f"{len(lost)} of {len(accounts)} accounts would be lost, as the directory has {entries} entries now: "
                "nothing is changed; if that is right, say p2psip directory sync --force"
            )
        self._let_go(away, changes)
        self._keep_true(staying, changes)
        registrars = [account.name for account, entry in staying if contents.registrars.has(entry)]
        changes.demoted = self._nodes.demote(self._overlay, registrars)
        self._tell(changes)
        return changes

    def _admitted(self, contents: Contents, account: Account) -> Entry | None:
        entry = contents.entry(account.name, account.directory or "")
        return entry if entry is not None and not entry.locked and contents.permitted.has(entry) else None

    def _away(
        self, contents: Contents, accounts: Sequence[Account], staying: set[str]
    ) -> list[tuple[Account, bool]]:
        """The accounts that the directory does not let in, and whether each is gone from it for good."""
        others = [account for account in accounts if account.name not in staying]
        missing = [a for a in others if contents.entry(a.name, a.directory or "") is None]
        there = self.directory.named([a.directory for a in missing if a.directory]) if missing else {}
        unnamed = {a.name for a in missing if there.get(a.directory or "", "") not in (a.name, None)}
        return [(account, account.name in unnamed) for account in others]

    def _let_go(self, away: Sequence[tuple[Account, bool]], changes: Changes) -> None:
        for account, gone in away:
            try:
                if gone:
                    changes.node_ids += self._accounts.remove(account.name)
                    changes.removed.append(account.name)
                elif not account.barred:
                    self._accounts.change(account.name, barred=True)
                    changes.barred.append(account.name)
            except UnknownAccount:
                continue  # the operator was faster

    def _keep_true(self, staying: Sequence[tuple[Account, Entry]], changes: Changes) -> None:
        changed = set()
        renumbered = [
            (account, entry)
            for account, entry in staying
            if self.directory.settings.number_attribute and account.number != entry.number
        ]
        for account, entry in staying:
            if self._done(lambda a=account, e=entry: self._adapt(a, e), changes):
                changed.add(account.name)
        # First all that go, since one may be another's from now on.
        for account, _ in renumbered:
            if account.number is not None:
                self._done(lambda a=account: self._accounts.set_number(a.name, None), changes)
                changed.add(account.name)
        for account, entry in renumbered:
            if entry.number is not None and self._number(account, entry.number, changes):
                changed.add(account.name)
        changes.changed = sorted(changed)

    def _number(self, account: Account, number: str, changes: Changes) -> bool:
        """Give an account its number, unless another has it."""
        owner = self._accounts.by_number(number)
        if owner is not None:
            changes.problems.append(f"the number {number} of {account.name} is {owner.name}'s")
            return False
        self._done(lambda: self._accounts.set_number(account.name, number), changes)
        return True

    def _done(self, change: Any, changes: Changes) -> Any:
        try:
            return change()
        except DatabaseUnavailable:
            raise
        except AccountError as e:
            changes.problems.append(str(e))
            return None

    def _tell(self, changes: Changes) -> None:
        for what in ("changed", "barred", "removed", "demoted"):
            if names := getattr(changes, what):
                shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
                self.log.info("the directory has {what}: {names}", what=what, names=shown)
        del changes.problems[MOST_PROBLEMS:]
        for problem in changes.problems:
            if problem not in self._told:
                self.log.warn("of the directory: {problem}", problem=problem)
        self._told = frozenset(changes.problems)


def _problems(contents: Contents) -> list[str]:
    several = sorted(name for name, found in contents.entries.items() if len(found) > 1)
    return [
        *(f"{count} entries: {what}" for what, count in sorted(contents.counters.items())),
        *(f"{len(contents.entries[name])} entries have the user name {name}: none can sign in" for name in several),
    ]
