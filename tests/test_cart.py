"""
The shop of C{examples/cart.py}, driven over HTTP as a browser would.
"""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import define, field
from twisted.internet.defer import Deferred, gatherResults

from examples import cart
from txsession import MemoryStore, SessionResource
from txsession.stores.sqlite import SQLiteStore

from .support import (
    SECRET,
    Browser,
    Reply,
    Serve,
    StepStore,
    called,
    clockAt,
    patiently,
)
from .test_examples import location, portIn, run, stop


@define
class Customer:
    """
    A browser, and the page that it shows.
    """

    browser: Browser
    page: Any = field(default=None)

    async def open(self, path: str = "/") -> Reply:
        self.page = await self.browser.get(path)
        return self.page

    async def send(self, action: str, **fields: str | None) -> Reply:
        """
        Send the form of the page that has this action, and these values in its
        fields; None leaves a field out.
        """
        data = {**formIn(self.page, action, fields.get("thing")), **fields}
        data = {name: value for name, value in data.items() if value is not None}
        return await self.browser.post(action, data=data)

    async def add(self, thing: str, number: str = "1") -> Reply:
        await self.open()
        return await self.send("/cart/add", thing=thing, number=number)

    async def cart(self) -> dict[str, int]:
        return cartOn(await self.open("/cart"))


def formIn(page: Reply, action: str, thing: str | None = None) -> dict[str, str]:
    """
    The fields of the form on a page that goes to this address, by itself or by
    one of its buttons.
    """
    forms = [
        dict(re.findall(r'<input [^>]*?name="(\w+)"[^>]*? value="([^"]*)"', form))
        for form in re.findall(r"<form.*?</form>", page.text, re.S)
        if f'action="{action}"' in form
    ]
    found = [form for form in forms if thing in (None, form.get("thing"))]
    form = (found or forms)[0]
    return {name: unescape(value) for name, value in form.items()}


def cartOn(page: Reply) -> dict[str, int]:
    """
    What a page shows to be in the cart.
    """
    forms = re.findall(r'<form[^>]*action="/cart/change".*?</form>', page.text, re.S)
    return {
        re.findall(r'name="thing" value="(\w+)"', form)[0]: int(
            re.findall(r'name="number"[^>]* value="(\d+)"', form)[0]
        )
        for form in forms
    }


def alertOn(page: Reply) -> str:
    found = re.findall('<p role="alert" class="alert">(.*?)</p>', page.text)
    assert len(found) == 1, page.text
    return found[0]


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, int]]:
    """
    What the shop is told, by the number of the order.
    """
    told: dict[str, dict[str, int]] = {}
    sendToShop = cart.sendToShop

    def listen(number: str, things: dict[str, int]) -> Deferred[None]:
        told[number] = dict(things)
        return sendToShop(number, things)

    monkeypatch.setattr(cart, "sendToShop", listen)
    return told


@pytest.fixture
def customer(serve: Serve) -> Customer:
    return Customer(Browser(serve.site(cart.resource).port))


# Shopping.


@pytest_twisted.ensureDeferred
async def test_whatIsAddedIsInTheCart(customer: Customer) -> None:
    """
    Things are added to the cart and to each other, and the cart tells how many
    there are and what they cost.
    """
    assert location(await customer.add("assam", "2")) == (303, "/cart")
    await customer.add("pot")
    await customer.add("assam", "3")
    assert await customer.cart() == {"assam": 5, "pot": 1}
    assert "Together: <strong>74.50 \u20ac</strong>" in customer.page.text
    assert ">Cart (6)</a>" in (await customer.open()).text


@pytest_twisted.ensureDeferred
async def test_eachVisitorHasACart(customer: Customer) -> None:
    """
    What one visitor puts into the cart, another does not see.
    """
    await customer.add("assam")
    assert await Customer(Browser(customer.browser.port)).cart() == {}


@pytest_twisted.ensureDeferred
async def test_theNumberCanBeChanged(customer: Customer) -> None:
    """
    The number of a thing in the cart becomes what is entered for it.
    """
    await customer.add("assam", "2")
    await customer.add("sencha", "2")
    await customer.cart()
    reply = await customer.send("/cart/change", thing="assam", number="7")
    assert location(reply) == (303, "/cart")
    assert await customer.cart() == {"assam": 7, "sencha": 2}


