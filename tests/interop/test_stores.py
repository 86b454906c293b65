"""
The options of the stores that share their records.
"""

from __future__ import annotations

from math import ceil

import pytest
import pytest_twisted

from txsession import CookieOptions, Record, StoreError

from .sharing import DAY, HOUR, PostgreSQL, Sharing, now
from .test_lifetimes import HOURLY, about
from .test_sharing import seenByExpress, seenByTwisted

# connect-redis.


@pytest.mark.parametrize("prefix", ["shop:", "", "ü[*]?\\:"])
@pytest_twisted.ensureDeferred
async def test_prefix(bothOnRedis: Sharing, prefix: str) -> None:
    """
    The prefix of connect-redis is that of RedisStore.
    """
    options = {"store": {"prefix": prefix}}
    both = await bothOnRedis(express=options, twisted=options)
    visitor = both.visitor()
    await visitor.express("req.session.n = 1")
    await visitor.twisted(lambda s: s.update(n=s["n"] + 1))
    assert await seenByExpress(visitor) == {"n": 2}
    stored = both.server.look(visitor.sid, prefix=prefix)
    assert stored.document["n"] == 2


@pytest_twisted.ensureDeferred
async def test_anotherPrefixIsAnotherSite(bothOnRedis: Sharing) -> None:
    """
    With different prefixes nothing is shared.
    """
    visitor = (await bothOnRedis(express={"store": {"prefix": "shop:"}})).visitor()
    await visitor.express("req.session.n = 1")
    assert await seenByTwisted(visitor) == {}


@pytest_twisted.ensureDeferred
async def test_ttlOfConnectRedisMayBeAFunction(bothOnRedis: Sharing) -> None:
    """
    What a ttl function of connect-redis gives is when the session ends here, until
    it is saved or touched here.
    """
    ttl = {"ttl": {"js": "session => session.admin ? 600 : 7200"}}
    visitor = (
        await bothOnRedis(
            express={"store": ttl, **HOURLY["express"]}, twisted=HOURLY["twisted"]
        )
    ).visitor()
    await visitor.express("req.session.admin = true")
    assert visitor.stored.left == about(600)
    assert await visitor.twisted(lambda s: s.cookie.maxAge) == about(600)
    assert visitor.stored.left == about(HOUR)
    await visitor.express("return 0")
    assert visitor.stored.left == about(600)


@pytest_twisted.ensureDeferred
async def test_disableTTL(bothOnRedis: Sharing) -> None:
    """
    What connect-redis stores with C{disableTTL} never expires; a request here does
    not shorten it, a save here ends that.
    """
    visitor = (
        await bothOnRedis(
            express={"store": {"disableTTL": True}, **HOURLY["express"]},
            twisted=HOURLY["twisted"],
        )
    ).visitor()
    await visitor.express("req.session.n = 1")
    assert visitor.stored.expires is None
    assert await seenByTwisted(visitor) == {"n": 1}
    await visitor.twisted(lambda s: s.update(n=2))
    assert visitor.stored.left == about(HOUR)
    await visitor.express("return 0")
    assert visitor.stored.left == about(HOUR)


@pytest_twisted.ensureDeferred
async def test_disableTouch(both: Sharing) -> None:
    """
    With C{disableTouch} Express prolongs nothing by a request that changes nothing;
    this side does.
    """
    both_ = await both(
        express={"store": {"disableTouch": True}, **HOURLY["express"]},
        twisted=HOURLY["twisted"],
    )
    visitor = both_.visitor()
    await visitor.express("req.session.n = 1")
    both_.server.expireIn(visitor.sid, 60)
    await visitor.express("return 0")
    assert visitor.stored.left == about(60)
    await seenByTwisted(visitor)
    assert visitor.stored.left == about(HOUR)


# connect-pg-simple.


