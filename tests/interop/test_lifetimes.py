"""
How long sessions live that both sides know, and what their cookies look like.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import pytest_twisted

from txsession import CookieOptions

from .sharing import DAY, HOUR, Sharing
from .test_sharing import seenByExpress, seenByTwisted

A_LITTLE = 5
"""
How many seconds a test may take, when it is a matter of hours.
"""


def about(seconds: float) -> Any:
    return pytest.approx(seconds, abs=A_LITTLE)


def inMilliseconds(seconds: float) -> int:
    return round(seconds * 1000)


HOURLY = {
    "express": {"cookie": {"maxAge": inMilliseconds(HOUR)}},
    "twisted": {"cookie": CookieOptions(maxAge=HOUR), "touchInterval": 0},
}

# In seconds here, in milliseconds there.


@pytest_twisted.ensureDeferred
async def test_maxAgeOfExpressHoldsHere(both: Sharing) -> None:
    """
    A session with a maxAge of Express has it here, in seconds, whatever the
    options are here.  express-session takes off up to a few milliseconds of
    C{originalMaxAge}.
    """
    visitor = (await both(express=HOURLY["express"])).visitor()
    await visitor.express("req.session.n = 1")
    maxAge, original, expires = await visitor.twisted(
        lambda s: (s.cookie.maxAge, s.cookie.originalMaxAge, s.cookie.expires)
    )
    assert (maxAge, original) == (about(HOUR), pytest.approx(HOUR, abs=0.5))
    assert original <= HOUR
    assert expires - datetime.now(timezone.utc) < timedelta(seconds=HOUR + 1)
    await visitor.twisted(lambda s: s.update(n=2))
    assert visitor.setCookie.attributes["max-age"] in ("3599", "3600")
    assert visitor.stored.left == about(HOUR)


@pytest_twisted.ensureDeferred
async def test_maxAgeOfOursHoldsInExpress(both: Sharing) -> None:
    """
    A session with a maxAge of this side has it in Express, in milliseconds,
    whatever the options are there.
    """
    visitor = (await both(twisted=HOURLY["twisted"])).visitor()
    await visitor.twisted(lambda s: s.update(n=1))
    assert visitor.stored.document["cookie"]["originalMaxAge"] == HOUR * 1000
    original, maxAge, isDate = await visitor.express(
        "const {cookie} = req.session;"
        "return [cookie.originalMaxAge, cookie.maxAge, cookie.expires instanceof Date]"
    )
    assert (original, isDate) == (HOUR * 1000, True)
    assert maxAge / 1000 == about(HOUR)
    await visitor.express("req.session.n = 2")
    assert "expires" in visitor.setCookie.attributes
    assert visitor.stored.left == about(HOUR)


@pytest_twisted.ensureDeferred
async def test_cookieOfTheBrowsersSessionStaysOne(both: Sharing) -> None:
    """
    A session without maxAge has none on the other side either; its record lives for
    the C{ttl} of who saved it last, a day by default.
    """
    here, there = {"ttl": 2 * HOUR}, {"store": {"ttl": 3 * HOUR}}
    visitor = (await both(express=there, twisted=here)).visitor()
    await visitor.express("req.session.n = 1")
    assert visitor.stored.left == about(3 * HOUR)
    cookie = await visitor.twisted(lambda s: (s.cookie.maxAge, s.cookie.expires))
    assert cookie == (None, None)
    await visitor.twisted(lambda s: s.update(n=2))
    assert visitor.stored.left == about(2 * HOUR)
    cookie = await visitor.express(
        "const {cookie} = req.session; return [cookie.maxAge, cookie.expires]"
    )
    assert cookie == [None, None]
    default = (await both()).visitor()
    await default.express("req.session.n = 1")
    assert default.stored.left == about(DAY)


@pytest_twisted.ensureDeferred
async def test_lifetimeChangedByExpressIsKnownHere(both: Sharing) -> None:
    """
    "Remember me" in Express holds here; express-session saves it only together with
    a change of the data.
    """
    visitor = (await both()).visitor()
    await visitor.express("req.session.user = 'ada'")
    remember = "req.session.cookie.maxAge = 7 * 86400000"
    await visitor.express(remember)
    assert await visitor.twisted(lambda s: s.cookie.maxAge) is None
    await visitor.express(f"{remember}; req.session.remembered = true")
    assert await visitor.twisted(lambda s: s.cookie.maxAge) == about(7 * DAY)
    assert visitor.stored.left == about(7 * DAY)


@pytest_twisted.ensureDeferred
async def test_lifetimeChangedHereIsKnownByExpress(both: Sharing) -> None:
    """
    "Remember me" here holds in Express, with or without a change of the data; and so
    it does when it is taken back.
    """
    visitor = (await both(express=HOURLY["express"])).visitor()
    await visitor.express("req.session.user = 'ada'")
    await visitor.twisted(lambda s: setattr(s.cookie, "maxAge", 7 * DAY))
    maxAge = "return req.session.cookie.maxAge / 1000"
    assert await visitor.express(maxAge) == about(7 * DAY)
    await visitor.twisted(lambda s: setattr(s.cookie, "maxAge", None))
    assert "expires" not in visitor.setCookie.attributes
    assert await visitor.express("return req.session.cookie.originalMaxAge") is None


@pytest_twisted.ensureDeferred
async def test_expiresFalseIsAsNone(both: Sharing) -> None:
    """
    C{cookie.expires = false} of Express, which it stores as such, is no expiry here.
    """
    visitor = (await both(express=HOURLY["express"])).visitor()
    await visitor.express("req.session.n = 1; req.session.cookie.expires = false")
    assert visitor.stored.document["cookie"]["originalMaxAge"] is False
    cookie = await visitor.twisted(lambda s: (s.cookie.maxAge, s.cookie.expires))
    assert cookie == (None, None)
    await visitor.twisted(lambda s: s.update(n=2))
    assert await seenByExpress(visitor) == {"n": 2}


@pytest_twisted.ensureDeferred
async def test_dateHereIsADateThere(both: Sharing) -> None:
    """
    An expiry given as a date is the same date to Express.
    """
    visitor = (await both()).visitor()
    date = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(hours=2)

    def until(session: Any) -> None:
        session["n"] = 1
        session.cookie.expires = date

    await visitor.twisted(until)
    stored = visitor.stored.document["cookie"]["expires"]
    assert datetime.fromisoformat(stored.replace("Z", "+00:00")) == date
    assert visitor.stored.left == about(2 * HOUR)
    assert await visitor.express("return req.session.cookie.maxAge / 1000") == about(
        2 * HOUR
    )


# Touched.


@pytest_twisted.ensureDeferred
async def test_touchOfExpressCountsHere(both: Sharing) -> None:
    """
    A request to Express that changes nothing prolongs the session for this side.
    """
    both_ = await both(**HOURLY)
    visitor = both_.visitor()
    await visitor.twisted(lambda s: s.update(n=1))
    payload = visitor.stored.payload
    both_.server.expireIn(visitor.sid, 60)
    await visitor.express("return 0")
    assert visitor.stored.left == about(HOUR)
    assert visitor.stored.payload == payload
    record = await both_.store.get(visitor.sid)
    assert record.expires == pytest.approx(visitor.stored.expires, abs=0.1)


@pytest_twisted.ensureDeferred
async def test_touchOfOursCountsInExpress(both: Sharing) -> None:
    """
    A request here that changes nothing prolongs the session for Express.
    """
    both_ = await both(**HOURLY)
    visitor = both_.visitor()
    await visitor.express("req.session.n = 1")
    payload = visitor.stored.payload
    both_.server.expireIn(visitor.sid, 60)

    async def look(session: Any) -> Any:
        return session.cookie.maxAge

    assert await visitor.twisted(look) == about(60)
    assert await visitor.twisted(look) == about(HOUR)
    assert visitor.stored.payload == payload
    assert await seenByExpress(visitor) == {"n": 1}


@pytest_twisted.ensureDeferred
async def test_whatIsTouchedOutlivesTheDateInTheDocument(both: Sharing) -> None:
    """
    The date in the document is that of the last save.  Neither side takes a session
    for expired because of it, when it was touched since.
    """
    both_ = await both(**HOURLY)
    visitor = both_.visitor()
    await visitor.twisted(lambda s: s.update(n=1))
    stored = visitor.stored
    date = stored.document["cookie"]["expires"].encode()
    past = stored.payload.replace(date, b"2020-01-01T00:00:00.000Z")
    sid = "past" + visitor.sid
    both_.server.plant(sid, past)
    old = both_.visitor()
    old.cookies["connect.sid"] = signed(sid)
    assert await seenByTwisted(old) == {"n": 1}
    assert await seenByExpress(old) == {"n": 1}


def signed(sid: str) -> str:
    from txsession.signing import Signer

    return Signer("keyboard cat").sign(sid).decode().replace("+", "%2B")


@pytest_twisted.ensureDeferred
async def test_whatExpiresIsGoneForBoth(both: Sharing) -> None:
    """
    A session whose time is over is one for neither.
    """
    both_ = await both()
    visitor = both_.visitor()
    await visitor.express("req.session.n = 1")
    both_.server.expireIn(visitor.sid, 0)
    assert await seenByExpress(visitor) == {}
    assert await seenByTwisted(visitor) == {}


@pytest_twisted.ensureDeferred
async def test_negativeMaxAgeEndsTheSession(bothOnRedis: Sharing) -> None:
    """
    A maxAge that has passed ends the session: with connect-redis as well as here.
    """
    both_ = await bothOnRedis()
    there, here = both_.visitor(), both_.visitor()
    for visitor in (there, here):
        await visitor.express("req.session.n = 1")
    ids = there.sid, here.sid
    await there.express("req.session.n = 2; req.session.cookie.maxAge = -1000")
    await here.twisted(lambda s: setattr(s.cookie, "maxAge", -1))
    assert [both_.look(sid) for sid in ids] == [None, None]


# rolling.


@pytest_twisted.ensureDeferred
async def test_bothRoll(both: Sharing) -> None:
    """
    With C{rolling} on both sides, each response of either renews cookie and record.
    """
    rolling = {side: {**options, "rolling": True} for side, options in HOURLY.items()}
    both_ = await both(**rolling)
    visitor = both_.visitor()
    await visitor.express("req.session.n = 1")
    for request in (seenByTwisted, seenByExpress, seenByTwisted):
        both_.server.expireIn(visitor.sid, 60)
        await request(visitor)
        assert visitor.setCookie is not None
        assert visitor.stored.left == about(HOUR)


# The cookie's attributes.


@pytest_twisted.ensureDeferred
async def test_ofAStoredCookieThisSideTakesTheLifetimeAlone(both: Sharing) -> None:
    """
    The attributes of a cookie that is sent from here are those of today's options;
    Express sends those that are stored with the session.
    """
    there = {"path": "/", "httpOnly": False, "sameSite": "strict", "priority": "high"}
    here = CookieOptions(sameSite="lax", priority="low")
    visitor = (
        await both(
            express={"cookie": there, "rolling": True},
            twisted={"cookie": here, "rolling": True},
        )
    ).visitor()
    await visitor.express("req.session.n = 1")
    express = {"path": "/", "priority": "High", "samesite": "Strict"}
    twisted = {"path": "/", "priority": "Low", "httponly": "", "samesite": "Lax"}
    assert lowered(visitor) == lowered(express)
    await seenByTwisted(visitor)
    assert lowered(visitor) == lowered(twisted)
    await seenByExpress(visitor)
    assert lowered(visitor) == lowered(express)
    # What is saved here has the attributes of here, for Express as well.
    await visitor.twisted(lambda s: s.update(n=2))
    await seenByExpress(visitor)
    assert lowered(visitor) == lowered(twisted)


def lowered(what: Any) -> dict[str, str]:
    attributes = what if isinstance(what, dict) else what.setCookie.attributes
    return {name.lower(): value.lower() for name, value in attributes.items()}


@pytest_twisted.ensureDeferred
async def test_secureCookieOfOneIsSecureForTheOther(both: Sharing) -> None:
    """
    Behind a proxy that speaks HTTPS, a cookie that is Secure here is so in Express,
    and the other way round; on plain HTTP, Express sends no cookie for a session
    that it finds stored as Secure.
    """
    https = {"X-Forwarded-Proto": "https"}
    visitor = (
        await both(
            express={"cookie": {"secure": "auto"}, "proxy": True, "rolling": True},
            twisted={"proxy": True, "rolling": True},
        )
    ).visitor()
    await visitor.twisted(lambda s: s.update(n=1), **https)
    assert "secure" in visitor.setCookie.attributes
    await visitor.express("return 0", **https)
    assert "secure" in visitor.setCookie.attributes
    await visitor.express("return 0")
    assert visitor.setCookie is None
    await visitor.twisted(dict)
    assert "secure" not in visitor.setCookie.attributes