@pytest_twisted.ensureDeferred
async def test_aThingCanBeRemoved(customer: Customer) -> None:
    """
    A thing that is removed is gone from the cart, and the others are not.
    """
    await customer.add("assam", "2")
    await customer.add("pot")
    await customer.cart()
    assert 'formaction="/cart/remove"' in customer.page.text
    for _ in range(2):
        reply = await customer.send("/cart/remove", thing="assam")
        assert location(reply) == (303, "/cart")
    assert await customer.cart() == {"pot": 1}


@pytest_twisted.ensureDeferred
async def test_theCartCanBeEmptied(customer: Customer) -> None:
    """
    An empty cart says that it is one, and has nothing to order.
    """
    await customer.add("assam", "2")
    await customer.cart()
    assert location(await customer.send("/cart/empty")) == (303, "/cart")
    assert await customer.cart() == {}
    assert "There is nothing in it." in customer.page.text
    assert "/order" not in customer.page.text


@pytest_twisted.ensureDeferred
async def test_theCartIsOrdered(
    customer: Customer, orders: dict[str, dict[str, int]]
) -> None:
    """
    An order is told to the shop, the cart is empty after it, and the visitor is
    told the number and the price.
    """
    await customer.add("sencha", "2")
    await customer.cart()
    assert location(await customer.send("/order")) == (303, "/thanks")
    [(number, ordered)] = orders.items()
    assert ordered == {"sencha": 2}
    thanks = await customer.open("/thanks")
    assert f"<code>{number}</code>" in thanks.text
    assert "17.80 \u20ac" in thanks.text
    assert await customer.cart() == {}


@pytest_twisted.ensureDeferred
async def test_theNextOrderIsAnother(
    customer: Customer, orders: dict[str, dict[str, int]]
) -> None:
    """
    Who orders the same things again has another order of them.
    """
    for _ in range(2):
        await customer.add("sencha", "2")
        await customer.cart()
        await customer.send("/order")
    assert list(orders.values()) == [{"sencha": 2}, {"sencha": 2}]


@pytest_twisted.ensureDeferred
async def test_thanksAreGivenForAnOrder(customer: Customer) -> None:
    """
    Who has ordered nothing is sent to the shop.
    """
    reply = await customer.open("/thanks")
    assert (location(reply), reply.setCookies) == ((303, "/"), [])


# Two tabs.


@pytest_twisted.ensureDeferred
async def test_twoTabsFillOneCart(serve: Serve) -> None:
    """
    What two tabs add at the same time is all in the cart.
    """
    store = StepStore(MemoryStore(reactor=clockAt()))
    served = serve(cart.app.resource(), store=store)
    one = Customer(served.browser())
    await one.add("pot")
    other = Customer(one.browser, await one.open())
    store.held = {"replace"}
    adding = [
        Deferred.fromCoroutine(one.send("/cart/add", thing="assam", number="2")),
        Deferred.fromCoroutine(other.send("/cart/add", thing="sencha", number="3")),
    ]
    calls = [await called(store, "replace") for _ in adding]
    store.held = set()
    for call in calls:
        call.release()
    await patiently(gatherResults(adding))
    assert await one.cart() == {"pot": 1, "assam": 2, "sencha": 3}


@pytest_twisted.ensureDeferred
async def test_nobodyOrdersWhatTheyHaveNotSeen(
    customer: Customer, orders: dict[str, dict[str, int]]
) -> None:
    """
    If the cart was changed in another tab, the order is not placed but shown
    again, and can be placed from there.
    """
    await customer.add("assam")
    await customer.cart()
    other = Customer(customer.browser)
    await other.add("pot")
    again = customer.page = await customer.send("/order")
    assert (again.status, orders) == (409, {})
    assert "another tab" in alertOn(again)
    assert cartOn(again) == {"assam": 1, "pot": 1}
    assert location(await customer.send("/order")) == (303, "/thanks")
    assert list(orders.values()) == [{"assam": 1, "pot": 1}]


@pytest_twisted.ensureDeferred
async def test_aSecondClickOrdersNothing(
    customer: Customer, orders: dict[str, dict[str, int]]
) -> None:
    """
    The same order sent once more, by a second click or from another tab, leads
    to the thanks for it.
    """
    await customer.add("assam")
    await customer.cart()
    for _ in range(2):
        assert location(await customer.send("/order")) == (303, "/thanks")
    assert len(orders) == 1


