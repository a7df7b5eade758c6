"""Accounts databases as earlier versions of p2psip made them."""

from __future__ import annotations

from sqlalchemy import Column, Float, Integer, MetaData, String, Table, create_engine, insert

from p2psip.enrollment import schema

_CHANGED_SINCE = ("database", "accounts", "versions")


def make_version_0(url: str) -> str:
    """A database as there were before they had versions, with the account alice in it; answers its id."""
    tables = MetaData()
    database = Table("database", tables, Column("id", String(32), primary_key=True))
    accounts = Table(
        "accounts",
        tables,
        Column("id", Integer, primary_key=True),
        Column("name", String(64), nullable=False, unique=True),
        Column("password", String(255)),
        Column("node_quota", Integer, nullable=False, default=0),
        Column("created", Float, nullable=False),
    )
    for table in schema.metadata.sorted_tables:
        if table.name not in _CHANGED_SINCE:
            table.to_metadata(tables)
    engine = create_engine(url)
    with engine.begin() as connection:
        tables.create_all(connection)
        connection.execute(insert(database), {"id": "0123456789abcdef"})
        connection.execute(insert(accounts), {"name": "alice", "created": 1.0})
    engine.dispose()
    return "0123456789abcdef"
