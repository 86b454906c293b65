"""
A real browser, and the servers and proxies that it talks to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from tempfile import TemporaryDirectory

import pytest
from attrs import define

from .programs import Program, Programs, Server, find
from .proxies import Certificate, Proxies, Proxy
from .webdriver import Chromium, Driver, Tab


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    """
    Starts programs that live until the last test is over.
    """
    started = Programs(tmp_path_factory.mktemp("programs"), [])
    yield started
    started.end()


@pytest.fixture(scope="session")
def driver(programs: Programs) -> Driver:
    find("chromium")
    program = programs.start(find("chromedriver"), "--port=0")
    return Driver(int(program.says(r"successfully on port (\d+)")[1]))


@pytest.fixture(scope="session")
def certificate(programs: Programs) -> Certificate:
    return Certificate.make(programs.directory)


@pytest.fixture(scope="session")
def chromium(driver: Driver, certificate: Certificate) -> Iterator[Chromium]:
    with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = driver.open(
            find("chromium"),
            profile,
            f"--ignore-certificate-errors-spki-list={certificate.fingerprint}",
        )
        yield browser
        browser.quit()


@pytest.fixture
def tab(chromium: Chromium) -> Tab:
    """
    A tab of a browser that no site knows yet.
    """
    return chromium.forget()


@pytest.fixture
def tabs(tab: Tab) -> list[Tab]:
    """
    Two tabs of one browser.
    """
    return [tab, tab.browser.open()]


# What it talks to is started for the first test that asks for it, and serves
# the others as well: no test has the cookies of another.


@pytest.fixture(scope="session")
def serveOnce(programs: Programs) -> Callable[..., Server]:
    """
    Starts a server of Python, or gives the one that was started.
    """
    return cache(programs.serve)


@pytest.fixture(scope="session")
def proxyOnce(
    programs: Programs, certificate: Certificate, serveOnce: Callable[..., Server]
) -> Callable[[str, str], Proxy]:
    """
    Starts a proxy before a site of C{server.py}, or gives the one that was
    started.
    """
    proxies = Proxies(programs, certificate)

    @cache
    def start(name: str, site: str) -> Proxy:
        find(name)
        return proxies.start(name, serveOnce("tests.browser.server", site).port)

    return start


@pytest.fixture(params=["nginx", "haproxy"])
def proxy(
    request: pytest.FixtureRequest, proxyOnce: Callable[[str, str], Proxy]
) -> Proxy:
    """
    Each of the proxies, before the site C{cookies}.
    """
    return proxyOnce(request.param, "cookies")


@pytest.fixture
def server(serveOnce: Callable[..., Server]) -> Server:
    """
    The site C{cookies}, without a proxy.
    """
    return serveOnce("tests.browser.server", "cookies")


@define
class Site:
    """
    An example, as a browser sees it.

    @ivar home: its address, without a slash at the end.
    @ivar cookie: the name of its cookie.
    """

    program: Program
    home: str
    cookie: str
    isSecure: bool

    def at(self, path: str) -> str:
        return self.home + path


@pytest.fixture(params=["http", "nginx", "haproxy"])
def example(
    request: pytest.FixtureRequest,
    serveOnce: Callable[..., Server],
    proxyOnce: Callable[[str, str], Proxy],
) -> Callable[[str], Site]:
    """
    Gives the site of an example: over plain HTTP as the program is, and over HTTPS
    behind each of the proxies.
    """

    def site(name: str) -> Site:
        if request.param == "http":
            server = serveOnce(f"examples.{name}", "0")
            return Site(server.program, server.home, "connect.sid", False)
        server = serveOnce("tests.browser.server", name)
        home = proxyOnce(request.param, name).https(f"{name}.test", "")
        return Site(server.program, home, "__Host-sid", True)

    return site
