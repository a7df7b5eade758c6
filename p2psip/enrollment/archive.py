"""Moving the authority to another node: one encrypted file with all that it is."""

from __future__ import annotations

import base64
import io
import os
import secrets
import sqlite3
import tarfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from ..state import write_file
from .authority import AuthorityError, OverlayAuthority
from .directory import FILE as DIRECTORY
from .passwords import PasswordHashes
from .relocation import FILE, URL_FILE
from .sip_authority import CERTIFICATE, KEY

_MAGIC = b"p2psip-authority-1\n"
_SALT = 16
_KEYS = ("signer.key", "kind-signer.key", "server.key", "secrets.key")
_CERTIFICATES = ("ca.crt", "signer.crt", "kind-signer.crt")
_SIP = (CERTIFICATE, KEY)
"""Made anew where an older archive lacks them."""
_ACCOUNTS = (URL_FILE, FILE)
"""One of the two: where the database is, or the database."""
_WHOLE = "ca.key"
"""Written last: it counts as the whole."""


def _cipher(passphrase: str, salt: bytes) -> Fernet:
    key = Scrypt(salt=salt, length=32, n=1 << 15, r=8, p=1).derive(passphrase.encode())
    return Fernet(base64.urlsafe_b64encode(key))


def export_authority(authority: OverlayAuthority, passphrase: str) -> bytes:
    """The whole authority, accounts included, encrypted with `passphrase`.  Blocks.

    Where the accounts are in a database of their own, its URL goes along instead.

    :raises AuthorityError: the passphrase is empty.
    """
    if not passphrase:
        raise AuthorityError("the passphrase is empty")
    directory = authority.directory
    contents = {name: (directory / name).read_bytes() for name in (*_KEYS, *_CERTIFICATES, *_SIP, _WHOLE)}
    if (directory / URL_FILE).exists():
        contents[URL_FILE] = (directory / URL_FILE).read_bytes()
    else:
        contents[FILE] = _database(directory / FILE)
    if (directory / DIRECTORY).exists():
        contents[DIRECTORY] = (directory / DIRECTORY).read_bytes()
    contents["overlay"] = authority.overlay.encode()
    salt = os.urandom(_SALT)
    authority.database.record("exported", authority.overlay)
    return _MAGIC + salt + _cipher(passphrase, salt).encrypt(_packed(contents))


def import_authority(
    archive: bytes,
    passphrase: str,
    directory: Path,
    overlay: str,
    now: Callable[[], float],
    hashes: PasswordHashes | None = None,
) -> OverlayAuthority:
    """Unpack an exported authority of `overlay` into `directory`, which must hold none.  Blocks.

    :raises AuthorityError: the passphrase is wrong, the file damaged, or of another overlay.
    """
    if (directory / _WHOLE).exists():
        raise AuthorityError("this node holds an authority already")
    if not archive.startswith(_MAGIC):
        raise AuthorityError("this is not an exported authority")
    body = archive[len(_MAGIC) :]
    try:
        contents = _unpacked(_cipher(passphrase, body[:_SALT]).decrypt(body[_SALT:]))
    except InvalidToken:
        raise AuthorityError("the passphrase is wrong, or the file is damaged") from None
    except (tarfile.TarError, zlib.error, EOFError, OSError) as e:
        raise AuthorityError(f"the exported authority is damaged: {e}") from e
    if contents.get("overlay") != overlay.encode():
        raise AuthorityError(f"this is not the authority of {overlay}")
    missing = {*_KEYS, *_CERTIFICATES, _WHOLE} - contents.keys()
    if missing or not contents.keys() & set(_ACCOUNTS):
        raise AuthorityError(f"the exported authority lacks {', '.join(sorted(missing)) or 'the accounts'}")
    if FILE in contents:
        contents[FILE] = _living_apart(contents[FILE])
    for name in (*_KEYS, *_CERTIFICATES, *_SIP, *_ACCOUNTS, DIRECTORY, _WHOLE):
        if name in contents:
            write_file(directory / name, contents[name], 0o644 if name.endswith(".crt") else 0o600)
    authority = OverlayAuthority(directory, overlay, now, hashes)
    authority.database.record("imported", overlay)
    return authority


def _database(path: Path) -> bytes:
    """A consistent copy of a database that is in use."""
    source = sqlite3.connect(path)
    copy = sqlite3.connect(":memory:")
    try:
        source.backup(copy)
        return copy.serialize()
    finally:
        source.close()
        copy.close()


def _living_apart(content: bytes) -> bytes:
    """A copy of a database as one of its own: from now on the two differ."""
    copy = sqlite3.connect(":memory:")
    try:
        # Bytes 18 and 19 of the file say that it has a write-ahead log, which is not possible in memory.
        copy.deserialize(content[:18] + b"\1\1" + content[20:])
        with copy:
            copy.execute("UPDATE database SET id = ?", (secrets.token_hex(8),))
        return copy.serialize()
    except sqlite3.DatabaseError as e:
        raise AuthorityError(f"the exported accounts are damaged: {e}") from e
    finally:
        copy.close()


def _packed(contents: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in contents.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _unpacked(packed: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as archive:
        files = ((entry.name, archive.extractfile(entry)) for entry in archive)
        return {name: file.read() for name, file in files if file is not None}
