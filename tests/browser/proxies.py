"""
nginx and HAProxy, with the configurations that the documentation shows.
"""

from __future__ import annotations

import os
import re
import socket
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from pathlib import Path

from attrs import define
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from .programs import ROOT, Program, Programs, find, until

SHOWN = ROOT / "examples/proxy"

ADDRESS = "127.0.0.2"
"""
From where the proxies connect.  The browser does from 127.0.0.1, so that the
two can be told apart.
"""


@define(eq=False)
class Certificate:
    """
    A certificate that signs itself, for all names that the tests use.

    @ivar fingerprint: tells the browser to accept this one and no other.
    """

    certificate: Path
    key: Path
    both: Path
    fingerprint: str

    @classmethod
    def make(cls, directory: Path) -> Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "site.test")])
        now = datetime.now(timezone.utc)
        hosts = x509.SubjectAlternativeName(
            [x509.DNSName("*.test"), x509.DNSName("*.site.test")]
        )
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(hosts, critical=False)
            .sign(key, hashes.SHA256())
        )
        encoded = certificate.public_bytes(serialization.Encoding.PEM)
        secret = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.DER,
            serialization.PublicFormat.SubjectPublicKeyInfo,
        )
        files = [directory / name for name in ("site.crt", "site.key", "site.pem")]
        contents = [encoded, secret, encoded + secret]
        for path, content in zip(files, contents, strict=True):
            path.write_bytes(content)
        return cls(*files, b64encode(sha256(public).digest()).decode())


@define
class Ports:
    """
    @ivar http: redirects to HTTPS, as the documentation advises.
    @ivar https: is how one reaches the application.
    @ivar plain: is how one reaches it without HTTPS, for what happens then.
    """

    http: int
    https: int
    plain: int

    @classmethod
    def free(cls) -> Ports:
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
        ports = [each.getsockname()[1] for each in sockets]
        for each in sockets:
            each.close()
        return cls(*ports)


@define(eq=False)
class Proxy:
    """
    A proxy that was started.
    """

    name: str
    program: Program
    ports: Ports

    def isListening(self) -> bool:
        """
        Wait until it listens, or has ended because another has one of its ports.
        """
        ports = (self.ports.http, self.ports.https, self.ports.plain)
        until(
            lambda: not self.program.isRunning or all(map(isOpen, ports)),
            f"{self.name} listens",
        )
        isRunning = self.program.isRunning
        assert isRunning or "in use" in self.program.said, self.program.said
        return isRunning

    def https(self, host: str, path: str = "/") -> str:
        return f"https://{host}:{self.ports.https}{path}"

    def plain(self, host: str, path: str = "/") -> str:
        return f"http://{host}:{self.ports.plain}{path}"


@define(eq=False)
class Proxies:
    """
    Starts proxies.
    """

    programs: Programs
    certificate: Certificate

    def start(self, name: str, application: int) -> Proxy:
        """
        Start nginx or HAProxy before the application at this port.
        """
        path = find(name)
        configure: Callable[[Ports, int, Path], list[str]] = getattr(self, f"_{name}")
        directory = self.programs.directory / f"{name}-{application}"
        directory.mkdir()
        # A port that was free may be taken before the proxy has it.
        for _ in range(5):
            ports = Ports.free()
            command = configure(ports, application, directory)
            proxy = Proxy(name, self.programs.start(path, *command), ports)
            if proxy.isListening():
                return proxy
        raise AssertionError(proxy.program.said)

    def _nginx(self, ports: Ports, application: int, directory: Path) -> list[str]:
        shown = (SHOWN / "nginx.conf").read_text("utf-8")
        [location] = re.findall(r"^    location / \{\n.*?^    \}\n", shown, re.M | re.S)
        site = replace(
            shown,
            ("127.0.0.1:8080", f"127.0.0.1:{application}"),
            ("listen 80;", f"listen 127.0.0.1:{ports.http};"),
            ("listen 443 ", f"listen 127.0.0.1:{ports.https} "),
            ("/etc/ssl/example.org.crt", str(self.certificate.certificate)),
            ("/etc/ssl/example.org.key", str(self.certificate.key)),
        )
        plain = f"server {{\nlisten 127.0.0.1:{ports.plain};\n{location}}}\n"
        # Else its workers are somebody who may not read in the directory.
        user = "user root;\n" if os.geteuid() == 0 else ""
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        places = "".join(f"{kind}_temp_path {directory / kind};\n" for kind in kinds)
        return self._write(
            directory / "nginx.conf",
            f"{user}daemon off;\npid {directory / 'pid'};\nerror_log stderr;\n"
            "worker_processes 1;\nevents {}\n"
            f"http {{\naccess_log off;\n{places}proxy_bind {ADDRESS};\n"
            f"{site}{plain}}}\n",
            ["-e", "stderr", "-p", str(directory), "-c"],
        )

    def _haproxy(self, ports: Ports, application: int, directory: Path) -> list[str]:
        site = replace(
            (SHOWN / "haproxy.cfg").read_text("utf-8"),
            ("127.0.0.1:8080", f"127.0.0.1:{application} source {ADDRESS}"),
            (
                "bind :80\n",
                f"bind 127.0.0.1:{ports.http}\n    bind 127.0.0.1:{ports.plain}\n",
            ),
            ("bind :443 ", f"bind 127.0.0.1:{ports.https} "),
            ("/etc/haproxy/example.org.pem", str(self.certificate.both)),
            ("{ ssl_fc }\n", f"{{ ssl_fc }} || {{ dst_port {ports.plain} }}\n"),
        )
        return self._write(directory / "haproxy.cfg", site, ["-f"])

    @staticmethod
    def _write(path: Path, content: str, arguments: list[str]) -> list[str]:
        path.write_text(content, "utf-8")
        return [*arguments, str(path)]


def replace(text: str, *pairs: tuple[str, str]) -> str:
    """
    The text with each first part, which is there once besides comments, replaced.
    """
    lines = [line for line in text.splitlines(keepends=True) if not isComment(line)]
    text = "".join(lines)
    for old, new in pairs:
        assert text.count(old) == 1, f"{old!r} in {text}"
        text = text.replace(old, new)
    return text


def isComment(line: str) -> bool:
    return line.lstrip().startswith("#")


def isOpen(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False
