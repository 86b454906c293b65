"""
Microseconds of server CPU that a session adds to a request.

All variants live in one server process.  A round takes them in an order shuffled
anew, each between blocks of the bare request that it is compared with: bare, it,
it, bare, so that whatever slows the machine down for a while slows both sides.  A
block's CPU is the difference of what C{time.process_time()} says in the server
after and before it.  What a session adds is found for each round; of the rounds,
the median and the quartiles are reported.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from statistics import mean, quantiles
from typing import Any

from attrs import asdict, frozen

from .client import Server, request

TARGETS = {"untouched": 0.05, "created": 0.50, "read": 0.30, "incremented": 0.50}
"""
The most that a session may add, as a share of the bare plain request's CPU.
"""

Progress = Callable[[str], None]


@frozen
class Variant:
    """
    One thing that is measured.

    @ivar family: whose pages: plain, klein, twisted (the sessions of
        Twisted itself) or kleins (those of Klein).
    @ivar place: bare, kept or temp.
    """

    family: str
    place: str
    page: str

    @property
    def path(self) -> str:
        return f"/{self.family}/{self.place}/{self.page}"

    @property
    def sendsCookie(self) -> bool:
        return self.page in ("read", "incremented")

    @property
    def setsCookie(self) -> bool:
        return self.place == "temp" and self.page == "created"

    @property
    def bare(self) -> Variant:
        """
        What it is compared with: the same request, without any session.
        """
        family = {"twisted": "plain", "kleins": "klein"}.get(self.family, self.family)
        return Variant(family, "bare", "read" if self.sendsCookie else "untouched")

    @property
    def plain(self) -> Variant:
        """
        What a share is a share of.
        """
        return Variant("plain", "bare", self.bare.page)


def wrapped(family: str) -> list[Variant]:
    pages = [] if family in ("twisted", "kleins") else ["untouched"]
    return [
        *(Variant(family, "temp", page) for page in [*pages, "created"]),
        *(Variant(family, "kept", page) for page in ("read", "incremented")),
    ]


OURS = [*wrapped("plain"), *wrapped("klein")]
PEERS = [*wrapped("twisted"), *wrapped("kleins")]
BARE = sorted({each.bare for each in [*OURS, *PEERS]}, key=lambda each: each.path)


@frozen
class Spread:
    """
    The median of many rounds, and the quartiles around it.
    """

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if len(values) < 2:
            return cls(values[0], values[0], values[0])
        low, middle, high = quantiles(values, n=4, method="inclusive")
        return cls(low, middle, high)


@frozen
class Round:
    """
    One round's microseconds a request.

    @ivar taken: of each variant, and of its bare request beside it.
    """

    taken: dict[Variant, tuple[float, float]]

    def added(self, variant: Variant) -> float:
        mine, bare = self.taken[variant]
        return mine - bare

    def bare(self, variant: Variant) -> float:
        """
        Of a bare request, the mean of all of the round.
        """
        return mean(
            bare for each, (_, bare) in self.taken.items() if each.bare == variant
        )


@frozen
class Row:
    """
    What was found of one variant: microseconds a request, those added to the
    bare request, and what share of the bare plain request's CPU these are.
    """

    variant: Variant
    total: Spread
    added: Spread
    share: Spread

    @property
    def target(self) -> float | None:
        return TARGETS[self.variant.page] if self.variant in OURS else None

    def asJSON(self) -> dict[str, Any]:
        return {
            "family": self.variant.family,
            "page": self.variant.page,
            "microseconds": asdict(self.total),
            "added": asdict(self.added),
            "share": asdict(self.share),
            "target": self.target,
        }


@frozen
class Overhead:
    """
    What was found.
    """

    rounds: int
    requests: int
    bare: dict[str, Spread]
    rows: list[Row]

    def asJSON(self) -> dict[str, Any]:
        return {
            "rounds": self.rounds,
            "requestsPerRound": self.requests,
            "bare": {name: asdict(spread) for name, spread in self.bare.items()},
            "rows": [row.asJSON() for row in self.rows],
        }


def measure(server: Server, rounds: int, requests: int, progress: Progress) -> Overhead:
    """
    Measure every variant in so many rounds, with so many requests each.
    """
    variants = [*OURS, *PEERS]
    ready = prepare(server, [*BARE, *variants])
    turns = max(1, requests // (2 * len(server.connections)))
    for variant in [*variants, *BARE]:
        run(server, variant, ready[variant], turns)
    found: list[Round] = []
    for number in range(rounds):
        progress(f"round {number + 1} of {rounds}")
        found.append(oneRound(server, variants, ready, turns))
    verify(server, ready, (1 + 2 * rounds) * turns)
    return Overhead(
        rounds,
        2 * turns * len(server.connections),
        {each.path: Spread.of([one.bare(each) for one in found]) for each in BARE},
        [row(variant, found) for variant in variants],
    )


def oneRound(
    server: Server,
    variants: list[Variant],
    ready: dict[Variant, list[bytes]],
    turns: int,
) -> Round:
    reading = readingOf(server)
    requests = turns * len(server.connections)
    taken: dict[Variant, tuple[float, float]] = {}
    for variant in random.sample(variants, len(variants)):
        first, one, other, last = (
            (run(server, each, ready[each], turns) - reading) / requests * 1e6
            for each in (variant.bare, variant, variant, variant.bare)
        )
        taken[variant] = (one + other) / 2, (first + last) / 2
    return Round(taken)


def readingOf(server: Server) -> float:
    """
    The seconds of CPU that one reading of the meter takes.
    """
    before = server.meter("cpu")
    return server.meter("cpu") - before


def prepare(server: Server, variants: list[Variant]) -> dict[Variant, list[bytes]]:
    """
    The requests of each variant, one for each connection, which has a session of
    its own.
    """
    cookies = {
        family: [
            each.get(f"/{family}/kept/created").setCookie for each in server.connections
        ]
        for family in ("plain", "klein", "twisted", "kleins")
    }
    server.meter("keep")
    return {
        variant: [
            request(variant.path, cookie if variant.sendsCookie else None)
            for cookie in cookies[variant.family]
        ]
        for variant in variants
    }


def run(server: Server, variant: Variant, requests: list[bytes], turns: int) -> float:
    """
    The seconds of CPU that a block took, with one reading of the meter.
    """
    before = server.meter("cpu")
    server.block(requests, turns, variant.setsCookie)
    after = server.meter("cpu")
    if variant.setsCookie:
        server.meter("clear")
    return after - before


def verify(server: Server, ready: dict[Variant, list[bytes]], turns: int) -> None:
    """
    Not one increment may be missing.
    """
    for variant, requests in ready.items():
        if variant.page != "incremented":
            continue
        for connection, each in zip(server.connections, requests, strict=True):
            connection.send(each.replace(b"/incremented ", b"/views "))
            views = int(connection.receive().body)
            if views != 1 + turns:
                raise ValueError(
                    f"{variant.path}: {views} views instead of {1 + turns}"
                )


def row(variant: Variant, found: list[Round]) -> Row:
    return Row(
        variant,
        Spread.of([one.taken[variant][0] for one in found]),
        Spread.of([one.added(variant) for one in found]),
        Spread.of([one.added(variant) / one.bare(variant.plain) for one in found]),
    )
