"""
Chromium, driven by way of chromedriver: as much of the W3C's WebDriver as the
tests speak.
"""

from __future__ import annotations

import json
from base64 import b64decode
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from attrs import define

from ..support import PATIENCE
from .programs import until

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""
The key that marks a reference to an element (WebDriver 12.2).
"""

FLAGS = [
    "--headless=new",
    "--no-sandbox",  # which root cannot have
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--disable-component-update",
    "--disable-background-networking",
    "--no-first-run",
    # Nothing leaves this machine.
    "--host-resolver-rules=MAP *.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]


class WebDriverError(Exception):
    """
    The driver could not do it.

    @ivar error: its code, as in "stale element reference".
    """

    def __init__(self, error: str, message: str) -> None:
        super().__init__(f"{error}: {message}")
        self.error = error


@define(eq=False)
class Driver:
    """
    A chromedriver.
    """

    port: int

    def call(self, method: str, path: str, body: Any = None) -> Any:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            content = None if body is None else json.dumps(body)
            headers = {"Content-Type": "application/json"}
            connection.request(method, path, content, headers)
            value = json.loads(connection.getresponse().read())["value"]
        finally:
            connection.close()
        if isinstance(value, dict) and "error" in value:
            raise WebDriverError(value["error"], value["message"])
        return value

    def open(self, chromium: str, profile: str, *flags: str) -> Chromium:
        """
        Start a browser.

        @param profile: a directory, in which it keeps what it knows.
        """
        arguments = [*FLAGS, f"--user-data-dir={profile}", *flags]
        options = {"binary": chromium, "args": arguments}
        wanted = {"goog:chromeOptions": options, "pageLoadStrategy": "normal"}
        session = self.call(
            "POST", "/session", {"capabilities": {"alwaysMatch": wanted}}
        )
        return Chromium(self, f"/session/{session['sessionId']}")


@define(eq=False)
class Chromium:
    """
    A browser that was started.
    """

    driver: Driver
    path: str
    _current: str = ""

    def call(self, method: str, path: str, body: Any = None) -> Any:
        return self.driver.call(method, self.path + path, body)

    def devtools(self, command: str, **parameters: Any) -> Any:
        """
        Ask the browser by the Chrome DevTools Protocol.
        """
        body = {"cmd": command, "params": parameters}
        return self.call("POST", "/goog/cdp/execute", body)

    def open(self) -> Tab:
        """
        Open a tab.
        """
        return Tab(self, self.call("POST", "/window/new", {"type": "tab"})["handle"])

    def forget(self) -> Tab:
        """
        Close all tabs, and forget what any site has said.

        @return: the one tab that there is then.
        """
        old: list[str] = self.call("GET", "/window/handles")
        new = self.open()
        for handle in old:
            self.switch(handle)
            self.call("DELETE", "/window")
        new.devtools("Network.clearBrowserCookies")
        new.devtools("Network.clearBrowserCache")
        return new

    def switch(self, handle: str) -> None:
        if handle != self._current:
            self.call("POST", "/window", {"handle": handle})
            self._current = handle

    def quit(self) -> None:
        self.driver.call("DELETE", self.path)


@define(eq=False)
class Tab:
    """
    A tab of a browser, and what a person does with it.
    """

    browser: Chromium
    handle: str

    def call(self, method: str, path: str, body: Any = None) -> Any:
        self.browser.switch(self.handle)
        return self.browser.call(method, path, body)

    def devtools(self, command: str, **parameters: Any) -> Any:
        self.browser.switch(self.handle)
        return self.browser.devtools(command, **parameters)

    def run(self, script: str, *arguments: Any) -> Any:
        """
        Run a script in the page.

        @return: what it returns.
        """
        body = {"script": script, "args": arguments}
        return self.call("POST", "/execute/sync", body)

    # What is there.

    @property
    def address(self) -> str:
        address: str = self.call("GET", "/url")
        return address

    @property
    def text(self) -> str:
        """
        What can be read on the page.
        """
        text: str = self.run("return document.body.innerText")
        return text

    def find(self, selector: str) -> str:
        """
        The first element of a CSS selector.
        """
        body = {"using": "css selector", "value": selector}
        element: str = self.call("POST", "/element", body)[ELEMENT]
        return element

    def cookies(self, address: str | None = None) -> list[dict[str, Any]]:
        """
        The cookies that the browser holds for the page, or for an address, with
        all that it knows of them.
        """
        urls = [address or self.address]
        found: list[dict[str, Any]] = self.devtools("Network.getCookies", urls=urls)[
            "cookies"
        ]
        return found

    def screenshot(self, path: Path) -> None:
        path.write_bytes(b64decode(self.call("GET", "/screenshot")))

    # What is done.

    def visit(self, address: str) -> None:
        self.call("POST", "/url", {"url": address})

    def reload(self) -> None:
        self.call("POST", "/refresh", {})

    def back(self) -> None:
        self.call("POST", "/back", {})

    def forward(self) -> None:
        self.call("POST", "/forward", {})

    def write(self, selector: str, text: str) -> None:
        """
        Write into a field in place of what is there.
        """
        found = self.find(selector)
        self.call("POST", f"/element/{found}/clear", {})
        self.call("POST", f"/element/{found}/value", {"text": text})

    def click(self, selector: str) -> None:
        self.call("POST", f"/element/{self.find(selector)}/click", {})

    def press(self, selector: str) -> None:
        """
        Click on what leads to another page, and wait until that is there.
        """
        self.run("window.isOld = true")
        self.click(selector)
        self._await("!window.isOld", "another page")

    def arrive(self, address: str) -> None:
        """
        Wait until the page of this address is there.
        """
        self._await("location == arguments[0]", f"the page of {address}", address)

    def reads(self, text: str) -> None:
        """
        Wait until this can be read on the page.
        """
        condition = "document.body.innerText.includes(arguments[0])"
        self._await(condition, f"the page says {text!r}", text)

    def _await(self, condition: str, what: str, *arguments: Any) -> None:
        script = f"return {condition} && document.readyState == 'complete'"

        def look() -> bool:
            try:
                return bool(self.run(script, *arguments))
            except WebDriverError:  # the page has gone while it was asked
                return False

        until(look, what)

    def enter(self, frame: str) -> None:
        """
        Go on in a frame of the page.
        """
        self.call("POST", "/frame", {"id": {ELEMENT: self.find(frame)}})

    def pretend(self, headers: dict[str, str]) -> None:
        """
        Send these headers with each request from now on.
        """
        self.devtools("Network.enable")
        self.devtools("Network.setExtraHTTPHeaders", headers=headers)
