"""
`examples/cart.py`, used by people: over plain HTTP as the program is, and over
HTTPS behind a proxy.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .conftest import Site
from .webdriver import Tab


@pytest.fixture
def site(example: Callable[[str], Site]) -> Site:
    return example("cart")


def add(tab: Tab, site: Site, thing: str, number: int = 1) -> None:
    tab.visit(site.at("/"))
    tab.write(f"{formOf(thing)} input[name=number]", str(number))
    tab.press(f"{formOf(thing)} button")


def formOf(thing: str) -> str:
    return f"form:has(input[value={thing}])"


ORDER = "form[action='/order'] button"


def test_whatIsPutIntoTheCartIsOrderedOnce(tab: Tab, site: Site) -> None:
    """
    The cart is there on each page and when one comes back; it can be changed, and
    is ordered.  Who goes back and clicks again orders nothing.
    """
    add(tab, site, "assam", 2)
    assert tab.address == site.at("/cart")
    add(tab, site, "pot")
    tab.visit("about:blank")
    tab.visit(site.at("/"))
    assert "Cart (3)" in tab.text
    tab.press("a[href='/cart']")
    tab.press("form:has(input[value=pot]) button[formaction='/cart/remove']")
    tab.write(f"{formOf('assam')} input[name=number]", "3")
    tab.press(f"{formOf('assam')} button")
    assert "Together: 19.50 €" in tab.text
    tab.reload()
    assert "Together: 19.50 €" in tab.text
    tab.press(ORDER)
    assert tab.address == site.at("/thanks")
    assert "19.50 €" in tab.text
    number = tab.run("return document.querySelector('code').innerText")
    tab.back()
    assert tab.address == site.at("/cart")
    if tab.run("return document.querySelector(arguments[0]) !== null", ORDER):
        # The browser has shown the page once more without asking for it.
        tab.press(ORDER)
    tab.visit(site.at("/cart"))
    assert "There is nothing in it" in tab.text
    tab.visit(site.at("/thanks"))
    assert number in tab.text
    assert site.program.said.count(f"Order {number}: ") == 1


def test_twoTabsFillOneCart(tabs: list[Tab], site: Site) -> None:
    """
    Of what two tabs put into the cart at the same time, nothing is lost.
    """
    for thing, tab in zip(("assam", "sencha"), tabs, strict=True):
        tab.visit(site.at("/"))
        tab.run(
            """
            const form = document.querySelector(arguments[0]);
            new BroadcastChannel("go").onmessage = () => form.submit();
            """,
            formOf(thing),
        )
    tab.run("new BroadcastChannel('go').postMessage('go')")
    for tab in tabs:
        tab.arrive(site.at("/cart"))
    tab.reload()
    assert "Cart (2)" in tab.text
    assert "Together: 15.40 €" in tab.text


def test_nobodyOrdersWhatTheyHaveNotSeen(tabs: list[Tab], site: Site) -> None:
    """
    If another tab has changed the cart, the order is shown before it is placed.
    """
    one, other = tabs
    add(one, site, "assam")
    add(other, site, "pot")
    one.press(ORDER)
    assert "Your cart was changed in another tab." in one.text
    assert "Together: 48.50 €" in one.text
    one.press(ORDER)
    assert one.address == site.at("/thanks")
    other.reload()
    assert "There is nothing in it" in other.text


def test_theCookieIsSafe(tab: Tab, site: Site) -> None:
    """
    Scripts do not see the cookie of the cart, and over HTTPS it is Secure.
    """
    add(tab, site, "assam")
    [cookie] = tab.cookies()
    expected = {
        "name": site.cookie,
        "secure": site.isSecure,
        "httpOnly": True,
        "sameSite": "Lax",
    }
    assert cookie.items() >= expected.items()
    assert tab.run("return document.cookie") == ""
