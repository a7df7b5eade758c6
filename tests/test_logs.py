"""What a node's log shows."""

from __future__ import annotations

from twisted.logger import LogLevel, PredicateResult
from twisted.trial.unittest import SynchronousTestCase

from p2psip.logs import node_log, worth_logging


class WorthLogging(SynchronousTestCase):
    """Which events are kept."""

    def test_kept(self) -> None:
        """Our own words, and whatever went wrong anywhere."""
        for namespace, level in (
            ("p2psip.service.NodeService", LogLevel.info),
            ("someplugin", LogLevel.info),
            ("twisted.web", LogLevel.warn),
            ("log_legacy", LogLevel.critical),
        ):
            event = {"log_namespace": namespace, "log_level": level}
            self.assertIs(PredicateResult.yes, worth_logging(event), namespace)

    def test_left_out(self) -> None:
        """Ports, factories and requests; and what is for debugging."""
        for namespace, level in (
            ("p2psip.service.NodeService", LogLevel.debug),
            ("twisted.web.server.Site", LogLevel.info),
            ("log_legacy", LogLevel.info),
        ):
            event = {"log_namespace": namespace, "log_level": level}
            self.assertIs(PredicateResult.no, worth_logging(event), namespace)

    def test_file(self) -> None:
        """`--logfile` is obeyed, and filtered."""
        path = self.mktemp()
        observer = node_log({"logfile": path, "nodaemon": True})
        for namespace, text in (("p2psip.service", "ours"), ("twisted.web", "theirs")):
            observer(
                {"log_namespace": namespace, "log_level": LogLevel.info, "log_format": text, "log_time": 0.0}
            )
        with open(path) as file:
            content = file.read()
        self.assertIn("ours", content)
        self.assertNotIn("theirs", content)
