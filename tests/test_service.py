"""The service of one node, without the node."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from p2psip.config.document import CannotComply
from p2psip.options import NodeOptions
from p2psip.service import NodeService
from p2psip.state import StateDirectory


class Part:
    """Something that the service ends."""

    joined = True

    def __init__(self, name: str, ended: list[str], error: Exception | None = None) -> None:
        self._name = name
        self._ended = ended
        self._error = error

    def stop(self) -> Deferred[None]:
        self._ended.append(self._name)
        return succeed(None) if self._error is None else fail(self._error)

    close = leave = stop


class EndTests(SynchronousTestCase):
    def setUp(self) -> None:
        options = NodeOptions()
        options.parseOptions(["--overlay", "example.org", "--state", self.mktemp()])
        self.state = StateDirectory(options["state"])
        self.state.prepare()
        self.service: Any = NodeService(options, self.state, MemoryReactorClock())
        self.ended: list[str] = []

    def parts(self, **errors: Exception) -> None:
        for attribute in ("phones", "node", "authority", "publisher", "renewal", "_storage"):
            name = attribute.strip("_")
            setattr(self.service, attribute, Part(name, self.ended, errors.get(name)))

    def stop(self) -> None:
        self.successResultOf(self.service.stopService())
        another = StateDirectory(self.state.path)
        another.prepare()
        another.release()

    def test_excluded(self) -> None:
        """A node that cannot follow a new configuration ends the program: one line, and no status of success."""
        ended: list[str] = []
        self.patch(self.service, "_end", ended.append)
        self.service._excluded(CannotComply("mandatory-extension", "urn:x is not known"))
        self.assertEqual(len(ended), 1)
        self.assertIn("mandatory-extension", ended[0])
        self.stop()

    def test_configuration_refused_at_the_start(self) -> None:
        """A document in the state directory that this node cannot follow is no bug: its text is the last line."""
        ended: list[str] = []
        self.patch(self.service, "_end", ended.append)
        self.service._failed(Failure(CannotComply("mandatory-extension", "urn:x is not known")))
        self.assertEqual(len(ended), 1)
        self.assertIn("urn:x is not known", ended[0])
        self.assertEqual(self.flushLoggedErrors(), [])
        self.stop()

    def test_before_anything_began(self) -> None:
        self.stop()

    def test_order(self) -> None:
        """Phones first, who would be answered wrongly; the storage last, which the others write to."""
        self.parts()
        self.stop()
        self.assertEqual(self.ended, ["renewal", "phones", "node", "authority", "publisher", "storage"])

    def test_one_part_fails(self) -> None:
        """The others end in good order all the same."""
        self.parts(phones=RuntimeError("phones"), node=RuntimeError("node"))
        self.stop()
        self.assertEqual(self.ended, ["renewal", "phones", "node", "authority", "publisher", "storage"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)

    def test_no_longer_joined(self) -> None:
        """What has left need not leave."""
        self.parts()
        self.service.node.joined = False
        self.service.node.leave = self.fail
        self.stop()
