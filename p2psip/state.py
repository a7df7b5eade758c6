"""The state directory: what a node keeps on disk, so that it can die at any moment and come back."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class StateError(Exception):
    """The state directory cannot be used; the text is for the operator."""


class StateDirectory:
    """One node's directory.  A file is replaced as a whole or not at all, also when the machine dies."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        self._lock: int | None = None

    @property
    def document(self) -> Path:
        """The configuration document."""
        return self.path / "overlay.xml"

    @property
    def key(self) -> Path:
        """The node's private key, PEM."""
        return self.path / "node.key"

    @property
    def certificate(self) -> Path:
        """The node's certificate, PEM."""
        return self.path / "node.crt"

    @property
    def data(self) -> Path:
        """The stored values."""
        return self.path / "data.sqlite"

    @property
    def registrar(self) -> Path:
        """What the SIP registrar was told of users: their credentials, and its certificates for them."""
        return self.path / "registrar.sqlite"

    @property
    def bindings(self) -> Path:
        """Where the phones registered here are to be reached."""
        return self.path / "bindings.sqlite"

    @property
    def sip_key(self) -> Path:
        """The private key of the SIP server's certificate, PEM."""
        return self.path / "sip.key"

    @property
    def sip_certificate(self) -> Path:
        """The certificate that the SIP server shows over TLS, as the authority made it, PEM."""
        return self.path / "sip.crt"

    @property
    def sip_root(self) -> Path:
        """The authority of SIP servers' certificates, PEM: what phones have to believe."""
        return self.path / "sip-ca.crt"

    @property
    def bootstrap_cache(self) -> Path:
        """Peers to bootstrap from."""
        return self.path / "bootstrap-cache.json"

    @property
    def control(self) -> Path:
        """The Unix socket by which `p2psip` speaks to the running node."""
        return self.path / "control.sock"

    @property
    def gateway_certificate(self) -> Path:
        """What a gateway stores in the overlay with."""
        return self.path / "gateway.crt"

    @property
    def authority(self) -> Path:
        """The authority's own directory, where this node holds it."""
        return self.path / "authority"

    @property
    def signer_key(self) -> Path:
        """The key that signs the documents of a self-signed overlay, where this node founded it."""
        return self.path / "signer.key"

    @property
    def has_credentials(self) -> bool:
        """Whether this node has enrolled: then it only ever rejoins."""
        return self.key.exists() and self.certificate.exists() and self.document.exists()

    @property
    def has_authority(self) -> bool:
        """Whether the overlay's authority lies here."""
        return (self.authority / "ca.key").exists()

    @property
    def has_signer(self) -> bool:
        """Whether this node founded a self-signed overlay, or has begun to."""
        return self.signer_key.exists()

    def prepare(self, owner: tuple[int, int] | None = None) -> None:
        """Make the directory where it is missing, for its owner alone, and lock it until the process ends.

        :param owner: user and group that root is about to become: whose the directory is, and what is in it.
        :raises StateError: it cannot be made, or another process uses it.
        """
        try:
            if not self.path.exists():
                self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
                if owner is not None:
                    os.chown(self.path, *owner)
        except OSError as e:
            raise StateError(f"cannot use the state directory {self.path}: {e.strerror}") from e
        with _acting_as(owner):
            self._take()

    def _take(self) -> None:
        try:
            handle = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            # SQLite makes its files as the umask has it, and the directory may be older than this node.
            self.data.touch(mode=0o600)
        except OSError as e:
            raise StateError(f"cannot use the state directory {self.path}: {e.strerror}") from e
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            os.close(handle)
            raise StateError(f"the state directory {self.path} is in use by another node (--state)") from e
        self._lock = handle

    def release(self) -> None:
        """Let another process use the directory."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


@contextmanager
def _acting_as(owner: tuple[int, int] | None) -> Iterator[None]:
    """Make files as `owner` does, who may not open what is only root's by links that lie in its directory."""
    if owner is None:
        yield
        return
    uid, gid = os.geteuid(), os.getegid()
    os.setegid(owner[1])
    os.seteuid(owner[0])
    try:
        yield
    finally:
        os.seteuid(uid)
        os.setegid(gid)


def write_file(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace `path` by `content` in one step that survives the machine's death, with file mode `mode`."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        os.fchmod(handle, mode)
        with open(handle, "wb", closefd=False) as file:
            file.write(content)
            file.flush()
            os.fsync(handle)
    finally:
        os.close(handle)
    os.replace(temporary, path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
