"""
What is measured: the same small pages without a session, with one, and with the
sessions that Twisted and Klein have of their own.

Every page answers with the same body.  The tree has the same depth everywhere, so
that finding a page costs the same on all sides::

    /plain|klein / bare / PAGE    unwrapped
    /plain|klein / kept / PAGE    wrapped; its store keeps the sessions of the run
    /plain|klein / temp / PAGE    wrapped; its store is emptied between blocks
    /twisted / kept|temp / PAGE   request.getSession()
    /kleins  / kept|temp / PAGE   klein.SessionProcurer with its MemorySessionStore
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field
from klein import Klein, SessionProcurer
from klein.interfaces import ISession as IKleinSession
from klein.storage.memory import MemorySessionStore, declareMemoryAuthorizer
from twisted.python.components import registerAdapter
from twisted.web.resource import IResource, Resource
from twisted.web.server import Session as TwistedSession
from twisted.web.server import Site
from zope.interface import Interface, implementer

from txsession import MemoryStore, SessionResource, getSession

BODY = b"<!DOCTYPE html><title>Hello</title><p>Hello, world.</p>\n"
SECRET = "a secret of thirty-two characters"

DATA: dict[str, Any] = {
    "user": "5f0c8a1e-8d0b-4c55-9a51-7d0e4f6b2c11",
    "csrf": "mZ1vC0yq5m8tPpQ3rK7xWf2LhB9sTdNc4aJgEoUiYk0",
    "next": "/orders/2026?page=3&sort=newest&filter=open,late&columns=date,total,state",
    "views": 1,
}
"""
What a page writes into a new session; stored, it makes a document of 300
bytes.
"""

Page = Callable[[Any], bytes]

# The pages behind a SessionResource.


def untouched(request: Any) -> bytes:
    return BODY


def created(request: Any) -> bytes:
    session = getSession(request)
    for key, value in DATA.items():
        session[key] = value
    return BODY


def read(request: Any) -> bytes:
    getSession(request)["user"]
    return BODY


def incremented(request: Any) -> bytes:
    session = getSession(request)
    session["views"] = session["views"] + 1
    return BODY


def views(request: Any) -> bytes:
    return b"%d" % getSession(request)["views"]


PAGES: dict[str, Page] = {
    "untouched": untouched,
    "created": created,
    "read": read,
    "incremented": incremented,
    "views": views,
}
BARE: dict[str, Page] = dict.fromkeys(PAGES, untouched)


class Leaf(Resource):
    """
    A page that is a function of the request.
    """

    isLeaf = True

    def __init__(self, page: Page) -> None:
        super().__init__()
        self._page = page

    def render_GET(self, request: Any) -> bytes:
        return self._page(request)


def plain(pages: dict[str, Page]) -> Resource:
    """
    Pages as plain Twisted resources.
    """
    return folder({name: Leaf(page) for name, page in pages.items()})


def klein(pages: dict[str, Page]) -> Any:
    """
    Pages as routes of a Klein app.
    """
    app = Klein()
    for name, page in pages.items():
        app.route(f"/{name}")(page)
    return app


def folder(children: dict[str, IResource]) -> Resource:
    resource = Resource()
    for name, child in children.items():
        resource.putChild(name.encode(), child)
    return resource


# Twisted's own sessions: an object for each, which is given components.


class IData(Interface):
    """
    What the application keeps in a session.
    """


@implementer(IData)
class Data(dict[str, Any]):
    def __init__(self, session: object) -> None:
        super().__init__()


registerAdapter(Data, TwistedSession, IData)


def twistedCreated(request: Any) -> bytes:
    request.getSession(IData).update(DATA)
    return BODY


def twistedRead(request: Any) -> bytes:
    request.getSession(IData)["user"]
    return BODY


def twistedIncremented(request: Any) -> bytes:
    data = request.getSession(IData)
    data["views"] = data["views"] + 1
    return BODY


def twistedViews(request: Any) -> bytes:
    return b"%d" % request.getSession(IData)["views"]


TWISTED: dict[str, Page] = {
    "created": twistedCreated,
    "read": twistedRead,
    "incremented": twistedIncremented,
    "views": twistedViews,
}

# Klein's own sessions: an authorizer gives what the application keeps in one.


@declareMemoryAuthorizer(IData)
def kleinData(interface: Any, session: Any, components: Any) -> Data:
    data = components.getComponent(IData)
    if data is None:
        data = Data(session)
        components.setComponent(IData, data)
    return data


def kleinOwn(store: MemorySessionStore) -> Any:
    """
    The pages as routes of a Klein app that has sessions of Klein's own.
    """
    app = Klein()
    procurer = SessionProcurer(store=store)

    async def dataOf(request: Any) -> Any:
        await procurer.procureSession(request)
        return (await IKleinSession(request).authorize([IData]))[IData]

    @app.route("/created")
    async def created(request: Any) -> bytes:
        (await dataOf(request)).update(DATA)
        return BODY

    @app.route("/read")
    async def read(request: Any) -> bytes:
        (await dataOf(request))["user"]
        return BODY

    @app.route("/incremented")
    async def incremented(request: Any) -> bytes:
        data = await dataOf(request)
        data["views"] = data["views"] + 1
        return BODY

    @app.route("/views")
    async def views(request: Any) -> bytes:
        return b"%d" % (await dataOf(request))["views"]

    return app


@define(eq=False)
class World:
    """
    The whole tree, and the stores behind it.
    """

    root: Resource
    kept: MemoryStore
    temp: MemoryStore
    kleins: MemorySessionStore
    site: Site = field(init=False)
    _seeded: set[bytes] = field(factory=set, init=False)

    @classmethod
    def make(cls, reactor: Any = None) -> World:
        kept, temp = MemoryStore(reactor=reactor), MemoryStore(reactor=reactor)
        kleinsKept = MemorySessionStore.fromAuthorizers([kleinData])
        kleinsTemp = MemorySessionStore.fromAuthorizers([kleinData])

        def wrapped(resource: Any, store: MemoryStore) -> SessionResource:
            return SessionResource(
                resource, secret=SECRET, store=store, reactor=reactor
            )

        root = folder(
            {
                "plain": folder(
                    {
                        "bare": plain(BARE),
                        "kept": wrapped(plain(PAGES), kept),
                        "temp": wrapped(plain(PAGES), temp),
                    }
                ),
                "klein": folder(
                    {
                        "bare": klein(BARE).resource(),
                        "kept": wrapped(klein(PAGES), kept),
                        "temp": wrapped(klein(PAGES), temp),
                    }
                ),
                "twisted": folder({"kept": plain(TWISTED), "temp": plain(TWISTED)}),
                "kleins": folder(
                    {
                        "kept": kleinOwn(kleinsKept).resource(),
                        "temp": kleinOwn(kleinsTemp).resource(),
                    }
                ),
            }
        )
        return cls(root, kept, temp, kleinsTemp)

    def keep(self) -> None:
        """
        Keep what Twisted's sessions there are now when the others are dropped.
        """
        self._seeded = set(self.site.sessions)

    def clear(self) -> None:
        """
        Drop the sessions that the requests under C{temp} made.
        """
        self.temp.clear()
        self.kleins._insecureStorage.clear()
        for uid in self.site.sessions.keys() - self._seeded:
            self.site.sessions[uid].expire()
