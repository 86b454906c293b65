"""
How a visitor of the chat and of the bakery says who they are, and leaves.

A name is all that is asked for: examples/login.py has the passwords.  What
belongs to a login is here nonetheless: a new session ID for who comes in, a
token in the forms, and C{destroy()} for who leaves.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from secrets import token_urlsafe
from typing import Any

from twisted.web.template import Element, Tag, tags

from txsession import getSession

from .login import field, form, isFromOurForm, seeOther
from .page import STYLE, page

__all__ = [
    "asset",
    "cleaned",
    "enter",
    "leave",
    "nameForm",
    "refuse",
    "show",
    "wayOut",
]

LONGEST_NAME = 24


def nameForm(request: Any) -> Tag:
    return form(
        request,
        "/enter",
        tags.label("Your name", for_="name"),
        tags.input(
            id="name",
            name="name",
            maxlength=str(LONGEST_NAME),
            required="",
            autocomplete="nickname",
            autofocus="",
        ),
        tags.button("Come in", class_="wide"),
    )


async def enter(request: Any, site: str) -> Any:
    """
    Take the name of a visitor who has sent the form.
    """
    session = getSession(request)
    if "user" not in session:
        if not isFromOurForm(request):
            return refuse(request, site)
        name = cleaned(field(request, "name"), LONGEST_NAME)
        if name:
            await session.regenerate()
            # The new session's, and so is the token: who planted the old ID
            # knows neither.
            session["user"] = name
            session["token"] = token_urlsafe()
    return seeOther(request, "/")


async def leave(request: Any, site: str) -> Any:
    session = getSession(request)
    if "user" in session:
        if not isFromOurForm(request):
            return refuse(request, site)
        await session.destroy()
    return seeOther(request, "/")


def wayOut(request: Any) -> Tag:
    return tags.nav(
        tags.span(getSession(request)["user"], class_="hint"),
        form(request, "/leave", tags.button("Leave", class_="quiet")),
    )


def refuse(request: Any, site: str) -> Element:
    request.setResponseCode(403)
    return show(
        request,
        site,
        "That did not work",
        tags.p("The form was too old, or it did not come from this site."),
        tags.a("Try again", href="/", class_="button"),
    )


def cleaned(text: str, longest: int) -> str:
    """
    The text on one line, without anything that cannot be seen.
    """
    line = " ".join(text.split())
    return "".join(filter(str.isprintable, line))[:longest].strip()


# Pages with scripts.

# The style sheet of the pages is in them, so it is named by what it says; what
# else is allowed is this site's own scripts, styles and streams, and nothing
# that a script could take for HTML.
STYLE_HASH = b64encode(sha256(STYLE.encode()).digest()).decode()
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        f"style-src 'self' 'sha256-{STYLE_HASH}'",
        "connect-src 'self'",
        "img-src data:",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]
)


def show(
    request: Any, site: str, title: str, *content: Tag | str, nav: Tag | str = ""
) -> Element:
    # What a page shows depends on who is looking: no cache may keep it.
    request.setHeader("Cache-Control", "no-store")
    request.setHeader("Content-Security-Policy", POLICY)
    return page(site, title, *content, nav=nav)


def asset(request: Any, kind: str, content: str) -> bytes:
    """
    A script or a style sheet, the same for everybody.
    """
    request.setHeader("Content-Type", f"{kind}; charset=utf-8")
    request.setHeader("X-Content-Type-Options", "nosniff")
    request.setHeader("Cache-Control", "no-cache")
    return content.encode()
