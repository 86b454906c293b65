"""
What becomes of a session that both sides work on at the same time.

Here nothing is lost: what Express saved meanwhile is merged, and what it destroyed
stays destroyed.  Express overwrites: that cannot be helped from this side, and the
tests say what it means.
"""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from txsession import Record, Session, SessionConflict
from txsession.document import TOMBSTONE

from ..support import Browser, StepStore, called, patiently
from .sharing import DAY, HOUR, Sharing, now
from .test_lifetimes import HOURLY
from .test_sharing import seenByExpress, seenByTwisted

# Express is faster than a request here.


@pytest_twisted.ensureDeferred
async def test_whatExpressSavedMeanwhileIsMergedHere(both: Sharing) -> None:
    """
    A request here that ends after one of Express keeps the changes of both.
    """
    visitor = (await both()).visitor()
    await visitor.express("req.session.cart = {tea: 1, milk: 1}")
    held = visitor.twistedHeld(lambda s: s["cart"].update(bread=2))
    await held.reached
    await visitor.express("delete req.session.cart.milk; req.session.user = 'ada'")
    await held.finish()
    both = {"cart": {"tea": 1, "bread": 2}, "user": "ada"}
    assert await seenByTwisted(visitor) == both
    assert await seenByExpress(visitor) == both


@pytest_twisted.ensureDeferred
async def test_whatExpressDestroyedMeanwhileIsNotRevivedHere(both: Sharing) -> None:
    """
    A request here that ends after Express has destroyed the session does not bring
    it back, and takes the cookie from the browser.
    """
    both_ = await both()
    visitor = both_.visitor()
    await visitor.express("req.session.user = 'ada'")
    sid = visitor.sid
    held = visitor.twistedHeld(lambda s: s.update(seen=True))
    await held.reached
    await visitor.express("await verb('destroy')")
    await held.finish()
    assert both_.look(sid) is None
    assert visitor.setCookie.isExpired
    assert visitor.cookies == {}


@pytest_twisted.ensureDeferred
async def test_whatExpressDestroyedMeanwhileIsNotTouchedHere(both: Sharing) -> None:
    """
    Nor does a touch bring it back.
    """
    both_ = await both(twisted={"touchInterval": 0})
    visitor = both_.visitor()
    await visitor.express("req.session.user = 'ada'")
    held = visitor.twistedHeld(lambda s: s.touch())
    await held.reached
    await visitor.express("await verb('destroy')")
    await held.finish()
    assert both_.look(visitor.sid) is None


@pytest_twisted.ensureDeferred
async def test_whatExpressRegeneratedMeanwhileIsNotRevivedHere(both: Sharing) -> None:
    """
    A request here that ends after Express has given the session another ID does not
    bring the old one back.
    """
    both_ = await both()
    visitor = both_.visitor()
    await visitor.express("req.session.user = 'nobody'")
    sid = visitor.sid
    held = visitor.twistedHeld(lambda s: s.update(seen=True))
    await held.reached
    await visitor.express("await verb('regenerate'); req.session.user = 'ada'")
    regenerated = visitor.sid
    await held.finish()
    assert both_.look(sid) is None
    assert both_.stored(regenerated).document["user"] == "ada"


@pytest_twisted.ensureDeferred
async def test_onConflictErrorNoticesExpress(both: Sharing) -> None:
    """
    With C{onConflict="error"}, a change that Express made meanwhile is one.
    """
    visitor = (await both(twisted={"onConflict": "error"})).visitor()
    await visitor.express("req.session.n = 1")

    async def change(session: Session) -> None:
        session["n"] = 2
        await visitor.express("req.session.n = 3")
        with pytest.raises(SessionConflict):
            await session.save()
        await session.reload()

    await visitor.twisted(change)
    assert await seenByTwisted(visitor) == {"n": 3}


@pytest_twisted.ensureDeferred
async def test_expressChangesNothingAndIsNoConflict(both: Sharing) -> None:
    """
    A request of Express that only touches the session is not in the way of a save
    here.
    """
    visitor = (await both(twisted={"onConflict": "error"})).visitor()
    await visitor.express("req.session.n = 1")
    held = visitor.twistedHeld(lambda s: s.update(n=2))
    await held.reached
    await visitor.express("return req.session.n")
    await held.finish()
    assert await seenByTwisted(visitor) == {"n": 2}


