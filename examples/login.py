"""
Logging in with a form, pages for members only, and logging out.

    python -m examples.login [PORT]

What it shows, and what a login of your own should do too:

- a new session ID at login, so that an ID which somebody planted in the
  visitor's browser beforehand is worth nothing afterwards;
- the data that was gathered before the login survives it;
- C{destroy()} at logout: the record is gone, and so is the cookie;
- a token in every form, kept in the session, so that no other site can log
  anybody in or out;
- the way back to the page that was asked for, and to no other site;
- nothing private in the browser's cache: after the logout, the back button does
  not bring it back.

On the internet it would need HTTPS and a limit on failed attempts besides.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from hashlib import scrypt
from hmac import compare_digest
from secrets import token_bytes, token_urlsafe
from typing import Any
from urllib.parse import urlencode

from klein import Klein
from twisted.internet.threads import deferToThread
from twisted.web.template import Element, Tag, tags

from txsession import MemoryStore, SessionGone, SessionResource, getSession

from .page import page
from .serving import serve, sessionSecret

SITE = "Analytical Society"
MEMBERS_PAGE = "/members"

app = Klein()


# The pages.


@app.route("/")
def home(request: Any) -> Element:
    session = getSession(request)
    session["views"] = session.get("views", 0) + 1
    return show(
        request,
        "Welcome",
        tags.p("We talk about engines that weave numbers. Come in and read along."),
        tags.p(f"Views of this page so far: {session['views']}.", class_="hint"),
        tags.a("Go to the reading room", href=MEMBERS_PAGE, class_="button"),
    )


def membersOnly(view: Callable[..., Any]) -> Callable[..., Any]:
    """
    Send those who are not logged in to the login first.
    """

    @wraps(view)
    def guarded(request: Any, *args: Any, **kwargs: Any) -> Any:
        if "user" in getSession(request):
            return view(request, *args, **kwargs)
        return seeOther(request, loginAddress(request.uri))

    return guarded


@app.route(MEMBERS_PAGE)
@membersOnly
def members(request: Any) -> Element:
    session = getSession(request)
    return show(
        request,
        "The reading room",
        tags.p("Welcome back, ", tags.strong(session["user"]), "."),
        tags.p(
            f"Views of the front page so far: {session.get('views', 0)}. The login "
            "kept this count, and gave your session a new ID.",
            class_="hint",
        ),
        tags.a("Read the minutes", href="/members/minutes"),
    )


@app.route("/members/minutes")
@membersOnly
def minutes(request: Any) -> Element:
    return show(
        request,
        "Minutes of the last meeting",
        tags.p("The Bernoulli numbers were woven once more. Tea was served at five."),
        tags.a("Back to the reading room", href=MEMBERS_PAGE),
    )


# Logging in and out.


@app.route("/login", methods=["GET"])
def askWho(request: Any) -> Any:
    wanted = ownAddress(field(request, "next"))
    if "user" in getSession(request):
        return seeOther(request, wanted)
    return loginPage(request, wanted)


@app.route("/login", methods=["POST"])
async def logIn(request: Any) -> Any:
    session = getSession(request)
    user, wanted = field(request, "user"), ownAddress(field(request, "next"))
    if "user" in session:
        return seeOther(request, wanted)
    if not isFromOurForm(request):
        return refuse(request)
    if not await isPasswordOf(user, field(request, "password")):
        request.setResponseCode(403)
        return loginPage(request, wanted, user, isRefused=True)
    try:
        await session.regenerate(keepData=True)
    except SessionGone:  # a second click on the button was faster
        return seeOther(request, loginAddress(wanted))
    # Only now: had regenerate() failed, nobody would be logged in under the old
    # ID.  The old token goes as well, since who planted the ID knows it.
    session["user"] = user
    session["token"] = token_urlsafe()
    # The redirect does not leave before this is saved, so that the next page
    # finds it.
    return seeOther(request, wanted)


@app.route("/logout", methods=["POST"])
async def logOut(request: Any) -> Any:
    session = getSession(request)
    if "user" in session:
        if not isFromOurForm(request):
            return refuse(request)
        await session.destroy()
    return seeOther(request, "/")


def loginPage(
    request: Any, wanted: str, user: str = "", isRefused: bool = False
) -> Element:
    # Whoever was refused starts again at the password.
    typing = {"autofocus": ""}
    problem = {"aria-invalid": "true", "aria-describedby": "problem"}
    alert = tags.p(
        "That name and password do not go together. Please try again.",
        id="problem",
        role="alert",
        class_="alert",
    )
    return show(
        request,
        "Log in",
        alert if isRefused else "",
        form(
            request,
            "/login",
            hidden("next", wanted),
            tags.label("Name", for_="user"),
            tags.input(
                id="user",
                name="user",
                value=user,
                required="",
                autocomplete="username",
                autocapitalize="none",
                spellcheck="false",
                **(problem if isRefused else typing),
            ),
            tags.label("Password", for_="password"),
            tags.input(
                id="password",
                name="password",
                type="password",
                required="",
                autocomplete="current-password",
                **(problem | typing if isRefused else {}),
            ),
            tags.button("Log in", class_="wide"),
        ),
        tags.p(
            "To try it: ",
            tags.code("ada"),
            " has the password ",
            tags.code("analytical"),
            ".",
            class_="hint",
        ),
    )


# Passwords.

PASSWORDS = {
    "ada": (
        "ce1f191b91b973e10fd4321825710277",
        "631c5b9c50643b8030b1a1f4601e81a609e8cf794fc062d8932c345361e8123a",
    ),
    "grace": (
        "45343ef71d7f46ebddf5c5b214ad7549",
        "3dd3ba3248e0de6d678aeb3e83c6166d4fbbdda1c4e24ddaa8d53a4b61d75868",
    ),
}
"""
Salt and hash of each member's password (those of this example are "analytical"
and "nanosecond").
"""

NOBODY = (token_bytes(16).hex(), token_bytes(32).hex())


async def isPasswordOf(user: str, password: str) -> bool:
    # For a name that nobody has, as much is computed as for any other, lest the
    # time it takes tells who is a member.
    salt, expected = (bytes.fromhex(part) for part in PASSWORDS.get(user, NOBODY))
    # This is meant to be slow, so it happens in a thread: other visitors do not
    # have to wait for it.
    found = await deferToThread(
        scrypt, password.encode(), salt=salt, n=2**14, r=8, p=5, dklen=32
    )
    return compare_digest(found, expected)


# Forms that only our own pages can send.


def form(request: Any, action: str, *content: Tag) -> Tag:
    token = getSession(request).setdefault("token", token_urlsafe())
    return tags.form(hidden("token", token), *content, method="post", action=action)


def hidden(name: str, value: str) -> Tag:
    return tags.input(type="hidden", name=name, value=value)


def field(request: Any, name: str) -> str:
    """
    What was entered in a field of a form, or stands in the query.
    """
    value: bytes = request.args.get(name.encode(), [b""])[0]
    return value.decode(errors="replace")


def isFromOurForm(request: Any) -> bool:
    token = getSession(request).get("token", "")
    return token != "" and compare_digest(
        token.encode(), field(request, "token").encode()
    )


def refuse(request: Any) -> Element:
    request.setResponseCode(403)
    return show(
        request,
        "That did not work",
        tags.p("The form was too old, or it did not come from this site."),
        tags.a("Try again", href="/login", class_="button"),
    )


# Going elsewhere.


def seeOther(request: Any, address: str) -> bytes:
    request.setResponseCode(303)
    request.setHeader("Location", address)
    return b""


def loginAddress(wanted: str | bytes) -> str:
    return "/login?" + urlencode({"next": wanted})


def ownAddress(wanted: str) -> str:
    """
    The address, if it is one of this site, and otherwise that of the members'
    page.

    Two slashes at the start, or a slash and a backslash, are another host to a
    browser, and so they may be to it with a tab or line break in between.
    """
    isOwn = re.fullmatch(r"/(?!/)[!-\[\]-~]*", wanted)
    return wanted if isOwn else MEMBERS_PAGE


# How it looks.


def show(request: Any, title: str, *content: Tag | str) -> Element:
    # What a page shows depends on who is looking, and goes with the session:
    # no cache may keep it.
    request.setHeader("Cache-Control", "no-store")
    request.setHeader(
        "Content-Security-Policy",
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    )
    return page(SITE, title, *content, nav=whoIsHere(request))


def whoIsHere(request: Any) -> Tag:
    user = getSession(request).get("user")
    if user is None:
        return tags.nav(tags.a("Log in", href="/login"))
    return tags.nav(
        tags.span(user, class_="hint"),
        form(request, "/logout", tags.button("Log out", class_="quiet")),
    )


resource = SessionResource(
    app,
    secret=sessionSecret(),
    store=MemoryStore(),
    ttl=timedelta(minutes=30),  # without a request
    absoluteTimeout=timedelta(hours=12),  # whatever happens
)

if __name__ == "__main__":
    serve(resource)
