"""
What the two do with each other's sessions.
"""

from __future__ import annotations

from secrets import token_hex
from typing import Any

import pytest
import pytest_twisted

from .sharing import Sharing, Visitor

REPORT = "return {...req.session, cookie: undefined}"


async def seenByExpress(visitor: Visitor) -> Any:
    return await visitor.express(REPORT)


async def seenByTwisted(visitor: Visitor) -> Any:
    return await visitor.twisted(dict)


# Created, changed.


@pytest_twisted.ensureDeferred
async def test_whatExpressBeginsGoesOnHere(both: Sharing) -> None:
    """
    A session that Express has made is read here, under the same ID.
    """
    visitor = (await both()).visitor()
    sid = await visitor.express("req.session.user = 'ada'; return req.sessionID")
    found = await visitor.twisted(lambda s: (s.id, s.isNew, dict(s)))
    assert found == (sid, False, {"user": "ada"})
    assert visitor.setCookie is None


@pytest_twisted.ensureDeferred
async def test_whatBeginsHereGoesOnInExpress(both: Sharing) -> None:
    """
    A session that is made here is read by Express, under the same ID.
    """
    visitor = (await both()).visitor()
    await visitor.twisted(lambda s: s.update(user="ada"))
    found = await visitor.express("return [req.sessionID, req.session.user]")
    assert found == [visitor.sid, "ada"]
    assert visitor.setCookie is None


@pytest_twisted.ensureDeferred
async def test_eachSeesWhatTheOtherChanged(both: Sharing) -> None:
    """
    What one side sets, nests, appends and deletes, the other sees, time and again.
    """
    visitor = (await both()).visitor()
    await visitor.express("req.session.cart = {tea: 1}; req.session.old = true")
    await visitor.twisted(lambda s: s["cart"].update(milk=[1]))
    await visitor.express("req.session.cart.milk.push(2); delete req.session.old")
    assert await seenByTwisted(visitor) == {"cart": {"tea": 1, "milk": [1, 2]}}
    await visitor.twisted(lambda s: s["cart"].pop("tea"))
    assert await seenByExpress(visitor) == {"cart": {"milk": [1, 2]}}


@pytest_twisted.ensureDeferred
async def test_eachSeesWhatTheOtherSavedMeanwhile(both: Sharing) -> None:
    """
    A reload() during a request shows what the other side has saved since.
    """
    visitor = (await both()).visitor()
    await visitor.express("req.session.step = 1")

    async def reload(session: Any) -> Any:
        await visitor.express("req.session.step = 2")
        await session.reload()
        return session["step"]

    assert await visitor.twisted(reload) == 2
    held = visitor.expressHeld("", "await verb('reload'); return req.session.step")
    await held.reached
    await visitor.twisted(lambda s: s.update(step=3))
    assert await held.finish() == 3


@pytest_twisted.ensureDeferred
async def test_savedExplicitlyIsSeenBeforeTheResponse(both: Sharing) -> None:
    """
    What one side saves in the middle of a request, the other sees at once.
    """
    visitor = (await both()).visitor()
    await visitor.express("req.session.step = 0")

    async def saveHere(session: Any) -> Any:
        session["step"] = 1
        await session.save()
        return await visitor.express("return req.session.step")

    assert await visitor.twisted(saveHere) == 1
    held = visitor.expressHeld("req.session.step = 2; await verb('save')")
    await held.reached
    assert await visitor.twisted(lambda s: s["step"]) == 2
    await held.finish()


@pytest_twisted.ensureDeferred
async def test_noCookieNoSession(both: Sharing) -> None:
    """
    A visitor without a cookie is new to both, and leaves nothing behind.
    """
    visitor = (await both()).visitor()
    assert await seenByExpress(visitor) == {}
    assert await seenByTwisted(visitor) == {}
    assert visitor.cookies == {}


# Another ID.


@pytest_twisted.ensureDeferred
async def test_expressRegenerates(both: Sharing) -> None:
    """
    After regenerate() of Express, the old ID means nothing here, and the new
    session is read.
    """
    both_ = await both()
    visitor, thief = both_.visitor(), both_.visitor()
    await visitor.twisted(lambda s: s.update(user="nobody"))
    thief.cookies.update(visitor.cookies)
    await visitor.express("await verb('regenerate'); req.session.user = 'ada'")
    assert visitor.sid != thief.sid
    assert both_.look(thief.sid) is None
    assert await seenByTwisted(visitor) == {"user": "ada"}
    assert await seenByTwisted(thief) == {}


