"""
The session cookie on the wire: its options, the C{Cookie} header in, the
C{Set-Cookie} header out.

The rules are those of RFC 6265 and of its revision (draft-ietf-httpbis-
rfc6265bis), which calls the name prefixes, C{SameSite} and the limits on
length; C{Priority} and C{Partitioned} (CHIPS) are what browsers made of them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any, Literal, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from attrs import field, frozen

from .errors import ConfigurationError
from .lifetime import Duration, asSeconds

__all__ = [
    "CookieFlags",
    "CookieOptions",
    "attributes",
    "checkName",
    "expired",
    "httpDate",
    "isPathMatch",
    "pair",
    "readCookies",
    "uriPath",
]

MAX_CANDIDATES = 8
"""
How many cookies of the session's name are tried in one request.
"""

MAX_PAIR = 4096
"""
The most bytes that browsers keep of a cookie's name and value (RFC 6265 6.1,
RFC 6265bis 5.6).
"""

MAX_ATTRIBUTE = 1024
"""
The most bytes that browsers read of one attribute (RFC 6265bis 5.6).
"""

EARLIEST = datetime(1601, 1, 1, tzinfo=timezone.utc).timestamp()
LATEST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone.utc).timestamp()
"""
The dates that C{Expires} can say (RFC 6265 5.1.1); others are moved to these.
"""

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_DOMAIN = re.compile(
    r"\.?[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*",
    re.IGNORECASE,
)
_PATH = re.compile(r"/[ -:<-~]*")

SameSite = Literal[False, "lax", "strict", "none", "auto"]
Priority = Literal["low", "medium", "high"]


def _asMaxAge(maxAge: Duration | None) -> float | None:
    return None if maxAge is None else asSeconds(maxAge, "cookie.maxAge")


def _asSameSite(sameSite: object) -> object:
    if sameSite is None:
        return False
    if sameSite is True:
        return "strict"
    return sameSite.lower() if isinstance(sameSite, str) else sameSite


def _asPriority(priority: object) -> object:
    return priority.lower() if isinstance(priority, str) else priority


@frozen(kw_only=True, cache_hash=True)
class CookieOptions:
    """
    What the session cookie looks like.  Checks itself when it is built.

    @ivar path: the cookie is sent for this path and those below it, and only
        they have a session (RFC 6265 5.1.4).
    @ivar domain: L{None} for the host of the request alone.
    @ivar maxAge: seconds (or a C{timedelta}) that the session lives after its
        last save or touch; L{None} for a cookie that ends with the browser.
    @ivar expires: an aware C{datetime} in place of C{maxAge}, at which new
        sessions end.
    @ivar httpOnly: whether scripts are kept from reading it.
    @ivar secure: whether it is only sent over HTTPS; C{"auto"} where the
        request itself was secure.
    @ivar sameSite: L{False} or L{None} for no such attribute, L{True} for
        strict, C{"lax"}, C{"strict"}, C{"none"}, or C{"auto"}: none where the
        cookie is Secure, else lax.
    @ivar priority: L{None}, C{"low"}, C{"medium"} or C{"high"}.
    @ivar partitioned: whether it is kept apart for each top-level site.

    @raise ConfigurationError: a value is wrong, or two do not go together.
    """

    path: str = "/"
    domain: str | None = None
    maxAge: float | None = field(default=None, converter=_asMaxAge)
    expires: datetime | None = None
    httpOnly: bool = True
    secure: bool | Literal["auto"] = "auto"
    sameSite: Any = field(default="lax", converter=_asSameSite)
    priority: Any = field(default=None, converter=_asPriority)
    partitioned: bool = False

    def __attrs_post_init__(self) -> None:
        _checkPath(self.path)
        _checkDomain(self.domain)
        _checkExpires(self.expires)
        _checkChoice("httpOnly", self.httpOnly, (True, False))
        _checkChoice("secure", self.secure, (True, False, "auto"))
        _checkChoice(
            "sameSite", self.sameSite, (False, "lax", "strict", "none", "auto")
        )
        _checkChoice("priority", self.priority, (None, "low", "medium", "high"))
        _checkChoice("partitioned", self.partitioned, (True, False))
        if self.maxAge is not None and self.expires is not None:
            raise ConfigurationError(
                "give maxAge or expires, not both", option="cookie.expires"
            )
        if self.secure is False and self.sameSite == "none":
            raise ConfigurationError(
                "browsers refuse SameSite=None without Secure; "
                'set secure=True or "auto", or another sameSite',
                option="cookie.sameSite",
            )
        if self.secure is False and self.partitioned:
            raise ConfigurationError(
                "browsers refuse Partitioned without Secure; "
                'set secure=True or "auto", or partitioned=False',
                option="cookie.partitioned",
            )

    def flags(self, isSecure: bool) -> CookieFlags:
        """
        What C{"auto"} comes to in a response to a request that is secure or
        not.
        """
        return _flags(self, isSecure)


class CookieFlags(NamedTuple):
    """
    The attributes of a cookie that depend on the request.

    @ivar weakened: whether C{SameSite=None} or C{Partitioned} had to be left
        out, because the request is not secure.
    """

    secure: bool
    sameSite: Literal[False, "lax", "strict", "none"]
    partitioned: bool
    weakened: bool


@lru_cache(maxsize=128)
def _flags(options: CookieOptions, isSecure: bool) -> CookieFlags:
    secure = isSecure if options.secure == "auto" else options.secure
    sameSite = options.sameSite
    if sameSite == "auto":
        sameSite = "none" if secure else "lax"
    weakened = not secure and (sameSite == "none" or options.partitioned)
    if not secure and sameSite == "none":
        sameSite = "lax"
    return CookieFlags(secure, sameSite, options.partitioned and secure, weakened)


def _checkChoice(option: str, value: object, choices: Sequence[object]) -> None:
    if not any(
        value is choice or (isinstance(choice, str) and value == choice)
        for choice in choices
    ):
        raise ConfigurationError(
            f"must be one of {', '.join(map(repr, choices))}, not {value!r}",
            option=f"cookie.{option}",
        )


def _checkPath(path: object) -> None:
    if not isinstance(path, str) or not _PATH.fullmatch(path):
        raise ConfigurationError(
            f"must start with a slash and hold printable ASCII without a "
            f"semicolon (percent-encode the rest), not {path!r}",
            option="cookie.path",
        )
    _checkLength("path", path)


def _checkDomain(domain: object) -> None:
    if domain is None:
        return
    if not isinstance(domain, str) or not _DOMAIN.fullmatch(domain):
        raise ConfigurationError(
            f"must be a host name in ASCII (punycode for others), "
            f"without a port, not {domain!r}",
            option="cookie.domain",
        )
    _checkLength("domain", domain)


def _checkLength(option: str, value: str) -> None:
    if len(value) > MAX_ATTRIBUTE:
        raise ConfigurationError(
            f"is {len(value)} bytes long, and browsers ignore more "
            f"than {MAX_ATTRIBUTE}",
            option=f"cookie.{option}",
        )


def _checkExpires(expires: object) -> None:
    if expires is None:
        return
    if not isinstance(expires, datetime):
        raise ConfigurationError(
            f"must be an aware datetime, not {expires!r}", option="cookie.expires"
        )
    if expires.tzinfo is None or expires.utcoffset() is None:
        raise ConfigurationError(
            "must have a time zone, as in datetime.now(timezone.utc)",
            option="cookie.expires",
        )


def checkName(name: object, options: CookieOptions) -> None:
    """
    Check that a cookie of this name and these options is one that browsers
    take (RFC 6265 4.1.1; the prefixes: RFC 6265bis 4.1.3).

    @raise ConfigurationError: it is not.
    """
    if not isinstance(name, str) or not _TOKEN.fullmatch(name):
        raise ConfigurationError(
            f"must be an RFC 6265 token (letters, digits and !#$%&'*+-.^_`|~), "
            f"not {name!r}",
            option="name",
        )
    if len(name) > MAX_PAIR - 128:
        raise ConfigurationError(
            f"is {len(name)} bytes long; with its value the cookie would have "
            f"more than the {MAX_PAIR} bytes that browsers keep",
            option="name",
        )
    prefix = name.lower()
    if prefix.startswith(("__host-", "__secure-")) and options.secure is not True:
        raise ConfigurationError(
            f"{name!r} needs cookie=CookieOptions(secure=True)", option="name"
        )
    if prefix.startswith("__host-") and (options.path != "/" or options.domain):
        raise ConfigurationError(
            f'{name!r} needs a cookie with path="/" and no domain', option="name"
        )


def readCookies(headers: Sequence[bytes], name: bytes) -> list[bytes]:
    """
    The values of the cookies called C{name} in the C{Cookie} headers of a
    request, in order, decoded from quotes and percent encoding; of the first
    eight of them.
    """
    pattern = _pairsOf(name)
    values = [value for header in headers for value in pattern.findall(header)]
    return [_decoded(value.rstrip(b" \t")) for value in values[:MAX_CANDIDATES]]


@lru_cache(maxsize=16)
def _pairsOf(name: bytes) -> re.Pattern[bytes]:
    """
    What finds the values of the cookies of a name.
    """
    return re.compile(
        rb"(?:^|;)[ \t]*" + re.escape(name) + rb"[ \t]*=[ \t]*([^;]*)", re.DOTALL
    )


def _decoded(value: bytes) -> bytes:
    if len(value) >= 2 and value.startswith(b'"') and value.endswith(b'"'):
        value = value[1:-1]
    if b"%" not in value:
        return value
    # Of the cookies that we send, nearly all hold no other escapes than these.
    plain = value.replace(b"%3A", b":").replace(b"%2B", b"+").replace(b"%2F", b"/")
    return unquote_to_bytes(value) if b"%" in plain else plain


def uriPath(path: bytes) -> bytes:
    """
    The path of a request target, undecoded: C{request.path} itself, but for the
    absolute form (RFC 9112 3.2.2), of which Twisted leaves scheme and host in.
    """
    if path.startswith(b"/"):
        return path
    _scheme, separator, rest = path.partition(b"://")
    if not separator:
        return b"/"
    _authority, slash, rest = rest.partition(b"/")
    return slash + rest or b"/"


def isPathMatch(path: bytes, cookiePath: bytes) -> bool:
    """
    Whether a cookie of C{cookiePath} belongs to a request for C{path} (RFC 6265
    5.1.4).
    """
    return path.startswith(cookiePath) and (
        len(path) == len(cookiePath)
        or cookiePath.endswith(b"/")
        or path[len(cookiePath)] == 0x2F
    )


def pair(name: str, signed: bytes) -> str:
    """
    The name and the percent-encoded value, as JavaScript's
    C{encodeURIComponent} would write it.

    @raise ConfigurationError: they are too long for browsers.
    """
    encoded = f"{name}={_encoded(signed)}"
    if len(encoded) > MAX_PAIR:
        raise ConfigurationError(
            f"the cookie would have {len(encoded)} bytes, and browsers keep no "
            f"more than {MAX_PAIR}; return a shorter ID",
            option="genid",
        )
    return encoded


_ORDINARY = re.compile(rb"[A-Za-z0-9_.\-:+/]*")


def _encoded(value: bytes) -> str:
    if not _ORDINARY.fullmatch(value):
        return quote(value, safe="!*()'")
    escaped = value.replace(b":", b"%3A").replace(b"+", b"%2B").replace(b"/", b"%2F")
    return escaped.decode("ascii")


def attributes(
    options: CookieOptions, flags: CookieFlags, expires: float | None, now: float
) -> str:
    """
    The attributes of a C{Set-Cookie}, from the first semicolon on.

    C{Expires} and C{Max-Age} come both or not at all: with both, a client whose
    clock is wrong does no harm (RFC 6265 5.3: C{Max-Age} wins).
    """
    static = _staticAttributes(options, flags)
    if expires is None:
        return static
    maxAge = max(0, int(min(expires, LATEST) - now + 0.0005))
    return f"; Max-Age={maxAge}; Expires={httpDate(expires)}{static}"


def expired(name: str, options: CookieOptions, flags: CookieFlags) -> str:
    """
    The C{Set-Cookie} that makes a browser forget the cookie.
    """
    return f"{name}=; Max-Age=0; Expires={httpDate(0)}" + _staticAttributes(
        options, flags
    )


@lru_cache(maxsize=128)
def _staticAttributes(options: CookieOptions, flags: CookieFlags) -> str:
    parts = [f"; Path={options.path}"]
    if options.domain:
        parts.append(f"; Domain={options.domain}")
    if options.httpOnly:
        parts.append("; HttpOnly")
    if flags.secure:
        parts.append("; Secure")
    if flags.partitioned:
        parts.append("; Partitioned")
    if options.priority:
        parts.append(f"; Priority={options.priority.capitalize()}")
    if flags.sameSite:
        parts.append(f"; SameSite={flags.sameSite.capitalize()}")
    return "".join(parts)


def httpDate(timestamp: float) -> str:
    """
    A timestamp as an IMF-fixdate (RFC 9110 5.6.7), rounded down to the second
    and moved into the years that C{Expires} can say.
    """
    return _httpDate(int(min(max(timestamp, EARLIEST), LATEST) // 1))


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = (
    "Jan",
    "Feb",
    "Mar",
    "Apr",
    "May",
    "Jun",
    "Jul",
    "Aug",
    "Sep",
    "Oct",
    "Nov",
    "Dec",
)


@lru_cache(maxsize=256)
def _httpDate(seconds: int) -> str:
    year, month, day, hour, minute, second, weekday = time.gmtime(seconds)[:7]
    return (
        f"{_DAYS[weekday]}, {day:02} {_MONTHS[month - 1]} {year:04} "
        f"{hour:02}:{minute:02}:{second:02} GMT"
    )
