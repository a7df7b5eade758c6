"""OpenLDAP's server with some users, for the tests of directories."""

from __future__ import annotations

import datetime
import ipaddress
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from ldap3 import MODIFY_ADD, MODIFY_DELETE, MODIFY_REPLACE, SAFE_SYNC, Connection, Server

from ..system import find_program

SUFFIX = "dc=example,dc=org"
PEOPLE = f"ou=people,{SUFFIX}"
PHONES, REGISTRARS = f"cn=phones,{SUFFIX}", f"cn=registrars,{SUFFIX}"
READER, READER_PASSWORD = f"cn=reader,{SUFFIX}", "reader's secret"
ADMIN, ADMIN_PASSWORD = f"cn=admin,{SUFFIX}", "secret"
LOCK_OUT = 5
"""Wrong passwords after which an entry is locked."""
START_SECONDS = 30.0

_CONFIGURATION = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload ppolicy
pidfile {directory}/slapd.pid
TLSCertificateFile {directory}/server.pem
TLSCertificateKeyFile {directory}/server.key
security {security}
sizelimit size.soft=100 size.hard=100 size.pr=500 size.prtotal=unlimited
database mdb
maxsize 10485760
suffix "{SUFFIX}"
rootdn "{ADMIN}"
rootpw {ADMIN_PASSWORD}
directory {directory}/db
index objectClass,uid eq
overlay ppolicy
ppolicy_default "cn=policy,{SUFFIX}"
access to attrs=userPassword by anonymous auth by * none
access to * by users read by * none
"""


def dn_of(user: str) -> str:
    return f"uid={user},{PEOPLE}"


def make_ca(name: str = "Test CA") -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """Key and certificate of an authority for servers."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return key, _certificate(subject, key.public_key(), subject, key, ca=True)


def _certificate(
    subject: x509.Name, key: ec.EllipticCurvePublicKey, issuer: x509.Name, issuer_key: ec.EllipticCurvePrivateKey,
    ca: bool, hosts: Sequence[x509.GeneralName] = (),
) -> x509.Certificate:  # fmt: skip
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().issuer_name(issuer).subject_name(subject).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(days=1))
    builder = builder.not_valid_after(now + datetime.timedelta(days=1))
    builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


