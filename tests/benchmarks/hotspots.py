"""
Where the time of one kind of request goes.

C{python -m tests.benchmarks.hotspots plain/kept/read} feeds requests to an
C{HTTPChannel} in this process, without sockets, and prints what a request costs,
what it costs without a session, and a profile.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.web.server import Site

from .client import Reply, parse, request
from .overhead import Variant
from .resources import World
from .server import QuietSite, beginLogging

BLOCK = 200


class Harness:
    """
    A server without sockets.
    """

    def __init__(self, accessLog: bool = True) -> None:
        self.world = World.make()
        self.world.site = (Site if accessLog else QuietSite)(
            self.world.root, reactor=Clock()
        )
        self.world.site.doStart()
        address = IPv4Address("TCP", "127.0.0.1", 80)
        self.transport = StringTransport(address, address)
        self.channel: Any = self.world.site.buildProtocol(address)
        self.channel.makeConnection(self.transport)
        # CPython settles which attributes the instances of a class have in common
        # with the first of them, so these are to be ones that have a session.
        self.get("/plain/temp/created")
        self.world.clear()

    def get(self, path: str, cookie: bytes | None = None) -> Reply:
        self.transport.clear()
        self.channel.dataReceived(request(path, cookie))
        reply = parse(self.transport.value())
        assert reply is not None
        return reply

    def prepare(self, variant: Variant) -> bytes:
        """
        The request of a variant, with a session if it needs one.
        """
        cookie = None
        if variant.sendsCookie:
            cookie = self.get(f"/{variant.family}/kept/created").setCookie
            self.world.keep()
        return request(variant.path, cookie)

    def run(self, data: bytes, count: int) -> None:
        receive, clear = self.channel.dataReceived, self.transport.clear
        for _ in range(count):
            receive(data)
            clear()
        self.world.clear()


def microseconds(
    harness: Harness, requests: dict[str, bytes], rounds: int
) -> dict[str, float]:
    """
    The least CPU a request takes, of blocks that take turns.
    """
    least = dict.fromkeys(requests, float("inf"))
    for _ in range(rounds):
        for name, data in requests.items():
            start = time.process_time()
            harness.run(data, BLOCK)
            taken = (time.process_time() - start) / BLOCK * 1e6
            least[name] = min(least[name], taken)
    return least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "path", nargs="*", default=["plain/kept/read"], help="FAMILY/PLACE/PAGE"
    )
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--logging", choices=["info", "all"], default="info")
    parser.add_argument("--sort", default="tottime")
    parser.add_argument("--lines", type=int, default=40)
    options = parser.parse_args()
    beginLogging(options.logging)
    harness = Harness()
    variants = [Variant(*path.strip("/").split("/")) for path in options.path]
    requests = {}
    for variant in variants:
        requests[variant.path] = harness.prepare(variant)
        requests[variant.bare.path] = requests[variant.path].replace(
            variant.path.encode(), variant.bare.path.encode()
        )
    least = microseconds(harness, requests, options.rounds)
    for variant in variants:
        mine, bare = least[variant.path], least[variant.bare.path]
        print(f"{variant.path:28}{mine:7.1f} us = {bare:.1f} + {mine - bare:.1f}")
    for variant in variants if options.lines else []:
        profile = cProfile.Profile()
        profile.runcall(harness.run, requests[variant.path], 20 * BLOCK)
        stats = pstats.Stats(profile).strip_dirs().sort_stats(options.sort)
        print(f"\n{variant.path}, {20 * BLOCK} requests")
        stats.print_stats(options.lines)


if __name__ == "__main__":
    main()
