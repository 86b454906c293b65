"""
How the examples look.  The pictures are left in pytest's directory, for whoever
wants to look at them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .programs import Server
from .webdriver import Tab


@pytest.fixture
def show(tab: Tab, tmp_path: Path) -> Iterator[Callable[..., None]]:
    """
    Takes pictures of the page: narrow and wide, light and dark.
    """

    def picture(name: str) -> None:
        for scheme in ("light", "dark"):
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            tab.devtools("Emulation.setEmulatedMedia", features=features)
            for width in (320, 1100):
                resize(tab, width)
                tab.screenshot(tmp_path / f"{name}-{scheme}-{width}.png")
                check(tab)

    yield picture
    tab.devtools("Emulation.clearDeviceMetricsOverride")


def resize(tab: Tab, width: int) -> None:
    tab.devtools(
        "Emulation.setDeviceMetricsOverride",
        width=width,
        height=760,
        deviceScaleFactor=1,
        mobile=False,
    )


def check(tab: Tab) -> None:
    assert tab.run("return document.documentElement.scrollWidth <= innerWidth")
    assert tab.run(UNREADABLE) == []


UNREADABLE = """
function luminance(color) {
  const [r, g, b] = color.match(/[\\d.]+/g).map(Number).map(part => {
    part /= 255;
    return part <= .04045 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4;
  });
  return .2126 * r + .7152 * g + .0722 * b;
}
function paper(element) {
  const color = getComputedStyle(element).backgroundColor;
  return color == "rgba(0, 0, 0, 0)" ? paper(element.parentElement) : color;
}
const hasText = element => [...element.childNodes].some(
  node => node.nodeType == Node.TEXT_NODE && node.textContent.trim()
);
return [...document.body.querySelectorAll("*")].filter(hasText).filter(element => {
  const two = [getComputedStyle(element).color, paper(element)].map(luminance);
  return (Math.max(...two) + .05) / (Math.min(...two) + .05) < 4.5;
}).map(element => element.outerHTML);
"""
"""
Finds what has too little contrast to be read by everybody (WCAG 2.2, 1.4.3).
"""


@pytest.fixture
def home(request: pytest.FixtureRequest, serveOnce: Callable[..., Server]) -> Any:
    return serveOnce(f"examples.{request.param}", "0").home


@pytest.mark.parametrize("home", ["login"], indirect=True)
def test_theLogin(tab: Tab, home: str, show: Callable[..., None]) -> None:
    """
    The pages of the login fit a phone, and can be read in the light and in the
    dark.
    """
    tab.visit(f"{home}/")
    show("home")
    tab.visit(f"{home}/members")
    for password in ("wrong", "analytical"):
        tab.write("#user", "ada")
        tab.write("#password", password)
        tab.press("main button")
        show(password)


@pytest.mark.parametrize("home", ["cart"], indirect=True)
def test_theCart(tab: Tab, home: str, show: Callable[..., None]) -> None:
    """
    So do the pages of the cart.
    """
    tab.visit(f"{home}/")
    show("shop")
    tab.press("form:has(input[value=pot]) button")
    show("cart")
    tab.press("form[action='/order'] button")
    show("thanks")


@pytest.mark.parametrize("home", ["events"], indirect=True)
def test_theBakery(tab: Tab, home: str, show: Callable[..., None]) -> None:
    """
    So do the pages of the bakery.
    """
    tab.visit(f"{home}/")
    show("door")
    tab.write("#name", "Ada")
    tab.press("main button")
    tab.press("button[value=rye]")
    show("breads")
