"""What a scenario is: `twisted.plugin` finds them, ``p2psip simulate`` plays them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.plugin import IPlugin
from zope.interface import Attribute


@dataclass(frozen=True)
class Option:
    """One option of a scenario on the command line: ``--name``."""

    name: str
    default: Any
    """As it would be typed, or its value; None: none."""
    help: str
    parse: Callable[[str], Any] = str
    """Makes the value of what was typed; raises ValueError that says what is wrong."""

    def value(self, typed: Any = None) -> Any:
        """The value of what was typed, or of the default."""
        given = self.default if typed is None else typed
        return self.parse(given) if isinstance(given, str) else given


class IScenario(IPlugin):
    """A course of events in a simulated overlay.  Whatever it does takes simulated time; it must end by itself."""

    name: str = Attribute("What to type: 'churn'.")
    summary: str = Attribute("One sentence for the help.")
    options: Sequence[Option] = Attribute("What can be set beside what all scenarios have in common.")
    converged: bool = Attribute("Whether the overlay stands when it begins; else it has one node.")

    def duration(options: Mapping[str, Any], nodes: int) -> float:
        """About how many seconds of simulated time it takes, for the progress bar."""

    def play(run: Any, options: Mapping[str, Any]) -> Iterator[float]:
        """Do it, in a `p2psip.simulator.run.Run`.

        Make things due on `run.overlay.clock`, and yield the seconds to let pass until the next step.
        """

    def findings(run: Any, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the report is to say of this scenario beside what it says of all; asked once, at the end."""
