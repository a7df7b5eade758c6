"""The options of ``twistd p2psip``, and what follows from them before anything is opened."""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path

from twisted.python import usage

from .gateway_options import GatewayOptions
from .hostport import parse_address

_OVERLAY = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*\Z"
)

_ACCOUNTS = re.compile(r"postgres(?:ql)?(?:\+\w+)?://|sqlite:////")


def default_state_directory(overlay: str) -> Path:
    """Where a node of `overlay` keeps its state unless told otherwise."""
    return state_root() / overlay


def state_root() -> Path:
    """The directory with one state directory for each overlay."""
    home = os.environ.get("XDG_STATE_HOME")
    if home:
        return Path(home) / "p2psip"
    if os.geteuid() == 0:
        return Path("/var/lib/p2psip")
    return Path.home() / ".local" / "state" / "p2psip"


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise ValueError(f"{text!r} is not a port (1 to 65535)")
    return int(text)


def _interval(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 5 and 2 <= int(text) <= 3600):
        raise ValueError(f"{text!r} is no interval (2 to 3600 seconds)")
    return int(text)


class NodeOptions(GatewayOptions):
    """One node of a P2PSIP overlay."""

    synopsis = "[options]"
    longdesc = (
        "Run one node of a P2PSIP overlay (RFC 6940, RFC 7904). The first node of a name founds the overlay; others "
        "join with a token from `p2psip invite`; a node that was in an overlay rejoins it."
    )

    optParameters = [
        ["overlay", "o", None, "Name of the overlay, a domain name such as example.org (required)."],
        ["state", None, None, "State directory [default: $XDG_STATE_HOME/p2psip/NAME; for root without it "
                              "/var/lib/p2psip/NAME]."],
        ["reload-port", None, 6084, "Port of the overlay links (UDP; without ICE TCP as well).", _port],
        ["sip-port", None, 5060, "Port of the SIP server (UDP and TCP).", _port],
        ["sips-port", None, 5061, "Port of the SIP server over TLS.", _port],
        ["web-certificate", None, None, "File (PEM) with the certificate chain and key that browsers see at "
                                        "--web-port; at --enrollment-port they see the overlay's."],
        ["web-port", None, 8444, "Port of the users' page (HTTPS) with --web-certificate.", _port],
        ["sip-certificate", None, None, "File (PEM) with the certificate chain and key that the SIP server shows over "
                                        "TLS; read again when it changes [default: one of the overlay's authority]."],
        ["name-server", None, None, "Ask this name server, ADDRESS or ADDRESS:PORT, for the SIP servers of other "
                                    "domains [default: those of this machine]."],
        ["enrollment-port", None, 8443, "Port of the enrollment server (HTTPS), where this node holds the "
                                        "authority.", _port],
        ["join", None, None, "Join with this token, made by `p2psip invite` on a node that holds the authority."],
        ["join-file", None, None, "Join with the token in this file; - reads standard input."],
        ["config", None, None, "Configuration document, a file or https URL, to enroll with --account; where it "
                               "permits self-signed certificates, to join by."],
        ["account", None, None, "Account to enroll with; user name of a node with a self-signed certificate "
                                "[default: one made of its Node-ID]."],
        ["password-file", None, None, "File with the account's password; - reads standard input."],
        ["accounts", None, None, "SQLAlchemy URL of the database in which the node that holds the authority keeps "
                                 "the accounts: postgresql://USER@HOST/DATABASE [default: where they are; at first "
                                 "a file]."],
        ["revocation-interval", None, 60, "Seconds until a phone is refused whose device, account or entry in the "
                                          "directory is gone (2 to 3600); the same at all nodes.", _interval],
        ["turn-server", None, None, "Address and port of a TURN server beside this node, for nodes behind NATs."],
        ["turn-secret-file", None, None, "File with the secret that the TURN server makes passwords of."],
        ["sip-mode", None, "proxy", "What the SIP server does with phones' calls: proxy (passes them on) or "
                                      "redirect (says where to call)."],
        ["key-type", None, "ec", "Key and signatures of a new overlay, or of a node with a self-signed "
                                 "certificate: ec (P-256) or rsa (2048)."],
        ["node-id-digest", None, "sha256", "With --self-signed, what makes Node-IDs of keys: sha256 or sha1."],
    ]  # fmt: skip

    optFlags = [
        ["self-signed", None, "Found an overlay without an authority: each node certifies itself. Others join by "
                              "--config, with a copy of overlay.xml out of the state directory."],
        ["no-ice", None, "Found an overlay for a network without NATs: links over TLS or DTLS, without ICE."],
        ["no-create", None, "Never found an overlay: start only where there is one to join."],
        ["no-discovery", None, "Do not look for the overlay in the DNS."],
        ["lan", None, "Look for the overlay and its peers on the LAN, and be found there (DNS-SD over multicast DNS)."],
        ["client", None, "Join as a client: use the overlay without storing or forwarding for it."],
        ["no-sip", None, "Run no SIP server."],
        ["open", None, "Redirect calls for anybody, without asking who calls."],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["bind"] = []
        self["advertise"] = []
        self["link-protocol"] = []
        self["rtpengine"] = []

    def opt_bind(self, address: str) -> None:
        """Address to listen on, IPv4 or IPv6; may be repeated. [default: all]"""
        self["bind"].append(_address(address, "--bind"))

    def opt_advertise(self, address: str) -> None:
        """Address that others reach this node at; may be repeated. [default: the bound addresses, or those of
        the interfaces that are not loopback]"""
        self["advertise"].append(_address(address, "--advertise"))

    def opt_link_protocol(self, name: str) -> None:
        """Speak this link protocol, such as DTLS-UDP-SR-NO-ICE; may be repeated. [default: all that are installed and
        fit the overlay]"""
        self["link-protocol"].append(name.upper())

    def opt_rtpengine(self, text: str) -> None:
        """Address and port of the ng protocol of an rtpengine, which relays the media of phones behind NATs that do no
        ICE; may be repeated: calls are spread over all that answer. Whoever reaches that port commands the relay."""
        self["rtpengine"].append(_address_and_port(text, "--rtpengine", 2223))

    def postOptions(self) -> None:
        """Check what can be checked before anything runs."""
        overlay = (self["overlay"] or "").rstrip(".").lower()
        if not overlay:
            raise usage.UsageError("--overlay is missing: name the overlay, such as --overlay example.org")
        if not _OVERLAY.match(overlay):
            raise usage.UsageError(f"--overlay {self['overlay']!r} is not a domain name")
        self["overlay"] = overlay
        self["state"] = Path(self["state"] or default_state_directory(overlay))
        if self["sip-mode"] not in ("proxy", "redirect"):
            raise usage.UsageError(f"--sip-mode {self['sip-mode']!r}: choose proxy or redirect")
        if self["key-type"] not in ("ec", "rsa"):
            raise usage.UsageError(f"--key-type {self['key-type']!r}: choose ec or rsa")
        if self["node-id-digest"] not in ("sha256", "sha1"):
            raise usage.UsageError(f"--node-id-digest {self['node-id-digest']!r}: choose sha256 or sha1")
        given = [o for o in ("self-signed", "join", "join-file", "config") if self[o]]
        if len(given) > 1:
            raise usage.UsageError(f"--{given[0]} and --{given[1]} exclude each other")
        certifies_itself = self["self-signed"] or self["config"]
        if bool(self["account"]) != bool(self["password-file"]) and (self["password-file"] or not certifies_itself):
            raise usage.UsageError("--account and --password-file go together")
        if self["self-signed"] and self["password-file"]:
            raise usage.UsageError("--self-signed and --password-file exclude each other")
        if self["accounts"]:
            if not _ACCOUNTS.match(self["accounts"]):
                # What was given is not shown: it may hold a password.
                raise usage.UsageError("--accounts: write postgresql://USER@HOST/DATABASE or sqlite:////PATH")
            if self["self-signed"]:
                raise usage.UsageError("--self-signed and --accounts exclude each other")
        self._check_turn()
        if self["rtpengine"] and self["no-sip"]:
            raise usage.UsageError("--rtpengine and --no-sip exclude each other")
        if self["name-server"]:
            self["name-server"] = _place(self["name-server"], "--name-server", 53)
        self.check_gateway(overlay)

    def _check_turn(self) -> None:
        if bool(self["turn-server"]) != bool(self["turn-secret-file"]):
            raise usage.UsageError("--turn-server and --turn-secret-file go together")
        if not self["turn-server"]:
            return
        if self["client"]:
            raise usage.UsageError("--turn-server: a --client offers nothing to others")
        self["turn-server"] = _address_and_port(self["turn-server"], "--turn-server", 3478)


def _place(text: str, option: str, port: int) -> tuple[str, int]:
    """An address, and a port where there is one."""
    place = parse_address(text) if text.count(":") == 1 or (text[:1] == "[" and text[-1:] != "]") else (text, port)
    if place is None or not 1 <= place[1] <= 65535:
        raise usage.UsageError(f"{option} {text!r}: it is ADDRESS or ADDRESS:PORT")
    return _address(place[0], option), place[1]


def _address_and_port(text: str, option: str, usual: int) -> tuple[str, int]:
    place = parse_address(text)
    if place is None or "%" in place[0] or not 1 <= place[1] <= 65535:
        raise usage.UsageError(f"{option} {text!r}: it is ADDRESS:PORT, such as 192.0.2.1:{usual}")
    return _address(place[0], option), place[1]


def _address(text: str, option: str) -> str:
    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        raise usage.UsageError(f"{option} {text!r} is not an IP address") from None
