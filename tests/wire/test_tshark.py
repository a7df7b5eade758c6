"""Another decoder's opinion: tshark reads what we write."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from p2psip.wire.codes import MessageCode
from p2psip.wire.contents import UnknownExtension
from p2psip.wire.frame import AckFrame, DataFrame
from p2psip.wire.header import NodeDestination, ResourceDestination
from p2psip.wire.methods import PingReq
from p2psip.wire.security import GenericCertificate
from p2psip.wire.turn import TurnCredentials
from tests.wire.samples import CERTIFICATE, NODES, RESOURCE, bodies, message

STALE = {"Unknown identity type"}
"""What tshark 4.0 complains of and RFC 6940 has: the signer identity "none" (6.3.4)."""


def packets() -> list[tuple[str, bytes]]:
    """A frame for each message, by a name to blame."""
    found = [
        (f"{MessageCode(code).name} {type(body).__name__}", message(code, body)) for code, body in bodies()
    ]
    code, ping = MessageCode.PING_REQ, PingReq()
    certificate = GenericCertificate(certificate=CERTIFICATE)
    extension = UnknownExtension(type=0x7000, critical=True, extension_contents=b"data")
    found += [
        ("certificate", message(code, ping, certificates=(certificate,))),
        ("extension", message(code, ping, extensions=(extension,))),
        ("credentials", message(code, ping, extensions=(TurnCredentials(username=b"1:a", password=b"b"),))),
        ("via", message(code, ping, via=(NodeDestination(node_id=NODES[4]),))),
        ("resource", message(code, ping, ResourceDestination(resource_id=RESOURCE))),
    ]
    frames = [(name, DataFrame(sequence=i, message=data).encode()) for i, (name, data) in enumerate(found)]
    return [*frames, ("ack", AckFrame(ack_sequence=7, received=0xFFFFFFFE).encode())]


class TShark(SynchronousTestCase):
    def test_agrees(self) -> None:
        """Each method's message is RELOAD to tshark, whole and without a malformed field."""
        names, data = zip(*packets(), strict=True)
        dissected = self._dissect(data)
        self.assertEqual(len(dissected), len(names))
        for name, packet in zip(names, dissected, strict=True):
            layers = packet["_source"]["layers"]
            self.assertIn("reload-framing", layers, name)
            shown = json.dumps(layers)
            self.assertNotIn("_ws.malformed", shown, name)
            complaints = set(re.findall(r'"_ws.expert.message": "([^"]*)"', shown))
            self.assertEqual(complaints - STALE, set(), name)
            if name != "ack":
                self.assertIn("reload", layers, name)

    def test_fields(self) -> None:
        """It sees the values we put in, where we put them."""
        names, data = zip(*packets(), strict=True)
        by_name = dict(zip(names, self._dissect(data), strict=True))
        ping = json.dumps(by_name["PING_ANS PingAns"])
        self.assertIn('"reload.forwarding.trans_id": "0x1122334455667788"', ping)
        self.assertIn('"reload.message.code": "24"', ping)
        error = json.dumps(by_name["ERROR ErrorResponse"])
        self.assertIn('"reload.message.code": "65535"', error)
        via = json.dumps(by_name["via"])
        self.assertIn(NODES[4].hex(":"), via.lower())
        self.assertIn('"reload_framing.ack_sequence": "7"', json.dumps(by_name["ack"]))

    def _dissect(self, frames: Any) -> list[Any]:
        for program in ("text2pcap", "tshark"):
            if shutil.which(program) is None:
                self.fail(f"{program} is not installed: `python -m tests.system` sees to what the tests need")
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        dump, capture = folder / "frames.txt", folder / "frames.pcap"
        dump.write_text("".join(f"000000 {frame.hex(' ')}\n" for frame in frames))
        subprocess.run(
            ["text2pcap", "-q", "-u", "40000,6084", dump, capture], check=True, capture_output=True,
        )
        shown = subprocess.run(
            ["tshark", "-r", capture, "-T", "json", "--no-duplicate-keys"], check=True, capture_output=True,
        )
        return json.loads(shown.stdout)  # type: ignore[no-any-return]
