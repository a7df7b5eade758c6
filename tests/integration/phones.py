"""Real phones for the integration tests: sipp for many at once, baresip for one that a person would use."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
import socket
import struct
import subprocess
import tempfile
import time
import wave
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

SCENARIOS = Path(__file__).parent / "sipp"
TONE = 440
"""Hertz, of what softphones play to each other."""
TONE_SECONDS = 60
"""How long they can: more than any call takes."""
MEDIA = 30000
"""The first port for media: sipp's default would be the same for all that run at once."""


class PhoneFailed(AssertionError):
    """A phone did not do what it should."""


def credentials(user: str, password: str) -> str:
    """The field that makes sipp answer a challenge."""
    return f"[authentication username={user} password={password}]"


class Sipp:
    """sipp at one address."""

    def __init__(self, address: str, directory: Path, prefix: Sequence[str] = ()) -> None:
        self.address = address
        self._prefix = prefix
        self._directory = directory
        self._number = 0

    def _command(self, scenario: str, transport: str, *options: str) -> tuple[list[str], Path]:
        self._number += 1
        folder = self._directory / f"sipp-{self.address.replace(':', '_')}-{self._number}"
        folder.mkdir()
        media = MEDIA + 4 * random.randrange(5000)
        command = [
            *self._prefix, "sipp", "-sf", str(SCENARIOS / f"{scenario}.xml"), "-i", self.address, "-t", transport,
            "-mp", str(media), "-nostdin", "-trace_err", "-error_file", str(folder / "errors"), *options,
        ]  # fmt: skip
        return command, folder

    def run(
        self,
        scenario: str,
        server: str,
        rows: Sequence[Sequence[str]],
        transport: str = "u1",
        rate: int = 100,
        seconds: int = 60,
        port: int = 5060,
    ) -> tuple[int, str]:
        """Run a scenario once for each of `rows` against `server`; the number of failures, and all messages."""
        command, folder = self._command(scenario, transport)
        table, messages = folder / "rows.csv", folder / "messages"
        table.write_text("SEQUENTIAL\n" + "".join(";".join(row) + "\n" for row in rows))
        count = str(len(rows))
        limits = ["-m", count, "-l", count, "-r", str(rate), "-timeout", str(seconds), "-timeout_error"]
        at = f"[{server}]:{port}" if ":" in server else f"{server}:{port}"
        command += [
            at, "-inf", str(table), *limits, "-max_socket", "2000", "-auth_uri", "example.org",
            "-trace_msg", "-message_file", str(messages),
            "-trace_stat", "-stf", str(folder / "statistics"), "-fd", "1",
        ]  # fmt: skip
        ended = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=seconds + 30, check=False
        )
        failures = self._failures(folder / "statistics", len(rows))
        if ended.returncode and not failures:
            errors = folder / "errors"
            text = errors.read_text("utf-8", "replace")[-2000:] if errors.exists() else ended.stderr[-2000:]
            raise PhoneFailed(f"sipp ended with {ended.returncode}: {text}")
        return failures, messages.read_text("utf-8", "replace") if messages.exists() else ""

    @staticmethod
    def _failures(statistics: Path, wanted: int) -> int:
        if not statistics.exists():
            return wanted
        lines = statistics.read_text().splitlines()
        last = dict(zip(lines[0].split(";"), lines[-1].split(";"), strict=False))
        return wanted - int(last["SuccessfulCall(C)"])

    def register(
        self,
        server: str,
        users: Iterable[tuple[str, str]],
        port: int,
        expires: int = 600,
        transport: str = "u1",
        rate: int = 100,
        server_port: int = 5060,
    ) -> int:
        """Register `users` (name and password), all with contacts at `port`; how many failed."""
        rows = [(name, credentials(name, password), str(port), str(expires)) for name, password in users]
        return self.run("register", server, rows, transport, rate, port=server_port)[0]

    def callee(self, port: int, calls: int, transport: str = "u1", seconds: int = 60) -> subprocess.Popen[bytes]:
        """A sipp that takes `calls` calls at `port`."""
        command, folder = self._command(
            "callee", transport, "-p", str(port), "-m", str(calls), "-timeout", str(seconds), "-timeout_error"
        )
        process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
        )
        await_listener(self.address, port, tcp=transport.startswith("t"))
        return process


