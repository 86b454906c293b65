"""
`txsession.cookies`.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone, tzinfo
from email.utils import format_datetime
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from attrs import evolve
from attrs.exceptions import FrozenInstanceError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from txsession import ConfigurationError, CookieOptions
from txsession.cookies import (
    EARLIEST,
    LATEST,
    CookieFlags,
    attributes,
    checkName,
    expired,
    httpDate,
    isPathMatch,
    pair,
    readCookies,
    uriPath,
)
from txsession.signing import Signer

NAME = b"connect.sid"
NOW = 1_800_000_000.0
UTC = timezone.utc

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


class NoOffset(tzinfo):
    """
    A time zone that does not say what it is.
    """

    def utcoffset(self, moment: datetime | None) -> None:
        return None


# Options.


def test_hasTheDefaultsThatAreDocumented() -> None:
    """
    The defaults are the whole site, HttpOnly, Secure where possible, and Lax.
    """
    options = CookieOptions()
    assert (options.path, options.domain) == ("/", None)
    assert (options.maxAge, options.expires) == (None, None)
    assert (options.httpOnly, options.secure) == (True, "auto")
    assert (options.sameSite, options.priority) == ("lax", None)
    assert options.partitioned is False


def test_isAFrozenValue() -> None:
    """
    Options cannot be changed, are compared by value, and can be hashed.
    """
    options = CookieOptions(maxAge=60)
    with pytest.raises(FrozenInstanceError):
        options.path = "/other"  # type: ignore[misc]
    assert options == CookieOptions(maxAge=timedelta(minutes=1))  # type: ignore
    assert hash(options) == hash(CookieOptions(maxAge=60))
    assert options != CookieOptions(maxAge=61)


@pytest.mark.parametrize(
    ("option", "value", "kept"),
    [
        ("path", "/", "/"),
        ("path", "/a/b%20c/", "/a/b%20c/"),
        ("path", "/" + "a" * 1023, "/" + "a" * 1023),
        ("domain", "example.com", "example.com"),
        ("domain", ".Example.com", ".Example.com"),
        ("domain", "localhost", "localhost"),
        ("domain", "127.0.0.1", "127.0.0.1"),
        ("domain", "xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("domain", "a" * 63 + ".example", "a" * 63 + ".example"),
        ("maxAge", 0.5, 0.5),
        ("maxAge", timedelta(hours=1), 3600.0),
        ("maxAge", 1e300, 1e300),
        ("expires", datetime(2030, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)),
        ("httpOnly", False, False),
        ("secure", True, True),
        ("secure", False, False),
        ("sameSite", None, False),
        ("sameSite", False, False),
        ("sameSite", True, "strict"),
        ("sameSite", "Strict", "strict"),
        ("sameSite", "LAX", "lax"),
        ("sameSite", "none", "none"),
        ("sameSite", "auto", "auto"),
        ("priority", "High", "high"),
        ("priority", "medium", "medium"),
        ("priority", "low", "low"),
        ("partitioned", True, True),
    ],
)
def test_takesWhatBrowsersUnderstand(option: str, value: Any, kept: Any) -> None:
    """
    An option's value is kept, in the one way of writing it.
    """
    found = getattr(CookieOptions(**{option: value}), option)
    assert found == kept
    assert type(found) is type(kept)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(
            ("path", path)
            for path in [
                *("", "relative", "/a;b", "/a\x00", "/a\nb", "/a\n", "/a\tb", "/\x7f"),
                *("/ä", "/\ud800", "/" + "a" * 1024, None, b"/", True, 5),
            ]
        ),
        *(
            ("domain", domain)
            for domain in [
                *("", ".", "a;b", "a b", "a\n", "a\x00b", "a..b", "-a", "a-", "a."),
                *("..a", "exämple.com", "example.com:80", "http://a", "[::1]", "a/b"),
                *("a" * 64, ".".join(["a" * 63] * 17), "\ud800", b"a", False, 5),
            ]
        ),
        *(
            ("maxAge", maxAge)
            for maxAge in [
                *(0, -1, float("inf"), float("nan"), 10**400, "60", True, False),
                *(timedelta(0), timedelta(days=-1), [60], datetime(2030, 1, 1)),
            ]
        ),
        *(
            ("expires", expires)
            for expires in [
                *(datetime(2030, 1, 1), datetime(2030, 1, 1, tzinfo=NoOffset())),
                *(NOW, "2030-01-01", timedelta(1), datetime(2030, 1, 1).date(), False),
            ]
        ),
        *(("httpOnly", httpOnly) for httpOnly in [None, 1, 0, "yes", "auto"]),
        *(("secure", secure) for secure in [None, 1, 0, "yes", "AUTO", [], b"auto"]),
        *(("sameSite", value) for value in ["", "yes", 1, 0, b"lax", [], "lax ", "l;"]),
        *(("priority", value) for value in ["", "urgent", False, True, 1, b"low", {}]),
        *(("partitioned", value) for value in [None, 1, "auto", "yes"]),
    ],
)
def test_refusesWhatBrowsersWouldNot(option: str, value: Any) -> None:
    """
    An option's value that no browser understands is refused by its name.
    """
    with pytest.raises(ConfigurationError) as caught:
        CookieOptions(**{option: value})
    assert caught.value.option == f"cookie.{option}"
    assert str(caught.value).startswith(f"cookie.{option}: ")


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"sameSite": "none", "secure": False}, "cookie.sameSite"),
        ({"sameSite": "None", "secure": False}, "cookie.sameSite"),
        ({"partitioned": True, "secure": False}, "cookie.partitioned"),
        (
            {"maxAge": 60, "expires": datetime(2030, 1, 1, tzinfo=UTC)},
            "cookie.expires",
        ),
    ],
)
def test_refusesWhatDoesNotGoTogether(options: dict[str, Any], option: str) -> None:
    """
    SameSite=None and Partitioned need Secure, and a cookie has one lifetime.
    """
    with pytest.raises(ConfigurationError) as caught:
        CookieOptions(**options)
    assert caught.value.option == option


@pytest.mark.parametrize("secure", [True, "auto"])
@pytest.mark.parametrize("options", [{"sameSite": "none"}, {"partitioned": True}])
def test_takesWhatSecureAllows(secure: Any, options: dict[str, Any]) -> None:
    """
    SameSite=None and Partitioned go with secure=True and with "auto".
    """
    assert CookieOptions(secure=secure, **options).flags(True).secure


def test_checksWhatIsEvolved() -> None:
    """
    Changing a copy checks it like a new one.
    """
    with pytest.raises(ConfigurationError):
        evolve(CookieOptions(sameSite="none"), secure=False)


# Flags.


@pytest.mark.parametrize(
    ("options", "isSecure", "flags"),
    [
        # secure, sameSite, partitioned, weakened
        ({}, True, (True, "lax", False, False)),
        ({}, False, (False, "lax", False, False)),
        ({"secure": True}, False, (True, "lax", False, False)),
        ({"secure": False}, True, (False, "lax", False, False)),
        ({"sameSite": False}, True, (True, False, False, False)),
        ({"sameSite": "strict"}, False, (False, "strict", False, False)),
        ({"sameSite": "auto"}, True, (True, "none", False, False)),
        ({"sameSite": "auto"}, False, (False, "lax", False, False)),
        ({"sameSite": "auto", "secure": True}, False, (True, "none", False, False)),
        ({"sameSite": "auto", "secure": False}, True, (False, "lax", False, False)),
        ({"sameSite": "none"}, True, (True, "none", False, False)),
        ({"sameSite": "none"}, False, (False, "lax", False, True)),
        ({"sameSite": "none", "secure": True}, False, (True, "none", False, False)),
        ({"partitioned": True}, True, (True, "lax", True, False)),
        ({"partitioned": True}, False, (False, "lax", False, True)),
        ({"partitioned": True, "secure": True}, False, (True, "lax", True, False)),
        (
            {"partitioned": True, "sameSite": "none"},
            False,
            (False, "lax", False, True),
        ),
    ],
)
def test_settlesAutoByTheRequest(
    options: dict[str, Any], isSecure: bool, flags: tuple[Any, ...]
) -> None:
    """
    "auto" follows the request, and what needs Secure is left out without it.
    """
    assert CookieOptions(**options).flags(isSecure) == CookieFlags(*flags)


# Names.


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("connect.sid", {}),
        ("!#$%&'*+-.^_`|~09azAZ", {}),
        ("__Host-sid", {"secure": True}),
        ("__Secure-sid", {"secure": True}),
        ("__Secure-sid", {"secure": True, "path": "/app", "domain": "example.com"}),
        ("__Hostsid", {"domain": "example.com"}),
        ("n" * 3900, {}),
    ],
)
def test_takesNamesThatBrowsersTake(name: str, options: dict[str, Any]) -> None:
    """
    A token that keeps the promise of its prefix is a name.
    """
    checkName(name, CookieOptions(**options))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *(
            (name, {})
            for name in [
                *("", "a b", "a=b", "a;b", "a,b", 'a"b', "a\n", "a\x00", "ä", "\ud800"),
                *("a(b)", "a/b", "a:b", "a@b", "[a]", "{a}", "a\\b", "a?", "<a>"),
                *("n" * 4096, b"connect.sid", None, 5),
            ]
        ),
        ("__Secure-sid", {}),
        ("__Secure-sid", {"secure": False}),
        ("__secure-sid", {}),
        ("__Host-sid", {}),
        ("__HOST-sid", {"secure": False}),
        ("__Host-sid", {"secure": True, "path": "/app"}),
        ("__Host-sid", {"secure": True, "domain": "example.com"}),
        ("__host-sid", {"secure": True, "domain": "example.com"}),
    ],
)
def test_refusesOtherNames(name: Any, options: dict[str, Any]) -> None:
    """
    What is no token, too long, or breaks the promise of its prefix, is refused.
    """
    with pytest.raises(ConfigurationError) as caught:
        checkName(name, CookieOptions(**options))
    assert caught.value.option == "name"


# Reading.


@pytest.mark.parametrize(
    ("headers", "values"),
    [
        ([], []),
        ([b""], []),
        ([b"other=1"], []),
        ([b"connect.sid"], []),
        ([b"connect.sid=a"], [b"a"]),
        ([b"connect.sid="], [b""]),
        ([b"connect.sid=a=b=="], [b"a=b=="]),
        ([b"a=1; connect.sid=2; b=3"], [b"2"]),
        ([b"a=1;connect.sid=2;b=3"], [b"2"]),
        ([b" \tconnect.sid \t= \t2 \t;"], [b"2"]),
        ([b";;; =; =connect.sid; connect.sid=2"], [b"2"]),
        ([b"xconnect.sid=1; connect.sidx=2; Connect.Sid=3"], []),
        ([b"a=connect.sid; b=connect.sid=2"], []),
        ([b"connect.sid=1; connect.sid=2"], [b"1", b"2"]),
        ([b"connect.sid=1", b"a=2", b"connect.sid=3"], [b"1", b"3"]),
        ([b"connect.sid=s%3Aa%2Fb%2f"], [b"s:a/b/"]),
        ([b'connect.sid="s%3Aa"'], [b"s:a"]),
        ([b'connect.sid="'], [b'"']),
        ([b'connect.sid=""'], [b""]),
        ([b'connect.sid="a'], [b'"a']),
        ([b'connect.sid=a"'], [b'a"']),
        ([b"connect.sid=100%"], [b"100%"]),
        ([b"connect.sid=%zz%4"], [b"%zz%4"]),
        ([b"connect.sid=%ff\xff%00"], [b"\xff\xff\x00"]),
        ([b"connect.sid=a+b"], [b"a+b"]),
        ([b"connect.sid=%2522"], [b"%22"]),
    ],
)
def test_readsEveryCookieOfTheName(headers: list[bytes], values: list[bytes]) -> None:
    """
    All cookies of the name are found, in order, unquoted and decoded once.
    """
    assert readCookies(headers, NAME) == values


@pytest.mark.parametrize("together", [True, False])
def test_readsEightCookiesAtMost(together: bool) -> None:
    """
    Of more than eight cookies of the name, in one header or several, the first
    eight count.
    """
    headers = [b"a=0; connect.sid=%d" % index for index in range(20)]
    if together:
        headers = [b"; ".join(headers)]
    assert readCookies(headers, NAME) == [b"%d" % index for index in range(8)]


@unhurried
@given(st.text(min_size=1, max_size=80), st.text(min_size=1, max_size=8))
def test_aSignedIDComesBackFromTheHeader(sid: str, secret: str) -> None:
    """
    What is written into a cookie is read back from the Cookie header, whatever
    characters the ID has.
    """
    signer = Signer(secret)
    header = f"a=1; {pair('connect.sid', signer.sign(sid))}; z=connect.sid".encode()
    (value,) = readCookies([header], NAME)
    verified = signer.verify(value)
    assert verified is not None
    assert verified.sid == sid


@unhurried
@given(st.lists(st.binary(max_size=100), max_size=8))
def test_anyBytesComeBackFromTheHeader(values: list[bytes]) -> None:
    """
    Cookies written one after the other are read back in order, byte for byte.
    """
    header = "; ".join(pair("connect.sid", value) for value in values)
    assert readCookies([header.encode("ascii")], NAME) == values


hostile = st.one_of(
    st.binary(),
    st.binary().map(lambda data: NAME + b"=" + data),
    st.binary().map(lambda data: NAME + b'="s:' + data + b'"'),
    st.binary().map(lambda data: NAME + b"=s%3A" + data + b"." + b"A" * 43),
    st.lists(
        st.sampled_from(
            [NAME, b"=", b";", b" ", b'"', b"%", b"%3", b"s:", b"s%3A", b".", b"\xff"]
        )
    ).map(b"".join),
)


@unhurried
@given(st.lists(hostile, max_size=4))
def test_anyBytesAsAHeaderGiveAtWorstNoID(headers: list[bytes]) -> None:
    """
    Whatever bytes a client sends, there is no exception and no ID.
    """
    values = readCookies(headers, NAME)
    assert len(values) <= 8
    signer = Signer("keyboard cat")
    assert [signer.verify(value) for value in values] == [None] * len(values)


# Paths.


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/", b"/"),
        (b"/a/b", b"/a/b"),
        (b"//a", b"//a"),
        (b"/a%2Fb", b"/a%2Fb"),
        (b"/http://a/b", b"/http://a/b"),
        (b"http://example.com/a/b", b"/a/b"),
        (b"http://example.com/", b"/"),
        (b"http://example.com", b"/"),
        (b"HTTPS://user@example.com:80//a", b"//a"),
        (b"http:///a", b"/a"),
        (b"*", b"/"),
        (b"", b"/"),
        (b"example.com:443", b"/"),
        (b"a/b", b"/"),
    ],
)
def test_findsThePathOfATarget(target: bytes, path: bytes) -> None:
    """
    The path of a request target is taken undecoded, from either form of it.
    """
    assert uriPath(target) == path


@pytest.mark.parametrize(
    ("path", "cookiePath", "isMatch"),
    [
        (b"/", b"/", True),
        (b"/a", b"/", True),
        (b"/a/b", b"/", True),
        (b"/app", b"/app", True),
        (b"/app/", b"/app", True),
        (b"/app/a", b"/app", True),
        (b"/apple", b"/app", False),
        (b"/ap", b"/app", False),
        (b"/", b"/app", False),
        (b"/App", b"/app", False),
        (b"/a/app", b"/app", False),
        (b"/app", b"/app/", False),
        (b"/app/", b"/app/", True),
        (b"/app/a", b"/app/", True),
        (b"/app%2Fa", b"/app", False),
        (b"/%61pp", b"/app", False),
    ],
)
def test_matchesPathsAsBrowsersDo(
    path: bytes, cookiePath: bytes, isMatch: bool
) -> None:
    """
    A cookie belongs to its path and to those below it, by RFC 6265 5.1.4.
    """
    assert isPathMatch(path, cookiePath) is isMatch


# Writing.


def test_encodesAsJavaScriptDoes() -> None:
    """
    Only what encodeURIComponent leaves alone is left alone.
    """
    ascii_ = bytes(range(128))
    unreserved = (
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.!~*'()"
    )
    expected = "".join(
        chr(byte) if chr(byte) in unreserved else f"%{byte:02X}" for byte in ascii_
    )
    assert pair("n", ascii_) == f"n={expected}"
    assert pair("n", "ä".encode()) == "n=%C3%A4"


@unhurried
@given(st.binary(max_size=300))
def test_writesNothingThatEndsTheValue(signed: bytes) -> None:
    """
    An encoded value holds no semicolon, comma, quote, blank or control
    character, and decodes to what it was.
    """
    value = pair("n", signed).removeprefix("n=")
    assert unquote_to_bytes(value) == signed
    assert all(0x20 < ord(char) < 0x7F for char in value)
    assert not set(value) & set(';,"\\')


@pytest.mark.parametrize(("length", "isTaken"), [(4091, True), (4092, False)])
def test_refusesACookieThatBrowsersDrop(length: int, isTaken: bool) -> None:
    """
    Name and value have at most 4096 bytes together with their sign.
    """
    if isTaken:
        assert len(pair("name", b"x" * length)) == 4096
        return
    with pytest.raises(ConfigurationError) as caught:
        pair("name", b"x" * length)
    assert caught.value.option == "genid"


def setCookie(options: CookieOptions, isSecure: bool, expires: float | None) -> str:
    return attributes(options, options.flags(isSecure), expires, NOW)


@pytest.mark.parametrize(
    ("options", "isSecure", "expected"),
    [
        ({}, False, "; Path=/; HttpOnly; SameSite=Lax"),
        ({}, True, "; Path=/; HttpOnly; Secure; SameSite=Lax"),
        ({"path": "/app"}, False, "; Path=/app; HttpOnly; SameSite=Lax"),
        (
            {"domain": "example.com"},
            False,
            "; Path=/; Domain=example.com; HttpOnly; SameSite=Lax",
        ),
        ({"httpOnly": False, "sameSite": None}, False, "; Path=/"),
        ({"sameSite": True}, False, "; Path=/; HttpOnly; SameSite=Strict"),
        ({"sameSite": "none"}, True, "; Path=/; HttpOnly; Secure; SameSite=None"),
        ({"sameSite": "none"}, False, "; Path=/; HttpOnly; SameSite=Lax"),
        (
            {"priority": "high"},
            False,
            "; Path=/; HttpOnly; Priority=High; SameSite=Lax",
        ),
        (
            {"partitioned": True, "sameSite": "auto"},
            True,
            "; Path=/; HttpOnly; Secure; Partitioned; SameSite=None",
        ),
    ],
)
def test_writesTheAttributes(
    options: dict[str, Any], isSecure: bool, expected: str
) -> None:
    """
    A browser-session cookie has its attributes, and no lifetime.
    """
    assert setCookie(CookieOptions(**options), isSecure, None) == expected


@pytest.mark.parametrize(
    ("lifetime", "maxAge", "date"),
    [
        (3600, 3600, "Fri, 15 Jan 2027 09:00:00 GMT"),
        (3599.9999, 3600, "Fri, 15 Jan 2027 08:59:59 GMT"),
        (1.5, 1, "Fri, 15 Jan 2027 08:00:01 GMT"),
        (0, 0, "Fri, 15 Jan 2027 08:00:00 GMT"),
        (-3600, 0, "Fri, 15 Jan 2027 07:00:00 GMT"),
        (-NOW, 0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (-1e300, 0, "Mon, 01 Jan 1601 00:00:00 GMT"),
        (1e300, 251602300799, "Fri, 31 Dec 9999 23:59:59 GMT"),
    ],
)
def test_writesBothMaxAgeAndExpires(lifetime: float, maxAge: int, date: str) -> None:
    """
    A lifetime goes out as Max-Age and as Expires, the same in both, and within
    the years that a date can say.
    """
    expected = f"; Max-Age={maxAge}; Expires={date}; Path=/; HttpOnly; SameSite=Lax"
    assert setCookie(CookieOptions(), False, NOW + lifetime) == expected


@pytest.mark.parametrize(
    ("options", "isSecure"),
    [
        ({}, False),
        ({}, True),
        ({"path": "/app", "domain": "example.com", "secure": True}, False),
        ({"partitioned": True, "sameSite": "none", "priority": "low"}, True),
    ],
)
def test_expiresTheCookieWithItsOwnAttributes(
    options: dict[str, Any], isSecure: bool
) -> None:
    """
    What makes a browser forget a cookie has that cookie's attributes, an empty
    value and a lifetime that is over.
    """
    made = CookieOptions(**options)
    assert expired("connect.sid", made, made.flags(isSecure)) == (
        "connect.sid=; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"
        + setCookie(made, isSecure, None)
    )


@unhurried
@given(st.floats(EARLIEST, LATEST))
def test_writesDatesAsHTTPDoes(timestamp: float) -> None:
    """
    A date is an IMF-fixdate, rounded down to the second.
    """
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=timestamp // 1)
    assert httpDate(timestamp) == format_datetime(moment, usegmt=True)


@pytest.mark.parametrize(
    ("timestamp", "date"),
    [
        (-0.001, "Wed, 31 Dec 1969 23:59:59 GMT"),
        (LATEST, "Fri, 31 Dec 9999 23:59:59 GMT"),
        (LATEST + 1, "Fri, 31 Dec 9999 23:59:59 GMT"),
        (float("1e308"), "Fri, 31 Dec 9999 23:59:59 GMT"),
        (EARLIEST, "Mon, 01 Jan 1601 00:00:00 GMT"),
        (EARLIEST - 1, "Mon, 01 Jan 1601 00:00:00 GMT"),
        (float("-1e308"), "Mon, 01 Jan 1601 00:00:00 GMT"),
    ],
)
def test_keepsToTheYearsOfADate(timestamp: float, date: str) -> None:
    """
    A time outside of the years 1601 to 9999 is moved to their end.
    """
    assert httpDate(timestamp) == date
