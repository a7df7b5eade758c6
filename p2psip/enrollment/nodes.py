"""Invitations, and whose Node-IDs are whose.

All methods block: call them in a thread where that matters.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from hashlib import sha256

from sqlalchemy import Connection, delete, insert, select, update

from ..ids import NodeId, invalid_node_id, wildcard_node_id
from . import schema
from .accounts import UnknownAccount, checked_name, is_name
from .database import AccountError, Database

NODE_ROLES = ("peer", "registrar")


class NotAvailable(AccountError):
    """The user name may not have that many Node-IDs."""


@dataclass(frozen=True, slots=True)
class Owner:
    """To whom a Node-ID was given, and what its node may do."""

    user_name: str
    role: str


class Nodes:
    """Who may be a node of the overlay.  Keys are named by the SHA-256 of their SubjectPublicKeyInfo."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- invitations -------------------------------------------------------------------------------

    def invite(self, name: str, role: str, expires: float) -> str:
        """Make (or make anew) the invitation of the node `name`; answers its one-time password.

        A node of that name that was there before is meant: whoever redeems this gets its Node-ID.

        :param expires: until when it can be redeemed, seconds since the epoch.
        """
        checked_name(name)
        if role not in NODE_ROLES:
            raise AccountError(f"{role!r} is no role of a node: use one of {', '.join(NODE_ROLES)}")
        password = secrets.token_urlsafe(18)
        row = {"name": name, "role": role, "password": _digest(password), "expires": expires, "key": None}
        table = schema.invitations
        with self._database.writing() as connection:
            connection.execute(delete(table).where((table.c.name == name) | (table.c.expires <= self._database.now())))
            connection.execute(insert(table), row)
        return password

    def invited(self, name: str, password: str) -> str | None:
        """The role that the node `name` is invited to, if `password` is that of a token which still holds.

        It needs no slow hash: the password is random, not chosen by a person.
        """
        if not is_name(name):
            return None
        table = schema.invitations
        with self._database.reading() as connection:
            row = connection.execute(select(table).where(table.c.name == name)).first()
        known = hmac.compare_digest(_digest(password), row.password if row else _digest(""))
        if row is None or not known or row.expires <= self._database.now():
            return None
        return str(row.role)

    def redeem(self, name: str, key: bytes, user_name: str, role: str) -> list[NodeId] | None:
        """The Node-ID for the holder of `key`, who was `invited` as `name`; None if another key was first."""
        table = schema.invitations
        with self._database.writing() as connection:
            mine = (table.c.name == name) & (table.c.key.is_(None) | (table.c.key == key.hex()))
            if not connection.execute(update(table).where(mine).values(key=key.hex())).rowcount:
                return None
            return self._assign(connection, user_name, key, 1, 1, role)

    # -- Node-IDs ----------------------------------------------------------------------------------

    def assign(self, user_name: str, key: bytes, count: int, quota: int, role: str) -> list[NodeId]:
        """`count` Node-IDs for the holder of `key`, of at most `quota` that `user_name` may have in all.

        The same key gets the same ones again; so does a new key where the user has one node only, which fills
        the quota: it returns without its key (RFC 6940 §11.3).  Otherwise they are drawn at random.

        :raises NotAvailable: there would be too many.
        """
        with self._database.writing() as connection:
            return self._assign(connection, user_name, key, count, quota, role)

    def _assign(
        self, connection: Connection, user_name: str, key: bytes, count: int, quota: int, role: str
    ) -> list[NodeId]:
        table = schema.node_ids
        rows = connection.execute(
            select(table)
            .where(table.c.user_name == user_name, table.c.revoked.is_(False))
            .order_by(table.c.created, table.c.node_id)
        ).all()
        owned = [NodeId(bytes.fromhex(row.node_id)) for row in rows if row.key == key.hex()][:count]
        if not owned and len(rows) == count == quota and len({row.key for row in rows}) == 1:
            owned = [NodeId(bytes.fromhex(row.node_id)) for row in rows]
        missing = count - len(owned)
        if count > quota or (missing and len(rows) + missing > quota):
            raise NotAvailable(f"{user_name} may have {quota} Node-IDs and has {len(rows)}")
        now = self._database.now()
        for node_id in sorted(_random_node_id() for _ in range(missing)):
            row = {"node_id": node_id.hex(), "user_name": user_name, "key": "", "role": role, "created": now}
            connection.execute(insert(table), row)
            owned.append(node_id)
        mine = table.c.node_id.in_([node_id.hex() for node_id in owned])
        connection.execute(update(table).where(mine).values(role=role, key=key.hex()))
        return owned

    def owner(self, node_ids: Sequence[NodeId]) -> Owner | None:
        """To whom all of `node_ids` were given; None when one was not, or is revoked."""
        table = schema.node_ids
        with self._database.reading() as connection:
            rows = connection.execute(
                select(table.c.user_name, table.c.role).where(
                    table.c.node_id.in_([n.hex() for n in node_ids]), table.c.revoked.is_(False)
                )
            ).all()
        owners = {Owner(row.user_name, row.role) for row in rows}
        return owners.pop() if len(owners) == 1 and len(rows) == len(set(node_ids)) else None

    def revoke(self, user_name: str) -> list[NodeId]:
        """Take from `user_name` its Node-IDs and its invitation; answers the Node-IDs.

        They are not renewed any more, but until their certificates end only the document's bad-nodes keep
        them out.

        :raises UnknownAccount: it has none.
        """
        table, invitations = schema.node_ids, schema.invitations
        name, _, domain = user_name.partition("@")
        with self._database.writing() as connection:
            own = (table.c.user_name == user_name) & table.c.revoked.is_(False)
            gone = [NodeId(bytes.fromhex(r.node_id)) for r in connection.execute(select(table).where(own))]
            if not gone:
                raise UnknownAccount(f"there is no node of {user_name[:255]!r}")
            connection.execute(update(table).where(own).values(revoked=True))
            if domain.startswith("nodes."):
                connection.execute(delete(invitations).where(invitations.c.name == name))
        return gone

    def has_invitation(self, name: str) -> bool:
        """Whether a node of this name is invited now."""
        table = schema.invitations
        holds = (table.c.name == name) & (table.c.expires > self._database.now())
        with self._database.reading() as connection:
            return connection.execute(select(table.c.id).where(holds)).first() is not None

    def demote(self, domain: str, keep: Collection[str]) -> list[str]:
        """Of the registrars of users (``NAME@domain``) leave those of `keep`; the others are peers from now on.

        Answers the user names of these.
        """
        table = schema.node_ids
        ours = table.c.user_name.endswith(f"@{domain}", autoescape=True) & (table.c.role == "registrar")
        with self._database.writing() as connection:
            names = set(connection.execute(select(table.c.user_name).where(ours)).scalars())
            gone = sorted(names - {f"{name}@{domain}" for name in keep})
            for name in gone:
                connection.execute(update(table).where(table.c.user_name == name).values(role="peer"))
        return gone


def _digest(password: str) -> str:
    return sha256(password.encode()).hexdigest()


def _random_node_id() -> NodeId:
    while (node_id := NodeId(secrets.token_bytes(16))) in (invalid_node_id(), wildcard_node_id()):
        continue
    return node_id
