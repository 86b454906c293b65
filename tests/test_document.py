"""
`txsession.document`.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict, namedtuple
from datetime import datetime, timedelta, timezone
from enum import IntEnum
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from txsession import CookieOptions, CorruptRecord, SessionDataError
from txsession.cookies import EARLIEST, LATEST
from txsession.document import (
    MAX_DEPTH,
    Document,
    checkKey,
    checkValue,
    compose,
    decode,
    encodeData,
    isoDate,
    isSecureIn,
    maxAgeOf,
    serialise,
)

JSONObject = dict[str, Any]

NEW_YEAR = datetime(2026, 1, 1, tzinfo=timezone.utc).timestamp()

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

# Any string but for those that have one character as two surrogates.
anyText = st.text(st.characters(), max_size=8).filter(
    lambda text: re.search("[\ud800-\udbff][\udc00-\udfff]", text) is None
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | anyText,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(anyText, inner, max_size=3)
    ),
    max_leaves=15,
)
sessions = st.dictionaries(
    anyText.filter(lambda key: key not in ("cookie", "__txsession")), values, max_size=5
)
lifetimes = st.none() | st.floats(allow_nan=False, allow_infinity=False)
allOptions = st.builds(
    CookieOptions,
    path=st.sampled_from(["/", '/"\\', "/a/b"]),
    domain=st.sampled_from([None, "example.com"]),
    httpOnly=st.booleans(),
    secure=st.sampled_from([True, "auto"]),
    sameSite=st.sampled_from([False, True, "lax", "none", "auto"]),
    priority=st.sampled_from([None, "low", "high"]),
    partitioned=st.booleans(),
)


class Colour(IntEnum):
    RED = 1


class Name(str):
    """
    A str with something more to it.
    """


class Basket(list):  # type: ignore[type-arg]
    """
    A list with something more to it.
    """


Point = namedtuple("Point", "x y")


def exact(value: Any) -> Any:
    """
    A value such that equality tells 1, 1.0 and true apart.
    """
    if isinstance(value, dict):
        return {key: exact(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [exact(inner) for inner in value]
    return type(value), repr(value)


def composed(data: JSONObject | None = None, **arguments: Any) -> bytes:
    options = arguments.pop("options", CookieOptions())
    arguments.setdefault("maxAge", None)
    arguments.setdefault("expires", None)
    arguments.setdefault("flags", options.flags(False))
    return compose(encodeData(data or {}), options=options, **arguments)


# Composing.


def test_writesWhatExpressWrites() -> None:
    """
    The document is express-session's, byte for byte as it is documented.
    """
    options = CookieOptions(maxAge=3600)
    assert composed(
        {"user": "ada"},
        maxAge=3600.0,
        expires=NEW_YEAR,
        options=options,
        flags=options.flags(True),
    ) == (
        b'{"cookie":{"originalMaxAge":3600000,"expires":"2026-01-01T00:00:00.000Z",'
        b'"secure":true,"httpOnly":true,"path":"/","sameSite":"lax"},"user":"ada"}'
    )


@pytest.mark.parametrize(
    ("options", "isSecure", "cookie"),
    [
        (
            {},
            False,
            {"secure": False, "httpOnly": True, "path": "/", "sameSite": "lax"},
        ),
        (
            {"path": '/a"b\\', "domain": "example.com", "httpOnly": False},
            False,
            {
                "secure": False,
                "httpOnly": False,
                "domain": "example.com",
                "path": '/a"b\\',
                "sameSite": "lax",
            },
        ),
        (
            {"sameSite": "auto", "partitioned": True, "priority": "High"},
            True,
            {
                "partitioned": True,
                "priority": "high",
                "secure": True,
                "httpOnly": True,
                "path": "/",
                "sameSite": "none",
            },
        ),
        (
            {"sameSite": None, "partitioned": True},
            False,
            {"secure": False, "httpOnly": True, "path": "/", "sameSite": False},
        ),
    ],
)
def test_describesTheCookie(
    options: dict[str, Any], isSecure: bool, cookie: JSONObject
) -> None:
    """
    The cookie's attributes are in the document as they are sent.
    """
    made = CookieOptions(**options)
    payload = composed(options=made, flags=made.flags(isSecure))
    cookie = {"originalMaxAge": None, "expires": None, **cookie}
    assert json.loads(payload) == {"cookie": cookie}


@pytest.mark.parametrize(
    ("meta", "created", "written"),
    [
        (None, None, None),
        (None, 1.5, {"created": 1500}),
        ({}, None, {}),
        ({"created": 1500, "more": "ä"}, None, {"created": 1500, "more": "ä"}),
        ({"created": 1500, "more": [1]}, 2.5, {"created": 2500, "more": [1]}),
    ],
)
def test_keepsWhatIsReserved(
    meta: JSONObject | None, created: float | None, written: JSONObject | None
) -> None:
    """
    The time of creation stands under the reserved key, beside what was there.
    """
    document = json.loads(composed({"a": 1}, meta=meta, created=created))
    assert document.pop("__txsession", None) == written
    assert document.keys() == {"cookie", "a"}


@pytest.mark.parametrize(
    ("seconds", "milliseconds"),
    [
        (0.0, 0),
        (-0.0, 0),
        (0.0004, 0),
        (0.001, 1),
        (1.2345, 1234),
        (-60.0, -60000),
        (2.0**53, 2**53 * 1000),
        (1.7e308, int(1.7e308) * 1000),
        (-1.7e308, int(-1.7e308) * 1000),
    ],
)
def test_writesEveryFiniteLifetime(seconds: float, milliseconds: int) -> None:
    """
    A maxAge that is finite has a whole number of milliseconds, however large.
    """
    payload = composed(maxAge=seconds)
    assert json.loads(payload)["cookie"]["originalMaxAge"] == milliseconds
    assert maxAgeOf(payload) == pytest.approx(seconds, abs=0.0005)


def test_writesEveryTimeOfCreationThatItReads() -> None:
    """
    A document with an absurd time of creation can be written again.
    """
    payload = b'{"cookie":{},"__txsession":{"created":1' + b"0" * 310 + b"}}"
    document = decode(payload)
    again = decode(composed(meta=document.meta, created=document.created))
    assert again.created == document.created == 1e307


@unhurried
@given(st.floats(EARLIEST, LATEST))
def test_writesDatesAsJavaScriptDoes(timestamp: float) -> None:
    """
    A date is what toISOString writes: UTC, with milliseconds.
    """
    moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(
        milliseconds=round(timestamp * 1000)
    )
    expected = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert isoDate(timestamp) == expected


@pytest.mark.parametrize(
    ("timestamp", "date"),
    [
        (-0.001, "1969-12-31T23:59:59.999Z"),
        (LATEST + 0.9, "9999-12-31T23:59:59.000Z"),
        (1e308, "9999-12-31T23:59:59.000Z"),
        (EARLIEST - 0.1, "1601-01-01T00:00:00.000Z"),
        (-1e308, "1601-01-01T00:00:00.000Z"),
    ],
)
def test_keepsToTheYearsOfADate(timestamp: float, date: str) -> None:
    """
    A time outside of the years 1601 to 9999 is moved to their end.
    """
    assert isoDate(timestamp) == date


# Round trips.


@unhurried
@given(sessions, lifetimes, lifetimes, allOptions, st.booleans())
def test_dataComesBack(
    data: JSONObject,
    maxAge: float | None,
    expires: float | None,
    options: CookieOptions,
    isSecure: bool,
) -> None:
    """
    Data comes back from its document exactly, whatever stands beside it.
    """
    payload = composed(
        data,
        maxAge=maxAge,
        expires=expires,
        options=options,
        flags=options.flags(isSecure),
    )
    document = decode(payload)
    assert exact(document.data) == exact(data)
    assert (document.created, document.meta) == (None, None)
    assert document.maxAge == (
        None if maxAge is None else pytest.approx(maxAge, abs=0.0005)
    )
    assert encodeData(document.data) == encodeData(data)


@unhurried
@given(sessions)
def test_otherReadersUnderstandIt(data: JSONObject) -> None:
    """
    The document is plain JSON in UTF-8, with the data beside the cookie, and no
    blank that is not the data's.
    """
    payload = composed(data)
    parsed = json.loads(payload)
    assert parsed.pop("cookie")["path"] == "/"
    assert exact(parsed) == exact(data)
    assert list(parsed) == list(data)
    outside = re.sub(rb'"(?:[^"\\]|\\.)*"', b'""', payload, flags=re.DOTALL)
    assert b" " not in outside


@unhurried
@given(sessions, st.none() | st.floats(0, 4e9), st.none() | sessions)
def test_whatIsReservedComesBack(
    data: JSONObject, created: float | None, meta: JSONObject | None
) -> None:
    """
    The time of creation and what else is reserved come back, apart from the
    data.
    """
    document = decode(composed(data, created=created, meta=meta))
    assert exact(document.data) == exact(data)
    if created is not None:
        assert document.created == pytest.approx(created, abs=0.0006)
        assert document.meta is not None
        meta = {**(meta or {}), "created": document.meta["created"]}
    assert exact(document.meta) == exact(meta)


@unhurried
@given(sessions, lifetimes, allOptions, st.none() | st.floats(0, 4e9))
def test_theLifetimeIsReadWithoutDecoding(
    data: JSONObject,
    maxAge: float | None,
    options: CookieOptions,
    created: float | None,
) -> None:
    """
    maxAgeOf says of every document that is composed what decoding it would.
    """
    payload = composed(data, maxAge=maxAge, options=options, created=created)
    assert maxAgeOf(payload) == decode(payload).maxAge


# Decoding.


@pytest.mark.parametrize(
    ("payload", "document"),
    [
        (b'{"cookie":{}}', Document(None, None, None, {})),
        (b' {"a" : 1,\n"cookie" : {} } ', Document(None, None, None, {"a": 1})),
        (b'{"cookie":{"originalMaxAge":1500}}', Document(1.5, None, None, {})),
        (b'{"cookie":{"originalMaxAge":1500.5}}', Document(1.5005, None, None, {})),
        (b'{"cookie":{"originalMaxAge":-60000}}', Document(-60, None, None, {})),
        (b'{"cookie":{"originalMaxAge":null}}', Document(None, None, None, {})),
        (b'{"cookie":{"originalMaxAge":true}}', Document(None, None, None, {})),
        (b'{"cookie":{"originalMaxAge":"60"}}', Document(None, None, None, {})),
        (b'{"cookie":{"originalMaxAge":[]}}', Document(None, None, None, {})),
        (b'{"cookie":{"originalMaxAge":1e999}}', Document(None, None, None, {})),
        (
            b'{"cookie":{"originalMaxAge":1' + b"0" * 400 + b"}}",
            Document(None, None, None, {}),
        ),
        (b'{"cookie":1,"cookie":{}}', Document(None, None, None, {})),
        (b'{"a":1,"cookie":{},"a":2}', Document(None, None, None, {"a": 2})),
        (
            b'{"cookie":{},"__txsession":{"created":1500,"x":1}}',
            Document(None, 1.5, {"created": 1500, "x": 1}, {}),
        ),
        (b'{"cookie":{},"__txsession":{}}', Document(None, None, {}, {})),
        (
            b'{"cookie":{},"__txsession":{"created":"now"}}',
            Document(None, None, {"created": "now"}, {}),
        ),
        (b'{"cookie":{},"__txsession":5}', Document(None, None, None, {})),
        (
            b'{"cookie":{},"o":{"cookie":1,"__txsession":2}}',
            Document(None, None, None, {"o": {"cookie": 1, "__txsession": 2}}),
        ),
        (
            b'{"cookie":{},"a":"\\ud83d\\ude00\\ud800\\u0000"}',
            Document(None, None, None, {"a": "\U0001f600\ud800\x00"}),
        ),
        (b'{"cookie":{},"":null}', Document(None, None, None, {"": None})),
    ],
)
def test_takesADocumentApart(payload: bytes, document: Document) -> None:
    """
    A JSON object with a cookie is a document; of the cookie only the lifetime
    is taken, if it is one.
    """
    assert decode(payload) == document


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"{}",
        b"null",
        b"5",
        b'"cookie"',
        b'["cookie"]',
        b'{"user":"ada"}',
        b'{"cookie":null}',
        b'{"cookie":5}',
        b'{"cookie":[]}',
        b'{"cookie":{},"cookie":1}',
        b'{"cookie":{}}x',
        b'{"cookie":{},}',
        b"{'cookie':{}}",
        b'{"cookie":{},"a":NaN}',
        b'{"cookie":{},"a":Infinity}',
        b'{"cookie":{},"a":-Infinity}',
        b'{"cookie":{},"a":"\xff"}',
        b'{"cookie":{},"a":"\xed\xa0\x80"}',
        b'{"cookie":{},"a":"\n"}',
        b'\xef\xbb\xbf{"cookie":{}}',
        '{"cookie":{}}'.encode("utf-16"),
        pytest.param(b'{"cookie":{},"a":' + b"9" * 5000 + b"}", id="many digits"),
        pytest.param(b"[" * 200_000, id="deep arrays"),
        pytest.param(b'{"cookie":' * 200_000, id="deep objects"),
    ],
)
def test_refusesWhatIsNoDocument(payload: bytes) -> None:
    """
    What is not a JSON object with an object for its cookie is corrupt, and so
    says maxAgeOf where it has to look.
    """
    with pytest.raises(CorruptRecord):
        decode(payload)
    with pytest.raises(CorruptRecord):
        maxAgeOf(payload)


def refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def isCorrupt(payload: bytes) -> bool:
    try:
        document = decode(payload)
    except CorruptRecord:
        return True
    assert isinstance(document, Document)
    assert isinstance(document.data, dict)
    return False


@unhurried
@given(
    st.binary()
    | values.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(
        st.sampled_from(["cookie", "__txsession", "originalMaxAge", "created"]), values
    ).map(lambda value: json.dumps(value).encode())
)
def test_anyBytesAreADocumentOrCorrupt(payload: bytes) -> None:
    """
    Whatever a store gives back, it is a document or CorruptRecord is raised.
    """
    try:
        value = json.loads(payload.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError):
        value = None
    isDocument = isinstance(value, dict) and isinstance(value.get("cookie"), dict)
    assert isCorrupt(payload) is not isDocument


@unhurried
@given(sessions, st.data())
def test_aDamagedDocumentIsADocumentOrCorrupt(
    data: JSONObject, source: st.DataObject
) -> None:
    """
    A document with bytes changed or missing is another one, or CorruptRecord is
    raised.
    """
    payload = composed(data, maxAge=60.0, created=1.0)
    at = source.draw(st.integers(0, len(payload) - 1))
    isCorrupt(payload[:at] + source.draw(st.binary(max_size=3)) + payload[at + 1 :])
    assert isCorrupt(payload[:at])


@pytest.mark.parametrize(
    ("payload", "maxAge"),
    [
        (b'{"cookie":{"originalMaxAge":null,"expires":null}}', None),
        (b'{"cookie":{"originalMaxAge":60000,"expires":null}}', 60.0),
        (b'{"cookie":{"originalMaxAge":60000}}', 60.0),
        (b'{"cookie":{"originalMaxAge":1,"expires":null}}', 0.001),
        (b'{"cookie":{"originalMaxAge":-1,"expires":null}}', -0.001),
        (b'{"cookie":{"originalMaxAge":1.5,"expires":null}}', 0.0015),
        (b'{"cookie":{"originalMaxAge":1e3,"expires":null}}', 1.0),
        (b'{"cookie":{"expires":null,"originalMaxAge":60000}}', 60.0),
        (b'{ "cookie" : { "originalMaxAge" : 60000 } }', 60.0),
        (b'{"user":"ada","cookie":{"originalMaxAge":60000}}', 60.0),
        (b'{"cookie":{"path":"/"}}', None),
    ],
)
def test_readsTheLifetimeOfEveryWriter(payload: bytes, maxAge: float | None) -> None:
    """
    The lifetime is found however the document is laid out.
    """
    assert maxAgeOf(payload) == maxAge


# Data.


@pytest.mark.parametrize(
    ("data", "encoded"),
    [
        ({}, b"{}"),
        ({"a": 1, "b": [True, None, 1.5]}, b'{"a":1,"b":[true,null,1.5]}'),
        ({"": {}}, b'{"":{}}'),
        ({"ä": "€\U0001f600"}, '{"ä":"€\U0001f600"}'.encode()),
        ({"a": '"\\\n\x00\x7f\u2028'}, b'{"a":"\\"\\\\\\n\\u0000\x7f\xe2\x80\xa8"}'),
        ({"a": "\ud800x\udfff"}, b'{"a":"\\ud800x\\udfff"}'),
        ({"\udc00": "\udfff\ud800"}, b'{"\\udc00":"\\udfff\\ud800"}'),
        ({"a": "\\\ud800"}, b'{"a":"\\\\\\ud800"}'),
        ({"a": -0.0, "b": 1e16, "c": 10**30}, b'{"a":-0.0,"b":1e+16,"c":1' + b"0" * 30),
    ],
)
def test_encodesData(data: JSONObject, encoded: bytes) -> None:
    """
    Data is encoded as UTF-8 without blanks, in the order it has, and lone
    surrogates, as JavaScript has them, by their escape.
    """
    result = encodeData(data)
    assert result == encoded if encoded.endswith(b"}") else result == encoded + b"}"
    assert exact(json.loads(result)) == exact(data)
    assert serialise(data) == result


def nested(depth: int, kind: type) -> Any:
    value: Any = kind()
    for _ in range(depth - 1):
        value = [value] if kind is list else {"x": value}
    return value


cycle: list[Any] = []
cycle.append(cycle)

# What is refused as a value, where in it, and what the message says.
REFUSED: list[tuple[Any, str, str]] = [
    ({1, 2}, "", "set.*store a list"),
    (frozenset(), "", "frozenset.*store a list"),
    ((1, 2), "", "tuple.*store a list"),
    (Point(1, 2), "", "Point.*store a list"),
    (b"x", "", "bytes.*base64"),
    (bytearray(b"x"), "", "bytearray.*base64"),
    (memoryview(b"x"), "", "memoryview.*base64"),
    (float("nan"), "", "nan"),
    (float("inf"), "", "inf"),
    (float("-inf"), "", "-inf"),
    (OrderedDict(a=1), "", r"OrderedDict.*store dict\(value\)"),
    (Basket([1]), "", "Basket.*store what it is made of"),
    (Name("x"), "", "Name.*store what it is made of"),
    (Colour.RED, "", "Colour.*store what it is made of"),
    (datetime(2030, 1, 1), "", "datetime.*store value.isoformat"),
    (object(), "", "object.*store what it is made of"),
    (1j, "", "complex.*store what it is made of"),
    ([1, [2, {3}]], "[1][1]", "set"),
    ({"a": {"b": (1,)}}, "['a']['b']", "tuple"),
    ({"a": [{"b": b""}]}, "['a'][0]['b']", "bytes"),
    ([1.5, float("nan")], "[1]", "nan"),
    ({1: "x"}, "[1]", "key of type int; use a str"),
    ({"a": {None: "x"}}, "['a'][None]", "key of type NoneType"),
    ([{True: 1}], "[0][True]", "key of type bool"),
    ({b"a": 1}, "[b'a']", "key of type bytes"),
    ({Name("a"): 1}, "['a']", "key of type Name"),
    ({(1, 2): 1}, "[(1, 2)]", "key of type tuple"),
    (nested(MAX_DEPTH + 1, list), "[0][0][0][0]...", "more than 200 levels"),
    (nested(MAX_DEPTH + 1, dict), "['x']['x']['x']['x']...", "more than 200 levels"),
    (nested(5000, list), "[0][0][0][0]...", "more than 200 levels"),
    (cycle, "[0][0][0][0]...", "more than 200 levels"),
]


@pytest.mark.parametrize(
    ("value", "where", "problem"),
    [pytest.param(*row, id=f"{type(row[0]).__name__}{row[1]}") for row in REFUSED],
)
def test_refusesWhatJSONCannotHold(value: Any, where: str, problem: str) -> None:
    """
    What JSON cannot hold, or would give back as something else, is refused with
    the path to it and what to do.
    """
    for refuse in (
        lambda: checkValue(value, "session['cart']"),
        lambda: encodeData({"ok": 1, "cart": value}),
    ):
        with pytest.raises(SessionDataError, match=f"(?s){problem}") as caught:
            refuse()
        assert caught.value.path == f"session['cart']{where}"
        assert str(caught.value).startswith(f"session['cart']{where} ")


@pytest.mark.parametrize("kind", [list, dict])
def test_takesWhatIsNestedAsDeepAsIsAllowed(kind: type) -> None:
    """
    A value may have as many levels as is said, and comes back.
    """
    value = nested(MAX_DEPTH, kind)
    checkValue(value, "session['x']")
    assert decode(composed({"x": value})).data == {"x": value}


@unhurried
@given(values)
def test_takesEveryJSONValue(value: Any) -> None:
    """
    Everything that JSON has is taken.
    """
    checkValue(value, "session['x']")
    assert exact(json.loads(encodeData({"x": value}))) == exact({"x": value})


def test_theSameValueMayStandTwice() -> None:
    """
    A list that stands in several places is no cycle.
    """
    shared = [1]
    assert encodeData({"a": [shared, shared]}) == b'{"a":[[1],[1]]}'


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("cookie", "is reserved"),
        ("__txsession", "is reserved"),
        (1, "has a key of type int; use a str"),
        (None, "has a key of type NoneType; use a str"),
        (b"a", "has a key of type bytes; use a str"),
        (("a", "b"), "has a key of type tuple; use a str"),
        (Name("a"), "has a key of type Name; use a str"),
    ],
)
def test_refusesKeys(key: Any, problem: str) -> None:
    """
    A key of the session must be a str, and not one that is reserved.
    """
    for refuse in (lambda: checkKey(key), lambda: encodeData({key: 1})):
        with pytest.raises(SessionDataError, match=problem) as caught:
            refuse()
        assert caught.value.path == f"session[{key!r}]"


@pytest.mark.parametrize("key", ["", "a", "Cookie", "cookie ", "\ud800", "__proto__"])
def test_takesEveryOtherKey(key: str) -> None:
    """
    Any other str is a key.
    """
    checkKey(key)
    assert json.loads(encodeData({key: 1})) == {key: 1}


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"n": 10**5000}, "session['n']"),
        ({"n": -(10**5000)}, "session['n']"),
        ({"n": 10**5000, "fits": 10**4000, "s": "x"}, "session['n']"),
        ({"a": [True, {"b": [10**4000, 10**5000]}], "z": 1}, "session['a'][1]['b'][1]"),
    ],
)
def test_refusesIntegersOfTooManyDigits(data: JSONObject, path: str) -> None:
    """
    An integer that Python itself would neither write nor read is refused, with
    its path.
    """
    with pytest.raises(SessionDataError, match="too many digits") as caught:
        encodeData(data)
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"a": "\ud83d\ude00"}, "session['a']"),
        ({"a": "x\ud800\udc00y", "b": "\ud800"}, "session['a']"),
        ({"a": [1, {"b": "\ud83d\ude00"}]}, "session['a'][1]['b']"),
        ({"a": {"\ud83d\ude00": 1}}, "session['a']['\\ud83d\\ude00']"),
        ({"\ud83d\ude00": 1}, "session['\\ud83d\\ude00']"),
    ],
)
def test_refusesOneCharacterAsTwoSurrogates(data: JSONObject, path: str) -> None:
    """
    A pair of surrogates would come back as the character that it stands for, so
    it is refused.
    """
    with pytest.raises(SessionDataError, match="surrogates") as caught:
        encodeData(data)
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("payload", "isSecure"),
    [
        (b'{"cookie":{"secure":true}}', True),
        (b'{"cookie":{"secure":false}}', False),
        (b'{"cookie":{"secure":"auto"},"secure":true}', False),
        (b'{"cookie":{}}', False),
    ],
)
def test_saysWhetherTheCookieWasSecure(payload: bytes, isSecure: bool) -> None:
    """
    Only a cookie that was stored as Secure was Secure.
    """
    assert isSecureIn(payload) is isSecure


def test_whatIsNoDocumentWasNeitherSecureNorNot() -> None:
    """
    A corrupt record is not asked for its cookie.
    """
    with pytest.raises(CorruptRecord):
        isSecureIn(b'{"cookie":5}')
