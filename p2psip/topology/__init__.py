"""Overlay algorithms; CHORD-RELOAD is the one that every implementation must have (RFC 6940 §10)."""