class Slapd:
    """A server on a port of 127.0.0.1, with the users alice, bob and carol; it serves when this is made.

    Passwords are ``NAME's password``; alice's number is +49301001, bob's +49301002. Who has no TLS may do nothing but
    ask for it, unless the server is made without.
    """

    def __init__(self, ca: tuple[ec.EllipticCurvePrivateKey, x509.Certificate] | None = None, tls: bool = True) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="p2psip-slapd-"))
        self.ca_key, self.ca_certificate = ca or make_ca()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"ldap://127.0.0.1:{self.port}"
        self.ca_file = self.directory / "ca.pem"
        self.ca_file.write_bytes(self.ca_certificate.public_bytes(Encoding.PEM))
        self._process: subprocess.Popen[bytes] | None = None
        self._write(tls)
        self.start()

    def _write(self, tls: bool) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "directory")])
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        certificate = _certificate(
            name, key.public_key(), self.ca_certificate.subject, self.ca_key, ca=False, hosts=[address]
        )
        (self.directory / "server.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (self.directory / "server.key").write_bytes(private)
        (self.directory / "db").mkdir()
        configuration = _CONFIGURATION.format(
            directory=self.directory, SUFFIX=SUFFIX, ADMIN=ADMIN, ADMIN_PASSWORD=ADMIN_PASSWORD,
            security="simple_bind=128" if tls else "ssf=0",
        )  # fmt: skip
        (self.directory / "slapd.conf").write_text(configuration)
        (self.directory / "users.ldif").write_text(_ldif())
        program = find_program("/usr/sbin/slapd")
        assert program is not None, "python -m tests.system installs it"
        self._program = program
        subprocess.run(
            [program, "-T", "add", "-q", "-f", str(self.directory / "slapd.conf"), "-l",
             str(self.directory / "users.ldif")],
            check=True, capture_output=True,
        )  # fmt: skip

    def start(self) -> None:
        """Serve, as before a `stop`."""
        log = open(self.directory / "log", "ab")  # noqa: SIM115
        with log:
            self._process = subprocess.Popen(
                [self._program, "-d", "256", "-f", str(self.directory / "slapd.conf"), "-h", f"{self.url}/"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if time.monotonic() > end or self._process.poll() is not None:
                    raise AssertionError(f"slapd does not serve:\n{self.log()}") from None
            time.sleep(0.05)

    def log(self) -> str:
        return (self.directory / "log").read_text("utf-8", "replace")

    def binds(self, user: str) -> int:
        """How often somebody has tried to be this user."""
        return sum("BIND" in line and dn_of(user) in line and "method" in line for line in self.log().splitlines())

    def stop(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """End it and remove what it kept."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    # -- what is in it -------------------------------------------------------------------------------

    def _administer(self, operation: str, *arguments: Any) -> None:
        # Administration goes without TLS where that is enough; else the rootdn binds after StartTLS.
        connection = Connection(Server("127.0.0.1", self.port), ADMIN, ADMIN_PASSWORD, client_strategy=SAFE_SYNC)
        connection.open()
        connection.start_tls()
        done = connection.bind()
        assert done[0], done[1]
        done, result, _, _ = getattr(connection, operation)(*arguments)
        assert done, result
        connection.unbind()

    def add(self, dn: str, classes: Sequence[str], **attributes: Any) -> None:
        """Make an entry."""
        self._administer("add", dn, list(classes), attributes)

    def add_user(self, user: str, rdn: str | None = None, **attributes: Any) -> None:
        """Make a user, with password and surname unless they are named."""
        values = {"uid": user, "cn": user, "sn": user, "userPassword": f"{user}'s password", **attributes}
        self.add(f"{rdn or f'uid={user}'},{PEOPLE}", ["inetOrgPerson"], **values)

    def replace(self, dn: str, **attributes: Any) -> None:
        """Set attributes; an empty list takes one away."""
        self._administer("modify", dn, {k: [(MODIFY_REPLACE, v)] for k, v in _lists(attributes).items()})

    def include(self, group: str, user: str) -> None:
        """Add a user to a group."""
        self._administer("modify", group, {"member": [(MODIFY_ADD, [dn_of(user)])]})

    def exclude(self, group: str, user: str) -> None:
        """Take a user out of a group."""
        self._administer("modify", group, {"member": [(MODIFY_DELETE, [dn_of(user)])]})

    def rename(self, dn: str, rdn: str) -> None:
        """Give an entry another name; its old value goes."""
        self._administer("modify_dn", dn, rdn)

    def delete(self, dn: str) -> None:
        """Remove an entry."""
        self._administer("delete", dn)


def _lists(attributes: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {name: value if isinstance(value, list) else [value] for name, value in attributes.items()}


def _ldif() -> str:
    blocks = [
        f"dn: {SUFFIX}\nobjectClass: dcObject\nobjectClass: organization\no: Example\ndc: example\n",
        f"dn: {PEOPLE}\nobjectClass: organizationalUnit\nou: people\n",
        f"dn: {READER}\nobjectClass: organizationalRole\nobjectClass: simpleSecurityObject\ncn: reader\n"
        f"userPassword: {READER_PASSWORD}\n",
        f"dn: cn=policy,{SUFFIX}\nobjectClass: device\nobjectClass: pwdPolicy\ncn: policy\n"
        f"pwdAttribute: userPassword\npwdLockout: TRUE\npwdMaxFailure: {LOCK_OUT}\n",
    ]
    for number, user in enumerate(("alice", "bob", "carol"), 1):
        telephone = f"telephoneNumber: +49 (0)30 100{number}\n" if user != "carol" else ""
        blocks.append(
            f"dn: {dn_of(user)}\nobjectClass: inetOrgPerson\nuid: {user}\ncn: {user.title()} Example\nsn: Example\n"
            f"userPassword: {user}'s password\n{telephone}"
        )
    members = "".join(f"member: {dn_of(user)}\n" for user in ("alice", "bob", "carol"))
    blocks.append(f"dn: {PHONES}\nobjectClass: groupOfNames\ncn: phones\n{members}")
    blocks.append(f"dn: {REGISTRARS}\nobjectClass: groupOfNames\ncn: registrars\nmember: {dn_of('bob')}\n")
    return "\n".join(blocks)
