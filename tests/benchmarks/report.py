"""
What was found, for people and for machines.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from attrs import frozen

from .memory import TARGET, Flat, Stored
from .overhead import Overhead, Row, Spread

TITLES = {
    "plain": "plain Twisted resource + txsession",
    "klein": "Klein app + txsession",
    "twisted": "plain Twisted resource + request.getSession()",
    "kleins": "Klein app + klein.SessionProcurer, in memory",
}
PAGES = {
    "untouched": "no cookie, untouched",
    "created": "no cookie, created",
    "read": "cookie, one key read",
    "incremented": "cookie, counter incremented",
}
BARE = {"untouched": "no cookie", "read": "cookie"}


@frozen
class Report:
    """
    All that a run has found.
    """

    options: dict[str, Any]
    overhead: Overhead
    stored: Stored
    flat: Flat

    def asJSON(self) -> dict[str, Any]:
        return {
            "environment": environment(),
            "options": self.options,
            "overhead": self.overhead.asJSON(),
            "memory": {"stored": self.stored.asJSON(), "flat": self.flat.asJSON()},
        }

    def asText(self) -> str:
        lines = [
            *overheadLines(self.overhead),
            "",
            *storedLines(self.stored),
            *flatLines(self.flat),
        ]
        return "\n".join(lines)


def environment() -> dict[str, Any]:
    packages = ("txsession", "twisted", "klein", "zope.interface")
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        **{name: version(name) for name in packages},
    }


def overheadLines(overhead: Overhead) -> Iterator[str]:
    yield (
        f"Microseconds of server CPU a request: median of {overhead.rounds} rounds of "
        f"{overhead.requests} requests [quartiles]"
    )
    yield ""
    yield f"{'without a session':<36}{'total':>8}"
    for path, spread in overhead.bare.items():
        _, family, _, page = path.split("/")
        name = {"plain": "plain Twisted resource", "klein": "Klein app"}[family]
        yield f"  {name + ', ' + BARE[page]:<34}{number(spread)}"
    family = None
    for row in overhead.rows:
        if row.variant.family != family:
            family = row.variant.family
            yield ""
            columns = f"{'total':>8}{'added':>9}{'':17}{'share':>7}{'':17}target"
            yield (
                f"{TITLES[family]:<36}" + columns
                if len(TITLES[family]) < 36
                else (f"{TITLES[family]}\n{'':36}{columns}")
            )
        yield rowLine(row)


def rowLine(row: Row) -> str:
    target = "" if row.target is None else f"{row.target:.2f} {verdict(row)}"
    return (
        f"  {PAGES[row.variant.page]:<34}{number(row.total)}"
        f"{row.added.median:>9.1f} {f'[{row.added.low:.1f}, {row.added.high:.1f}]':<16}"
        f"{row.share.median:>7.3f} {f'[{row.share.low:.3f}, {row.share.high:.3f}]':<16}"
        f"{target}"
    ).rstrip()


def number(spread: Spread) -> str:
    return f"{spread.median:>8.1f}"


def verdict(row: Row) -> str:
    assert row.target is not None
    return "met" if row.share.median <= row.target else "MISSED"


def storedLines(stored: Stored) -> Iterator[str]:
    taken = max(stored.resident, stored.traced)
    yield (
        f"Memory of one of {stored.sessions:,} stored sessions of {stored.payload} "
        f"bytes: {stored.resident:.0f} bytes resident, {stored.traced:.0f} traced; "
        f"target {TARGET} {'met' if taken <= TARGET else 'MISSED'}"
    )


def flatLines(flat: Flat) -> Iterator[str]:
    yield (
        f"After {flat.requests:,} requests with gc disabled: resident memory grew by "
        f"{flat.growth / 1024:.0f} KiB; {flat.unreachable:.0f} unreachable objects"
    )
