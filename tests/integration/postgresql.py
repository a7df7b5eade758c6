"""PostgreSQL, for the tests of accounts in it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from ..system import find_program

START_SECONDS = 30.0
USER, PASSWORD = "p2psip", "a:pass/word@with%signs"
URL_PASSWORD = "a%3Apass%2Fword%40with%25signs"


class PostgreSQL:
    """A server on a port of 127.0.0.1 that asks for a password; it serves when this is made.  `close` ends it."""

    def __init__(self) -> None:
        program = find_program("/usr/lib/postgresql/*/bin/postgres")
        assert program is not None, "python -m tests.system installs it"
        self._programs = Path(program).parent
        self._directory = Path(tempfile.mkdtemp(prefix="p2psip-postgresql-"))
        # It does not run as root; Debian's package makes this user.
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(self._directory, self._user)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._databases = 0
        self._process: subprocess.Popen[bytes] | None = None
        password = self._directory / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        self._run("initdb", "--no-locale", "-E", "UTF8", "-A", "scram-sha-256", "-U", USER, f"--pwfile={password}",
                  "--no-sync", "-D", str(self._data))  # fmt: skip
        self.start()

    @property
    def _data(self) -> Path:
        return self._directory / "data"

    def _run(self, program: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self._programs / program), *arguments],
            user=self._user,
            cwd=self._directory,
            env={"PATH": os.environ["PATH"], "PGPASSWORD": PASSWORD},
            capture_output=True,
            text=True,
            timeout=120,
            check=check,
        )

    def start(self) -> None:
        """Serve, again if need be; answers when it does."""
        settings = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": "", "fsync": "off"}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self._process = subprocess.Popen(
            [str(self._programs / "postgres"), "-D", str(self._data), *options],
            user=self._user,
            cwd=self._directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + START_SECONDS
        while self._run("pg_isready", *self._place, check=False).returncode:
            if time.monotonic() > end or self._process.poll() is not None:
                self.close()
                raise AssertionError("postgres does not serve")
            time.sleep(0.1)

    @property
    def _place(self) -> Sequence[str]:
        return ("-h", "127.0.0.1", "-p", str(self.port), "-U", USER)

    def new_url(self) -> str:
        """The URL of a database that is empty."""
        self._databases += 1
        name = f"accounts{self._databases}"
        self._run("createdb", *self._place, name)
        return f"postgresql://{USER}:{URL_PASSWORD}@127.0.0.1:{self.port}/{name}"

    def stop(self) -> None:
        """Serve no more: every connection is closed at once."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """End it and remove what it kept."""
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)