@pytest_twisted.ensureDeferred
async def test_twoClicksAtOnceAreOneOrder(
    serve: Serve, orders: dict[str, dict[str, int]]
) -> None:
    """
    If two requests order the same cart before either has saved anything, the
    shop is told of one number.
    """
    store = StepStore(MemoryStore(reactor=clockAt()))
    customer = Customer(serve(cart.app.resource(), store=store).browser())
    await customer.add("assam")
    await customer.cart()
    store.held = {"replace"}
    ordering = [Deferred.fromCoroutine(customer.send("/order")) for _ in range(2)]
    calls = [await called(store, "replace") for _ in ordering]
    store.held = set()
    for call in calls:
        call.release()
    replies = await patiently(gatherResults(ordering))
    assert [location(reply) for reply in replies] == [(303, "/thanks")] * 2
    assert list(orders.values()) == [{"assam": 1}]
    assert await customer.cart() == {}


@pytest_twisted.ensureDeferred
async def test_aCartEmptiedInAnotherTabIsNotOrdered(
    customer: Customer, orders: dict[str, dict[str, int]]
) -> None:
    """
    An order for a cart that was emptied meanwhile leads to the empty cart.
    """
    await customer.add("assam")
    await customer.cart()
    await customer.send("/cart/empty")
    assert location(await customer.send("/order")) == (303, "/cart")
    assert orders == {}


# What is sent wrongly.


@pytest.mark.parametrize(
    "number", ["0", "-5", "", "x", "1.5", "100", "9" * 5000, "NaN", "1e1", None]
)
@pytest.mark.parametrize(
    ("action", "path", "then"), [("/cart/add", "/", 3), ("/cart/change", "/cart", 1)]
)
@pytest_twisted.ensureDeferred
async def test_aSenselessNumberIsRefused(
    customer: Customer, action: str, path: str, then: int, number: str | None
) -> None:
    """
    What is not a number from 1 to 99 changes nothing; the page says what is
    asked for, and its forms can be sent.
    """
    await customer.add("assam", "2")
    await customer.open(path)
    again = await customer.send(action, thing="assam", number=number)
    assert again.status == 400
    assert alertOn(again) == "Please choose a number from 1 to 99."
    assert await customer.cart() == {"assam": 2}
    customer.page = again
    right = await customer.send(action, thing="assam", number="1")
    assert location(right) == (303, "/cart")
    assert await customer.cart() == {"assam": then}


@pytest_twisted.ensureDeferred
async def test_theCartHoldsNoMoreThanItMay(customer: Customer) -> None:
    """
    However often it is added, no more than 99 of a thing are in the cart.
    """
    for _ in range(2):
        await customer.add("assam", "60")
    assert await customer.cart() == {"assam": 99}


@pytest.mark.parametrize("thing", ["coffee", "", "<b>", None])
@pytest_twisted.ensureDeferred
async def test_whatTheShopDoesNotHaveIsRefused(
    customer: Customer, thing: str | None
) -> None:
    """
    A thing that there is not can be neither added nor changed nor removed.
    """
    await customer.add("pot")
    for action, page in (
        ("/cart/add", "/"),
        ("/cart/change", "/cart"),
        ("/cart/remove", "/cart"),
    ):
        await customer.open(page)
        reply = await customer.send(action, thing=thing)
        assert reply.status == 400
        assert alertOn(reply) == "That did not work. Please try again."
        assert "<b>" not in reply.text
    assert await customer.cart() == {"pot": 1}


@pytest.mark.parametrize("token", [None, "", "guessed", "0" * 64])
@pytest_twisted.ensureDeferred
async def test_aFormWithoutItsTokenIsRefused(
    customer: Customer, token: str | None, orders: dict[str, dict[str, int]]
) -> None:
    """
    Nothing that changes the cart, or orders it, is done without the token.
    """
    await customer.add("assam", "2")
    forged = {"__csrf_protection__": token}
    for action in ("/cart/change", "/cart/remove", "/cart/empty", "/order"):
        await customer.open("/cart")
        assert (await customer.send(action, **forged)).status == 403
    await customer.open()
    assert (await customer.send("/cart/add", **forged)).status == 403
    assert await customer.cart() == {"assam": 2}
    assert orders == {}


