"""What ``p2psip directory`` may ask of a node that holds the authority."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from .authority import Administered
from .control import Call, ControlError, Route
from .directory import DirectoryReading
from .enrollment.authority import OverlayAuthority
from .enrollment.directory import settings_of
from .enrollment.members import Changes, DirectoryUsers


class DirectoryAdministrator:
    """The requests of who administers it."""

    def __init__(self, service: Administered) -> None:
        self._service = service

    def routes(self) -> Mapping[tuple[str, str], Route]:
        """Every request, for a `ControlServer`."""
        return {
            ("GET", "/directory"): self.show,
            ("PUT", "/directory"): self.set,
            ("DELETE", "/directory"): self.off,
            ("POST", "/directory/sync"): self.sync,
            ("GET", "/directory/test"): self.test,
        }

    @property
    def _parts(self) -> tuple[OverlayAuthority, DirectoryReading]:
        if self._service.authority is None:
            raise ControlError("this node does not hold the authority of the overlay")
        return self._service.authority.authority, self._service.authority.directory

    @property
    def _users(self) -> DirectoryUsers:
        users = self._parts[0].directory_users
        if users is None:
            raise ControlError("there is no directory: p2psip directory set names one")
        return users

    async def show(self, call: Call) -> Mapping[str, Any]:
        """`p2psip directory show`."""
        reading, ldap = self._parts[1], self._users.directory
        last = None if reading.last is None else _changes(reading.last)
        return {
            **ldap.settings.for_people(),
            "trouble": reading.trouble,
            "last": last,
            "counters": dict(ldap.counters),
        }

    async def set(self, call: Call) -> Mapping[str, Any]:
        """`p2psip directory set`: every setting that is not named is as it is unless told otherwise."""
        authority, reading = self._parts
        settings = settings_of(call.body)
        # Not in the directory's threads: the old one may have them all.
        await self._service.in_thread(authority.use_directory, settings)
        reading.trouble, reading.last = "", None
        return await self.test(Call({}, {}, None))

    async def off(self, call: Call) -> None:
        """`p2psip directory off`."""
        authority, reading = self._parts
        await self._service.in_thread(authority.use_directory, None)
        reading.trouble, reading.last = "", None

    async def sync(self, call: Call) -> Mapping[str, Any]:
        """`p2psip directory sync`."""
        return _changes(await self._parts[1].synchronize(bool(call.body.get("force"))))

    async def test(self, call: Call) -> Mapping[str, Any]:
        """`p2psip directory test`."""
        users, reading = self._users, self._parts[1]
        servers = await reading.in_thread(users.directory.check)
        name = call.query.get("user")
        user = None if name is None else await reading.in_thread(users.explain, name)
        return {"servers": servers, "user": user}


def _changes(changes: Changes) -> Mapping[str, Any]:
    return {key: value for key, value in asdict(changes).items() if key != "node_ids"}
