"""Sees to the programs that the tests run: ``python -m tests.system``.

``system-packages.txt`` names them. What is missing is installed with apt-get by root, else named, with exit
status 1: a test never skips because a program is not there.
"""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

PACKAGE_LIST = Path(__file__).with_name("system-packages.txt")


def read_packages(text: str) -> dict[str, str]:
    """The Debian package of each program; ``#`` begins a comment."""
    packages = {}
    for line in text.splitlines():
        if words := line.partition("#")[0].split():
            program, package = words
            packages[program] = package
    return packages


def find_program(name: str) -> str | None:
    """Where a program is: on the search path, or by a pattern of whole paths the last that fits."""
    if not name.startswith("/"):
        return shutil.which(name)
    return max(glob.glob(name), default=None)


def missing_packages(
    packages: Mapping[str, str], which: Callable[[str], str | None] = find_program
) -> dict[str, str]:
    """Those of `packages` whose program is not there."""
    return {program: package for program, package in packages.items() if which(program) is None}


def install(packages: Mapping[str, str]) -> None:
    """Install what is missing of `packages`. Two tox environments may do this at once: one waits.

    Raises subprocess.CalledProcessError when apt-get fails.
    """
    lock = os.open(
        Path(tempfile.gettempdir(), "p2psip-tests-apt.lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600
    )
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        names = sorted(set(missing_packages(packages).values()))
        if names:
            # Without a frontend wireshark-common takes its default answer: no capture by other users.
            environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            options = ["-q", "-y", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"]
            subprocess.run(["apt-get", *options, "update"], env=environment, check=True)
            subprocess.run(
                ["apt-get", *options, "install", "--no-install-recommends", *names],
                env=environment,
                stdin=subprocess.DEVNULL,
                check=True,
            )
    finally:
        os.close(lock)


def main() -> str | None:
    """What is still missing, in one line for the user; None when all is there."""
    packages = read_packages(PACKAGE_LIST.read_text())
    if missing_packages(packages) and os.geteuid() == 0 and shutil.which("apt-get"):
        install(packages)
    missing = missing_packages(packages)
    if not missing:
        return None
    return "the tests need " + ", ".join(
        f"{program} (Debian package {package})" for program, package in sorted(missing.items())
    )


if __name__ == "__main__":
    sys.exit(main())
