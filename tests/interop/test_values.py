"""
What survives on the way between Python and JavaScript: the tables of
C{docs/how-to/share-with-express.md} are so.
"""

from __future__ import annotations

import json
from typing import Any

import pytest_twisted
from hypothesis import given, settings
from hypothesis import strategies as st

from ..test_docs import code, tables, text
from .sharing import Sharing
from .test_sharing import seenByExpress, seenByTwisted

PAGE = text("docs/how-to/share-with-express.md")


def section(heading: str) -> str:
    """
    What stands under a heading of the page, up to the next.
    """
    _, _, rest = PAGE.partition(f"\n### {heading}\n")
    assert rest
    return rest.partition("\n## ")[0].partition("\n### ")[0]


def rows(heading: str) -> list[list[str]]:
    """
    The table under a heading: the code in each row.
    """
    [table] = tables(section(heading))
    return [[code(cell)[0] for cell in row] for row in table]


@pytest_twisted.ensureDeferred
async def test_fromHereToExpressAndBack(both: Sharing) -> None:
    """
    Each value of the table is in Express, and comes back, as the table says: of
    the same type, and its keys in the same order.
    """
    visitor = (await both()).visitor()
    table = rows("From here, to Express and back")
    found = []
    for here, there, _ in table:
        value = eval(here)
        await visitor.twisted(lambda s, value=value: s.update(value=value))
        assert await visitor.twisted(lambda s: repr(s["value"])) == repr(value)
        assert await visitor.express(f"return same(req.session.value, {there})"), here
        assert await visitor.twisted(lambda s: repr(s["value"])) == repr(value)
        await visitor.express("req.session.saved = (req.session.saved ?? 0) + 1")
        found.append(await visitor.twisted(lambda s: repr(s["value"])))
    assert found == [repr(eval(back)) for _, _, back in table]
    assert len(table) > 10


@pytest_twisted.ensureDeferred
async def test_fromExpressToHere(both: Sharing) -> None:
    """
    What Express stores is here what the table says.
    """
    visitor = (await both()).visitor()
    table = rows("From Express to here")
    found = []
    for there, _ in table:
        await visitor.express(f"req.session.value = {there}")
        found.append(await visitor.twisted(lambda s: repr(s["value"])))
    assert found == [repr(eval(here)) for _, here in table]
    assert len(table) > 10


@pytest_twisted.ensureDeferred
async def test_undefinedIsLeftOut(both: Sharing) -> None:
    """
    What is undefined in Express is not in the session here.
    """
    visitor = (await both()).visitor()
    await visitor.express("req.session.value = undefined; req.session.n = 1")
    assert await seenByTwisted(visitor) == {"n": 1}


@pytest_twisted.ensureDeferred
async def test_bigIntCannotBeSaved(both: Sharing) -> None:
    """
    A BigInt cannot be saved, and what was stored stays.
    """
    visitor = (await both()).visitor()
    await visitor.express("req.session.n = 1")
    error = await visitor.express(
        "req.session.n = 10n;"
        "try { await verb('save') } catch (error) {"
        "  delete req.session; return error.toString()"
        "}"
    )
    assert error == "TypeError: Do not know how to serialize a BigInt"
    assert await seenByTwisted(visitor) == {"n": 1}


# Names.

NAMES = code(section("Names that Express does not take").split("\n\n")[1])


@pytest_twisted.ensureDeferred
async def test_namesThatExpressDoesNotTakeAreThese(both: Sharing) -> None:
    """
    The names that the page lists are those of express-session's object, and of
    those that it inherits from.
    """
    visitor = (await both()).visitor()
    found = await visitor.express(
        "const prototype = Object.getPrototypeOf(req.session);"
        "const chain = [req.session, prototype, Object.prototype];"
        "return chain.flatMap(each => Object.getOwnPropertyNames(each))"
    )
    assert sorted({*found} - {"cookie"}) == sorted(NAMES)


@pytest_twisted.ensureDeferred
async def test_namesThatExpressDoesNotTakeAreLost(both: Sharing) -> None:
    """
    A request to Express that only looks loses what stands under those names, and
    nothing else.
    """
    visitor = (await both()).visitor()
    await visitor.twisted(lambda s: s.update(dict.fromkeys(NAMES, 1), kept=2))
    assert await seenByTwisted(visitor) == {**dict.fromkeys(NAMES, 1), "kept": 2}
    assert await seenByExpress(visitor) == {"kept": 2}
    assert await seenByTwisted(visitor) == {"kept": 2}


@pytest_twisted.ensureDeferred
async def test_otherNamesSurvive(both: Sharing) -> None:
    """
    Other names do not mind, odd as they may be.
    """
    names = [
        "",
        " ",
        "a.b",
        "$set",
        "0",
        "length",
        "ä€😀",
        "\0",
        "\ud800",
        "then",
        "map",
    ]
    visitor = (await both()).visitor()
    data = dict.fromkeys(names, 1)
    await visitor.twisted(lambda s: s.update(data))
    await visitor.express("req.session.saved = true")
    assert await seenByTwisted(visitor) == {**data, "saved": True}


# Anything.


@pytest_twisted.ensureDeferred
async def test_nestedData(both: Sharing) -> None:
    """
    Data nested as deep as may be, and a megabyte of it, go both ways.
    """
    deep: Any = "bottom"
    for level in range(100):
        deep = [deep] if level % 2 else {"inner": deep}
    wide = {f"key {n}": "ä" * 100 for n in range(5000)}
    visitor = (await both()).visitor()
    await visitor.twisted(lambda s: s.update(deep=deep, wide=wide))
    await visitor.express("req.session.saved = true")
    found = await seenByTwisted(visitor)
    assert found == {"deep": deep, "wide": wide, "saved": True}


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False).filter(
        lambda number: not number.is_integer()
    )
    | st.text(st.characters(codec="utf-8"))
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text("abcäß"), inner)
)


def manyValues() -> list[Any]:
    found: list[Any] = []

    @settings(max_examples=150, database=None)
    @given(VALUES)
    def collect(value: Any) -> None:
        found.append(value)

    collect()
    return found


@pytest_twisted.ensureDeferred
async def test_whateverIsNotInTheTablesSurvives(both: Sharing) -> None:
    """
    Other data are on the other side what they were, and come back as such, from
    whichever side they start.
    """
    visitor = (await both()).visitor()
    values = manyValues()
    await visitor.twisted(lambda s: s.update(values=values))
    assert await seenByExpress(visitor) == {"values": values}
    await visitor.express("req.session.saved = true")
    assert repr(await visitor.twisted(lambda s: s["values"])) == repr(values)
    await visitor.express(f"req.session.more = {json.dumps(values)}")
    assert repr(await visitor.twisted(lambda s: s["more"])) == repr(values)
    await visitor.twisted(lambda s: s.update(saved=False))
    assert (await seenByExpress(visitor))["more"] == values
