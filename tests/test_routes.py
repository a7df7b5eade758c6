"""What every node answers its operator, in an overlay in memory."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from p2psip.config.kinds import Kind
from p2psip.routes import Operator
from p2psip.testing import World
from p2psip.usages.sip import SIPUsageFactory
from p2psip.usages.turn import TurnUsageFactory
from p2psip.wire.codes import DataModel

from .running import Service
from .usages.sites import Site


def kind(number: int, name: str, model: DataModel, policy: str) -> Kind:
    multiple = 3 if policy == "NODE-MULTIPLE" else 0
    return Kind(
        kind_id=number, name=name, data_model=model, access_control=policy, max_count=8, max_size=100,
        max_node_multiple=multiple,
    )  # fmt: skip


SINGLE, ARRAY, DICTIONARY, MULTIPLE, USER = 0xF0000001, 0xF0000002, 0xF0000003, 0xF0000004, 0xF0000005
KINDS = (
    kind(SINGLE, "", DataModel.SINGLE, "NODE-MATCH"),
    kind(ARRAY, "", DataModel.ARRAY, "NODE-MATCH"),
    kind(DICTIONARY, "", DataModel.DICTIONARY, "USER-NODE-MATCH"),
    kind(MULTIPLE, "", DataModel.SINGLE, "NODE-MULTIPLE"),
    kind(USER, "", DataModel.SINGLE, "USER-MATCH"),
    kind(1, "SIP-REGISTRATION", DataModel.DICTIONARY, "USER-NODE-MATCH"),
)


class OperatorTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World(2, kinds=KINDS, usages=[SIPUsageFactory()])
        self.here, self.there = self.world.nodes
        self.service = Service(self.world, self.here, self.mktemp())

    def ask(self, method: str, path: str, body: Any = None, **query: str) -> Any:
        """What a request that succeeds is answered with."""
        status, answer = self.service.ask(Operator(self.service).routes(), method, path, body, **query)
        self.assertEqual(status, 200, answer)
        return answer

    def refusal(self, method: str, path: str, body: Any = None, **query: str) -> tuple[int, str]:
        status, answer = self.service.ask(Operator(self.service).routes(), method, path, body, **query)
        self.assertGreaterEqual(status, 400)
        return status, answer["error"]


class ForwardTests(OperatorTestCase):
    """`p2psip forward`."""

    def test_set_and_shown(self) -> None:
        site = Site(self.world, self.here, ("alice",))
        self.assertEqual(self.ask("GET", "/forwards"), {"forwards": []})
        for target, aor in (("bob", "bob@example.org"), ("sip:x@Other.example", "x@other.example"),
                            ("+49 (30) 12-34", "+49301234@example.org")):  # fmt: skip
            wanted = {"aor": "alice@example.org", "target": aor}
            self.assertEqual(self.ask("POST", "/forwards", {"aor": "alice", "target": target}), wanted)
            self.assertEqual(self.ask("GET", "/forwards", aor="alice"), {"forwards": [wanted]})
        self.assertEqual(site.usage.forwards, {"alice@example.org": "+49301234@example.org"})
        self.assertEqual(self.ask("GET", "/forwards", aor="bob"), {"forwards": []})
        self.ask("POST", "/forwards", {"aor": "alice", "target": None})
        self.assertEqual(self.ask("GET", "/forwards"), {"forwards": []})

    def test_refused(self) -> None:
        status, error = self.refusal("POST", "/forwards", {"aor": "alice", "target": "bob"})
        self.assertEqual((status, error), (409, "this node serves no phone of alice@example.org: ask one that does"))
        status, error = self.refusal("POST", "/forwards", {"aor": "alice", "target": "alice"})
        self.assertEqual(status, 400)


class StatusTests(OperatorTestCase):
    def test_joined(self) -> None:
        status = self.ask("GET", "/status")
        self.assertEqual((status["node_id"], status["phase"]), (self.here.node_id.hex(), "joined"))
        self.assertEqual(status["neighbors"]["successors"], [self.there.node_id.hex()])
        self.assertEqual(status["listeners"], ["reload 192.0.2.1:6084"])
        self.assertIs(status["authority"], False)
        self.assertEqual(status["turn"], {})

    def test_turn(self) -> None:
        """What the TURN Server Usage tells, where there is one."""
        self.here.usages["turn"] = TurnUsageFactory().build(self.here.overlay)
        turn = {"server": "", "registered": 0, "not_registered": "", "relay": ""}
        self.assertEqual(self.ask("GET", "/status")["turn"], turn)

    def test_before_there_is_a_node(self) -> None:
        """The same shape as later: programs need not know how far the node is."""
        later = self.ask("GET", "/status")
        self.service.node = None
        self.service.phase = "enrolling"
        status = self.ask("GET", "/status")
        self.assertEqual((status["phase"], status["joined"]), ("enrolling", False))
        for name, value in status.items():
            self.assertIs(type(value), type(later[name]), name)

    def test_what_needs_the_overlay(self) -> None:
        self.service.node = None
        for method, path, query in (
            ("POST", "/ping", {}),
            ("GET", "/lookup", {"aor": "alice"}),
            ("POST", "/fetch", {"name": "x", "kind": "1"}),
            ("POST", "/store", {"value": "x", "kind": "1"}),
        ):
            wanted = 409, "the node is joining, not in the overlay yet"
            self.assertEqual(self.refusal(method, path, **query), wanted)

    def test_no_phones_here(self) -> None:
        self.assertEqual(self.ask("GET", "/registrations"), {"total": 0, "page": []})

    def test_leave(self) -> None:
        self.ask("POST", "/leave", {})
        self.assertTrue(self.service.left)


class PingTests(OperatorTestCase):
    def test_node_id(self) -> None:
        answer = self.ask("POST", "/ping", {"target": self.there.node_id.hex()})
        self.assertEqual(answer["node_id"], self.there.node_id.hex())
        self.assertAlmostEqual(answer["rtt_ms"], 20)

    def test_name(self) -> None:
        """The responsible peer answers, which may be this node itself."""
        answered = set()
        for number in range(12):
            name = f"user{number}@example.org"
            answer = self.ask("POST", "/ping", {"target": name})
            answered.add(answer["node_id"])
            responsible = self.here.topology.is_responsible(self.here.topology.resource_id(name.encode()))
            self.assertEqual(answer["node_id"] == self.here.node_id.hex(), responsible)
        self.assertEqual(len(answered), 2)

    def test_anywhere(self) -> None:
        nodes = {self.ask("POST", "/ping", {"target": None})["node_id"] for _ in range(20)}
        self.assertEqual(nodes, {self.here.node_id.hex(), self.there.node_id.hex()})

    def test_nobody_answers(self) -> None:
        self.world.kill(self.there)
        status, error = self.refusal("POST", "/ping", {"target": self.there.node_id.hex()})
        self.assertEqual(status, 409)
        self.assertTrue(error)


class ProbeTests(OperatorTestCase):
    def test_peers(self) -> None:
        """Two peers share the ring, by their own account."""
        told = [self.ask("POST", "/probe", {"target": node.node_id.hex()}) for node in (self.here, self.there)]
        self.assertEqual([one["node_id"] for one in told], [self.here.node_id.hex(), self.there.node_id.hex()])
        self.assertTrue(all(one["responsible_ppb"] > 0 for one in told))
        self.assertLess(abs(sum(one["responsible_ppb"] for one in told) - 10**9), 3)
        self.assertEqual(told[0]["num_resources"], self.here.storage.resources)
        self.assertEqual(set(told[0]), {"node_id", "responsible_ppb", "num_resources", "uptime"})


class StoreTests(OperatorTestCase):
    def values(self, kind: int, name: str, **more: str) -> Any:
        self.service.node = self.there
        found = self.ask("POST", "/fetch", {"kind": hex(kind), "name": name, **more})["values"]
        self.service.node = self.here
        return [{k: v for k, v in value.items() if k in ("key", "index", "value", "signer")} for value in found]

    def store(self, kind: int, value: str, **more: Any) -> Any:
        return self.ask("POST", "/store", {"kind": hex(kind), "value": value, **more})

    def test_single(self) -> None:
        """Under the node's own name, as the Kind's access control has it, unless one is given."""
        user = self.here.signer.identity.user_name
        own = self.here.node_id.hex()
        for kind, name in ((SINGLE, "hex:" + own), (MULTIPLE, f"hex:{own}01"), (USER, user)):
            stored = self.store(kind, "text")
            self.assertEqual(stored, {"generation": 1, "replicas": [self.there.node_id.hex()]})
            self.assertEqual(self.values(kind, name), [{"value": "text", "signer": user}])
        self.store(MULTIPLE, "second", name=f"hex:{own}02")
        self.assertEqual(self.values(MULTIPLE, f"hex:{own}02")[0]["value"], "second")

    def test_what_is_no_text_is_shown_in_hexadecimal(self) -> None:
        own = "hex:" + self.here.node_id.hex()
        for value, shown in (("hex:00ff", "hex:00ff"), ("hex:61", "a"), ("ä", "ä"), ("a\n", "hex:610a")):
            self.store(SINGLE, value)
            self.assertEqual(self.values(SINGLE, own)[0]["value"], shown)

    def test_array(self) -> None:
        own = "hex:" + self.here.node_id.hex()
        for value, index in (("one", None), ("two", None), ("one more", 0)):
            self.store(ARRAY, value, index=index)
        found = {v["index"]: v["value"] for v in self.values(ARRAY, own)}
        self.assertEqual(found, {0: "one more", 1: "two"})

    def test_dictionary(self) -> None:
        """The key is the Node-ID unless one is given, and can be asked for alone."""
        user, own = self.here.signer.identity.user_name, self.here.node_id.hex()
        self.store(DICTIONARY, "mine")
        self.assertEqual([(v["key"], v["value"]) for v in self.values(DICTIONARY, user)], [(own, "mine")])
        self.assertEqual(self.values(DICTIONARY, user, key="00"), [])
        self.assertEqual(len(self.values(DICTIONARY, user, key=own)), 1)

    def test_remove(self) -> None:
        self.store(SINGLE, "text")
        self.store(SINGLE, "", exists=False)
        self.assertEqual(self.values(SINGLE, "hex:" + self.here.node_id.hex()), [])

    def test_refused(self) -> None:
        """By this node or by the responsible peer: one line either way."""
        single = {"kind": hex(SINGLE), "value": "x"}
        for body, status in (
            ({**single, "kind": "SIP-PRESENCE"}, 400),
            ({**single, "kind": "-1"}, 400),
            ({**single, "value": "hex:xy"}, 400),
            ({**single, "lifetime": "long"}, 400),
            ({**single, "lifetime": -1}, 400),
            ({**single, "name": "somebody else"}, 409),
            ({**single, "value": "x" * 101}, 409),
        ):
            found, error = self.refusal("POST", "/store", body)
            self.assertEqual((found, error.count("\n")), (status, 0), error)
        self.assertIn("SIP-REGISTRATION", self.refusal("POST", "/fetch", {"kind": "no", "name": "x"})[1])


class LookupTests(OperatorTestCase):
    def test_names(self) -> None:
        """A name alone is of this overlay."""
        for text in ("alice", "alice@example.org", "sip:alice@EXAMPLE.org", "sips:alice@example.org"):
            self.assertEqual(self.ask("GET", "/lookup", aor=text), {"aor": "alice@example.org", "nodes": []})
