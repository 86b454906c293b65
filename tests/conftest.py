"""
Fixtures of all tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, globalLogPublisher

from .support import Serve


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
