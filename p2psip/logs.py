"""What a node's log shows: its own words, and of Twisted's only what went wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LegacyLogObserverWrapper,
    LogEvent,
    LogLevel,
    PredicateResult,
)
from twisted.scripts._twistd_unix import UnixAppLogger


def worth_logging(event: LogEvent) -> Any:
    """Leave out what Twisted says of ports, factories and HTTP requests, unless it is a warning or worse."""
    namespace: str = event.get("log_namespace", "")
    of_twisted = namespace == "log_legacy" or namespace.startswith("twisted.")
    least = LogLevel.warn if of_twisted else LogLevel.info
    return PredicateResult.yes if event.get("log_level", LogLevel.info) >= least else PredicateResult.no


class _NodeLogger(UnixAppLogger):
    """twistd's logger, for what its options --logfile, --syslog and --nodaemon ask for."""

    def observer(self) -> Any:
        return self._getLogObserver()  # type: ignore[no-untyped-call]


def node_log(options: Mapping[str, Any]) -> ILogObserver:
    """The log observer of a node that twistd runs with `options`."""
    logger: Any = _NodeLogger
    observer = logger(options).observer()
    if not ILogObserver.providedBy(observer):
        observer = LegacyLogObserverWrapper(observer)
    return FilteringLogObserver(observer, [worth_logging])  # type: ignore[list-item]  # a function is one
