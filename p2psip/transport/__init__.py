"""The Message Transport of one node: transactions, dispatch, Connection Table, Attach (RFC 6940 §6.2-§6.5)."""
