"""
A shop with a cart, made of Klein's forms.

    python -m examples.cart [PORT]

What it shows:

- Klein's C{Requirer} hands each route the session and the fields of its form,
  converted and checked;
- every form has a token that Klein checks, so that no other site can fill
  anybody's cart; whoever sends a form without it is refused, and nothing is
  changed;
- the cart is an object in the session, by the thing: of what two tabs put into
  it at the same time, nothing is lost;
- nobody orders what they have not seen: if the cart was changed in another tab,
  the order is shown again before it is placed;
- a second click on the button orders nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable
from secrets import token_hex
from typing import Any, NamedTuple

from klein import Field, Form, Klein, RenderableForm, Requirer, Response
from klein.interfaces import ISession as IKleinSession
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.web.template import Tag, tags

from txsession import MemoryStore, Session, SessionResource, getSession
from txsession.klein import SessionParameter, sessionPrerequisite

from .page import page
from .serving import serve, sessionSecret

SITE = "The tea chest"
MOST = 99
"""
How many of a thing one can order.
"""

log = Logger()
app = Klein()
requirer = Requirer()
sessionPrerequisite(requirer)


class Thing(NamedTuple):
    name: str
    cents: int


THINGS = {
    "assam": Thing("Assam, 100 g", 650),
    "sencha": Thing("Sencha, 100 g", 890),
    "pot": Thing("A teapot of cast iron", 4200),
}

Cart = dict[str, int]
Token = Callable[[], list[Tag]]
"""
Gives the hidden field that Klein asks of each form.
"""


# What the forms send.


def known(text: str) -> str:
    if text not in THINGS:
        raise ValueError("there is no such thing")
    return text


THING = Field(converter=known, formInputType="hidden")
NUMBER = Field.number(minimum=1, maximum=MOST, kind=int)


@requirer.require(
    app.route("/cart/add", methods=["POST"]),
    session=SessionParameter(),
    thing=THING,
    number=NUMBER,
)
def add(session: Session, thing: str, number: int) -> Response:
    # Changing what is inside the session is enough to have it saved.
    cart = session.setdefault("cart", {})
    cart[thing] = min(cart.get(thing, 0) + number, MOST)
    # The order has its number from now on: see placeOrder.
    session.setdefault("number", token_hex(4))
    return seeOther("/cart")


@requirer.require(
    app.route("/cart/change", methods=["POST"]),
    session=SessionParameter(),
    thing=THING,
    number=NUMBER,
)
def change(session: Session, thing: str, number: int) -> Response:
    session.setdefault("cart", {})[thing] = number
    return seeOther("/cart")


@requirer.require(
    app.route("/cart/remove", methods=["POST"]),
    session=SessionParameter(),
    thing=THING,
)
def remove(session: Session, thing: str) -> Response:
    # It may have been removed in another tab.
    session.get("cart", {}).pop(thing, None)
    return seeOther("/cart")


@requirer.require(
    app.route("/cart/empty", methods=["POST"]),
    session=SessionParameter(),
    # Where no field is asked for, Klein asks for no token either.
    seen=Field.text(),
)
def empty(session: Session, seen: str) -> Response:
    session.pop("cart", None)
    return seeOther("/cart")


@requirer.require(
    app.route("/order", methods=["POST"]),
    session=SessionParameter(),
    seen=Field.text(),
    form=Form.rendererFor(add, action="/cart/add"),
)
async def placeOrder(session: Session, seen: str, form: RenderableForm) -> Response:
    cart = cartIn(session)
    if seen == session.get("ordered", {}).get("seen"):
        # The second click on the button.
        return seeOther("/thanks")
    if not cart:
        # Emptied in another tab.
        return seeOther("/cart")
    if seen != summary(session):
        problem = "Your cart was changed in another tab. Is this what you want?"
        return cartPage(session, form.glue, problem, code=409)
    number = session.setdefault("number", token_hex(4))
    # The session would be saved with the response.  But the number has to be
    # there before the shop is told: should anything fail from here on, the next
    # attempt has the same, and the shop knows that it is the same order.  Nor do
    # two clicks at the same time make two orders of it.
    await session.save()
    await sendToShop(number, cart)
    session["ordered"] = {"number": number, "cents": total(cart), "seen": seen}
    session.pop("cart", None)
    session.pop("number", None)
    return seeOther("/thanks")


def sendToShop(number: str, cart: Cart) -> Deferred[None]:
    log.info("Order {number}: {cart}", number=number, cart=dict(cart))
    return succeed(None)


# What was filled in wrongly.


@Form.onValidationFailureFor(add)
def showShopAgain(request: Any, values: Any) -> Response:
    session = getSession(request)
    return shopPage(session, tokenFor(request, values), problemOf(values), code=400)


@Form.onValidationFailureFor(change)
@Form.onValidationFailureFor(remove)
@Form.onValidationFailureFor(empty)
@Form.onValidationFailureFor(placeOrder)
def showCartAgain(request: Any, values: Any) -> Response:
    session = getSession(request)
    return cartPage(session, tokenFor(request, values), problemOf(values), code=400)


def problemOf(values: Any) -> str:
    wrong = {field.pythonArgumentName for field in values.validationErrors}
    if wrong == {"number"}:
        return f"Please choose a number from 1 to {MOST}."
    return "That did not work. Please try again."


def tokenFor(request: Any, values: Any) -> Token:
    form = RenderableForm(
        values.form,
        IKleinSession(request),
        "",
        "POST",
        RenderableForm.ENCTYPE_URL_ENCODED,
        "utf-8",
    )
    return form.glue


@app.handle_errors(UnicodeDecodeError)
def refuse(request: Any, failure: Any) -> Response:
    return show("That did not work", tags.p("That was not text in UTF-8."), code=400)


# The pages.


@requirer.require(
    app.route("/", methods=["GET"]),
    session=SessionParameter(),
    form=Form.rendererFor(add, action="/cart/add"),
)
def shop(session: Session, form: RenderableForm) -> Response:
    return shopPage(session, form.glue)


@requirer.require(
    app.route("/cart", methods=["GET"]),
    session=SessionParameter(),
    form=Form.rendererFor(change, action="/cart/change"),
)
def showCart(session: Session, form: RenderableForm) -> Response:
    return cartPage(session, form.glue)


@requirer.require(app.route("/thanks", methods=["GET"]), session=SessionParameter())
def thank(session: Session) -> Response:
    ordered = session.get("ordered")
    if ordered is None:
        return seeOther("/")
    return show(
        "Thank you",
        tags.p("This is your order ", tags.code(ordered["number"]), "."),
        tags.p(f"Please have {money(ordered['cents'])} ready.", class_="hint"),
        tags.a("Back to the shop", href="/", class_="button"),
        cart=cartIn(session),
    )


def shopPage(
    session: Session, token: Token, problem: str = "", code: int = 200
) -> Response:
    return show(
        "Everything for tea",
        alert(problem),
        tags.ul([shopRow(key, token) for key in THINGS], class_="items"),
        tags.a("To the cart", href="/cart", class_="button"),
        cart=cartIn(session),
        code=code,
    )


def shopRow(key: str, token: Token) -> Tag:
    thing = THINGS[key]
    return tags.li(
        label(thing.name, money(thing.cents)),
        tags.form(
            token(),
            hidden("thing", key),
            numberInput(thing, 1),
            tags.button("Add", **{"aria-label": f"Add {thing.name}"}),
            method="post",
            action="/cart/add",
            class_="row",
        ),
    )


def cartPage(
    session: Session, token: Token, problem: str = "", code: int = 200
) -> Response:
    cart = cartIn(session)
    return show(
        "Your cart",
        alert(problem),
        *(cartContent(session, cart, token) if cart else NOTHING),
        tags.p(tags.a("Back to the shop", href="/")),
        cart=cart,
        code=code,
    )


NOTHING = [tags.p("There is nothing in it.", class_="hint")]


def cartContent(session: Session, cart: Cart, token: Token) -> list[Tag]:
    return [
        tags.ul([cartRow(key, cart, token) for key in cart], class_="items"),
        tags.p("Together: ", tags.strong(money(total(cart)))),
        tags.div(
            orderForm(session, token),
            emptyForm(session, token),
            class_="row",
            style=WRAPPED,
        ),
    ]


def cartRow(key: str, cart: Cart, token: Token) -> Tag:
    thing = THINGS[key]
    return tags.li(
        label(thing.name, money(thing.cents * cart[key])),
        tags.form(
            token(),
            hidden("thing", key),
            numberInput(thing, cart[key]),
            tags.button(
                "Change", class_="quiet", **{"aria-label": f"Change {thing.name}"}
            ),
            tags.button(
                "Remove",
                class_="quiet",
                formaction="/cart/remove",
                formnovalidate="",
                **{"aria-label": f"Remove {thing.name}"},
            ),
            method="post",
            action="/cart/change",
            class_="row",
            style=WRAPPED,
        ),
        style=WRAPPED,
    )


def orderForm(session: Session, token: Token) -> Tag:
    return tags.form(
        token(),
        hidden("seen", summary(session)),
        tags.button("Order"),
        method="post",
        action="/order",
    )


def emptyForm(session: Session, token: Token) -> Tag:
    return tags.form(
        token(),
        hidden("seen", summary(session)),
        tags.button("Empty the cart", class_="quiet"),
        method="post",
        action="/cart/empty",
    )


# The cart.


def cartIn(session: Session) -> Cart:
    """
    What is in the cart, but for what the shop no longer has.
    """
    cart: Cart = session.get("cart", {})
    return {key: number for key, number in cart.items() if key in THINGS}


def total(cart: Cart) -> int:
    return sum(THINGS[key].cents * number for key, number in cart.items())


def summary(session: Session) -> str:
    """
    What is going to be ordered, to be compared with what was seen.
    """
    cart = sorted(cartIn(session).items())
    things = ", ".join(f"{number} {key}" for key, number in cart)
    return f"{session.get('number')}: {things}"


def money(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02} \N{EURO SIGN}"


# How it looks.


def show(
    title: str, *content: Tag | str, cart: Cart | None = None, code: int = 200
) -> Response:
    number = sum((cart or {}).values())
    nav = tags.nav(tags.a(f"Cart ({number})" if number else "Cart", href="/cart"))
    return Response(code, HEADERS, page(SITE, title, *content, nav=nav))


HEADERS = {
    # What a page shows depends on the session: no cache may keep it.
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; img-src data:; "
    "style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
}


WRAPPED = "flex-wrap: wrap"  # on small screens


def seeOther(address: str) -> Response:
    return Response(303, {"Location": address})


def alert(problem: str) -> Tag | str:
    return tags.p(problem, role="alert", class_="alert") if problem else ""


def label(name: str, price: str) -> Tag:
    return tags.div(name, tags.div(price, class_="hint"))


def hidden(name: str, value: str) -> Tag:
    return tags.input(type="hidden", name=name, value=value)


def numberInput(thing: Thing, number: int) -> Tag:
    return tags.div(
        tags.input(
            name="number",
            type="number",
            min="1",
            max=str(MOST),
            value=str(number),
            required="",
            **{"aria-label": f"How many of {thing.name}"},
        ),
        class_="small",
    )


resource = SessionResource(app, secret=sessionSecret(), store=MemoryStore())

if __name__ == "__main__":
    serve(resource)
