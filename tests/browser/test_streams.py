"""
`examples/chat.py` and `examples/events.py`, used by people: over plain HTTP as the
programs are, and over HTTPS behind a proxy.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .conftest import Site
from .server import WebSocketResource
from .webdriver import Tab

Example = Callable[[str], Site]


def comeIn(tab: Tab, site: Site, name: str) -> None:
    tab.visit(site.at("/"))
    tab.write("#name", name)
    tab.press("form[action='/enter'] button")


@pytest.mark.skipif(
    WebSocketResource is None, reason="needs Twisted with the websocket extra"
)
def test_theChatKnowsWhoTalks(tabs: list[Tab], example: Example) -> None:
    """
    What one tab says the other hears, with the name of who said it; and when that
    one leaves, the other is out as well.
    """
    site = example("chat")
    one, other = tabs
    comeIn(one, site, "Ada")
    other.visit(site.at("/"))
    for tab in (one, other):
        tab.reads("Here: Ada")
    one.write("#text", "Good evening.")
    one.click("#send")
    other.reads("Ada Good evening.")
    one.press("form[action='/leave'] button")
    other.write("#text", "Am I still here?")
    other.click("#send")
    other.reads("Who is there?")


def test_theBakeryTellsWhatIsReady(tabs: list[Tab], example: Example) -> None:
    """
    The stream tells each tab what was ordered with another; and when that one
    leaves, it ends.
    """
    site = example("events")
    one, other = tabs
    comeIn(one, site, "Ada")
    other.visit(site.at("/"))
    for tab in (one, other):
        tab.reads("In the oven: 0.")
    one.press("button[value=rye]")
    other.reads("In the oven: 1.")
    one.press("form[action='/leave'] button")
    other.reads("Good morning")
