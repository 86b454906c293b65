"""
Fixtures of all tests.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from hypothesis import settings
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, globalLogPublisher

from .support import Serve

IS_CI = os.environ.get("CI") == "true"

# How long an example takes depends on what else the machine does.
settings.register_profile("txsession", deadline=None, derandomize=IS_CI)
settings.load_profile("txsession")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """
    In CI, nothing is left out unseen: a test that is skipped has failed, unless
    its reason is the platform.
    """
    outcome: Any = yield
    report = outcome.get_result()
    if IS_CI and report.skipped and not hasattr(report, "wasxfail"):
        _, _, reason = report.longrepr
        if not reason.startswith("Skipped: platform"):
            report.outcome = "failed"
            report.longrepr = f"{reason} (which counts as a failure in CI)"


@pytest.fixture
def serve() -> Iterator[Serve]:
    """
    Serves resources on loopback for as long as the test lasts.
    """
    serving = Serve()
    yield serving
    pytest_twisted.blockon(Deferred.fromCoroutine(serving.stop()))


@pytest.fixture
def logged() -> Iterator[list[LogEvent]]:
    """
    What is logged during the test.
    """
    events: list[Any] = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)
