"""The Usages that come with p2psip; others' are found as plug-ins (RFC 6940 §5.2)."""
