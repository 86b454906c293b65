"""
Two requests at once, stores that fail at the worst moment, and clients that
leave: what nobody may lose, revive or be sent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted
from klein import Klein
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    ensureDeferred,
    gatherResults,
)
from twisted.logger import LogLevel
from twisted.web.server import NOT_DONE_YET

from txsession import (
    CookieOptions,
    ISession,
    MemoryStore,
    Record,
    SessionConflict,
    SessionGone,
    StoreError,
    StoreTimeout,
    StoreUnavailable,
    getSession,
)
from txsession.signing import fingerprint

from .support import START, Browser, Served, StepStore, called, clockAt, turn
from .test_exchange import count, nothing, payload, signed, texts
from .test_session import App, Faulty, cookieOf, down


def stepping(serve: Any, app: Any, **options: Any) -> tuple[StepStore, Served]:
    """
    Serve it on a store whose calls can be held.
    """
    clock = clockAt()
    store = StepStore(MemoryStore(reactor=clock))
    return store, serve(app, store=store, clock=clock, **options)


def twin(browser: Browser) -> Browser:
    """
    Another window of the same browser: it has the cookies, and keeps to itself
    what it is sent.
    """
    return Browser(browser.port, dict(browser.cookies))


# Nothing is lost.


@pytest_twisted.ensureDeferred
async def test_fiftyRequestsAtOnceKeepFiftyKeys(serve):
    """
    Fifty requests that have all read the same session and each set another key,
    at the top and inside an object, keep all of them.
    """
    app = App()
    store, served = stepping(serve, app)
    browser = served.browser()
    sid = await app.start(browser, shared={"kept": True})
    store.held = {"get"}

    def act(number):
        def change(session):
            session[f"top{number}"] = number
            session["shared"][f"in{number}"] = number

        return change

    visits = [
        ensureDeferred(app.visit(twin(browser), act(number))) for number in range(50)
    ]
    loads = [await store.called("get") for _ in visits]
    store.held = set()
    for load in loads:
        load.release()
    replies = await gatherResults(visits)
    assert {reply.status for reply in replies} == {200}
    expected = {f"top{n}": n for n in range(50)}
    expected["shared"] = {"kept": True} | {f"in{n}": n for n in range(50)}
    assert await served.data(sid) == expected


@pytest_twisted.ensureDeferred
async def test_fiftySavesUnderWayAtOnceKeepFiftyKeys(serve):
    """
    So they do when all fifty have begun to save before the first is answered.
    """
    app = App()
    store, served = stepping(serve, app)
    browser = served.browser()
    sid = await app.start(browser, base=True)
    store.held = {"replace"}
    visits = [
        ensureDeferred(
            app.visit(twin(browser), lambda session, n=n: session.update({f"k{n}": n}))
        )
        for n in range(50)
    ]
    saves = [await store.called("replace") for _ in visits]
    store.held = set()
    for save in saves:
        save.release()
    await gatherResults(visits)
    assert await served.data(sid) == {"base": True} | {f"k{n}": n for n in range(50)}


def put(*path: str, value: Any) -> Callable[[Any], None]:
    def change(session: Any) -> None:
        for key in path[:-1]:
            session = session[key]
        session[path[-1]] = value

    return change


def drop(*path: str) -> Callable[[Any], None]:
    def change(session: Any) -> None:
        for key in path[:-1]:
            session = session[key]
        del session[path[-1]]

    return change


def both(*changes: Callable[[Any], None]) -> Callable[[Any], None]:
    def change(session: Any) -> None:
        for each in changes:
            each(session)

    return change


MERGES: dict[str, tuple[Any, Any, Any, Any]] = {
    "other keys": ({}, put("a", value=1), put("b", value=2), {"a": 1, "b": 2}),
    "same key": ({"k": 0}, put("k", value=1), put("k", value=2), {"k": 1}),
    "mine deleted": (
        {"a": 0, "b": 0},
        drop("a"),
        put("b", value=1),
        {"b": 1},
    ),
    "theirs deleted": (
        {"a": 0, "b": 0},
        put("b", value=1),
        drop("a"),
        {"b": 1},
    ),
    "deleted what they changed": ({"a": 0}, drop("a"), put("a", value=1), {}),
    "changed what they deleted": (
        {"a": 0},
        put("a", value=1),
        drop("a"),
        {"a": 1},
    ),
    "deleted by both": ({"a": 0, "b": 0}, drop("a"), drop("a"), {"b": 0}),
    "depth": (
        {"a": {"b": {"x": 0, "y": 0}, "c": 0}},
        put("a", "b", "x", value=1),
        both(put("a", "b", "y", value=2), put("a", "c", value=3)),
        {"a": {"b": {"x": 1, "y": 2}, "c": 3}},
    ),
    "depth deleted": (
        {"a": {"x": 0, "y": 0, "z": 0}},
        drop("a", "x"),
        drop("a", "y"),
        {"a": {"z": 0}},
    ),
    "path gone": (
        {"a": {"b": {"x": 0, "y": 0}}},
        put("a", "b", "x", value=1),
        drop("a"),
        {"a": {"b": {"x": 1}}},
    ),
    "deleting below a path that is gone": (
        {"a": {"b": {"x": 0}}, "c": 0},
        drop("a", "b", "x"),
        drop("a"),
        {"c": 0},
    ),
    "a scalar in the way": (
        {"a": {"x": 0, "y": 0}},
        put("a", "x", value=1),
        put("a", value="scalar"),
        {"a": {"x": 1, "y": 0}},
    ),
    "an array in the way": (
        {"a": {"x": 0, "y": 0}},
        put("a", "x", value=1),
        put("a", value=[{"x": 2}]),
        {"a": {"x": 1, "y": 0}},
    ),
    "a scalar over what they changed": (
        {"a": {"x": 0}},
        put("a", value=None),
        put("a", "y", value=2),
        {"a": None},
    ),
    "None is no deletion": (
        {"a": 1, "b": 1},
        put("a", value=None),
        put("b", value=None),
        {"a": None, "b": None},
    ),
    "arrays whole": (
        {"a": [0], "b": [0]},
        put("a", value=[0, 1]),
        both(put("a", value=[0, 2]), put("b", value=[3])),
        {"a": [0, 1], "b": [3]},
    ),
    "an object made by both": (
        {},
        put("a", value={"x": 1}),
        put("a", value={"y": 2}),
        {"a": {"x": 1, "y": 2}},
    ),
    "an empty object": ({}, put("a", value={}), put("b", value=1), {"a": {}, "b": 1}),
}


@pytest.mark.parametrize("isHeld", [False, True])
@pytest.mark.parametrize("case", MERGES)
@pytest_twisted.ensureDeferred
async def test_mergesAtAnyDepth(serve, case, isHeld):
    """
    What this request did is laid over what another left meanwhile, key by key,
    and the handle then holds the merged data; whether the other saved before
    this one began to save, or during that.
    """
    base, mine, theirs, merged = MERGES[case]
    app = App()
    store, served = stepping(serve, app)
    browser = served.browser()
    sid = await app.start(browser, _base=True, **base)

    async def act(session):
        mine(session)
        if not isHeld:
            await app.visit(twin(browser), theirs)
            await session.save()
        else:
            store.held = {"replace"}
            saving = session.save()
            call = await called(store, "replace")
            store.held = set()
            await app.visit(twin(browser), theirs)
            call.release()
            await saving
        assert dict(session) == {"_base": True, **merged}
        assert not session.isModified

    await app.visit(browser, act)
    assert await served.data(sid) == {"_base": True, **merged}


@pytest_twisted.ensureDeferred
async def test_theSaveAtTheEndMergesToo(serve):
    """
    Without an explicit save, the end of the request merges in the same way.
    """
    app = App()
    _, served = stepping(serve, app)
    browser = served.browser()
    sid = await app.start(browser, cart={"n": 0})

    async def act(session):
        session["cart"]["mine"] = 1
        await app.visit(twin(browser), put("cart", "theirs", value=2))
        return "merged"

    reply = await app.visit(browser, act)
    assert (reply.status, reply.text) == (200, "merged")
    assert await served.data(sid) == {"cart": {"n": 0, "mine": 1, "theirs": 2}}


@pytest.mark.parametrize(("mine", "stored"), [(None, 120_000), (60, 60_000)])
@pytest_twisted.ensureDeferred
async def test_aLifetimeThatAnotherSetSurvivesMySave(serve, mine, stored):
    """
    A lifetime set by a parallel request stays, unless this one set its own.
    """
    app = App()
    served = serve(app)
    browser = served.browser()
    sid = await app.start(browser, n=1)

    async def act(session):
        session["n"] = 2
        if mine is not None:
            session.cookie.maxAge = mine
        await app.visit(twin(browser), lambda s: setattr(s.cookie, "maxAge", 120))

    await app.visit(browser, act)
    record = await served.record(sid)
    assert cookieOf(record.payload)["originalMaxAge"] == stored
    assert record.expires == START + stored / 1000


@pytest_twisted.ensureDeferred
async def test_theTimeOfCreationSurvivesAMerge(serve):
    """
    A merged session is as old as it was.
    """
    app = App()
    served = serve(app, absoluteTimeout=100)
    browser = served.browser()
    sid = await app.start(browser, n=1)
    served.clock.advance(30)

    async def act(session):
        session["mine"] = 1
        await app.visit(twin(browser), put("theirs", value=2))

    await app.visit(browser, act)
    assert (await served.record(sid)).expires == START + 100
    served.clock.advance(70)
    assert (await app.visit(browser, count)).text == "1"


@pytest_twisted.ensureDeferred
async def test_aliasesStayLiveAfterAMerge(serve):
    """
    An object that was taken out of the session before a merge is a part of it
    afterwards, with what others put there.
    """
    app = App()
    served = serve(app)
    browser = served.browser()
    sid = await app.start(browser, cart={"items": {"a": 1}, "log": [1]})

    async def act(session):
        cart, items = session["cart"], session["cart"]["items"]
        log = session["cart"]["log"]
        cart["mine"] = True
        await app.visit(
            twin(browser),
            both(put("cart", "items", "b", value=2), put("cart", "log", value=[1, 2])),
        )
        await session.save()
        assert session["cart"] is cart
        assert cart["items"] is items
        assert cart["log"] is log
        assert items == {"a": 1, "b": 2}
        assert log == [1, 2]
        items["c"] = 3
        log.append(3)

    await app.visit(browser, act)
    assert await served.data(sid) == {
        "cart": {"items": {"a": 1, "b": 2, "c": 3}, "log": [1, 2, 3], "mine": True}
    }


@pytest.mark.parametrize("isConflicting", [False, True])
@pytest.mark.parametrize("isNew", [False, True])
@pytest_twisted.ensureDeferred
async def test_changesDuringASaveAreNotLost(serve, isNew, isConflicting):
    """
    What is changed while a save is under way, data or lifetime, is still a
    change when it is over, and saved in the end.
    """
    app = App()
    store, served = stepping(serve, app)
    browser = served.browser()
    if not isNew:
        await app.start(browser, cart={"a": 1}, old=1)
    operation = "create" if isNew else "replace"
    store.held = {operation}

    async def act(session):
        cart = session.setdefault("cart", {"a": 1})
        session["first"] = 1
        session["old"] = 1
        saving = session.save()
        call = await called(store, operation)
        store.held = set()
        session["second"] = 2
        del session["old"]
        cart["b"] = 2
        session.cookie.maxAge = 60
        if isConflicting and not isNew:
            await app.visit(twin(browser), put("cart", "c", value=3))
        call.release()
        await saving
        assert session.isModified
        assert session["second"] == 2
        assert "old" not in session
        assert session["cart"] is cart
        assert session.cookie.originalMaxAge == 60
        return session.id

    reply = await app.visit(browser, act)
    cart = {"a": 1, "b": 2}
    if isConflicting and not isNew:
        cart["c"] = 3
    assert await served.data(reply.text) == {"cart": cart, "first": 1, "second": 2}
    record = await served.record(reply.text)
    assert cookieOf(record.payload)["originalMaxAge"] == 60_000


@pytest_twisted.ensureDeferred
async def test_changesDuringAFailingSaveAreNotLost(serve):
    """
    Nor are they, nor those before, when that save fails.
    """
    app = App()
    store, served = stepping(serve, app)
    browser = served.browser()
    sid = await app.start(browser, n=0)
    store.held = {"replace"}

    async def act(session):
        session["first"] = 1
        session.cookie.maxAge = 60
        saving = session.save()
        call = await called(store, "replace")
        store.held = set()
        session["second"] = 2
        call.fail(down())
        with pytest.raises(StoreUnavailable):
            await saving
        assert session.isModified

    reply = await app.visit(browser, act)
    assert reply.cookie().attributes["max-age"] == "60"
    assert await served.data(sid) == {"n": 0, "first": 1, "second": 2}


@pytest.mark.parametrize("isNew", [False, True])
@pytest_twisted.ensureDeferred
async def test_changesWhileTheResponseIsHeldAreSaved(serve, isNew):
    """
    What is changed while the response waits for its save is saved before the
    response ends.
    """
    app = App()
    store, served = stepping(serve, app)
    browser = served.browser()
    if not isNew:
        await app.start(browser, first=0)
    store.held = {"create", "replace"}

    def act(request):
        session = getSession(request)
        session["first"] = 1
        request.write(session.id.encode())
        session["second"] = 2
        request.finish()
        return NOT_DONE_YET

    visiting = ensureDeferred(app.visitRaw(browser, act))
    (await called(store, "create" if isNew else "replace")).release()
    late = await called(store, "replace")
    assert not visiting.called
    late.release()
    reply = await visiting
    assert bool(reply.setCookies) is isNew
    assert await served.data(reply.text) == {"first": 1, "second": 2}


# Nothing comes back.


POLICIES = ["merge", "overwrite", "error"]


@pytest.mark.parametrize("onConflict", POLICIES)
@pytest.mark.parametrize("when", ["before", "during"])
@pytest_twisted.ensureDeferred
async def test_aRequestInFlightCannotBringASessionBack(serve, logged, when, onConflict):
    """
    A session that another request destroyed, before this one's save or during
    it, stays destroyed: the change is dropped, the browser's cookie expires,
    the response goes out, and a warning is logged.
    """
    app = App()
    store, served = stepping(serve, app, onConflict=onConflict)
    browser = served.browser()
    sid = await app.start(browser, user="ada")

    async def act(session):
        session["user"] = "eve"
        if when == "before":
            await app.visit(twin(browser), lambda s: s.destroy())
        else:
            store.held = {"replace"}
        return "as it is"

    visiting = ensureDeferred(app.visit(browser, act))
    if when == "during":
        call = await called(store, "replace")
        await app.visit(twin(browser), lambda s: s.destroy())
        call.release()
    reply = await visiting
    assert (reply.status, reply.text) == (200, "as it is")
    assert reply.cookie().isExpired
    assert await served.store.length() == 0
    (warning,) = texts(logged, LogLevel.warn)
    assert fingerprint(sid) in warning
    assert sid not in warning


@pytest.mark.parametrize("end", ["expires", "regenerate", "unset", "past"])
@pytest_twisted.ensureDeferred
async def test_howeverASessionEndedItStaysEnded(serve, end):
    """
    So it is when the session expired, moved to another ID, was unset, or was
    given a past expiry by another request.
    """
    app = App()
    _, served = stepping(serve, app, unset="destroy")
    browser = served.browser()
    sid = await app.start(browser, user="ada")
    other = twin(browser)
    ends = {
        "regenerate": lambda r: getSession(r).regenerate(keepData=True),
        "unset": lambda r: r.unsetComponent(ISession),
        "past": lambda r: setattr(getSession(r).cookie, "maxAge", -1),
    }

    async def act(session):
        session["user"] = "eve"
        if end == "expires":
            served.clock.advance(86400)
        else:
            await app.visitRaw(other, ends[end])

    reply = await app.visit(browser, act)
    assert reply.status == 200
    assert reply.cookie().isExpired
    assert await served.record(sid) is None
    moved = [await served.data(each) for each in await served.store.all()]
    assert moved == ([{"user": "ada"}] if end == "regenerate" else [])


@pytest_twisted.ensureDeferred
async def test_resaveBringsNothingBack(serve, logged):
    """
    With resave, an unmodified session that is gone is not written either, and
    the cookie expires.
    """
    app = App()
    _, served = stepping(serve, app, resave=True)
    browser = served.browser()
    await app.start(browser, user="ada")

    async def act(session):
        await app.visit(twin(browser), lambda s: s.destroy())
        return "fine"

    reply = await app.visit(browser, act)
    assert reply.text == "fine"
    assert reply.cookie().isExpired
    assert await served.store.length() == 0


@pytest_twisted.ensureDeferred
async def test_aTouchBringsNothingBack(serve):
    """
    Nor does the touch of a session that was destroyed meanwhile.
    """
    app = App()
    store, served = stepping(serve, app, touchInterval=0)
    browser = served.browser()
    await app.start(browser, user="ada")

    async def act(session):
        await app.visit(twin(browser), lambda s: s.destroy())

    reply = await app.visit(browser, act)
    assert reply.status == 200
    assert "touch" in store.calls
    assert await served.store.length() == 0


@pytest.mark.parametrize("onConflict", POLICIES)
@pytest_twisted.ensureDeferred
async def test_anExplicitSaveOfWhatIsGoneSaysSo(serve, onConflict):
    """
    save() and regenerate(keepData=True) of a session that is gone raise
    SessionGone, again and again, and store nothing; the response still goes out
    and expires the cookie.
    """
    app = App()
    _, served = stepping(serve, app, onConflict=onConflict)
    browser = served.browser()
    sid = await app.start(browser, user="ada")

    async def act(session):
        await app.visit(twin(browser), lambda s: s.destroy())
        session["user"] = "eve"
        with pytest.raises(SessionGone) as caught:
            await session.save()
        assert caught.value.operation == "save"
        assert caught.value.fingerprint == fingerprint(sid)
        with pytest.raises(SessionGone):
            await session.save()
        with pytest.raises(SessionGone):
            await session.regenerate(keepData=True)
        assert session.id == sid
        assert session["user"] == "eve"
        return "still here"

    reply = await app.visit(browser, act)
    assert (reply.status, reply.text) == (200, "still here")
    assert reply.cookie().isExpired
    assert await served.store.length() == 0


@pytest.mark.parametrize("onConflict", POLICIES)
@pytest_twisted.ensureDeferred
async def test_regenerateOfWhatIsGoneSaysSo(serve, onConflict):
    """
    regenerate(keepData=True) alone raises SessionGone, too, leaves the handle
    and no record; and a change after it is not stored.
    """
    app = App()
    _, served = stepping(serve, app, onConflict=onConflict)
    browser = served.browser()
    sid = await app.start(browser, user="ada")

    async def act(session):
        await app.visit(twin(browser), lambda s: s.destroy())
        with pytest.raises(SessionGone):
            await session.regenerate(keepData=True)
        assert session.id == sid
        session["user"] = "eve"

    reply = await app.visit(browser, act)
    assert reply.status == 200
    assert reply.cookie().isExpired
    assert await served.store.length() == 0


@pytest_twisted.ensureDeferred
async def test_aNewSessionCanFollowOneThatIsGone(serve):
    """
    After SessionGone, regenerate() starts afresh, with a cookie of its own.
    """
    app = App()
    _, served = stepping(serve, app)
    browser = served.browser()
    sid = await app.start(browser, user="ada")

    async def act(session):
        await app.visit(twin(browser), lambda s: s.destroy())
        session["user"] = "eve"
        with pytest.raises(SessionGone):
            await session.save()
        await session.regenerate()
        session["fresh"] = True

    reply = await app.visit(browser, act)
    assert reply.cookie().sid != sid
    assert await served.data(reply.cookie().sid) == {"fresh": True}
    assert await served.store.length() == 1


@pytest_twisted.ensureDeferred
async def test_destroyWaitsForTheSaveBeforeIt(serve):
    """
    A save under way when the session is destroyed does not outlast it.
    """
    app = App()
    store, served = stepping(serve, app)
    browser = served.browser()
    await app.start(browser, user="ada")
    store.held = {"replace"}

    def act(session):
        session["n"] = 1
        session.save()
        session.destroy()

    visiting = ensureDeferred(app.visit(browser, act))
    call = await called(store, "replace")
    assert "destroy" not in store.calls
    call.release()
    reply = await visiting
    assert reply.cookie().isExpired
    assert await served.store.length() == 0


@pytest_twisted.ensureDeferred
async def test_aSaveThatWasGivenUpDoesNotBringASessionBack(serve):
    """
    A save that timed out and lands after the session was destroyed changes
    nothing.
    """
    app = App()
    store, served = stepping(serve, app)
    browser = served.browser()
    await app.start(browser, user="ada")
    store.held = {"replace"}
    calls = []

    async def act(session):
        session["n"] = 1
        saving = session.save()
        calls.append(await called(store, "replace"))
        served.clock.advance(10)
        with pytest.raises(StoreTimeout):
            await saving
        await session.destroy()

    reply = await app.visit(browser, act)
    assert reply.cookie().isExpired
    calls[0].release()
    assert await served.store.length() == 0


@pytest_twisted.ensureDeferred
async def test_aSaveThatWasGivenUpAndLandedIsNoConflictOfData(serve):
    """
    A save that timed out and landed all the same does not disturb the next one.
    """
    app = App()
    store, served = stepping(serve, app)
    browser = served.browser()
    sid = await app.start(browser, log=[1], n=1, gone=True)
    store.held = {"replace"}

    async def act(session):
        session["log"].append(2)
        session["n"] += 1
        del session["gone"]
        saving = session.save()
        call = await called(store, "replace")
        served.clock.advance(10)
        with pytest.raises(StoreTimeout):
            await saving
        store.held = set()
        call.release()
        session["last"] = True

    await app.visit(browser, act)
    assert await served.data(sid) == {"log": [1, 2], "n": 2, "last": True}


# Other policies.


@pytest_twisted.ensureDeferred
async def test_overwriteKeepsTheLastWriter(serve):
    """
    With onConflict="overwrite" the last save stands alone.
    """
    app = App()
    _, served = stepping(serve, app, onConflict="overwrite")
    browser = served.browser()
    sid = await app.start(browser, base=True)

    async def act(session):
        session["mine"] = 1
        await app.visit(twin(browser), put("theirs", value=2))

    reply = await app.visit(browser, act)
    assert reply.status == 200
    assert await served.data(sid) == {"base": True, "mine": 1}


@pytest_twisted.ensureDeferred
async def test_errorRefusesAConflictAtOnce(serve):
    """
    With onConflict="error" a changed record raises SessionConflict at the first
    attempt; at the end of the request that is a 500 without a cookie.
    """
    app = App()
    options = {"onConflict": "error", "cookie": CookieOptions(maxAge=60)}
    store, served = stepping(serve, app, **options)
    browser = served.browser()
    sid = await app.start(browser, base=True)

    async def act(session):
        session["mine"] = 1
        await app.visit(twin(browser), put("theirs", value=2))
        store.calls.clear()
        with pytest.raises(SessionConflict) as caught:
            await session.save()
        assert caught.value.fingerprint == fingerprint(sid)
        assert store.calls.count("replace") == 1
        assert session["mine"] == 1
        assert session.isModified
        return "not to be seen"

    reply = await app.visit(browser, act)
    assert reply.status == 500
    assert "not to be seen" not in reply.text
    assert reply.setCookies == []
    assert await served.data(sid) == {"base": True, "theirs": 2}


class Busy(MemoryStore):
    """
    A store in which somebody else is always quicker, for so many times.
    """

    def __init__(self, reactor: Any, times: int) -> None:
        super().__init__(reactor=reactor)
        self.times = times
        self.attempts = 0

    def replace(self, sid: str, record: Record, expected: Record) -> Any:
        self.attempts += 1
        if self.attempts <= self.times:
            theirs = Record(payload(theirs=self.attempts), record.expires)
            self.set(sid, theirs)
        return super().replace(sid, record, expected)


@pytest.mark.parametrize("times", [1, 10, 11])
@pytest_twisted.ensureDeferred
async def test_givesUpAfterTenRetries(serve, times):
    """
    Changes are tried again ten times, and then it is SessionConflict.
    """
    app = App()
    clock = clockAt()
    store = Busy(clock, times)
    served = serve(app, store=store, clock=clock)
    browser = served.browser()
    sid = await app.start(browser, user="ada")

    def act(session):
        session["mine"] = 1

    reply = await app.visit(browser, act)
    if times <= 10:
        assert reply.status == 200
        assert store.attempts == times + 1
        assert await served.data(sid) == {"theirs": times, "mine": 1}
    else:
        assert reply.status == 500
        assert store.attempts == 11
        assert await served.data(sid) == {"theirs": 11}


@pytest_twisted.ensureDeferred
async def test_anExplicitSaveGivesUpAfterTenRetries(serve):
    """
    Then the handle still has its changes and its ID.
    """
    app = App()
    clock = clockAt()
    store = Busy(clock, 11)
    served = serve(app, store=store, clock=clock)
    browser = served.browser()
    sid = await app.start(browser, user="ada")

    async def act(session):
        session["mine"] = 1
        with pytest.raises(SessionConflict):
            await session.save()
        assert session["mine"] == 1
        assert session.id == sid

    reply = await app.visit(browser, act)
    assert reply.status == 200
    assert await served.data(sid) == {"theirs": 11, "mine": 1}


# regenerate against the rest of the world.


@pytest.mark.parametrize("operation", ["create", "replace"])
@pytest.mark.parametrize("onConflict", POLICIES)
@pytest_twisted.ensureDeferred
async def test_aLogoutWinsOverARegenerateUnderWay(serve, operation, onConflict):
    """
    A session that is destroyed while another request gives it a new ID is dead
    under both.
    """
    app = App()
    store, served = stepping(serve, app, onConflict=onConflict)
    browser = served.browser()
    sid = await app.start(browser, user="ada")
    store.held = {operation}

    async def act(session):
        with pytest.raises(SessionGone):
            await session.regenerate(keepData=True)
        assert session.id == sid

    visiting = ensureDeferred(app.visit(browser, act))
    call = await called(store, operation)
    store.held = set()
    reply = await app.visit(twin(browser), lambda s: s.destroy())
    assert reply.cookie().isExpired
    call.release()
    reply = await visiting
    assert reply.status == 200
    assert reply.cookie().isExpired
    assert await served.store.length() == 0


@pytest.mark.parametrize("operation", ["create", "replace", "destroy"])
@pytest_twisted.ensureDeferred
async def test_regenerateLosesNoParallelChange(serve, operation):
    """
    A change that another request was told is saved, at whatever moment of a
    regenerate, is in the session under its new ID; a change that came too late
    was refused.
    """
    app = App()
    store, served = stepping(serve, app)
    browser = served.browser()
    old = await app.start(browser, cart={"a": 1})
    gate: Deferred[None] = Deferred()
    loaded: Deferred[None] = Deferred()

    async def change(session):
        loaded.callback(None)
        await gate
        session["cart"]["theirs"] = 3
        session.cookie.maxAge = 120
        try:
            await session.save()
        except SessionGone:
            return "refused"
        return "saved"

    async def act(session):
        session["cart"]["mine"] = 2
        await session.regenerate(keepData=True)
        assert session.id != old

    changing = ensureDeferred(app.visit(twin(browser), change))
    await loaded
    store.held = {operation}
    visiting = ensureDeferred(app.visit(browser, act))
    call = await called(store, operation)
    store.held = set()
    gate.callback(None)
    outcome = (await changing).text
    call.release()
    reply = await visiting
    new = reply.cookie().sid
    assert list(await served.store.all()) == [new]
    cart = (await served.data(new))["cart"]
    assert (cart["a"], cart["mine"]) == (1, 2)
    assert (outcome == "saved") is ("theirs" in cart)
    lifetime = cookieOf((await served.record(new)).payload)["originalMaxAge"]
    assert lifetime == (120_000 if outcome == "saved" else None)
    if operation != "destroy":
        assert outcome == "saved"


@pytest_twisted.ensureDeferred
async def test_regenerateWithoutMergingRefusesAConflict(serve):
    """
    With onConflict="error" a parallel change makes regenerate(keepData=True)
    raise; the old session lives on with it, and the new one is removed.
    """
    app = App()
    _, served = stepping(serve, app, onConflict="error")
    browser = served.browser()
    old = await app.start(browser, n=1)

    async def act(session):
        await app.visit(twin(browser), put("theirs", value=2))
        with pytest.raises(SessionConflict):
            await session.regenerate(keepData=True)
        assert session.id == old
        assert dict(session) == {"n": 1}

    reply = await app.visit(browser, act)
    assert reply.setCookies == []
    assert list(await served.store.all()) == [old]
    assert await served.data(old) == {"n": 1, "theirs": 2}


@pytest_twisted.ensureDeferred
async def test_oneOfTwoRegeneratesWins(serve):
    """
    Two requests that regenerate the same session at once leave one session.
    """
    app = App()
    store, served = stepping(serve, app)
    browser = served.browser()
    await app.start(browser, user="ada")
    store.held = {"create"}
    outcomes = []

    async def act(session):
        try:
            await session.regenerate(keepData=True)
        except SessionGone:
            outcomes.append("gone")
        else:
            outcomes.append("moved")

    visits = [ensureDeferred(app.visit(twin(browser), act)) for _ in range(2)]
    calls = [await called(store, "create") for _ in visits]
    for call in calls:
        call.release()
    first, second = await gatherResults(visits)
    assert outcomes == ["moved", "gone"]
    cookies = [first.cookie(), second.cookie()]
    (winner,) = [cookie for cookie in cookies if not cookie.isExpired]
    assert list(await served.store.all()) == [winner.sid]


@pytest_twisted.ensureDeferred
async def test_regenerateWithoutDataIsNotUndoneByASave(serve):
    """
    A request that saves the old session while another regenerates it does not
    bring it back.
    """
    app = App()
    _, served = stepping(serve, app)
    browser = served.browser()
    old = await app.start(browser, user="ada")

    async def restart(session):
        await session.regenerate()
        session["fresh"] = True

    async def act(session):
        session["user"] = "eve"
        await app.visit(twin(browser), restart)

    reply = await app.visit(browser, act)
    assert reply.cookie().isExpired
    assert await served.record(old) is None
    assert await served.store.length() == 1


@pytest.mark.parametrize("hasChanges", [True, False])
@pytest.mark.parametrize("operation", ["create", "replace", "destroy"])
@pytest_twisted.ensureDeferred
async def test_aRegenerateThatFailsLeavesTheOldSession(serve, operation, hasChanges):
    """
    Whichever store call of regenerate(keepData=True) fails: it raises, the
    handle refers to the old session, which works and saves, and the new one is
    gone.
    """
    app = App()
    store, served = stepping(serve, app)
    browser = served.browser()
    old = await app.start(browser, user="ada")
    store.held = {operation}

    async def act(session):
        cart = session.setdefault("cart", {}) if hasChanges else {}
        if hasChanges:
            session.cookie.maxAge = 60
        with pytest.raises(StoreUnavailable):
            await session.regenerate(keepData=True)
        assert session.id == old
        assert not session.isNew
        assert session["user"] == "ada"
        assert session.isModified is hasChanges
        cart["n"] = 1

    visiting = ensureDeferred(app.visit(browser, act))
    call = await called(store, operation)
    store.held = set()
    call.fail(down())
    reply = await visiting
    assert reply.status == 200
    assert list(await served.store.all()) == [old]
    if hasChanges:
        assert reply.cookie().sid == old
        assert reply.cookie().attributes["max-age"] == "60"
        assert await served.data(old) == {"user": "ada", "cart": {"n": 1}}
    else:
        assert reply.setCookies == []
        assert await served.data(old) == {"user": "ada"}
    assert (await app.visit(browser, lambda s: s["user"])).text == "ada"


@pytest.mark.parametrize("operation", ["create", "replace", "destroy"])
@pytest_twisted.ensureDeferred
async def test_aRegenerateThatFailsDoesNotUndoALogout(serve, operation):
    """
    A session that another request destroyed in the midst of a regenerate that
    then fails is not put back.
    """
    app = App()
    store, served = stepping(serve, app)
    browser = served.browser()
    old = await app.start(browser, user="ada")
    gate: Deferred[None] = Deferred()
    loaded: Deferred[None] = Deferred()

    async def leave(session):
        loaded.callback(None)
        await gate
        await session.destroy()

    async def act(session):
        try:
            await session.regenerate(keepData=True)
        except StoreUnavailable:
            return "failed"
        return "done"

    leaving = ensureDeferred(app.visit(twin(browser), leave))
    await loaded
    store.held = {operation}
    visiting = ensureDeferred(app.visit(browser, act))
    call = await called(store, operation)
    store.held = set()
    gate.callback(None)
    assert (await leaving).cookie().isExpired
    call.fail(down())
    await visiting
    assert await served.record(old) is None


@pytest.mark.parametrize("operation", ["create", "destroy"])
@pytest_twisted.ensureDeferred
async def test_aRegenerateWhoseCallFailedAfterItWorkedLeavesOneSession(
    serve, operation
):
    """
    Where a store has done what it was asked, and then says that it failed, there
    is still one session with the data, and the browser has its cookie.
    """
    app = App()
    store, served = stepping(serve, app)
    browser = served.browser()
    await app.start(browser, user="ada")
    store.held = {operation}

    async def act(session):
        try:
            await session.regenerate(keepData=True)
        except StoreUnavailable:
            return "failed"
        return "done"

    visiting = ensureDeferred(app.visit(browser, act))
    call = await called(store, operation)
    store.held = set()
    call.apply()
    call.fail(down())
    await visiting
    assert await served.store.length() == 1
    assert (await app.visit(browser, lambda s: s["user"])).text == "ada"


@pytest_twisted.ensureDeferred
async def test_regenerateNeverKeepsTheOldID(serve):
    """
    A genid that gives the old ID again makes regenerate(keepData=True) fail,
    and the session lives on.
    """
    app = App()
    _, served = stepping(serve, app, genid=lambda request: "always")
    browser = served.browser()
    await app.start(browser, user="ada")

    async def act(session):
        with pytest.raises(StoreError, match="genid"):
            await session.regenerate(keepData=True)
        assert session.id == "always"
        session["n"] = 1

    reply = await app.visit(browser, act)
    assert reply.setCookies == []
    assert await served.data("always") == {"user": "ada", "n": 1}


@pytest_twisted.ensureDeferred
async def test_aFailedRegenerateKeepsTheTimeOfCreation(serve):
    """
    A session that was born at this load, and whose regenerate failed, is still
    saved with its time of creation.
    """
    app = App()
    clock = clockAt()
    store = Faulty(MemoryStore(reactor=clock), {"create": down})
    await store.store.set("old", Record(payload(user="ada"), START + 5000))
    served = serve(app, store=store, clock=clock, absoluteTimeout=100)
    browser = served.browser()
    browser.cookies["connect.sid"] = signed("old")

    async def act(session):
        with pytest.raises(StoreUnavailable):
            await session.regenerate(keepData=True)

    await app.visit(browser, act)
    assert (await store.store.get("old")).expires == START + 100


@pytest_twisted.ensureDeferred
async def test_theNewSessionThatCannotBeRemovedIsLogged(serve, logged):
    """
    When neither the old record nor then the new one can be destroyed, that is
    logged by fingerprint, and the old session works.
    """
    app = App()
    clock = clockAt()
    store = Faulty(MemoryStore(reactor=clock), {"destroy": down})
    served = serve(app, store=store, clock=clock)
    browser = served.browser()
    old = await app.start(browser, user="ada")

    async def act(session):
        with pytest.raises(StoreUnavailable):
            await session.regenerate(keepData=True)
        assert session.id == old

    await app.visit(browser, act)
    new = next(sid for sid in await store.store.all() if sid != old)
    errors = texts(logged, LogLevel.error)
    assert any(fingerprint(new) in text for text in errors)
    assert not any(new in text for text in errors)


# What is sent, and when.


@pytest_twisted.ensureDeferred
async def test_aRedirectIsNotSentBeforeItsSave(serve):
    """
    Not a byte of a 302 leaves before the session is in the store.
    """
    app = App()
    store, served = stepping(serve, app)
    store.held = {"create"}

    def act(request):
        getSession(request)["user"] = "ada"
        request.redirect(b"/home")
        request.finish()
        return NOT_DONE_YET

    app.acts[b"/"] = act
    connection = await served.browser().connect()
    connection.transport.write(
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    )
    call = await called(store, "create")
    await turn()
    assert connection.received == b""
    call.release()
    received = await connection.closed
    assert received.startswith(b"HTTP/1.1 302 ")
    assert b"\r\nSet-Cookie: connect.sid=" in received


@pytest.mark.parametrize("isSlow", [False, True])
@pytest_twisted.ensureDeferred
async def test_aFailedSaveSendsNoneOfItsResponse(serve, isSlow):
    """
    Neither status, headers, cookies nor body of a response go out whose session
    could not be saved.
    """
    app = App()
    store, served = stepping(serve, app)
    store.held = {"create"} if isSlow else set()
    if not isSlow:
        served = serve(app, store=Faulty(store.store, {"create": down}))

    def act(request):
        getSession(request)["user"] = "ada"
        request.setResponseCode(302, b"Welcome")
        request.setHeader(b"Location", b"/home")
        request.setHeader(b"X-Secret", b"1")
        request.addCookie(b"other", b"1")
        request.write(b"welcome, ada")
        request.write(b" and more")
        request.finish()
        return NOT_DONE_YET

    browser = served.browser()
    visiting = ensureDeferred(app.visitRaw(browser, act))
    if isSlow:
        (await called(store, "create")).fail(down())
    reply = await visiting
    assert (reply.status, reply.phrase) == (503, b"Service Unavailable")
    assert reply.header("Location") is None
    assert reply.header("X-Secret") is None
    assert reply.setCookies == []
    assert "ada" not in reply.text
    assert browser.cookies == {}


# One after the other.


@pytest_twisted.ensureDeferred
async def test_verbsAtOnceAreQueued(serve):
    """
    The operations of one session happen one at a time, in the order in which
    they were called.
    """
    app = App()
    store, served = stepping(serve, app)
    browser = served.browser()
    old = await app.start(browser, n=0)
    store.calls.clear()
    store.held = {"replace", "create", "destroy"}
    done = []

    def act(session):
        session["n"] = 1
        session.save().addCallback(lambda _: done.append("save"))
        session.regenerate(keepData=True).addCallback(
            lambda _: done.append("regenerate")
        )
        session.reload().addCallback(lambda _: done.append("reload"))
        session.save().addCallback(lambda _: done.append("save"))

    visiting = ensureDeferred(app.visit(browser, act))
    for operation in ("replace", "create", "replace", "destroy", "replace"):
        call = await called(store, operation)
        assert store.waiting == []
        call.release()
    reply = await visiting
    assert done == ["save", "regenerate", "reload", "save"]
    assert store.calls == [
        "get",
        "replace",
        "create",
        "replace",
        "destroy",
        "get",
        "replace",
    ]
    assert reply.cookie().sid != old
    assert await served.data(reply.cookie().sid) == {"n": 1}


@pytest_twisted.ensureDeferred
async def test_aFailedVerbDoesNotStopTheNext(serve):
    """
    What waits in the queue goes on when the one before it has failed.
    """
    app = App()
    store, served = stepping(serve, app)
    browser = served.browser()
    sid = await app.start(browser, n=0)
    store.held = {"replace"}

    async def act(session):
        session["n"] = 1
        first, second = session.save(), session.save()
        call = await called(store, "replace")
        store.held = set()
        call.fail(down())
        with pytest.raises(StoreUnavailable):
            await first
        await second
        assert not session.isModified

    await app.visit(browser, act)
    assert await served.data(sid) == {"n": 1}


@pytest_twisted.ensureDeferred
async def test_manyVerbsAtOnceAreQueuedToo(serve):
    """
    However many saves wait for the first one, all are done.
    """
    app = App()
    store, served = stepping(serve, app)
    browser = served.browser()
    sid = await app.start(browser, n=0)
    store.held = {"replace"}
    done = []

    def act(session):
        for number in range(500):
            session["n"] = number
            session.save().addCallback(lambda _: done.append(True))

    visiting = ensureDeferred(app.visit(browser, act))
    call = await called(store, "replace")
    store.held = set()
    call.release()
    assert len(done) == 500
    reply = await visiting
    assert reply.status == 200
    assert await served.data(sid) == {"n": 499}


# Clients that leave, and cancelling.


@pytest.mark.parametrize("isExplicit", [True, False])
@pytest_twisted.ensureDeferred
async def test_aClientThatLeavesDoesNotCancelTheSave(serve, isExplicit):
    """
    A save that has begun goes on when its client has gone.
    """
    app = App()
    store, served = stepping(serve, app)
    store.held = {"create"}
    left: Deferred[None] = Deferred()

    def act(request):
        request.notifyFinish().addErrback(lambda _: left.callback(None))
        session = getSession(request)
        session["user"] = "ada"
        if isExplicit:
            session.save()
        else:
            request.write(b"held")
        return NOT_DONE_YET

    app.acts[b"/"] = act
    connection = await served.browser().connect()
    connection.transport.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    call = await called(store, "create")
    connection.transport.abortConnection()
    await left
    assert not call.isCancelled
    call.release()
    (record,) = (await store.store.all()).values()
    assert b'"user":"ada"' in record.payload


@pytest_twisted.ensureDeferred
async def test_kleinCancellingItsHandlerDoesNotCancelTheSave(serve):
    """
    Klein cancels the handler's Deferred when the client leaves; the save that
    the handler waited for goes on.
    """
    clock = clockAt()
    store = StepStore(MemoryStore(reactor=clock), held={"create"})
    klein = Klein()
    cancelled: Deferred[None] = Deferred()

    @klein.route("/")
    async def home(request):
        session = getSession(request)
        session["user"] = "ada"
        try:
            await session.save()
        except CancelledError:
            cancelled.callback(None)
            raise
        return "never"

    served = serve(klein.resource(), store=store, clock=clock)
    connection = await served.browser().connect()
    connection.transport.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    call = await called(store, "create")
    connection.transport.abortConnection()
    await cancelled
    assert not call.isCancelled
    call.release()
    (record,) = (await store.store.all()).values()
    assert b'"user":"ada"' in record.payload


VERBS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "save": ("replace", lambda session: session.save()),
    "destroy": ("destroy", lambda session: session.destroy()),
    "regenerate": ("destroy", lambda session: session.regenerate()),
    "move": ("create", lambda session: session.regenerate(keepData=True)),
    "reload": ("get", lambda session: session.reload()),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest_twisted.ensureDeferred
async def test_cancellingAVerbOnlyStopsTheWaiting(serve, verb):
    """
    What a verb returned can be cancelled; the verb is carried out all the same,
    and before the response.
    """
    operation, start = VERBS[verb]
    app = App()
    store, served = stepping(serve, app)
    browser = served.browser()
    sid = await app.start(browser, user="ada")
    calls = []

    async def act(session):
        store.held = {operation}
        session["n"] = 1
        waiting = start(session)
        calls.append(await called(store, operation))
        store.held = set()
        waiting.cancel()
        with pytest.raises(CancelledError):
            await waiting
        assert not calls[0].isCancelled
        return "done"

    visiting = ensureDeferred(app.visit(browser, act))
    while not calls:
        await turn()
    await turn()
    assert not visiting.called
    calls[0].release()
    reply = await visiting
    assert reply.text == "done"
    expected = {
        "save": [{"user": "ada", "n": 1}],
        "destroy": [],
        "regenerate": [],
        "move": [{"user": "ada", "n": 1}],
        "reload": [{"user": "ada"}],
    }
    stored = await served.store.all()
    assert [await served.data(each) for each in stored] == expected[verb]
    assert (sid in stored) is (verb in ("save", "reload"))


@pytest_twisted.ensureDeferred
async def test_aSlowLogoutIsNotUndoneByASlowRequest(serve):
    """
    Logout and a change wait in the store together; whichever lands first, the
    session ends.
    """
    for order in ("change first", "logout first"):
        app = App()
        store, served = stepping(serve, app)
        browser = served.browser()
        await app.start(browser, user="ada")
        store.held = {"replace", "destroy"}
        changing = ensureDeferred(app.visit(twin(browser), put("n", value=1)))
        change = await called(store, "replace")
        leaving = ensureDeferred(app.visit(twin(browser), lambda s: s.destroy()))
        logout = await called(store, "destroy")
        store.held = set()
        calls = [change, logout] if order == "change first" else [logout, change]
        for call in calls:
            call.release()
        replies = await gatherResults([changing, leaving])
        assert [reply.status for reply in replies] == [200, 200]
        assert replies[1].cookie().isExpired
        assert await served.store.length() == 0


@pytest_twisted.ensureDeferred
async def test_twoBrowsersNeverShareASession(serve):
    """
    Requests of different visitors that wait in the store together each keep
    their own.
    """
    app = App()
    store, served = stepping(serve, app)
    store.held = {"create"}
    browsers = [served.browser() for _ in range(5)]
    visits = [
        ensureDeferred(app.visit(browser, put("user", value=n)))
        for n, browser in enumerate(browsers)
    ]
    calls = [await store.called("create") for _ in visits]
    for call in reversed(calls):
        call.release()
    replies = await gatherResults(visits)
    store.held = set()
    assert len({reply.cookie().sid for reply in replies}) == 5
    for n, browser in enumerate(browsers):
        assert (await app.visit(browser, lambda s: str(s["user"]))).text == str(n)
    assert [await app.visit(b, nothing) for b in browsers]


@pytest_twisted.ensureDeferred
async def test_aRegenerateInTheQueueOutlivesItsClient(serve, logged):
    """
    A regenerate() that waits behind a save is carried out though the client leaves
    meanwhile: nobody is left logged in under the old ID.
    """
    app = App()
    store, served = stepping(serve, app)
    browser = served.browser()
    old = await app.start(browser, visits=1)
    outcomes: list[Any] = []

    def act(request):
        session = getSession(request)
        session["user"] = "ada"
        session.save().addErrback(outcomes.append)
        session.regenerate(keepData=True).addBoth(outcomes.append)
        request.notifyFinish().addErrback(lambda _: gone.callback(None))
        return b"welcome"

    gone: Deferred[Any] = Deferred()
    store.held = {"replace"}
    app.acts[b"/"] = act
    connection = await browser.connect()
    cookie = f"connect.sid={browser.cookies['connect.sid']}".encode()
    connection.transport.write(
        b"GET / HTTP/1.1\r\nHost: a\r\nCookie: " + cookie + b"\r\n\r\n"
    )
    call = await called(store, "replace")
    connection.transport.abortConnection()
    await gone
    store.held = set()
    call.release()
    assert outcomes == [None]
    records = await served.store.store.all()
    assert old not in records
    (new,) = records
    assert await served.data(new) == {"visits": 1, "user": "ada"}
    assert texts(logged, LogLevel.critical) == []


@pytest_twisted.ensureDeferred
async def test_whoWaitsForAVerbGoesOnBeforeTheResponseEnds(serve):
    """
    What the callback of a save() that nobody waited for writes is still saved with
    the response; and the callbacks of two verbs run in their order.
    """
    app = App()
    store, served = stepping(serve, app)
    browser = served.browser()
    sid = await app.start(browser, n=0)
    order: list[str] = []

    def act(session):
        session["n"] = 1

        def saved(_):
            order.append("first")
            session["user"] = "ada"

        session.save().addCallback(saved)
        session.save().addCallback(lambda _: order.append("second"))

    store.held = {"replace"}
    visiting = ensureDeferred(app.visit(browser, act))
    call = await called(store, "replace")
    store.held = set()
    call.release()
    await visiting
    assert order == ["first", "second"]
    assert await served.data(sid) == {"n": 1, "user": "ada"}


@pytest.mark.parametrize("succeeds", [True, False])
@pytest_twisted.ensureDeferred
async def test_whatIsWrittenDuringARegenerateIsTheNewSessions(serve, succeeds):
    """
    What is written after regenerate() was called, without waiting for it, is kept
    in the new session, as it would be with a store that answers at once; if it
    fails, in the old one.
    """
    app = App()
    store, served = stepping(serve, app)
    browser = served.browser()
    old = await app.start(browser, cart=[1])
    ignored: list[Any] = []

    def act(session):
        session.regenerate().addErrback(ignored.append)
        assert dict(session) == {}
        session["user"] = "ada"

    store.held = {"destroy"}
    visiting = ensureDeferred(app.visit(browser, act))
    call = await called(store, "destroy")
    store.held = set()
    call.release() if succeeds else call.fail(down())
    reply = await visiting
    if succeeds:
        assert await served.data(reply.cookie().sid) == {"user": "ada"}
        assert await served.data(old) is None
    else:
        assert reply.setCookies == []
        assert await served.data(old) == {"cart": [1], "user": "ada"}


@pytest.mark.parametrize("takesEffect", ["at the call", "at the answer"])
@pytest.mark.parametrize("order", [0, -1])
@pytest_twisted.ensureDeferred
async def test_fiftyInLockstepKeepAllTheirKeys(serve, order, takesEffect):
    """
    Fifty parallel requests keep all fifty keys also where the store answers all
    that is pending at once, round by round, so that all but one lose each round.
    """
    app = App()
    store, served = stepping(serve, app)
    browser = served.browser()
    sid = await app.start(browser, first=True)
    gate: Deferred[None] = Deferred()
    begun: list[str] = []

    def change(key):
        async def act(session):
            dict(session)
            begun.append(key)
            await shared(gate)
            session[key] = True

        return act

    keys = [f"key{number}" for number in range(50)]
    visits = [ensureDeferred(app.visit(twin(browser), change(key))) for key in keys]
    while len(begun) < 50:
        await turn()
    store.held = {"get", "replace"}
    gate.callback(None)
    for _ in range(5000):
        if all(visit.called for visit in visits):
            break
        pending, store.waiting[:] = list(store.waiting), []
        if takesEffect == "at the call":
            results = [call.carryOut() for call in pending]
            for call, result in list(zip(pending, results, strict=True))[:: order or 1]:
                result.chainDeferred(call.answer)
        else:
            for call in pending[:: order or 1]:
                call.release()
        await turn()
    replies = [await visit for visit in visits]
    assert {reply.status for reply in replies} == {200}
    store.held = set()
    assert await served.data(sid) == {"first": True, **dict.fromkeys(keys, True)}


def shared(gate: Deferred[None]) -> Deferred[None]:
    """
    Fires when the gate does; any number may wait for it.
    """
    mine: Deferred[None] = Deferred()
    gate.addCallback(lambda _: mine.callback(None))
    return mine


@pytest_twisted.ensureDeferred
async def test_manyTurnsAreNotTakenInsideEachOther(serve):
    """
    Hundreds of requests that lost to one another, and whose store then answers at
    once, are all saved.
    """
    app = App()
    store, served = stepping(serve, app)
    browser = served.browser()
    sid = await app.start(browser, first=True)
    keys = [f"key{number}" for number in range(200)]
    store.held = {"replace"}

    def change(key):
        return lambda session: session.update({key: True})

    visits = [ensureDeferred(app.visit(twin(browser), change(key))) for key in keys]
    while len(store.waiting) < len(keys):
        await turn()
    store.held = set()
    for call in store.waiting:
        call.release()
    assert {(await visit).status for visit in visits} == {200}
    assert await served.data(sid) == {"first": True, **dict.fromkeys(keys, True)}
