"""A NAT laboratory: hosts, routers and NATs in network namespaces of one machine.

Tests build one with `Laboratory`, a person with ``python -m tests.natlab``; docs/contributing.rst says how.
"""
