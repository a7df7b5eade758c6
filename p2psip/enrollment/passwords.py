"""Passwords: making them, and keeping only what proves them (RFC 7914)."""

from __future__ import annotations

import base64
import os
import secrets

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

# No letters that people confuse when they type a password from a screen into a phone.
_ALPHABET = "abcdefghjkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
DEFAULT_COST = 1 << 14
"""scrypt's n: with r = 8 it takes 16 MB and some 50 ms."""


def random_password(length: int = 16) -> str:
    """A password of `length` unambiguous letters and digits, some 5.8 bits each."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


class PasswordHashes:
    """Makes and checks salted scrypt hashes; `cost` is scrypt's n for new ones, a power of two."""

    def __init__(self, cost: int = DEFAULT_COST) -> None:
        self._cost = cost
        self._nobody = self.make(secrets.token_hex())

    def make(self, password: str) -> str:
        """A hash of `password` with its salt and parameters, as text."""
        salt = os.urandom(16)
        key = Scrypt(salt=salt, length=32, n=self._cost, r=8, p=1).derive(password.encode())
        texts = [base64.b64encode(value).decode() for value in (salt, key)]
        return "$".join(["scrypt", str(self._cost), "8", "1", *texts])

    def matches(self, password: str, stored: str | None) -> bool:
        """Whether `password` is the one that `stored` was made of.

        It takes as long when there is nothing stored, so that the time tells nobody which names exist.
        """
        _, n, r, p, salt, key = (stored or self._nobody).split("$")
        scrypt = Scrypt(salt=base64.b64decode(salt), length=32, n=int(n), r=int(r), p=int(p))
        try:
            scrypt.verify(password.encode(), base64.b64decode(key))
        except InvalidKey:
            return False
        return stored is not None
