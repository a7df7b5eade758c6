"""Where a node keeps values for the overlay, and how it answers for them (RFC 6940 §7)."""
