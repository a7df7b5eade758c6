"""Eight nodes whose every packet may be lost or overtaken: none of their registrations is."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import click

from ..integration.nodes import NodeProcess
from .description import Host, Line
from .overlays import OverlayTestCase

NODES = 8
PHONES = 240
LINE = Line(loss=0.106, delay=0.01, jitter=0.02)
"""Two of them are on the way from host to host: 20 % is lost, and what is sent within 40 ms may be overtaken."""
PATIENCE = 120.0


class LossTests(OverlayTestCase):
    def eight(self, *options: str) -> None:
        """Found and join, register everywhere, and find everything from everywhere."""
        world = self.world(*(Host(f"h{number}", line=LINE) for number in range(NODES)))
        founder = world.founder(*options)
        nodes = [founder, *world.join_all(founder, NODES - 1, *options[1:], seconds=PATIENCE)]
        users = {f"u{number}": f"secret-{number}" for number in range(PHONES)}
        founder.add_users(users)
        at = {}
        for index, node in enumerate(nodes):
            mine = list(users.items())[index::NODES]
            self.assertEqual(0, world.phones_at(node.name).register(node.address, mine, 17500, rate=20))
            at.update(dict.fromkeys(dict(mine), node.status()["node_id"]))

        def missed(node: NodeProcess) -> dict[str, str]:
            """What `node` does not find, and why."""
            found = {}
            for user in users:
                try:
                    if at[user] not in node.registered_at(user):
                        found[user] = "not registered"
                except click.ClickException as error:
                    found[user] = error.message
            return found

        with ThreadPoolExecutor(NODES) as pool:
            for node, lost in zip(nodes, pool.map(missed, nodes), strict=True):
                self.assertEqual({}, lost, f"from {node.name}")

    def test_with_ice(self) -> None:
        self.eight()

    def test_without_ice(self) -> None:
        self.eight("--no-ice", "--link-protocol", "DTLS-UDP-SR-NO-ICE")
