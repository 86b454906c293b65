"""
Measure everything, print a table and write it down as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from . import memory, overhead
from .client import serving, twoCPUs
from .report import Report

RESULTS = Path(__file__).parent / "results" / "overhead.json"


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    report = Report(
        {
            "logging": options.logging,
            "accessLog": not options.no_access_log,
            "connections": options.connections,
        },
        measureOverhead(options),
        memory.stored(options.sessions),
        memory.flat(options.flat_requests, progress),
    )
    progress("")
    print(report.asText())
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report.asJSON(), indent=2) + "\n")
    print(f"\nWritten to {options.json}")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description="What a session costs."
    )
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument(
        "--requests", type=int, default=200, help="of each kind, in a round"
    )
    parser.add_argument("--sessions", type=int, default=200_000, help="stored")
    parser.add_argument("--flat-requests", type=int, default=100_000)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--quick", action="store_true", help="rough, in 15 seconds")
    parser.add_argument(
        "--logging",
        choices=["info", "all"],
        default="info",
        help="as twist logs, or as twistd does, which writes debug events too",
    )
    parser.add_argument("--no-access-log", action="store_true")
    parser.add_argument("--no-pinning", action="store_true", help="leave CPUs alone")
    parser.add_argument("--json", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.requests = min(options.rounds, 8), 80
        options.sessions = min(options.sessions, 50_000)
        options.flat_requests = min(options.flat_requests, 10_000)
    return options


def measureOverhead(options: argparse.Namespace) -> overhead.Overhead:
    arguments = ["--logging", options.logging]
    if options.no_access_log:
        arguments.append("--no-access-log")
    cpus = None if options.no_pinning else twoCPUs()
    if cpus is not None:
        arguments += ["--cpu", str(cpus[1])]
    with serving(*arguments, connections=options.connections) as server:
        if cpus is not None:
            available = os.sched_getaffinity(0)
            os.sched_setaffinity(0, {cpus[0]})
        try:
            return overhead.measure(server, options.rounds, options.requests, progress)
        finally:
            if cpus is not None:
                os.sched_setaffinity(0, available)


def progress(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


if __name__ == "__main__":
    main()
