"""Overlay links: how neighbors are reached, and application connections with them (RFC 6940 §6.5, §6.6)."""
