"""
Bytes and structures: the messages of RELOAD, and nothing else (RFC 6940, 6.3 to 7).

Every structure is declared once, as the RFC prints it, and compiled when its
class is made.  Decoding raises `DecodeError` and nothing else, whatever the
bytes; encoding raises `EncodeError` for a value that fits no field.
"""