@pytest.mark.parametrize("name", ["visits", "Web Sessions", 'odd "name"', "s'1; --"])
@pytest_twisted.ensureDeferred
async def test_tableAndSchema(bothOnPostgreSQL: Sharing, name: str) -> None:
    """
    C{tableName} and C{schemaName} of connect-pg-simple are C{table} and C{schema}
    of PostgreSQLStore, quoted alike.
    """
    schema = f"{name} of both"
    bothOnPostgreSQL.server.makeSchema(schema)
    both = await bothOnPostgreSQL(
        express={"store": {"tableName": name, "schemaName": schema}},
        twisted={"store": {"table": name, "schema": schema}},
    )
    visitor = both.visitor()
    await visitor.express("req.session.n = 1")
    await visitor.twisted(lambda s: s.update(n=s["n"] + 1))
    assert await seenByExpress(visitor) == {"n": 2}


@pytest_twisted.ensureDeferred
async def test_tableOfConnectPgSimple(bothOnPostgreSQL: Sharing) -> None:
    """
    A table that connect-pg-simple has made serves both, and so it does where this
    side may not make one.
    """
    bothOnPostgreSQL.server.makeSchema("theirs")
    theirs = {"schemaName": "theirs", "createTableIfMissing": True}
    ours = {"schema": "theirs", "createTable": False}
    with pytest.raises(StoreError, match="there is no table"):
        await bothOnPostgreSQL(twisted={"store": ours})
    first = await bothOnPostgreSQL(express={"store": theirs})
    await first.visitor().express("req.session.n = 1")
    visitor = (
        await bothOnPostgreSQL(express={"store": theirs}, twisted={"store": ours})
    ).visitor()
    await visitor.express("req.session.n = 1")
    await visitor.twisted(lambda s: s.update(n=s["n"] + 1))
    assert await seenByExpress(visitor) == {"n": 2}


@pytest_twisted.ensureDeferred
async def test_tableOfOurs(bothOnPostgreSQL: Sharing) -> None:
    """
    A table that PostgreSQLStore has made is all that connect-pg-simple wants, with
    C{createTableIfMissing} or without.
    """
    for wanted in (True, False):
        visitor = (
            await bothOnPostgreSQL(express={"store": {"createTableIfMissing": wanted}})
        ).visitor()
        await visitor.express("req.session.n = 1")
        assert await seenByTwisted(visitor) == {"n": 1}


LAYOUT = """
SELECT column_name, data_type, is_nullable, datetime_precision
FROM information_schema.columns WHERE table_schema = %s AND table_name = 'session'
ORDER BY ordinal_position
"""
KEYS = """
SELECT pg_get_constraintdef(oid) FROM pg_constraint
WHERE connamespace = %s::regnamespace AND contype = 'p'
"""
INDICES = """
SELECT regexp_replace(indexdef, ' (INDEX|ON) .* USING ', ' ') FROM pg_indexes
WHERE schemaname = %s ORDER BY 1
"""


@pytest_twisted.ensureDeferred
async def test_bothMakeTheSameTable(bothOnPostgreSQL: Sharing) -> None:
    """
    The table that one side makes has the columns, key and index of that which the
    other makes.
    """
    server: PostgreSQL = bothOnPostgreSQL.server
    server.makeSchema("made_there")
    server.makeSchema("made_here")
    both = await bothOnPostgreSQL(
        express={"store": {"schemaName": "made_there", "createTableIfMissing": True}},
        twisted={"store": {"schema": "made_here"}},
    )
    await both.visitor().express("req.session.n = 1")
    for question in (LAYOUT, KEYS, INDICES):
        there, here = (
            server.ask(question, schema).fetchall()
            for schema in ("made_there", "made_here")
        )
        assert here == there
        assert here


def expiringIn(seconds: float) -> Record:
    payload = b'{"cookie":{"originalMaxAge":null,"expires":null}}'
    return Record(payload, now() + seconds)