@pytest.mark.parametrize("keepData", [False, True])
@pytest_twisted.ensureDeferred
async def test_itIsRegeneratedHere(both: Sharing, keepData: bool) -> None:
    """
    After regenerate() here, the old ID means nothing to Express, and the new
    session is read.
    """
    both_ = await both()
    visitor, thief = both_.visitor(), both_.visitor()
    await visitor.express("req.session.cart = ['tea']")
    thief.cookies.update(visitor.cookies)

    async def logIn(session: Any) -> None:
        await session.regenerate(keepData=keepData)
        session["user"] = "ada"

    await visitor.twisted(logIn)
    kept = {"cart": ["tea"]} if keepData else {}
    assert visitor.sid != thief.sid
    assert both_.look(thief.sid) is None
    assert await seenByExpress(visitor) == {**kept, "user": "ada"}
    assert await seenByExpress(thief) == {}


# The end.


@pytest_twisted.ensureDeferred
async def test_expressDestroys(both: Sharing) -> None:
    """
    What Express destroys is gone here.  Express leaves the browser its cookie; a new
    session gets a new ID.
    """
    both_ = await both()
    visitor = both_.visitor()
    await visitor.twisted(lambda s: s.update(user="ada"))
    old = visitor.sid
    await visitor.express("await verb('destroy')")
    assert (both_.look(old), visitor.sid) == (None, old)
    assert await visitor.twisted(lambda s: (s.isNew, dict(s))) == (True, {})
    await visitor.twisted(lambda s: s.update(user="grace"))
    assert visitor.sid != old
    assert await seenByExpress(visitor) == {"user": "grace"}


@pytest_twisted.ensureDeferred
async def test_itIsDestroyedHere(both: Sharing) -> None:
    """
    What is destroyed here is gone for Express, and for the browser.
    """
    both_ = await both()
    visitor, copy = both_.visitor(), both_.visitor()
    await visitor.express("req.session.user = 'ada'")
    copy.cookies.update(visitor.cookies)
    await visitor.twisted(lambda s: s.destroy())
    assert (both_.look(copy.sid), visitor.cookies) == (None, {})
    assert await seenByExpress(copy) == {}


@pytest_twisted.ensureDeferred
async def test_expressUnsets(both: Sharing) -> None:
    """
    C{req.session = null} with C{unset: "destroy"} ends the session here as well.
    """
    visitor = (await both(express={"unset": "destroy"})).visitor()
    await visitor.twisted(lambda s: s.update(user="ada"))
    await visitor.express("req.session = null")
    assert await seenByTwisted(visitor) == {}


# IDs and signatures.


@pytest_twisted.ensureDeferred
async def test_idsOfEitherSideAreUnderstood(both: Sharing) -> None:
    """
    Whatever characters the IDs have that one side makes, the other finds the
    session.
    """
    odd = "ä/ü;=%25 \"'\\.€.😀*?[a]-" + token_hex(60)
    both_ = await both(
        express={"genid": {"js": f"() => {odd!r} + 'express'"}},
        twisted={"genid": lambda request: odd + "twisted"},
    )
    there, here = both_.visitor(), both_.visitor()
    await there.express("req.session.made = 'there'")
    await here.twisted(lambda s: s.update(made="here"))
    assert await there.twisted(lambda s: (s.id, s["made"])) == (
        odd + "express",
        "there",
    )
    found = await here.express("return [req.sessionID, req.session.made]")
    assert found == [odd + "twisted", "here"]


@pytest_twisted.ensureDeferred
async def test_nameOfTheCookieIsAnOption(both: Sharing) -> None:
    """
    The two agree on another name of the cookie, too.
    """
    visitor = (await both(express={"name": "sid"}, twisted={"name": "sid"})).visitor()
    await visitor.express("req.session.user = 'ada'")
    assert list(visitor.cookies) == ["sid"]
    assert await seenByTwisted(visitor) == {"user": "ada"}


@pytest_twisted.ensureDeferred
async def test_secretOfBytes(both: Sharing) -> None:
    """
    A secret that is no text is bytes here and a Buffer there.
    """
    visitor = (
        await both(
            express={"secret": {"js": "[Buffer.from([0, 255, 128])]"}},
            twisted={"secret": bytes([0, 255, 128])},
        )
    ).visitor()
    await visitor.express("req.session.n = 1")
    await visitor.twisted(lambda s: s.update(n=s["n"] + 1))
    assert await seenByExpress(visitor) == {"n": 2}


