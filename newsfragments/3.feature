``p2psip simulate SCENARIO --nodes N`` plays growth, lookups, churn, partitions and mass failures on thousands of real
nodes in one process, and reports hops, success, lost values and traffic as JSON, CSV and plots (``p2psip[simulator]``).
Scenarios are plug-ins.
The Neighbor Table follows the size of the overlay, O(log N), as RFC 6940, section 10.7, recommends.