# A request here is faster than Express.


@pytest_twisted.ensureDeferred
async def test_expressOverwritesWhatWasSavedHere(both: Sharing) -> None:
    """
    A request of Express that changes something and ends after one here overwrites
    what that has saved.
    """
    visitor = (await both()).visitor()
    await visitor.express("req.session.user = 'ada'")
    held = visitor.expressHeld("req.session.theirs = true")
    await held.reached
    await visitor.twisted(lambda s: s.update(ours=True))
    await held.finish()
    assert await seenByTwisted(visitor) == {"user": "ada", "theirs": True}


@pytest_twisted.ensureDeferred
async def test_expressDoesNotOverwriteWhereItChangesNothing(both: Sharing) -> None:
    """
    A request of Express that changes nothing overwrites nothing, with
    C{resave: false}.
    """
    visitor = (await both()).visitor()
    await visitor.express("req.session.user = 'ada'")
    held = visitor.expressHeld("")
    await held.reached
    await visitor.twisted(lambda s: s.update(ours=True))
    await held.finish()
    assert await seenByTwisted(visitor) == {"user": "ada", "ours": True}


@pytest_twisted.ensureDeferred
async def test_expressOverwritesAtEachRequestWithResave(both: Sharing) -> None:
    """
    With C{resave: true}, a request of Express overwrites whatever was saved here
    while it ran.
    """
    visitor = (await both(express={"resave": True})).visitor()
    await visitor.express("req.session.user = 'ada'")
    held = visitor.expressHeld("")
    await held.reached
    await visitor.twisted(lambda s: s.update(ours=True))
    await held.finish()
    assert await seenByTwisted(visitor) == {"user": "ada"}


@pytest_twisted.ensureDeferred
async def test_expressRevivesWhatWasDestroyedHere(both: Sharing) -> None:
    """
    A request of Express that changes something and ends after the session was
    destroyed here brings it back.  (The browser, though, has no cookie for it.)
    """
    both_ = await both()
    visitor = both_.visitor()
    await visitor.express("req.session.user = 'ada'")
    sid = visitor.sid
    held = visitor.expressHeld("req.session.theirs = true")
    await held.reached
    await visitor.twisted(lambda s: s.destroy())
    assert both_.look(sid) is None
    await held.finish()
    assert both_.stored(sid).document["user"] == "ada"
    assert visitor.cookies == {}


@pytest.mark.parametrize("options", [HOURLY["express"], {"rolling": True}])
@pytest_twisted.ensureDeferred
async def test_expressGivesTheCookieBack(both: Sharing, options: Any) -> None:
    """
    With a C{maxAge} or with C{rolling}, it gives the browser the cookie again, too.
    """
    visitor = (await both(express=options)).visitor()
    await visitor.express("req.session.user = 'ada'")
    held = visitor.expressHeld("req.session.theirs = true")
    await held.reached
    await visitor.twisted(lambda s: s.destroy())
    assert visitor.cookies == {}
    await held.finish()
    assert await seenByTwisted(visitor) == {"user": "ada", "theirs": True}


@pytest_twisted.ensureDeferred
async def test_expressRevivesByItselfAsWell(both: Sharing) -> None:
    """
    It does so, too, when the session was destroyed by another request to Express.
    """
    both_ = await both()
    visitor = both_.visitor()
    await visitor.express("req.session.user = 'ada'")
    held = visitor.expressHeld("req.session.theirs = true")
    await held.reached
    await visitor.express("await verb('destroy')")
    await held.finish()
    assert both_.stored(visitor.sid).document["user"] == "ada"


@pytest_twisted.ensureDeferred
async def test_expressRevivesWhatWasRegeneratedHere(both: Sharing) -> None:
    """
    A request of Express that changes something and ends after the session got
    another ID here brings the old one back, with what Express had read; the new one
    is as it should be.
    """
    both_ = await both()
    visitor = both_.visitor()
    await visitor.express("req.session.user = 'nobody'")
    old = visitor.sid
    held = visitor.expressHeld("req.session.theirs = true")
    await held.reached

    async def logIn(session: Session) -> None:
        await session.regenerate(keepData=True)
        session["user"] = "ada"

    await visitor.twisted(logIn)
    await held.finish()
    assert both_.stored(old).document["user"] == "nobody"
    assert visitor.sid != old
    assert await seenByTwisted(visitor) == {"user": "ada"}


