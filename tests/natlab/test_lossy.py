"""Eight nodes whose every packet may be lost or overtaken: none of their registrations is."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import click

from ..integration.nodes import DTLS, ICE, NodeProcess, only
from .description import Host, Line
from .overlays import LaboratoryWorld, OverlayTestCase

NODES = 8
LINE = Line(loss=0.106, delay=0.01, jitter=0.02)
"""Two of them are on the way from host to host: 20 % is lost, and what is sent within 40 ms may be overtaken."""
JOIN_SECONDS = 180.0
AT_A_TIME = 2
"""Lookups of one node: a path that loses that much carries little."""
TRIES = 3
"""A request may fail on such paths when all its transmissions do; its sender tries again, as a phone would."""


class LossTests(OverlayTestCase):
    def eight(self, protocol: str, phones: int) -> None:
        """Found and join, register everywhere, and find everything from everywhere."""
        world = self.world(*(Host(f"h{number}", line=LINE) for number in range(NODES)), options=only(protocol))
        founder = world.founder()
        nodes = [founder, *world.join_all(founder, NODES - 1, seconds=JOIN_SECONDS)]
        for node in nodes:
            self.assertEqual({protocol}, {link["protocol"] for link in node.status()["links"]})
        users = {f"u{number}": f"secret-{number}" for number in range(phones)}
        founder.add_users(users)
        at = {}
        for index, node in enumerate(nodes):
            own = list(users.items())[index::NODES]
            self.register(world, node, own)
            at.update(dict.fromkeys(dict(own), node.status()["node_id"]))

        def missed(job: tuple[NodeProcess, str]) -> str:
            """Why a node does not find a user, if it does not."""
            node, user = job
            why = ""
            for _ in range(TRIES):
                try:
                    found = node.registered_at(user)
                except click.ClickException as error:
                    why = f"{node.name} does not find {user}: {error.message}"
                else:
                    return "" if at[user] in found else f"{node.name} finds {user} at {found}, not at {at[user]}"
            return why

        jobs = [(node, user) for user in users for node in nodes]
        with ThreadPoolExecutor(AT_A_TIME * NODES) as pool:
            self.assertEqual([], [why for why in pool.map(missed, jobs) if why])

    def register(self, world: LaboratoryWorld, node: NodeProcess, users: list[tuple[str, str]]) -> None:
        """Register phones beside `node`."""
        phones = world.phones_at(node.name)
        for _ in range(TRIES):
            failed = phones.register(node.address, users, 17500, rate=20)
            if not failed:
                return
        self.fail(f"{failed} phones of {len(users)} were not registered at {node.name}")

    def test_with_ice(self) -> None:
        self.eight(ICE, 160)

    def test_without_ice(self) -> None:
        self.eight(DTLS, 80)
