"""What ``p2psip`` may ask of a node that holds the authority: users, nodes, and the authority itself."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import fields
from ipaddress import ip_address
from typing import Any

from .authority import Administered, AuthorityService, phone_settings
from .config.document import RELOAD_PORT
from .config.parse import parse
from .control import Call, ControlError, Route
from .enrollment.accounts import AccountChanges, NewUser
from .enrollment.archive import export_authority
from .enrollment.database import AccountError
from .hostport import address_text
from .publishing import Publisher
from .startup import StartError
from .transport.bootstrap import Place

_PLACE = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::([0-9]{1,5}))?")


class Administrator:
    """The requests of who administers the overlay."""

    def __init__(self, service: Administered) -> None:
        self._service = service

    def routes(self) -> Mapping[tuple[str, str], Route]:
        """Every request, for a `ControlServer`."""
        return {
            ("GET", "/users"): self.list_users,
            ("POST", "/users"): self.add_user,
            ("POST", "/users/import"): self.import_users,
            ("DELETE", "/users/{name}"): self.remove_user,
            ("POST", "/users/{name}/settings"): self.change_user,
            ("POST", "/users/{name}/password"): self.set_password,
            ("GET", "/users/{name}/devices"): self.list_devices,
            ("POST", "/users/{name}/devices"): self.add_device,
            ("DELETE", "/users/{name}/devices/{device}"): self.revoke_device,
            ("POST", "/invitations"): self.invite,
            ("POST", "/authority/export"): self.export_authority,
            ("POST", "/authority/import"): self.import_authority,
            ("POST", "/authority/publish"): self.publish,
            ("POST", "/authority/expel"): self.expel,
            ("GET", "/authority/bootstrap"): self.bootstrap_nodes,
            ("POST", "/authority/bootstrap"): self.change_bootstrap_nodes,
            ("GET", "/authority/log"): self.audit_log,
        }

    @property
    def _authority(self) -> AuthorityService:
        node = self._service.node
        if node is not None and not node.configuration.root_certificates:
            raise ControlError(f"{self._service.overlay} has no authority: its nodes certify themselves")
        if self._service.authority is None:
            raise ControlError(
                "this node does not hold the authority of the overlay: ask the node that founded it, "
                "or one that imported the authority"
            )
        return self._service.authority

    @property
    def _publisher(self) -> Publisher:
        """Who signs the documents: the authority, or in a self-signed overlay its founder."""
        return self._service.publisher or self._authority

    def _settings(self, name: str, device: str, password: str) -> Mapping[str, Any]:
        """What a person types into a phone."""
        return phone_settings(self._service, name, device, password).json()

    # -- users and nodes -------------------------------------------------------------------------------------

    async def add_user(self, call: Call) -> Mapping[str, Any]:
        """`p2psip user add`."""
        user = NewUser(
            name=call.text("name"),
            device=call.text("device", "phone"),
            device_password=call.optional("device_password"),
            password=call.optional("password"),
            node_quota=call.number("nodes", 0),
            number=call.optional("number"),
            display_name=call.optional("display_name"),
        )
        password = await self._service.in_thread(self._authority.authority.accounts.add, user)
        return self._settings(user.name, user.device, password)

    async def import_users(self, call: Call) -> Mapping[str, Any]:
        """`p2psip user import`."""
        if not isinstance(call.content, list) or not all(isinstance(e, dict) for e in call.content):
            raise ControlError("a list of accounts is wanted", 400)
        entries = [Call({}, {}, entry) for entry in call.content]
        users = [NewUser(name=e.text("name"), device_password=e.optional("password")) for e in entries]
        results = await self._service.in_thread(self._authority.authority.accounts.add_many, users)
        return {
            "results": [
                {"name": user.name, "error": str(result)}
                if isinstance(result, AccountError)
                else {"name": user.name, "password": result}
                for user, result in zip(users, results, strict=True)
            ]
        }

    async def list_users(self, call: Call) -> Mapping[str, Any]:
        """`p2psip user list`."""
        accounts = self._authority.authority.accounts
        total, page = await self._service.in_thread(accounts.page, *call.page())
        users = [
            {
                "name": a.name,
                "display_name": a.display_name,
                "number": a.number,
                "devices": list(a.devices),
                "nodes": a.node_quota,
                "directory": a.directory,
                "disabled": a.disabled,
                "created": a.created,
            }
            for a in page
        ]
        return {"total": total, "users": users}

    async def remove_user(self, call: Call) -> None:
        """`p2psip user remove`."""
        authority = self._authority
        gone = await self._service.in_thread(authority.authority.accounts.remove, call.path["name"])
        authority.expel(gone)

    async def change_user(self, call: Call) -> None:
        """`p2psip user set`: what the body names is changed; an empty text takes away what was there."""
        changes = AccountChanges()
        if "number" in call.body:
            changes["number"] = call.optional("number")
        if "display_name" in call.body:
            changes["display_name"] = call.optional("display_name")
        if "disabled" in call.body:
            changes["disabled"] = bool(call.number("disabled"))
        accounts = self._authority.authority.accounts
        await self._service.in_thread(lambda: accounts.change(call.path["name"], **changes))

    async def set_password(self, call: Call) -> None:
        """`p2psip user passwd`."""
        accounts = self._authority.authority.accounts
        await self._service.in_thread(accounts.set_password, call.path["name"], call.text("password"))

    async def list_devices(self, call: Call) -> Mapping[str, Any]:
        """`p2psip device list`."""
        accounts = self._authority.authority.accounts
        devices = await self._service.in_thread(accounts.devices, call.path["name"])
        return {"devices": [{"name": name, "created": created} for name, created in devices]}

    async def add_device(self, call: Call) -> Mapping[str, Any]:
        """`p2psip device add`."""
        accounts = self._authority.authority.accounts
        user = call.path["name"]
        if not await self._service.in_thread(accounts.exists, user):
            # Whom only the directory knows so far.
            user = await self._authority.directory.provide(user)
        name, password = await self._service.in_thread(
            accounts.add_device, user, call.optional("name"), call.optional("password")
        )
        return self._settings(user, name, password)

    async def revoke_device(self, call: Call) -> None:
        """`p2psip device revoke`."""
        accounts = self._authority.authority.accounts
        await self._service.in_thread(accounts.revoke_device, call.path["name"], call.path["device"])

    async def invite(self, call: Call) -> Mapping[str, Any]:
        """`p2psip invite`."""
        authority = self._authority
        token = await self._service.in_thread(
            authority.authority.invite,
            call.text("name"),
            call.text("role", "registrar"),
            float(call.number("expires", 3600)),
            authority.urls,
        )
        return {"token": token.encode()}

    # -- the authority itself ------------------------------------------------------------------------------

    async def export_authority(self, call: Call) -> Mapping[str, Any]:
        """`p2psip authority export`."""
        archive = await self._service.in_thread(
            export_authority, self._authority.authority, call.text("passphrase")
        )
        return {"overlay": self._service.overlay, "archive": base64.b64encode(archive).decode()}

    async def import_authority(self, call: Call) -> Mapping[str, Any]:
        """`p2psip authority import`."""
        service = self._service
        if service.authority is not None:
            raise ControlError("this node holds the authority already")
        if service.node is None:
            raise ControlError(f"the node is {service.phase}, not in the overlay yet")
        try:
            archive = base64.b64decode(call.text("archive"), validate=True)
        except ValueError:
            raise ControlError("archive is not base64", 400) from None
        authority = await service.in_thread(AuthorityService.imported, service, archive, call.text("passphrase"))
        try:
            await authority.start()
        except StartError as e:
            await authority.stop()
            raise ControlError(f"the authority is here now, but serves only after a restart: {e}") from e
        service.authority = authority
        authority.announce()
        return {"overlay": service.overlay, "url": authority.url}

    async def expel(self, call: Call) -> Mapping[str, Any]:
        """`p2psip authority expel`."""
        authority = self._authority
        name = call.text("name")
        user_name = name if "@" in name else f"{name}@nodes.{self._service.overlay}"
        gone = await self._service.in_thread(authority.authority.nodes.revoke, user_name)
        authority.expel(gone)
        return {"node_ids": [node_id.hex() for node_id in gone]}

    async def bootstrap_nodes(self, call: Call) -> Mapping[str, Any]:
        """`p2psip authority bootstrap list`."""
        configuration = self._publisher.configuration
        places = [address_text(*place) for place in configuration.bootstrap_nodes]
        return {"bootstrap_nodes": places, "sequence": configuration.sequence}

    async def change_bootstrap_nodes(self, call: Call) -> Mapping[str, Any]:
        """`p2psip authority bootstrap add` and `remove`."""
        publisher = self._publisher
        places = publisher.configuration.bootstrap_nodes
        added, removed = call.optional("add"), call.optional("remove")
        if removed is None:
            places = tuple(dict.fromkeys((*places, _place(added or ""))))
        elif (gone := _place(removed)) in places:
            places = tuple(place for place in places if place != gone)
        else:
            raise ControlError(f"{address_text(*gone)} is not in the configuration document")
        publisher.set_bootstrap_nodes(places)
        return await self.bootstrap_nodes(call)

    async def publish(self, call: Call) -> Mapping[str, Any]:
        """`p2psip authority publish`."""
        wanted = parse(call.text("document").encode(), self._service.overlay)
        # What has no part in comparing two documents is how one was written and signed: that is made anew.
        settings = {f.name for f in fields(wanted) if f.compare} - {"instance_name", "sequence"}
        changes = {name: getattr(wanted, name) for name in settings}
        return {"sequence": self._publisher.publish(**changes)}

    async def audit_log(self, call: Call) -> Mapping[str, Any]:
        """`p2psip authority log`."""
        database = self._authority.authority.database
        _, limit = call.page()
        return {"log": await self._service.in_thread(database.audit_log, limit)}


def _place(text: str) -> Place:
    """Address and port of ``192.0.2.1``, ``192.0.2.1:6084``, ``2001:db8::1`` or ``[2001:db8::1]:6084``."""
    match = _PLACE.fullmatch(text)
    try:
        host, port = (match[1] or match[2], int(match[3] or RELOAD_PORT)) if match else (text, RELOAD_PORT)
        address = ip_address(host)
    except ValueError:
        port = 0
    if not 0 < port < 65536 or "%" in host or address.is_unspecified or address.is_multicast:
        raise ControlError(f"{text!r} is not an IP address, with or without a port", 400)
    return str(address), port
