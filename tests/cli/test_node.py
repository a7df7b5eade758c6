"""``p2psip status``, ``lookup``, ``ping``, ``fetch``, ``store``: what they ask, print and end with."""

from __future__ import annotations

import json
from typing import Any

from .commands import CommandTestCase

STATUS: dict[str, Any] = {
    "node_id": "ab" * 16,
    "overlay": "example.org",
    "role": "peer",
    "joined": True,
    "uptime": 3725.9,
    "neighbors": {"predecessors": [], "successors": ["cd" * 16]},
    "fingers": [],
    "applications": [
        {"node_id": "ef" * 16, "application": 5060, "protocol": "DTLS-UDP", "address": "192.0.2.9:40000",
         "candidate_pair": "host 192.0.2.1:50000 -> srflx 192.0.2.9:40000"},
    ],
    "links": [
        {"node_id": "cd" * 16, "protocol": "TLS-TCP-FH-NO-ICE", "address": "[::1]:6084",
         "candidate_pair": "[::1]:40000 -> [::1]:6084", "rtt_ms": 1.26},
        {"node_id": "ef" * 16, "protocol": "DTLS-UDP-SR", "address": "[::1]:6085",
         "candidate_pair": "host [::1]:7000 -> host [::1]:6085", "rtt_ms": None},
    ],
    "stored": {"resources": 1, "values": 2, "bytes": 3},
    "registrations": {"total": 4, "page": []},
    "listeners": ["reload [::1]:6084"],
    "rejected": {"malformed": 5},
    "phase": "joined",
}


class ForwardTests(CommandTestCase):
    async def test_set(self) -> None:
        self.answers["POST /forwards"] = {"aor": "alice@example.org", "target": "bob@example.org"}
        self.assertEqual(
            await self.output("forward", "alice", "bob"), "calls for alice@example.org go to bob@example.org\n"
        )
        self.assertEqual(self.calls[-1], ("POST /forwards", {"aor": "alice", "target": "bob"}))
        self.answers["POST /forwards"] = {"aor": "alice@example.org", "target": None}
        self.assertEqual(
            await self.output("forward", "alice", "--off"), "calls for alice@example.org come to its phones\n"
        )
        self.assertEqual(self.calls[-1], ("POST /forwards", {"aor": "alice", "target": None}))

    async def test_show(self) -> None:
        self.answers["GET /forwards"] = {"forwards": [{"aor": "alice@example.org", "target": "bob@example.org"}]}
        printed = await self.output("forward")
        self.assertIn("alice@example.org", printed)
        self.assertIn("bob@example.org", printed)
        self.answers["GET /forwards"] = {"forwards": []}
        self.assertEqual(await self.output("forward", "carol"), "calls for carol come to its phones\n")


class StatusTests(CommandTestCase):
    async def test_for_people(self) -> None:
        self.answers["GET /status"] = STATUS
        printed = await self.output("status")
        for text in (
            f"example.org: peer {'ab' * 16}, joined, up 1 h 2 min\n",
            "listening: reload [::1]:6084\n",
            "predecessors: none\n",
            "successors: cdcdcdcd\n",
            "stored: 2 values of 1 resources, 3 bytes\n",
            "registrations of phones here: 4\n",
            "1.3 ms",
            "host [::1]:7000 -> host [::1]:6085",
            "host 192.0.2.1:50000 -> srflx 192.0.2.9:40000",
            "malformed",
        ):
            self.assertIn(text, printed)

    async def test_turn(self) -> None:
        """The TURN server that the node offers, and the one that it uses; nothing where there is neither."""
        for turn, shown in (
            ({}, ""),
            ({"server": "", "registered": 0, "not_registered": "", "relay": ""}, ""),
            (
                {"server": "192.0.2.1:3478", "registered": 10, "not_registered": "", "relay": ""},
                "  TURN server here: 192.0.2.1:3478, registered at 10 places\n",
            ),
            (
                {"server": "10.0.0.1:3478", "registered": 0, "not_registered": "private", "relay": "192.0.2.9:1"},
                "  TURN server here: 10.0.0.1:3478, not registered: private\n  TURN server found: 192.0.2.9:1\n",
            ),
        ):
            self.answers["GET /status"] = {**STATUS, "turn": turn}
            printed = await self.output("status")
            self.assertEqual("".join(line for line in printed.splitlines(True) if "TURN" in line), shown)

    async def test_gateway(self) -> None:
        """Whether a gateway is registered in the overlay and at its trunks; nothing of other nodes."""
        trunks = [
            {"uri": "sip:a.example", "servers": ["192.0.2.1", "192.0.2.2"], "registered": True},
            {"uri": "sip:b.example", "servers": [], "registered": False},
        ]
        shown = (
            "  trunk: sip:a.example (192.0.2.1, 192.0.2.2), registered there\n  trunk: sip:b.example (not found)\n"
        )
        for gateway, expected in (
            ({}, ""),
            ({"registered": False, "not_registered": "", "known": 1, "trunks": []}, ""),
            (
                {"registered": True, "not_registered": "", "known": 1, "trunks": trunks},
                f"  gateway: registered in the overlay\n{shown}",
            ),
            (
                {"registered": False, "not_registered": "no Kind", "known": 1, "trunks": trunks},
                f"  gateway: not registered: no Kind\n{shown}",
            ),
        ):
            self.answers["GET /status"] = {**STATUS, "gateway": gateway}
            printed = await self.output("status")
            lines = [line for line in printed.splitlines(True) if "gateway" in line or "trunk" in line]
            self.assertEqual("".join(lines), expected)

    async def test_for_programs(self) -> None:
        self.answers["GET /status"] = STATUS
        self.assertEqual(json.loads(await self.output("status", "--json")), STATUS)

    async def test_before_it_has_joined(self) -> None:
        self.answers["GET /status"] = {**STATUS, "joined": False, "phase": "enrolling", "role": "", "node_id": ""}
        self.assertIn("enrolling", await self.output("status"))