def await_listener(address: str, port: int, tcp: bool, seconds: float = 10) -> None:
    """Wait until somebody listens at `address` and `port`."""
    kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
    end = time.monotonic() + seconds
    while True:
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind((address, port))
            except OSError:
                return
        if time.monotonic() > end:
            raise PhoneFailed(f"nobody listens at {address} port {port}")
        time.sleep(0.05)


def redirections(messages: str) -> list[tuple[str, str]]:
    """The callee and the contact's URI of each 302 in what sipp logged."""
    found = []
    for part in re.split(r"-{20,}[^\n]*\n", messages):
        if "SIP/2.0 302" in part:
            callee = re.search(r"^To:.*?sip:([^@>]+)@", part, re.M)
            contact = re.search(r"^Contact:\s*<([^>]+)>", part, re.M)
            if callee and contact:
                found.append((callee[1], contact[1]))
    return found


class Softphone:
    """One baresip, without sound card: it plays a tone, and is driven over its control port."""

    def __init__(
        self,
        address: str,
        user: str,
        password: str,
        server: str,
        transport: str,
        answers: bool,
        domain: str = "",
        authority: Path | None = None,
        rings: int = 60,
        prefix: Sequence[str] = (),
        connect: Callable[[tuple[str, int], float], socket.socket] = socket.create_connection,
    ) -> None:
        """With `domain`, `server` is its outbound proxy; without, it stands for the domain.

        `authority` is a PEM file with whom it believes over TLS; `rings` is how many seconds it rings at most.
        Its command line begins with `prefix`, such as ``ip netns exec NAME``; `connect` reaches its control port.
        """
        self.user = user
        self._from = 0
        outbound = f';outbound="sip:{server};transport={transport}"' if domain else ""
        self.directory = Path(tempfile.mkdtemp(prefix="p2psip-phone-"))
        self.address = address
        self._sip_port, self._control_port = 5060, 4444
        self._log = (self.directory / "log").open("wb")
        _tone(self.directory / "tone.wav")
        (self.directory / "config").write_text(
            _CONFIG.format(
                address=address,
                sip=self._sip_port,
                control=self._control_port,
                path=self.directory,
                transport=transport,
            )
            + (f"sip_cafile\t\t{authority}\n" if authority else "")
            + f"call_local_timeout\t{rings}\n"
        )
        (self.directory / "accounts").write_text(
            # Without "outbound" for a redirect server: it would send redirected calls there again.
            f"<sip:{user}@{domain or server};transport={transport}>;auth_user={user};auth_pass={password};regint=300"
            f"{outbound};"
            f"answermode={'auto' if answers else 'manual'};audio_codecs=PCMU\n"
        )
        (self.directory / "contacts").touch()
        self._process = subprocess.Popen(
            [*prefix, "baresip", "-4", "-s", "-f", str(self.directory)],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            cwd=self.directory,
        )
        self._connecting = connect
        self._control: socket.socket | None = None
        self._buffer = b""
        self.events: list[dict[str, Any]] = []

    def _connect(self) -> socket.socket:
        end = time.monotonic() + 10
        while self._control is None:
            try:
                self._control = self._connecting((self.address, self._control_port), 1)
            except OSError:
                if time.monotonic() > end or self._process.poll() is not None:
                    raise self.failed("does not run") from None
                time.sleep(0.1)
        return self._control

    def command(self, command: str, parameters: str = "") -> None:
        """Give a command such as ``dial``."""
        message = json.dumps({"command": command, "params": parameters, "token": "t"}).encode()
        self._connect().sendall(b"%d:%s," % (len(message), message))

    def wait_for(self, what: Callable[[dict[str, Any]], bool], text: str, seconds: float = 15) -> dict[str, Any]:
        """The next event for which `what` is true."""
        control = self._connect()
        end = time.monotonic() + seconds
        while True:
            while self.events:
                event = self.events.pop(0)
                if what(event):
                    return event
            left = end - time.monotonic()
            if left <= 0:
                raise self.failed(f"shows no {text}")
            control.settimeout(left)
            try:
                data = control.recv(65536)
            except TimeoutError:
                continue
            if not data:
                raise self.failed(f"ended before {text}")
            self._buffer += data
            self._read()

    def _read(self) -> None:
        while b":" in self._buffer:
            length, rest = self._buffer.split(b":", 1)
            size = int(length)
            if len(rest) < size + 1:
                return
            self.events.append(json.loads(rest[:size]))
            self._buffer = rest[size + 1 :]

    def log(self) -> str:
        """What it printed, the SIP messages included."""
        return (self.directory / "log").read_bytes()[self._from :].decode("utf-8", "replace")

    def forget(self) -> None:
        """Let `log` tell only what it prints from now on."""
        self._from = (self.directory / "log").stat().st_size

    def wait_registered(self, seconds: float = 15) -> None:
        """Wait until it says that it is registered."""
        self._connect()
        end = time.monotonic() + seconds
        while "200 OK" not in self.log():
            if time.monotonic() > end:
                raise self.failed("is not registered")
            time.sleep(0.1)

    def wait_event(self, kind: str, seconds: float = 15) -> dict[str, Any]:
        """The next event of type `kind`, such as CALL_ESTABLISHED."""
        return self.wait_for(lambda event: event.get("type") == kind, kind, seconds)

    def failed(self, what: str) -> PhoneFailed:
        """An error that shows the log's end."""
        return PhoneFailed(f"the softphone {what}:\n{self.log()[-3000:]}")

    def close(self) -> None:
        """End it and remove its files."""
        if self._control is not None:
            self._control.close()
        self._process.kill()
        self._process.wait()
        self._log.close()
        shutil.rmtree(self.directory, ignore_errors=True)