@pytest_twisted.ensureDeferred
async def test_longSecretWithUmlauts(both: Sharing) -> None:
    """
    A secret longer than a block of SHA-256, and not of ASCII alone, signs the same
    on both sides.
    """
    secret = "schlüssel 🔑 " * 20
    visitor = (
        await both(express={"secret": secret}, twisted={"secret": secret})
    ).visitor()
    await visitor.twisted(lambda s: s.update(user="ada"))
    assert await seenByExpress(visitor) == {"user": "ada"}


@pytest_twisted.ensureDeferred
async def test_anotherSecretIsAnotherSite(both: Sharing) -> None:
    """
    What neither side can verify counts as if it had not been sent.
    """
    visitor = (await both(express={"secret": "another"})).visitor()
    await visitor.express("req.session.user = 'ada'")
    assert await seenByTwisted(visitor) == {}
    await visitor.twisted(lambda s: s.update(user="grace"))
    assert await seenByExpress(visitor) == {}


@pytest_twisted.ensureDeferred
async def test_ofSeveralCookiesTheFirstOrTheFirstThatIsRight(both: Sharing) -> None:
    """
    Of several cookies of the name, Express looks at the first alone; here the first
    whose signature is right counts.
    """
    visitor = (await both()).visitor()
    await visitor.express("req.session.user = 'ada'")
    planted = (
        f"connect.sid=s%3Aplanted.abc; connect.sid={visitor.cookies['connect.sid']}"
    )
    assert await visitor.express(REPORT, Cookie=planted) == {}
    assert await visitor.twisted(dict, Cookie=planted) == {"user": "ada"}


@pytest_twisted.ensureDeferred
async def test_secretsAreRotatedOnBothSides(both: Sharing) -> None:
    """
    A cookie of the old secret is read by both.  Express leaves it as it is; here it
    is signed anew, and Express reads that as well.
    """
    secrets = {"secret": ["new", "old"]}
    old = (await both(express={"secret": "old"})).visitor()
    await old.express("req.session.user = 'ada'")
    visitor = (await both(express=secrets, twisted=secrets)).visitor()
    visitor.cookies.update(old.cookies)
    assert await seenByExpress(visitor) == {"user": "ada"}
    assert visitor.setCookie is None
    assert await seenByTwisted(visitor) == {"user": "ada"}
    assert visitor.setCookie is not None
    assert visitor.sid == old.sid
    assert visitor.cookies != old.cookies
    fresh = (await both(express={"secret": "new"}, twisted={"secret": "new"})).visitor()
    fresh.cookies.update(visitor.cookies)
    assert await seenByExpress(fresh) == {"user": "ada"}
    assert await seenByTwisted(fresh) == {"user": "ada"}


@pytest_twisted.ensureDeferred
async def test_secretsAreRotatedInTwoRounds(both: Sharing) -> None:
    """
    While one side has the new secret in front and the other at the end, each
    reads what the other signs.
    """
    visitor = (
        await both(
            express={"secret": ["old", "new"]}, twisted={"secret": ["new", "old"]}
        )
    ).visitor()
    await visitor.twisted(lambda s: s.update(user="ada"))
    assert await seenByExpress(visitor) == {"user": "ada"}
    other = visitor.both.visitor()
    await other.express("req.session.user = 'grace'")
    assert await seenByTwisted(other) == {"user": "grace"}


# All of them.


@pytest_twisted.ensureDeferred
async def test_allOfThemAreListedHere(both: Sharing) -> None:
    """
    C{all()} and C{length()} know the sessions of both sides, and C{clear()} ends
    them all.
    """
    where = {
        "redis": ({"prefix": "list:"}, {"prefix": "list:"}),
        "postgresql": (
            {"tableName": "listed", "createTableIfMissing": True},
            {"table": "listed"},
        ),
    }
    there, here = where[both.server.kind]
    both_ = await both(express={"store": there}, twisted={"store": here})
    await both_.store.clear()
    one, two = both_.visitor(), both_.visitor()
    await one.express("req.session.n = 1")
    await two.twisted(lambda s: s.update(n=2))
    assert set(await both_.store.all()) == {one.sid, two.sid}
    assert await both_.store.length() == 2
    await both_.store.clear()
    assert await seenByExpress(one) == {}
    assert await seenByExpress(two) == {}
