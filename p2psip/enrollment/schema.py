"""The tables of the accounts database, for any engine that SQLAlchemy speaks."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    false,
)

metadata = MetaData()

versions = Table("versions", metadata, Column("version", Integer, primary_key=True))
"""One row: how many of `MIGRATIONS` the tables have in them."""

database = Table(
    "database",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("authority", String(64)),
)
"""One row.  `id` tells this database from every other, a copy of it included; `authority` is the SHA-256 of the
root certificate of whose accounts these are."""

accounts = Table(
    "accounts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("password", String(255)),
    Column("node_quota", Integer, nullable=False, default=0),
    Column("created", Float, nullable=False),
    Column("number", String(32)),
    Column("display_name", String(128)),
    Column("directory", String(512)),
    Column("disabled", Boolean, nullable=False, default=False, server_default=false()),
    Column("barred", Boolean, nullable=False, default=False, server_default=false()),
    Index("accounts_number", "number", unique=True),
)
"""Users.  `password` is a scrypt hash, for enrollment and the web page; `node_quota` how many Node-IDs the
account may enroll nodes of its own with; `number` the telephone number, `+` and digits; `directory` the DN of
the entry that the account comes from, NULL where it is one of our own; `disabled` is the operator's word, `barred`
the directory's."""

devices = Table(
    "devices",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("account_id", ForeignKey("accounts.id", ondelete="CASCADE"), nullable=False),
    Column("name", String(64), nullable=False),
    Column("secrets", LargeBinary, nullable=False),
    Column("created", Float, nullable=False),
    UniqueConstraint("account_id", "name"),
)
"""Phones.  `secrets` holds H(username:realm:password) by algorithm, encrypted with a key outside the
database."""

invitations = Table(
    "invitations",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("role", String(16), nullable=False),
    Column("password", String(64), nullable=False),
    Column("expires", Float, nullable=False),
    Column("key", String(64)),
)
"""Join tokens.  `password` is the SHA-256 of one that is random, `key` that of the public key that redeemed
it."""

node_ids = Table(
    "node_ids",
    metadata,
    Column("node_id", String(40), primary_key=True),
    Column("user_name", String(255), nullable=False),
    Column("key", String(64), nullable=False),
    Column("role", String(16), nullable=False),
    Column("created", Float, nullable=False),
    Column("revoked", Boolean, nullable=False, default=False),
    Index("node_ids_of_user", "user_name"),
)
"""Which user name, and which of its nodes (by the SHA-256 of its key), owns which Node-ID, for ever."""

revocations = Table(
    "revocations",
    metadata,
    Column("sequence", Integer, primary_key=True, autoincrement=True),
    Column("account", String(64), nullable=False),
    Column("device", String(64), nullable=False, default=""),
    Column("time", Float, nullable=False),
    sqlite_autoincrement=True,
)
"""What registrars must forget: an account, or one device of it."""

audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("time", Float, nullable=False),
    Column("event", String(40), nullable=False),
    Column("subject", String(255), nullable=False),
    Column("source", String(64), nullable=False),
    Column("detail", String(255), nullable=False),
)
"""What the authority did, for whom, and from where it was asked."""

MIGRATIONS = (
    (
        "ALTER TABLE accounts ADD COLUMN number VARCHAR(32)",
        "ALTER TABLE accounts ADD COLUMN display_name VARCHAR(128)",
        "ALTER TABLE accounts ADD COLUMN directory VARCHAR(512)",
        "ALTER TABLE accounts ADD COLUMN disabled BOOLEAN NOT NULL DEFAULT FALSE",
        "CREATE UNIQUE INDEX accounts_number ON accounts (number)",
    ),
    ('ALTER TABLE "database" ADD COLUMN authority VARCHAR(64)',),
    ("ALTER TABLE accounts ADD COLUMN barred BOOLEAN NOT NULL DEFAULT FALSE",),
)
"""Steps from the tables of a version to those of the next, the first from version 0: statements that SQLite and
PostgreSQL understand.  Only what changes tables that exist: those that are missing are made as they stand above."""