class LookupTests(CommandTestCase):
    async def test_contacts_where_they_are_known(self) -> None:
        contact = {"uri": "sip:alice@192.0.2.7", "q": 1.0, "expires": 60}
        nodes = [{"node_id": "ab", "contacts": [contact]}, {"node_id": "cd", "contacts": None}]
        self.answers["GET /lookup"] = {"aor": "alice@example.org", "nodes": nodes}
        self.assertEqual(
            await self.output("lookup", "alice"),
            "alice@example.org is registered at node ab\n"
            "  sip:alice@192.0.2.7 (q=1.0, 60 s left)\n"
            "alice@example.org is registered at node cd\n",
        )
        self.assertEqual(self.calls, [("GET /lookup", {"aor": "alice"})])

    async def test_registered_nowhere(self) -> None:
        self.answers["GET /lookup"] = {"aor": "alice@example.org", "nodes": []}
        self.assertEqual(await self.error("lookup", "alice"), "alice@example.org is not registered")


class OverlayTests(CommandTestCase):
    async def test_probe(self) -> None:
        told = {"node_id": "ab", "responsible_ppb": 333_000_000, "num_resources": 4, "uptime": 7}
        self.answers["POST /probe"] = told
        self.assertEqual(
            await self.output("probe", "ab"),
            "ab is responsible for 33.30 % of the overlay, holds 4 resources, up 7 s\n",
        )
        self.assertEqual(json.loads(await self.output("probe", "--json")), told)

    async def test_ping(self) -> None:
        self.answers["POST /ping"] = {"node_id": "ab", "rtt_ms": 1.234, "hops": 2}
        self.assertEqual(
            await self.output("ping", "alice", "--count", "2"), "answer from ab: 1.2 ms, 2 hops\n" * 2
        )
        self.assertEqual(self.calls, [("POST /ping", {"target": "alice"})] * 2)

    async def test_fetch(self) -> None:
        values = [
            {"key": "0a", "value": "one", "signer": "alice@example.org"},
            {"index": 3, "value": "two", "signer": "bob@example.org"},
            {"value": "three", "signer": "carol@example.org"},
        ]
        self.answers["POST /fetch"] = {"values": values}
        self.assertEqual(
            await self.output("fetch", "alice", "--kind", "SIP-REGISTRATION"),
            "0a\tone\talice@example.org\n3\ttwo\tbob@example.org\nthree\tcarol@example.org\n",
        )
        self.assertEqual(self.calls, [("POST /fetch", {"name": "alice", "kind": "SIP-REGISTRATION", "key": None})])

    async def test_nothing_to_fetch(self) -> None:
        self.answers["POST /fetch"] = {"values": []}
        self.assertEqual(await self.error("fetch", "alice", "--kind", "1"), "nothing is stored there")

    async def test_store(self) -> None:
        self.answers["POST /store"] = {"generation": 4, "replicas": ["ab", "cd"]}
        printed = await self.output("store", "text", "--kind", "0xf0000001", "--index", "0")
        self.assertEqual(printed, "stored; generation 4, copies at 2 more peers\n")
        body = {"kind": "0xf0000001", "name": None, "key": None, "index": 0, "lifetime": 3600}
        self.assertEqual(self.calls, [("POST /store", {**body, "value": "text", "exists": True})])
