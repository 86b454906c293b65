"""
`examples/login.py`, used by people: over plain HTTP as the program is, and over
HTTPS behind a proxy.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from .conftest import Site
from .programs import Programs
from .webdriver import Tab

PRIVATE = "Welcome back|Bernoulli|Log out"


def logIn(tab: Tab, site: Site) -> None:
    """
    Log in by way of the page that members want to see.
    """
    tab.visit(site.at("/members"))
    fillIn(tab)


def fillIn(tab: Tab, password: str = "analytical") -> None:
    tab.write("#user", "ada")
    tab.write("#password", password)
    tab.press("form[action='/login'] button")


def logOut(tab: Tab) -> None:
    tab.press("form[action='/logout'] button")


@pytest.fixture
def site(example: Callable[[str], Site]) -> Site:
    return example("login")


def cookie(tab: Tab) -> dict[str, Any]:
    [found] = tab.cookies()
    return found


def test_loginLeadsToThePageThatWasAskedFor(tab: Tab, site: Site) -> None:
    """
    Who asks for a page of members is sent to the login, from there to that page,
    and is still logged in when it is loaded again.
    """
    tab.visit(site.at("/"))
    assert "Views of this page so far: 1." in tab.text
    tab.visit(site.at("/members/minutes"))
    assert tab.address == site.at("/login?next=%2Fmembers%2Fminutes")
    fillIn(tab)
    assert tab.address == site.at("/members/minutes")
    tab.reload()
    assert "Bernoulli" in tab.text
    tab.press("main a")
    assert "Welcome back, ada." in tab.text
    assert "Views of the front page so far: 1." in tab.text


def test_theCookieIsSafe(tab: Tab, site: Site) -> None:
    """
    Scripts do not see the cookie, other sites cannot post with it, and over HTTPS
    it is Secure, and taken with the prefix __Host-.  The login changes its value.
    """
    tab.visit(site.at("/"))
    before = cookie(tab)
    expected = {
        "name": site.cookie,
        "secure": site.isSecure,
        "httpOnly": True,
        "sameSite": "Lax",
        "path": "/",
        "session": True,
    }
    assert before.items() >= expected.items()
    assert tab.run("return document.cookie") == ""
    logIn(tab, site)
    after = cookie(tab)
    assert after.items() >= expected.items()
    assert after["value"] != before["value"]


def test_aWrongPasswordLogsNobodyIn(tab: Tab, site: Site) -> None:
    """
    After a wrong password the form is there again, with the name in it, and the
    right one leads to where one wanted to go.
    """
    tab.visit(site.at("/members/minutes"))
    fillIn(tab, "wrong")
    assert "do not go together" in tab.text
    assert tab.run("return document.activeElement.id") == "password"
    assert tab.run("return document.querySelector('#user').value") == "ada"
    fillIn(tab)
    assert tab.address == site.at("/members/minutes")


def test_afterTheLogoutTheBackButtonBringsNothingBack(tab: Tab, site: Site) -> None:
    """
    At logout the browser's cookie is gone, and the back button leads to the login
    instead of a page of members.
    """
    logIn(tab, site)
    tab.visit(site.at("/members/minutes"))
    before = cookie(tab)
    logOut(tab)
    assert tab.address == site.at("/")
    # The page that the logout leads to has begun another session.
    assert cookie(tab)["value"] != before["value"]
    for _ in range(2):
        tab.back()
        assert tab.address.startswith(site.at("/login"))
        assert not re.search(PRIVATE, tab.text)
    # Nor does a copy of the old cookie help.
    copied = {key: before[key] for key in ("name", "value", "secure", "path")}
    tab.devtools("Network.setCookie", url=site.home, **copied)
    assert cookie(tab)["value"] == before["value"]
    tab.visit(site.at("/members"))
    assert tab.address == site.at("/login?next=%2Fmembers")


def test_notEvenWithoutTheServer(tab: Tab, programs: Programs) -> None:
    """
    After the logout the browser has no page of members left to show, even where it
    cannot ask the server.
    """
    server = programs.serve("examples.login", "0")
    site = Site(server.program, server.home, "connect.sid", False)
    logIn(tab, site)
    tab.visit(site.at("/members/minutes"))
    assert re.search(PRIVATE, tab.text)
    logOut(tab)
    server.program.end()
    tab.back()
    assert "ERR_CONNECTION_REFUSED" in tab.text
    assert not re.search(PRIVATE, tab.text)


def test_twoTabsAreOneVisitor(tabs: list[Tab], site: Site) -> None:
    """
    What two tabs do counts for one session; who logs in with one is logged in with
    the other, and so with logging out.
    """
    one, other = tabs
    for tab in (one, other, one):
        tab.visit(site.at("/"))
    other.visit(site.at("/login"))
    logIn(one, site)
    assert "Views of the front page so far: 3." in one.text
    fillIn(other)  # a form from before, with the token of the old session
    assert "Welcome back, ada." in other.text
    logOut(other)
    one.reload()
    assert one.address == site.at("/login?next=%2Fmembers")
    assert "Log in" in one.text
