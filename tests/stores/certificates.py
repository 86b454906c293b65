"""
Certificates for the tests of TLS.
"""

from __future__ import annotations

import datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet.ssl import DefaultOpenSSLContextFactory

ONE_DAY = datetime.timedelta(days=1)


class Authority:
    """
    A certificate authority.

    @ivar pem: its certificate.
    """

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named("the authority of a test")
        builder = _builder(self._name, self._key, self._name)
        authority = x509.BasicConstraints(ca=True, path_length=None)
        certificate = builder.add_extension(authority, critical=True).sign(
            self._key, hashes.SHA256()
        )
        self.pem = certificate.public_bytes(serialization.Encoding.PEM)

    def context(self, host: str, folder: Path) -> Any:
        """
        What a server needs that is to be taken for this host; a file of it is put
        in the folder.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([_alternative(host)])
        certificate = (
            _builder(_named(host), key, self._name)
            .add_extension(names, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ) + certificate.public_bytes(serialization.Encoding.PEM)
        file = folder / f"{host}.pem"
        file.write_bytes(pem)
        return DefaultOpenSSLContextFactory(str(file), str(file))


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(subject: x509.Name, key: Any, issuer: x509.Name) -> Any:
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - ONE_DAY)
        .not_valid_after(now + ONE_DAY)
    )
