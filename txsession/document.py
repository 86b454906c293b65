"""
The JSON document that a session is stored as: express-session's.

It is UTF-8 without spaces.  The key C{cookie} comes first and describes the
cookie, with its times in milliseconds; then, where C{absoluteTimeout} is in
use, C{__txsession}, which holds the time of creation; then the application's
data::

    {"cookie":{"originalMaxAge":null,"expires":null,...},"user":"ada"}

Nothing is coerced on the way in: what would come back from JSON as something
else is refused, with its path.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from functools import lru_cache
from math import isfinite
from typing import Any, NamedTuple

from .cookies import EARLIEST, LATEST, CookieFlags, CookieOptions
from .errors import CorruptRecord, SessionDataError

__all__ = [
    "COOKIE",
    "MAX_DEPTH",
    "RESERVED",
    "TOMBSTONE",
    "Document",
    "checkKey",
    "checkValue",
    "compose",
    "decode",
    "encodeData",
    "isSecureIn",
    "maxAgeOf",
    "serialise",
]

COOKIE = "cookie"
META = "__txsession"
RESERVED = frozenset({COOKIE, META})
"""
The top-level keys that are not the application's.
"""

TOMBSTONE = (
    b'{"cookie":{"originalMaxAge":null,"expires":null},"__txsession":{"moved":true}}'
)
"""
What stands for a moment in place of a session that is given another ID.  To us
it is as absent; to express-session, a session without data.
"""

MAX_DEPTH = 200
"""
How deep arrays and objects may nest in a session's data.
"""


def _refuseConstant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_decoder = json.JSONDecoder(parse_constant=_refuseConstant)
_encoder = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, separators=(",", ":")
)


def _encodeFast() -> Callable[[Any], str]:
    """
    What C{_encoder.encode} does, without making an encoder in C for each call,
    which takes as long as encoding a session.
    """
    probe = {"a": [1, 1.5, None, True, "\xe9\u2028"]}
    try:
        encode = json.encoder.c_make_encoder(  # type: ignore[attr-defined]
            None,
            None,
            json.encoder.c_encode_basestring,  # type: ignore[attr-defined]
            None,
            ":",
            ",",
            False,
            False,
            True,
        )
        isAlike = "".join(encode(probe, 0)) == _encoder.encode(probe)
    except (AttributeError, TypeError):  # pragma: no cover - no such C encoder
        isAlike = False
    if not isAlike:  # pragma: no cover - no such C encoder
        return _encoder.encode
    return lambda value: "".join(encode(value, 0))


_encode = _encodeFast()


class Document(NamedTuple):
    """
    A stored session, taken apart.

    @ivar maxAge: the cookie's C{originalMaxAge} in seconds, or L{None}.
    @ivar created: when the session was created, or L{None} if that is not
        known.
    @ivar meta: what stands under the reserved key, or L{None}.
    @ivar data: the application's data.
    """

    maxAge: float | None
    created: float | None
    meta: dict[str, Any] | None
    data: dict[str, Any]


def decode(payload: bytes) -> Document:
    """
    Take a stored document apart.

    @raise CorruptRecord: it is not a JSON object that has an object under
        C{cookie}.
    """
    try:
        text = payload.decode("utf-8")
        # What express-session and we write has no white space to be skipped.
        if text[:1] == "{" and text[-1:] == "}":
            document, end = _decoder.raw_decode(text)
        else:
            document, end = _decoder.decode(text), len(text)
        if end != len(text):
            raise ValueError("there is more behind the document")
    except (ValueError, RecursionError) as error:
        raise CorruptRecord("the stored record is not JSON") from error
    if not isinstance(document, dict):
        raise CorruptRecord("the stored record is not a JSON object")
    cookie = document.pop(COOKIE, None)
    if not isinstance(cookie, dict):
        raise CorruptRecord('the stored record has no "cookie" object')
    meta = document.pop(META, None)
    if not isinstance(meta, dict):
        meta = None
    created = None if meta is None else _asTimestamp(meta.get("created"))
    return Document(_asTimestamp(cookie.get("originalMaxAge")), created, meta, document)


def _asTimestamp(milliseconds: object) -> float | None:
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, (int, float)):
        return None
    try:
        seconds = milliseconds / 1000
    except OverflowError:
        return None
    return seconds if isfinite(seconds) else None


_LEADING_MAX_AGE = re.compile(rb'\{"cookie":\{"originalMaxAge":(null|[0-9]{1,15})[,}]')


def maxAgeOf(payload: bytes) -> float | None:
    """
    The C{originalMaxAge} of a stored document in seconds, or L{None}; without
    decoding it, where it begins as express-session's and our own do.

    @raise CorruptRecord: the document had to be decoded, and is corrupt.
    """
    match = _LEADING_MAX_AGE.match(payload)
    if match is None:
        return decode(payload).maxAge
    digits = match[1]
    return None if digits == b"null" else int(digits) / 1000


def isSecureIn(payload: bytes) -> bool:
    """
    Whether the cookie was Secure when a document was last saved.

    @raise CorruptRecord: it is no document.
    """
    decode(payload)
    cookie = _decoder.decode(payload.decode("utf-8"))[COOKIE]
    return cookie.get("secure") is True


def compose(
    data: bytes,
    *,
    maxAge: float | None,
    expires: float | None,
    options: CookieOptions,
    flags: CookieFlags,
    meta: dict[str, Any] | None = None,
    created: float | None = None,
) -> bytes:
    """
    Put a document together.

    @param data: the application's data, as `encodeData` gives it.
    @param maxAge: the cookie's C{originalMaxAge} in seconds.
    @param expires: when the cookie expires.
    @param meta: what stood under the reserved key when it was loaded.
    @param created: the time of creation to be written under the reserved key.
    """
    milliseconds = "null" if maxAge is None else f"{_asMilliseconds(maxAge)}"
    date = "null" if expires is None else f'"{isoDate(expires)}"'
    head = (
        f'{{"cookie":{{"originalMaxAge":{milliseconds},"expires":{date},'
        f"{_staticMembers(options, flags)}}}"
    )
    if created is not None:
        meta = {**(meta or {}), "created": _asMilliseconds(created)}
    if meta is not None:
        head += f',"{META}":{_encoder.encode(meta)}'
    head += "}" if data == b"{}" else ","
    return _asBytes(head) + (b"" if data == b"{}" else data[1:])


def _asMilliseconds(seconds: float) -> int:
    # Only what has no fraction any more can be too large for a product of floats.
    return round(seconds * 1000) if abs(seconds) < 2**53 else int(seconds) * 1000


@lru_cache(maxsize=128)
def _staticMembers(options: CookieOptions, flags: CookieFlags) -> str:
    members: dict[str, object] = {}
    if flags.partitioned:
        members["partitioned"] = True
    if options.priority:
        members["priority"] = options.priority
    members["secure"] = flags.secure
    members["httpOnly"] = options.httpOnly
    if options.domain:
        members["domain"] = options.domain
    members["path"] = options.path
    members["sameSite"] = flags.sameSite
    return _encoder.encode(members)[1:-1]


def isoDate(timestamp: float) -> str:
    """
    A timestamp as JavaScript's C{Date.prototype.toISOString} writes it.
    """
    milliseconds = round(min(max(timestamp, EARLIEST), LATEST) * 1000)
    return f"{_isoSecond(milliseconds // 1000)}.{milliseconds % 1000:03}Z"


@lru_cache(maxsize=256)
def _isoSecond(seconds: int) -> str:
    year, *rest = time.gmtime(seconds)[:6]
    return "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}".format(year, *rest)


def _asBytes(text: str) -> bytes:
    # A lone surrogate, which JavaScript strings can hold, has no UTF-8; as
    # \udXXX it is still JSON, and what this error handler writes is just that.
    return text.encode("utf-8", "backslashreplace")


def serialise(data: dict[str, Any]) -> bytes:
    """
    The canonical form of data that is known to be JSON, for comparison.
    """
    return _asBytes(_encode(data))


def encodeData(data: dict[str, Any]) -> bytes:
    """
    The canonical form of the application's data.

    @raise SessionDataError: JSON cannot hold some of it, or could only hold it
        as something else.
    """
    for key, value in data.items():
        if type(key) is not str or key in RESERVED:
            checkKey(key)
        if type(value) not in _SCALARS:
            checkValue(value, f"session[{key!r}]")
    try:
        text = _encode(data)
    except ValueError as error:
        # The one value that is JSON and that Python does not write.
        raise SessionDataError(
            _pathOf(data, _isTooLong) or "session",
            "is an integer with too many digits; store a str",
        ) from error
    except RecursionError as error:  # pragma: no cover - depends on the caller's depth
        raise SessionDataError("session", "is nested too deep") from error
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        split = _pathOf(data, _isSplit)
        if split is not None:
            raise SessionDataError(
                split,
                "has one character written as a pair of surrogates, which JSON "
                "gives back as one; join them",
            ) from None
        return _asBytes(text)


def _pathOf(data: dict[str, Any], isOffender: Callable[[object], bool]) -> str | None:
    """
    Where an offending scalar or key is, if anywhere.
    """
    pending: list[tuple[object, tuple[Any, ...]]] = [(data, ())]
    while pending:
        value, keys = pending.pop()
        if isinstance(value, dict):
            for key, inner in value.items():
                pending += (key, (*keys, key)), (inner, (*keys, key))
        elif isinstance(value, list):
            pending += ((inner, (*keys, index)) for index, inner in enumerate(value))
        elif isOffender(value):
            return _written("session", keys)
    return None


def _isTooLong(value: object) -> bool:
    try:
        return isinstance(value, int) and not repr(value)
    except ValueError:
        return True


_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")


def _isSplit(value: object) -> bool:
    return isinstance(value, str) and _PAIR.search(value) is not None


_SCALARS = frozenset({str, int, bool, type(None)})


def checkKey(key: object) -> None:
    """
    Refuse a top-level key that is not a string, or is reserved.

    @raise SessionDataError: if so.
    """
    if type(key) is not str:
        raise SessionDataError(
            f"session[{key!r}]", f"has a key of type {_typeName(key)}; use a str"
        )
    if key in RESERVED:
        raise SessionDataError(
            f"session[{key!r}]", "is reserved; use another key for your data"
        )


def checkValue(value: object, path: str) -> None:
    """
    Refuse a value that JSON cannot hold as it is.

    @param path: what to call the value in the error.
    @raise SessionDataError: naming the innermost offender.
    """
    pending: list[tuple[object, tuple[Any, ...]]] = [(value, ())]
    while pending:
        current, keys = pending.pop()
        kind = type(current)
        if kind in _SCALARS:
            continue
        if kind is float:
            if not isfinite(current):  # type: ignore[arg-type]
                raise SessionDataError(
                    _written(path, keys),
                    f"is {current!r}, which JSON does not know; store None",
                )
        elif kind is dict:
            _checkDepth(path, keys)
            for key, inner in current.items():  # type: ignore[attr-defined]
                if type(key) is not str:
                    raise SessionDataError(
                        _written(path, (*keys, key)),
                        f"has a key of type {_typeName(key)}; use a str",
                    )
                if type(inner) not in _SCALARS:
                    pending.append((inner, (*keys, key)))
        elif kind is list:
            _checkDepth(path, keys)
            for index, inner in enumerate(current):  # type: ignore[arg-type]
                if type(inner) not in _SCALARS:
                    pending.append((inner, (*keys, index)))
        else:
            raise SessionDataError(
                _written(path, keys),
                f"is of type {_typeName(current)}, which JSON cannot hold as it "
                f"is; {_remedy(current)}",
            )


def _checkDepth(path: str, keys: tuple[Any, ...]) -> None:
    if len(keys) >= MAX_DEPTH:
        raise SessionDataError(
            _written(path, keys[:4]) + "...",
            f"is nested more than {MAX_DEPTH} levels deep",
        )


def _written(path: str, keys: tuple[Any, ...]) -> str:
    return path + "".join(f"[{key!r}]" for key in keys)


def _typeName(value: object) -> str:
    return type(value).__name__


def _remedy(value: object) -> str:
    if isinstance(value, (tuple, set, frozenset)):
        return "store a list"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "store a str, base64 for instance"
    if isinstance(value, dict):
        return "store dict(value)"
    if hasattr(value, "isoformat"):
        return "store value.isoformat()"
    return "store what it is made of: str, int, float, bool, None, list, dict"
