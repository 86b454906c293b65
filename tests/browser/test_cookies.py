"""
The cookies, as a browser itself reports them.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from .programs import Programs, Server
from .server import CASES
from .webdriver import Tab

SECURE = {
    "default": {"sameSite": "Lax"},
    "strict": {"sameSite": "Strict"},
    "cross": {"sameSite": "None"},
    "automatic": {"sameSite": "None"},
    "secure": {},
    "host": {"name": "__Host-sid"},
    "prefixed": {"name": "__Secure-sid"},
    "partitioned": {
        "name": "__Host-apart",
        "sameSite": "None",
        "partitionKey": {
            "topLevelSite": "https://site.test",
            "hasCrossSiteAncestor": False,
        },
    },
    "lasting": {"session": False},
    "important": {"priority": "High"},
    "scripted": {"httpOnly": False},
    "below": {"path": "/below"},
    "wide": {"domain": ".site.test"},
}
"""
What the browser says of the cookie of each of these over HTTPS, besides what it
says of all.
"""

ALL = {
    "domain": "www.site.test",
    "path": "/",
    "httpOnly": True,
    "session": True,
    "sameSite": "Lax",
    "priority": "Medium",
}


def report(cookie: dict[str, Any]) -> dict[str, Any]:
    """
    What a browser says of a cookie, without what differs from run to run.
    """
    left_out = ("value", "size", "expires", "sourceScheme", "sourcePort")
    return {key: value for key, value in cookie.items() if key not in left_out}


@pytest.mark.parametrize("case", SECURE)
def test_overHTTPS(tab: Tab, proxyOnce: Any, case: str) -> None:
    """
    Over HTTPS the browser takes the cookie of each configuration, reports the
    attributes that were asked for, and sends it back.
    """
    address = proxyOnce("nginx", "cookies").https("www.site.test", f"/{case}/")
    tab.visit(address)
    [cookie] = tab.cookies()
    expected = {**ALL, "name": case, "secure": True, **SECURE[case]}
    assert report(cookie) == expected
    visible = "" if cookie["httpOnly"] else f"{case}={cookie['value']}"
    assert tab.run("return document.cookie") == visible
    tab.reload()
    assert "views=2" in tab.text


def test_aLastingCookieLasts(tab: Tab, server: Server) -> None:
    """
    The browser counts the lifetime from when the cookie came.
    """
    before = time.time()
    tab.visit(f"http://site.test:{server.port}/lasting/")
    [cookie] = tab.cookies()
    assert before + 3590 <= cookie["expires"] <= time.time() + 3610


@pytest.mark.parametrize("case", ["default", "strict", "automatic", "wide"])
def test_overHTTP(tab: Tab, server: Server, case: str) -> None:
    """
    Over plain HTTP the cookie is the same, but not Secure, and SameSite=Lax in
    place of None, which a browser takes with Secure only.
    """
    tab.visit(f"http://www.site.test:{server.port}/{case}/")
    [cookie] = tab.cookies()
    expected = {**ALL, "name": case, "secure": False, **SECURE[case]}
    if case == "automatic":
        expected["sameSite"] = "Lax"
    assert report(cookie) == expected
    tab.reload()
    assert "views=2" in tab.text


@pytest.mark.parametrize("case", ["secure", "host", "prefixed", "cross", "partitioned"])
def test_noSecureCookieOverHTTP(tab: Tab, server: Server, case: str) -> None:
    """
    Over plain HTTP no cookie is sent that has to be Secure, and the log says what
    to do about it.
    """
    for _ in range(2):
        tab.visit(f"http://www.site.test:{server.port}/{case}/")
        assert "views=1" in tab.text
        assert tab.cookies() == []
    name = CASES[case].get("name", case)
    warning = f"The session cookie {name!r} must be Secure"
    assert server.program.said.count(warning) == 1


def test_aSecureCookieStaysOutOfHTTP(tab: Tab, proxyOnce: Any) -> None:
    """
    With secure="auto", a browser that came over HTTPS does not send its cookie
    over plain HTTP, and what it is sent there does not replace it.
    """
    proxy = proxyOnce("nginx", "cookies")
    secure = proxy.https("www.site.test", "/default/")
    tab.visit(secure)
    before = tab.cookies()
    tab.visit(proxy.plain("www.site.test", "/default/"))
    assert "views=1" in tab.text
    tab.visit(secure)
    assert "views=2" in tab.text
    assert tab.cookies() == before


def test_aPlainCookieGoesOnOverHTTPS(tab: Tab, proxyOnce: Any) -> None:
    """
    With secure="auto", a session that began over plain HTTP goes on over HTTPS.
    """
    proxy = proxyOnce("nginx", "cookies")
    tab.visit(proxy.plain("www.site.test", "/default/"))
    tab.visit(proxy.https("www.site.test", "/default/"))
    assert "views=2" in tab.text


def test_logoutExpiresTheCookie(tab: Tab, proxyOnce: Any) -> None:
    """
    At logout the browser forgets the cookie, whatever its attributes are.
    """
    proxy = proxyOnce("nginx", "cookies")
    for case in SECURE:
        address = proxy.https("www.site.test", f"/{case}/")
        tab.visit(address)
        assert len(tab.cookies(address)) == 1, case
        tab.press("button")
        assert tab.text == "Out"
        assert tab.cookies(address) == [], case


@pytest.mark.parametrize(("page", "isKept"), [("page", True), ("private", False)])
def test_theBackButtonShowsWhatMayBeKept(
    tab: Tab, programs: Programs, page: str, isKept: bool
) -> None:
    """
    After a logout, and without the server, the back button shows a page again
    unless it came with Cache-Control: no-store.
    """
    server = programs.serve("tests.browser.server", "cookies")
    tab.visit(f"http://www.site.test:{server.port}/default/{page}")
    tab.press("button")
    server.program.end()
    tab.back()
    assert ("views=1" in tab.text) == isKept


# Other sites.


@pytest.mark.parametrize(
    ("case", "link", "post"),
    [
        ("default", "views=2", "views=1"),
        ("strict", "views=1", "views=1"),
        ("cross", "views=2", "views=2"),
    ],
)
def test_whatOtherSitesCanSend(
    tab: Tab, proxyOnce: Any, case: str, link: str, post: str
) -> None:
    """
    A link of another site comes with the session unless it is Strict, and a form
    of another site without it unless it is None.
    """
    proxy = proxyOnce("nginx", "cookies")
    address = proxy.https("www.site.test", f"/{case}/")
    elsewhere = proxy.https("www.elsewhere.test", f"/elsewhere?to={address}")
    for selector, seen in (("a", link), ("button", post)):
        tab.devtools("Network.clearBrowserCookies")
        tab.visit(address)
        tab.visit(elsewhere)
        tab.press(selector)
        assert tab.address == address
        assert seen in tab.text


def test_framesHaveASessionForEachSiteAroundThem(tab: Tab, proxyOnce: Any) -> None:
    """
    A partitioned cookie is one for each site that has the page in a frame, and
    another one for the page itself.
    """
    proxy = proxyOnce("nginx", "cookies")
    address = proxy.https("www.site.test", "/partitioned/")
    tab.visit(address)
    for around, seen in (
        ("www.one.test", "views=1"),
        ("www.other.test", "views=1"),
        ("www.one.test", "views=2"),
    ):
        tab.visit(proxy.https(around, f"/elsewhere?frame=&to={address}"))
        tab.enter("iframe")
        assert seen in tab.text
    held = tab.devtools("Storage.getCookies")["cookies"]
    keys = sorted(cookie["partitionKey"]["topLevelSite"] for cookie in held)
    assert keys == ["https://one.test", "https://other.test", "https://site.test"]


# Two tabs.


@pytest.mark.parametrize(
    ("case", "isKept"), [("default", True), ("overwriting", False)]
)
def test_twoTabsAtOnceLoseNothing(
    tabs: list[Tab], server: Server, case: str, isKept: bool
) -> None:
    """
    Of two tabs that add to the session at the same time, both are heard, unless
    the last one to save is to win.
    """
    site = f"http://www.site.test:{server.port}/{case}"
    pages = [f"{site}/together/one", f"{site}/together/other"]
    for tab in tabs:
        tab.visit(f"{site}/")
    # They leave at the same signal, since neither arrives before the other leaves.
    for tab, page in zip(tabs, pages, strict=True):
        tab.run(
            "new BroadcastChannel('go').onmessage = () => location = arguments[0]",
            page,
        )
    tabs[0].run("new BroadcastChannel('go').postMessage('go')")
    for tab, page in zip(tabs, pages, strict=True):
        tab.arrive(page)
    tabs[0].visit(f"{site}/data")
    kept = [name for name in ("one", "other") if f"{name}=True" in tabs[0].text]
    assert len(kept) == (2 if isKept else 1)
    assert "views=2" in tabs[0].text
