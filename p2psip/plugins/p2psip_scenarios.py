"""The scenarios of ``p2psip simulate``, for `twisted.plugin` to find."""

from __future__ import annotations

from p2psip.simulator.scenarios.churn import Churn
from p2psip.simulator.scenarios.growth import Growth
from p2psip.simulator.scenarios.lookup import Lookup
from p2psip.simulator.scenarios.mass_failure import MassFailure
from p2psip.simulator.scenarios.partition import Partition

churn = Churn()
growth = Growth()
lookup = Lookup()
mass_failure = MassFailure()
partition = Partition()