def hears_tone(phone: Softphone, seconds: float = 1.0) -> bool:
    """Whether what a softphone heard last is the tone that the others play, for so many seconds."""
    for path in phone.directory.glob("*dec.wav"):
        # Its header is written when the call is over: until then all behind it is sound.
        sound = path.read_bytes()[44:]
        samples = struct.unpack(f"<{len(sound) // 2}h", sound[: len(sound) // 2 * 2])[-int(8000 * seconds) :]
        if len(samples) >= 8000 * seconds and _part_at(TONE, samples) > 0.8:
            return True
    return False


def _part_at(frequency: float, samples: Sequence[int]) -> float:
    """The part of the energy that is at one frequency, by Goertzel's algorithm."""
    turn = 2 * math.cos(2 * math.pi * frequency / 8000)
    before, last = 0.0, 0.0
    for sample in samples:
        before, last = last, sample + turn * last - before
    energy = sum(sample * sample for sample in samples)
    power = last * last + before * before - turn * last * before
    return 2 * power / (len(samples) * energy) if energy else 0.0


def _tone(path: Path) -> None:
    with wave.open(str(path), "wb") as tone:
        tone.setnchannels(1)
        tone.setsampwidth(2)
        tone.setframerate(8000)
        second = b"".join(
            struct.pack("<h", int(8000 * math.sin(2 * math.pi * TONE * i / 8000))) for i in range(8000)
        )
        tone.writeframes(second * TONE_SECONDS)


_CONFIG = """\
sip_listen\t\t{address}:{sip}
sip_trans_def\t\t{transport}
call_max_calls\t\t4
audio_source\t\taufile,{path}/tone.wav
snd_path\t\t{path}
ausrc_srate\t\t8000
auplay_srate\t\t8000
rtp_ports\t\t10000-20000
net_interface\t\t{address}
module_path\t\t/usr/lib/baresip/modules
module\t\t\tg711.so
module\t\t\taufile.so
module\t\t\tsndfile.so
module\t\t\tctrl_tcp.so
module_tmp\t\tuuid.so
module_tmp\t\taccount.so
module_app\t\tmenu.so
ctrl_tcp_listen\t\t{address}:{control}
"""
