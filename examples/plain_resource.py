"""
A shopping list, with nothing but Twisted Web.

    python -m examples.plain_resource [PORT]

One L{SessionResource} around the root gives a session to every resource of the
tree.  The list is an object in that session, changed where it is.  Changes are
merged by key: of what two tabs add at the same time, nothing is lost.

What comes by POST changes something.  The session's cookie is C{SameSite=Lax},
so a browser sends it with no POST that comes from another site.
"""

from __future__ import annotations

from collections.abc import Generator
from secrets import token_hex
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from twisted.web.template import Tag, renderElement, tags

from txsession import MemoryStore, SessionResource, getSession

from .page import page
from .serving import serve, sessionSecret

log = Logger()

MOST_THINGS = 50
LONGEST = 40


class Home(Resource):
    def render_GET(self, request: Any) -> Any:
        things = getSession(request).get("list", {})
        return show(
            request,
            "Good morning",
            tags.p(f"Things on your shopping list: {len(things)}."),
            tags.a("To the list", href="/list", class_="button"),
        )


class ShoppingList(Resource):
    """
    The list, with a child for each thing that can be done to it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.putChild(b"add", Add())
        self.putChild(b"remove", Remove())
        self.putChild(b"order", Order())

    def render_GET(self, request: Any) -> Any:
        # Reading makes no session: a visitor who only looks gets no cookie.
        things = getSession(request).get("list", {})
        return show(request, "Shopping list", self.addForm(), *self.rows(things))

    def addForm(self) -> Tag:
        return tags.form(
            tags.div(
                tags.label("Number", for_="number"),
                tags.input(
                    id="number",
                    name="number",
                    type="number",
                    min="1",
                    max="99",
                    value="1",
                    required="",
                ),
                class_="small",
            ),
            tags.div(
                tags.label("Thing", for_="thing"),
                tags.input(
                    id="thing",
                    name="thing",
                    maxlength=str(LONGEST),
                    required="",
                    autocomplete="off",
                    autofocus="",
                ),
            ),
            tags.button("Add"),
            method="post",
            action="/list/add",
            class_="row",
        )

    def rows(self, things: dict[str, int]) -> list[Tag]:
        if not things:
            return [tags.p("Nothing on it yet.", class_="hint")]
        return [
            tags.ul([self.row(*pair) for pair in things.items()], class_="items"),
            tags.form(tags.button("Order"), method="post", action="/list/order"),
        ]

    def row(self, thing: str, number: int) -> Tag:
        return tags.li(
            f"{number} \N{MULTIPLICATION SIGN} {thing}",
            tags.form(
                tags.input(type="hidden", name="thing", value=thing),
                tags.button(
                    "Remove", class_="quiet", **{"aria-label": f"Remove {thing}"}
                ),
                method="post",
                action="/list/remove",
            ),
        )


class Add(Resource):
    def render_POST(self, request: Any) -> Any:
        thing, number = field(request, "thing"), field(request, "number")
        if not thing:
            return seeOther(request, b"/list")
        things = getSession(request).setdefault("list", {})
        if thing in things or len(things) < MOST_THINGS:
            # Changing what is inside the session is enough to have it saved.
            things[thing] = things.get(thing, 0) + asNumber(number)
        return seeOther(request, b"/list")


class Remove(Resource):
    def render_POST(self, request: Any) -> Any:
        things = getSession(request).get("list", {})
        things.pop(field(request, "thing"), None)
        return seeOther(request, b"/list")


class Order(Resource):
    def render_POST(self, request: Any) -> Any:
        ordered = self.order(request)
        # Logs what went wrong and answers with 500, but hands the failure on.
        ordered.addErrback(request.processingFailed)
        ordered.addErrback(lambda failure: None)
        return NOT_DONE_YET

    @inlineCallbacks
    def order(self, request: Any) -> Generator[Deferred[Any], Any, None]:
        session = getSession(request)
        things = session.get("list")
        if not things:
            seeOther(request, b"/list")
            request.finish()
            return
        number = session.setdefault("order", token_hex(4))
        # The session would be saved with the response.  But this number has to
        # be there before the shop is told: should anything fail from here on,
        # the next attempt has the same, and the shop knows that it is the same
        # order.
        yield session.save()
        yield sendToShop(number, things)
        del session["list"], session["order"]
        show(
            request,
            "Thank you",
            tags.p("This is your order ", tags.code(number), "."),
            tags.a("A new list", href="/list", class_="button"),
        )


def sendToShop(number: str, things: dict[str, int]) -> Deferred[None]:
    log.info("Order {number}: {things}", number=number, things=dict(things))
    return succeed(None)


def field(request: Any, name: str) -> str:
    """
    What was entered in a field of a form.
    """
    value: bytes = request.args.get(name.encode(), [b""])[0]
    return value.decode(errors="replace").strip()[:LONGEST]


def asNumber(text: str) -> int:
    return min(max(int(text), 1), 99) if text.isdecimal() else 1


def seeOther(request: Any, address: bytes) -> bytes:
    request.setResponseCode(303)
    request.setHeader(b"Location", address)
    return b""


def show(request: Any, title: str, *content: Tag) -> Any:
    return renderElement(request, page("The pantry", title, *content))


root = Resource()
root.putChild(b"", Home())
root.putChild(b"list", ShoppingList())

resource = SessionResource(root, secret=sessionSecret(), store=MemoryStore())

if __name__ == "__main__":
    serve(resource)
