"""Forwarding: where each message goes next, by its header alone (RFC 6940 §6.1, §6.2)."""