@pytest_twisted.ensureDeferred
async def test_expressPrunesWhatExpiredHere(bothOnPostgreSQL: Sharing) -> None:
    """
    The pruning of connect-pg-simple deletes what has expired of either side, and
    leaves what lives.
    """
    store = {"tableName": "prunedthere", "createTableIfMissing": False}
    both = await bothOnPostgreSQL(
        express={"store": store}, twisted={"store": {"table": "prunedthere"}}
    )
    await both.store.set("expired", expiringIn(-5))
    await both.store.set("live", expiringIn(HOUR))
    await both.visitor().express(
        "await new Promise((resolve, reject) =>"
        "  req.sessionStore.pruneSessions(error => error ? reject(error) : resolve()))"
    )
    assert both.server.look("expired", "prunedthere") is None
    assert both.server.look("live", "prunedthere") is not None
    assert await both.store.prune(10) == 0


@pytest_twisted.ensureDeferred
async def test_whatExpressLeftIsPrunedHere(bothOnPostgreSQL: Sharing) -> None:
    """
    C{prune()} deletes what has expired of connect-pg-simple's, and leaves what
    lives.
    """
    both = await bothOnPostgreSQL(
        express={"store": {"tableName": "prunedhere"}},
        twisted={"store": {"table": "prunedhere"}},
    )
    dead, live = both.visitor(), both.visitor()
    await dead.express("req.session.n = 1")
    await live.express("req.session.n = 2")
    both.server.ask(
        "UPDATE prunedhere SET expire = now() - interval '1 s' WHERE sid = %s", dead.sid
    )
    assert await both.store.prune(10) == 1
    assert both.server.look(dead.sid, "prunedhere") is None
    assert await seenByTwisted(live) == {"n": 2}


@pytest_twisted.ensureDeferred
async def test_connectPgSimpleRoundsTheTimeUp(bothOnPostgreSQL: Sharing) -> None:
    """
    In the last fraction of a second, a session lives here and not in Express.
    """
    both = await bothOnPostgreSQL(twisted={"touchInterval": 10 * DAY})
    visitor = both.visitor()
    await visitor.express("req.session.n = 1")
    for _ in range(20):
        end = ceil(now()) - 0.001
        both.server.expireIn(visitor.sid, end - now())
        here, there = await seenByTwisted(visitor), await seenByExpress(visitor)
        if now() < end:
            assert (here, there) == ({"n": 1}, {})
            return
    raise AssertionError("the end of a second came in between each time")


@pytest_twisted.ensureDeferred
async def test_anotherTimeZoneMovesTheExpiry(bothOnPostgreSQL: Sharing) -> None:
    """
    Of two connections in different time zones, one takes what the other stores to
    expire hours earlier or later: the zone must be the same.
    """
    server: PostgreSQL = bothOnPostgreSQL.server
    join = "&" if "?" in server.url else "?"
    elsewhere = f"{server.url}{join}options=-c%20TimeZone%3DPacific/Kiritimati"
    visitor = (
        await bothOnPostgreSQL(
            express={"store": {"url": elsewhere}, **HOURLY["express"]}
        )
    ).visitor()
    await visitor.express("req.session.n = 1")
    assert visitor.stored.left > 2 * HOUR


# A record by itself.


@pytest_twisted.ensureDeferred
async def test_whatExpressStoresIsWhatWouldBeStoredHere(both: Sharing) -> None:
    """
    For the same cookie and the same data, the two store documents that say the
    same.
    """
    cookie = {"maxAge": HOUR * 1000, "secure": False, "sameSite": "lax"}
    both_ = await both(
        express={"cookie": {**cookie, "priority": "high"}},
        twisted={"cookie": CookieOptions(maxAge=HOUR, secure=False, priority="high")},
    )
    there, here = both_.visitor(), both_.visitor()
    await there.express("req.session.user = 'ada'")
    await here.twisted(lambda s: s.update(user="ada"))
    theirs, ours = there.stored.document, here.stored.document
    for document in (theirs, ours):
        assert document["cookie"].pop("originalMaxAge") / 1000 == about(HOUR)
        assert document["cookie"].pop("expires").endswith("Z")
    assert ours == theirs
    assert there.stored.left == about(here.stored.left)
    assert here.stored.left < DAY