@pytest_twisted.ensureDeferred
async def test_expressDoesNotReviveByATouch(both: Sharing) -> None:
    """
    A request of Express that changes nothing does not bring it back.
    """
    both_ = await both()
    visitor = both_.visitor()
    await visitor.express("req.session.user = 'ada'")
    sid = visitor.sid
    held = visitor.expressHeld("")
    await held.reached
    await visitor.twisted(lambda s: s.destroy())
    await held.finish()
    assert both_.look(sid) is None


@pytest_twisted.ensureDeferred
async def test_reloadBeforeItChangesKeepsExpressFromOverwriting(both: Sharing) -> None:
    """
    A request of Express that reloads before it changes something, and saves at
    once, keeps what was saved here.
    """
    visitor = (await both()).visitor()
    await visitor.express("req.session.user = 'ada'")
    held = visitor.expressHeld(
        "", "await verb('reload'); req.session.theirs = true; await verb('save')"
    )
    await held.reached
    await visitor.twisted(lambda s: s.update(ours=True))
    await held.finish()
    everything = {"user": "ada", "ours": True, "theirs": True}
    assert await seenByTwisted(visitor) == everything


@pytest_twisted.ensureDeferred
async def test_reloadBeforeItChangesKeepsExpressFromReviving(both: Sharing) -> None:
    """
    The reload() fails if the session was destroyed here meanwhile.
    """
    both_ = await both()
    visitor = both_.visitor()
    await visitor.express("req.session.user = 'ada'")
    sid = visitor.sid
    held = visitor.expressHeld(
        "",
        "try { await verb('reload') } catch (error) {"
        "  delete req.session; return error.message"
        "}",
    )
    await held.reached
    await visitor.twisted(lambda s: s.destroy())
    assert await held.finish() == "failed to load session"
    assert both_.look(sid) is None


@pytest_twisted.ensureDeferred
async def test_expressRedirectsBeforeItHasSaved(both: Sharing) -> None:
    """
    A redirect of Express can be in the browser before the session is saved.
    """
    both_ = await both()
    visitor = both_.visitor()
    await visitor.express("req.session.user = 'nobody'")
    script = (
        "const {set} = req.sessionStore;"
        "req.sessionStore.set = async function (...all) {"
        "  req.sessionStore.set = set; await pause(); set.apply(this, all)"
        "};"
        "req.session.user = 'ada'; res.redirect(303, '/')"
    )
    saving = both_.node.paused()
    connection = await Browser(both_.expressPort).connect()
    connection.transport.write(
        f"POST /do HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Cookie: connect.sid={visitor.cookies['connect.sid']}\r\n"
        f"Content-Length: {len(script)}\r\n\r\n{script}".encode()
    )
    await patiently(connection.until(b"Location: /"))
    await saving
    assert await seenByTwisted(visitor) == {"user": "nobody"}
    await both_.node.ask("resume")
    assert (await patiently(connection.closed)).startswith(b"HTTP/1.1 303")
    assert await seenByTwisted(visitor) == {"user": "ada"}


# The tombstone of regenerate(keepData=True).


@pytest_twisted.ensureDeferred
async def test_expressSeesATombstoneAsASessionWithoutData(both: Sharing) -> None:
    """
    The moment that an old ID stands for nothing, Express sees a session of that ID
    with nothing in it but C{__txsession}.  Here there is none.
    """
    both_ = await both()
    visitor = both_.visitor()
    await visitor.express("req.session.user = 'ada'")
    record = await both_.store.get(visitor.sid)
    tombstone = Record(TOMBSTONE, record.expires)
    assert await both_.store.replace(visitor.sid, tombstone, record)
    found = await visitor.express("return [req.sessionID, req.session]")
    cookie = {"originalMaxAge": None, "expires": None, "httpOnly": True, "path": "/"}
    data = {"cookie": cookie, "__txsession": {"moved": True}}
    assert found == [visitor.sid, data]
    assert both_.stored(visitor.sid).payload == TOMBSTONE  # touched, not saved
    assert await visitor.twisted(lambda s: (s.isNew, dict(s))) == (True, {})


