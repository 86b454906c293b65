"""
The configurations of nginx and HAProxy that the documentation shows, used.
"""

from __future__ import annotations

from http.client import HTTPConnection

import pytest

from .programs import Server, until
from .proxies import Proxy
from .server import WebSocketResource
from .webdriver import Tab

HOST = "www.site.test"


def isSecure(tab: Tab) -> bool:
    [cookie] = tab.cookies()
    secure: bool = cookie["secure"]
    return secure


def test_theProxySaysHowTheBrowserCame(tab: Tab, proxy: Proxy) -> None:
    """
    The cookie is Secure for who came to the proxy over HTTPS, and not Secure for
    who did not.
    """
    tab.visit(proxy.plain(HOST, "/default/"))
    assert not isSecure(tab)
    tab.devtools("Network.clearBrowserCookies")
    tab.visit(proxy.https(HOST, "/default/"))
    assert isSecure(tab)
    assert tab.run(PROTOCOL) == "h2"


PROTOCOL = "return performance.getEntriesByType('navigation')[0].nextHopProtocol"


def test_theProxyIsNotDeceived(tab: Tab, proxy: Proxy) -> None:
    """
    What the browser sends as X-Forwarded-Proto does not reach the application.
    """
    for lie in ("https", "https, http"):
        tab.pretend({"X-Forwarded-Proto": lie})
        tab.visit(proxy.plain(HOST, "/default/"))
        assert not isSecure(tab)
    tab.devtools("Network.clearBrowserCookies")
    tab.pretend({"X-Forwarded-Proto": "http"})
    tab.visit(proxy.https(HOST, "/default/"))
    assert isSecure(tab)


def test_onlyTheProxyIsBelieved(tab: Tab, server: Server) -> None:
    """
    Who gets at the application past the proxy is not believed, unless everybody
    is.
    """
    tab.pretend({"X-Forwarded-Proto": "https"})
    tab.visit(f"{server.home}/default/")
    assert not isSecure(tab)
    tab.devtools("Network.clearBrowserCookies")
    tab.visit(f"{server.home}/secure/")
    assert tab.cookies() == []
    # To an address of this machine the browser takes a Secure cookie over HTTP.
    tab.visit(f"{server.home}/credulous/")
    assert isSecure(tab)


def test_withoutProxyNobodyIsBelieved(tab: Tab, proxy: Proxy) -> None:
    """
    Without proxy=, HTTPS at the proxy makes no Secure cookie.
    """
    tab.visit(proxy.https(HOST, "/distrustful/"))
    assert not isSecure(tab)


def test_plainHTTPIsRedirected(proxy: Proxy) -> None:
    """
    Who comes over plain HTTP is sent to the same address over HTTPS.
    """
    connection = HTTPConnection("127.0.0.1", proxy.ports.http, timeout=10)
    connection.request("GET", "/default/?a=b", headers={"Host": HOST})
    response = connection.getresponse()
    location = response.getheader("Location")
    connection.close()
    assert (response.status, location) == (301, f"https://{HOST}/default/?a=b")


def test_eventsComeOneByOne(tab: Tab, proxy: Proxy) -> None:
    """
    An event of a stream reaches the browser before the next one is sent: the
    application sends each when the browser says that it has the one before.
    """
    tab.visit(proxy.https(HOST, "/live/page/"))
    tab.run(
        """
        window.received = [];
        const stream = new EventSource("/live/events");
        stream.onmessage = event => {
          received.push(event.data);
          if (received.length < 4) fetch("/live/next", {method: "POST"});
        };
        """
    )
    until(lambda: tab.run("return received.length") == 4, "four events")
    assert tab.run("return received") == [
        "first",
        "received=1",
        "received=2",
        "received=3",
    ]
    tab.visit(proxy.https(HOST, "/live/page/data"))
    assert tab.text.startswith("received=3 views=1")


@pytest.mark.skipif(
    WebSocketResource is None, reason="needs Twisted with the websocket extra"
)
def test_aSocketHasTheSession(tab: Tab, proxy: Proxy) -> None:
    """
    A WebSocket through the proxy knows the session, and what it saves is there
    for the next page; after a logout it is closed.
    """
    tab.visit(proxy.https(HOST, "/live/page/"))
    tab.run(
        """
        window.received = [];
        window.socket = new WebSocket(`wss://${location.host}/live/socket`);
        socket.onmessage = event => received.push(event.data);
        socket.onclose = () => received.push("closed");
        """
    )
    until(lambda: tab.run("return received.length") == 1, "a greeting")
    tab.run("socket.send('one'); socket.send('two')")
    until(lambda: tab.run("return received.length") == 3, "two answers")
    assert tab.run("return received") == ["views=1", "said=1", "said=2"]
    data = "return fetch('/live/page/data').then(r => r.text())"
    assert "said=['one', 'two'] views=1" in tab.run(data).replace("&#x27;", "'")
    tab.run("return fetch('/live/page/logout', {method: 'POST'}).then(r => r.status)")
    tab.run("socket.send('three')")
    until(lambda: tab.run("return received.length") == 4, "an end")
    assert tab.run("return received[3]") == "closed"
