"""
Session IDs, and the signature that keeps a browser from making its own.

The format is that of the npm package C{cookie-signature}, which
express-session uses: the ID, a dot, and the HMAC-SHA256 of the ID's UTF-8 in
base64 without padding.  express-session puts C{s:} before it.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Sequence
from hashlib import sha256
from hmac import compare_digest
from secrets import token_urlsafe
from typing import Any, NamedTuple

from attrs import field, frozen

from .errors import ConfigurationError

__all__ = ["Fingerprint", "Signer", "Verified", "fingerprint", "generateID"]

PREFIX = b"s:"


def generateID() -> str:
    """
    A new session ID: 24 bytes from the operating system's CSPRNG, as 32
    characters of base64url.
    """
    return token_urlsafe(24)


def fingerprint(sid: str) -> str:
    """
    What stands for an ID in logs and messages: the first ten hexadecimal digits
    of its SHA-256.  It is the same in every process and cannot be turned back
    into an ID that was drawn at random.
    """
    return sha256(sid.encode("utf-8", "surrogatepass")).hexdigest()[:10]


class Fingerprint:
    """
    The fingerprint of an ID, made when somebody reads it, which of a debug event
    nobody may do.
    """

    __slots__ = ("_sid",)

    def __init__(self, sid: str) -> None:
        self._sid = sid

    def __str__(self) -> str:
        return fingerprint(self._sid)

    __repr__ = __str__


class Verified(NamedTuple):
    """
    An ID whose signature was right.

    @ivar sid: the ID.
    @ivar stale: whether an older secret than the newest had signed it.
    """

    sid: str
    stale: bool

    def __repr__(self) -> str:
        return f"Verified({fingerprint(self.sid)}, stale={self.stale})"


class _Keyed(NamedTuple):
    """
    A secret, ready to sign with: the two SHA-256 states that HMAC (RFC 2104)
    begins with.  To copy them costs a fraction of what C{hmac.digest} takes,
    which derives them from the secret for each signature.
    """

    inner: Any
    outer: Any

    @classmethod
    def of(cls, secret: bytes) -> _Keyed:
        key = sha256(secret).digest() if len(secret) > 64 else secret
        padded = key.ljust(64, b"\0")
        return cls(
            sha256(bytes(byte ^ 0x36 for byte in padded)),
            sha256(bytes(byte ^ 0x5C for byte in padded)),
        )


def _asKeyed(secret: object) -> tuple[_Keyed, ...]:
    return tuple(map(_Keyed.of, _asSecrets(secret)))


def _signature(keyed: _Keyed, sid: bytes) -> bytes:
    inner, outer = keyed
    inner = inner.copy()
    inner.update(sid)
    outer = outer.copy()
    outer.update(inner.digest())
    return b2a_base64(outer.digest(), newline=False).rstrip(b"=")


def _asSecrets(secret: object) -> tuple[bytes, ...]:
    if isinstance(secret, (str, bytes)):
        return (_asSecret(secret),)
    if secret is None:
        raise ConfigurationError(
            "is None; was the environment variable set that it comes from?",
            option="secret",
        )
    if not isinstance(secret, Sequence):
        raise ConfigurationError(
            f"must be str, bytes or a sequence of them, not {type(secret).__name__}",
            option="secret",
        )
    if not secret:
        raise ConfigurationError(
            "must contain at least one secret; "
            "`python -c 'import secrets; print(secrets.token_hex(32))'` makes one",
            option="secret",
        )
    return tuple(_asSecret(each) for each in secret)


def _asSecret(secret: object) -> bytes:
    if not isinstance(secret, (str, bytes)):
        raise ConfigurationError(
            f"each secret must be str or bytes, not {type(secret).__name__}",
            option="secret",
        )
    if not secret:
        raise ConfigurationError(
            "must not be empty; "
            "`python -c 'import secrets; print(secrets.token_hex(32))'` makes one",
            option="secret",
        )
    if isinstance(secret, bytes):
        return secret
    try:
        return secret.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ConfigurationError(
            "must be text that UTF-8 can encode", option="secret"
        ) from error


@frozen
class Signer:
    """
    Signs with the first of its secrets and verifies with all of them.
    """

    _secrets: tuple[_Keyed, ...] = field(converter=_asKeyed, repr=False)

    def sign(self, sid: str) -> bytes:
        """
        The signed form of an ID, as it goes into a cookie before percent
        encoding.
        """
        raw = sid.encode("utf-8")
        return PREFIX + raw + b"." + _signature(self._secrets[0], raw)

    def verify(self, signed: bytes) -> Verified | None:
        """
        The ID in a decoded cookie value, or L{None} if the value is unsigned,
        forged or malformed.
        """
        if not signed.startswith(PREFIX):
            return None
        raw, dot, signature = signed[2:].rpartition(b".")
        if not dot or not raw:
            return None
        for age, secret in enumerate(self._secrets):
            if compare_digest(_signature(secret, raw), signature):
                try:
                    return Verified(raw.decode("utf-8"), stale=age > 0)
                except UnicodeDecodeError:
                    return None
        return None