@pytest_twisted.ensureDeferred
async def test_whatExpressWritesOverATombstoneGoesWithIt(both: Sharing) -> None:
    """
    What Express writes under the old ID in that moment ends with the regenerate(),
    and does not get into the new session.
    """
    both_ = await both(wrap=lambda store: StepStore(store, set()))
    visitor, copy, store = both_.visitor(), both_.visitor(), both_.store
    await visitor.express("req.session.user = 'ada'")
    copy.cookies.update(visitor.cookies)
    sid = visitor.sid
    store.held.add("destroy")
    moving = Deferred.fromCoroutine(
        visitor.twisted(lambda s: s.regenerate(keepData=True))
    )
    destroying = await called(store, "destroy")
    assert both_.stored(sid).payload == TOMBSTONE
    await copy.express("req.session.planted = true")
    assert both_.stored(sid).document["planted"] is True
    destroying.release()
    await moving
    assert both_.look(sid) is None
    assert await seenByExpress(visitor) == {"user": "ada"}


@pytest_twisted.ensureDeferred
async def test_whatExpressSavedIsMovedAlong(both: Sharing) -> None:
    """
    What Express saves under the old ID before the regenerate() here is over is in
    the new session.
    """
    both_ = await both()
    visitor = both_.visitor()
    await visitor.express("req.session.user = 'ada'")

    async def move(session: Session) -> None:
        await visitor.express("req.session.cart = ['tea']")
        await session.regenerate(keepData=True)

    await visitor.twisted(move)
    assert await seenByTwisted(visitor) == {"user": "ada", "cart": ["tea"]}


# absoluteTimeout.


@pytest_twisted.ensureDeferred
async def test_creationTimeSurvivesExpress(both: Sharing) -> None:
    """
    The time of creation, which C{absoluteTimeout} needs, is still there after
    Express has saved the session.
    """
    options = {"absoluteTimeout": DAY, "ttl": 10 * DAY}
    visitor = (await both(twisted=options)).visitor()
    await visitor.twisted(lambda s: s.update(n=1))
    created = visitor.stored.document["__txsession"]
    assert created == {"created": pytest.approx(now() * 1000, abs=5000)}
    await visitor.express("req.session.n = 2")
    assert visitor.stored.document["__txsession"] == created
    await visitor.twisted(lambda s: s.update(n=s["n"] + 1))
    assert visitor.stored.document["n"] == 3
    assert visitor.stored.document["__txsession"] == created
    assert visitor.stored.left == pytest.approx(DAY, abs=5)


@pytest_twisted.ensureDeferred
async def test_expressMayProlongTheRecordButNotTheSession(both: Sharing) -> None:
    """
    Express knows nothing of C{absoluteTimeout} and lets a record live on; here it
    ends all the same.
    """
    both_ = await both(twisted={"absoluteTimeout": HOUR})
    visitor = both_.visitor()
    await visitor.twisted(lambda s: s.update(user="ada"))
    await visitor.express("req.session.__txsession.created -= 3600 * 1000")
    assert visitor.stored.left > HOUR
    assert await visitor.twisted(lambda s: (s.isNew, dict(s))) == (True, {})
    assert await visitor.express("return req.session.user") == "ada"


@pytest_twisted.ensureDeferred
async def test_sessionOfExpressIsBornAtItsFirstLoad(both: Sharing) -> None:
    """
    A session that Express made, or made anew by regenerate(), counts as born when
    it first comes here.
    """
    visitor = (await both(twisted={"absoluteTimeout": HOUR})).visitor()
    await visitor.express("req.session.user = 'ada'")
    assert "__txsession" not in visitor.stored.document
    assert await seenByTwisted(visitor) == {"user": "ada"}
    assert "created" in visitor.stored.document["__txsession"]
    await visitor.express("await verb('regenerate'); req.session.user = 'ada'")
    assert "__txsession" not in visitor.stored.document