@pytest_twisted.ensureDeferred
async def test_aFormOfAnotherVisitorIsRefused(customer: Customer) -> None:
    """
    A token is worth nothing in another visitor's session.
    """
    other = Customer(Browser(customer.browser.port))
    await other.open()
    await customer.open()
    other.page = customer.page
    assert (await other.send("/cart/add", thing="pot")).status == 403


@pytest_twisted.ensureDeferred
async def test_whatIsNotTextIsRefused(customer: Customer) -> None:
    """
    Bytes that are not UTF-8 are answered with 400.
    """
    await customer.open()
    token = formIn(customer.page, "/cart/add")["__csrf_protection__"]
    reply = await customer.browser.post(
        "/cart/add",
        data=f"__csrf_protection__={token}&thing=%FF&number=1".encode(),
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert reply.status == 400


@pytest.mark.parametrize(
    "path", ["/cart/add", "/cart/change", "/cart/remove", "/cart/empty", "/order"]
)
@pytest_twisted.ensureDeferred
async def test_noLinkChangesTheCart(customer: Customer, path: str) -> None:
    """
    What changes something is done by POST only.
    """
    assert (await customer.open(path)).status == 405


# The rest.


@pytest_twisted.ensureDeferred
async def test_theCartOutlivesTheServer(serve: Serve, tmp_path: Path) -> None:
    """
    With a store that lasts, a form that was opened before a restart is taken
    after it, and the cart is still there.
    """
    stores = [SQLiteStore(tmp_path / "sessions.db") for _ in range(2)]
    resources = [
        SessionResource(cart.app, secret=SECRET, store=store) for store in stores
    ]
    try:
        customer = Customer(Browser(serve.site(resources[0]).port))
        await customer.add("assam", "2")
        await customer.open()
        await stores[0].stop()
        again = Browser(serve.site(resources[1]).port, customer.browser.cookies)
        customer = Customer(again, customer.page)
        reply = await customer.send("/cart/add", thing="pot")
        assert location(reply) == (303, "/cart")
        assert await customer.cart() == {"assam": 2, "pot": 1}
    finally:
        for store in stores:
            await store.stop()


@pytest_twisted.ensureDeferred
async def test_aThingThatTheShopGaveUpIsLeftOut(
    customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    What was in the cart and is no longer sold is not shown, and is no error.
    """
    await customer.add("assam")
    await customer.add("pot")
    monkeypatch.delitem(cart.THINGS, "pot")
    assert await customer.cart() == {"assam": 1}
    assert location(await customer.send("/order")) == (303, "/thanks")


@pytest_twisted.ensureDeferred
async def test_noCacheKeepsThePages(customer: Customer) -> None:
    """
    Caches are told to keep no page, and browsers to run no script in one.
    """
    await customer.add("assam")
    for path in ("/", "/cart"):
        page = await customer.open(path)
        assert page.header("Cache-Control") == "no-store"
        assert page.header("Vary") == "Cookie"
        assert "default-src 'none'" in (page.header("Content-Security-Policy") or "")


@pytest_twisted.ensureDeferred
async def test_eachControlHasAName(customer: Customer) -> None:
    """
    What can be filled in or pressed is named for those who cannot see it.
    """
    await customer.add("assam")
    for path in ("/", "/cart"):
        page = await customer.open(path)
        controls = re.findall('<input [^>]*type="number"[^>]*>', page.text)
        assert controls
        assert all("aria-label=" in control for control in controls)
        for text in ("Add", "Change", "Remove"):
            for button in re.findall(f"<button[^>]*>{text}<", page.text):
                assert f'aria-label="{text} ' in button


@pytest_twisted.ensureDeferred
async def test_theCartRunsAsAProgram() -> None:
    """
    C{python -m examples.cart} serves the shop at the port it announces.
    """
    program = run("examples.cart", "0")
    try:
        customer = Customer(Browser(portIn(await program.announced)))
        await customer.add("sencha", "2")
        await customer.cart()
        assert location(await customer.send("/order")) == (303, "/thanks")
    finally:
        status, _, err = await stop(program, "TERM")
    assert "Traceback" not in err
    assert re.search(r"Order [0-9a-f]{8}: \{'sencha': 2\}", err)
    assert status == 0
