"""
Klein's side: the pages under C{/klein}.
"""

from __future__ import annotations

from typing import Any

from klein import Klein
from twisted.web.template import Element, Tag, tags

from examples.page import page
from txsession import CookieOptions, SessionResource, getSession
from txsession.stores.redis import RedisStore

__all__ = ["resourceOn"]

app = Klein()


def resourceOn(redis: str, secret: str) -> SessionResource:
    """
    The pages, with the sessions that are in this Redis.
    """
    return SessionResource(
        app,
        store=RedisStore(redis),
        secret=secret,
        cookie=CookieOptions(maxAge=3600),
    )


# The pages.


@app.route("/")
def home(request: Any) -> Element:
    session = getSession(request)
    visits = session.setdefault("visits", {})
    visits["klein"] = visits.get("klein", 0) + 1
    request.setHeader("Cache-Control", "no-store")
    return show(visits, session.get("notes", []))


@app.route("/notes", methods=["POST"])
def write(request: Any) -> bytes:
    text = request.args.get(b"text", [b""])[0].decode(errors="replace")
    notes = getSession(request).setdefault("notes", [])
    notes.append({"by": "Klein", "text": text})
    return seeOther(request)


@app.route("/forget", methods=["POST"])
async def forget(request: Any) -> bytes:
    await getSession(request).destroy()
    return seeOther(request)


def seeOther(request: Any) -> bytes:
    # This does not leave before the session is saved.
    request.setResponseCode(303)
    request.setHeader("Location", "/klein/")
    return b""


# How it looks.


def show(visits: dict[str, int], notes: list[dict[str, str]]) -> Element:
    here, there = times(visits.get("klein", 0)), times(visits.get("express", 0))
    return page(
        "Side by side",
        "Klein",
        tags.p(f"You were {here} here and {there} at Express's."),
        tags.ul(*map(item, notes), class_="items"),
        tags.form(
            tags.label("Something to remember", for_="text"),
            tags.input(id="text", name="text", required="", autocomplete="off"),
            tags.button("Write it down", class_="wide"),
            method="post",
            action="/klein/notes",
        ),
        tags.p("Express and Klein keep this in one session.", class_="hint"),
        tags.form(
            tags.button("Forget everything", class_="quiet wide"),
            method="post",
            action="/klein/forget",
        ),
        nav=tags.nav(
            tags.a("Express", href="/express"), tags.span("Klein", class_="hint")
        ),
    )


def item(note: dict[str, str]) -> Tag:
    return tags.li(note["text"], tags.span(note["by"], class_="hint"))


def times(count: int) -> str:
    return "1 time" if count == 1 else f"{count} times"
