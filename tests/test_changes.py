"""
`txsession.changes`.
"""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from txsession.changes import adopt, diff, merge

JSONObject = dict[str, Any]

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

# Few keys and few values, so that what is drawn collides.
scalars = st.sampled_from([None, False, True, 0, 1, 1.0, -0.0, "", "x"])
values = st.recursive(
    scalars | st.lists(scalars, max_size=2),
    lambda inner: (
        st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
        | st.lists(inner, max_size=2)
    ),
    max_leaves=12,
)
objects = st.dictionaries(st.sampled_from("abcd"), values, max_size=4)

ABSENT = object()


def written(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def alike(one: Any, other: Any) -> bool:
    """
    Whether both are the same value, or both absent.
    """
    if one is ABSENT or other is ABSENT:
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[k], other[k]) for k in one)
    return json.dumps(one) == json.dumps(other)


def threeWay(base: Any, mine: Any, theirs: Any) -> Any:
    """
    What becomes of a value that was C{base}, that this request made C{mine} and
    others C{theirs}.
    """
    if alike(base, mine):
        return theirs
    if not isinstance(mine, dict):
        return mine
    if theirs is not ABSENT and not isinstance(theirs, dict):
        return mine
    before = base if isinstance(base, dict) else {}
    current = {} if theirs is ABSENT else theirs
    merged = {}
    for key in {*before, *mine, *current}:
        value = threeWay(*(each.get(key, ABSENT) for each in (before, mine, current)))
        if value is not ABSENT:
            merged[key] = value
    if merged or theirs is not ABSENT or not isinstance(base, dict):
        return merged
    return ABSENT


# The table.


@pytest.mark.parametrize(
    ("base", "mine", "theirs", "merged"),
    [
        pytest.param({}, {"a": 1}, {"b": 2}, {"a": 1, "b": 2}, id="both add a key"),
        pytest.param(
            {"n": 0, "m": 0},
            {"n": 1, "m": 0},
            {"n": 0, "m": 1},
            {"n": 1, "m": 1},
            id="both change a key",
        ),
        pytest.param({"a": 1}, {"a": 2}, {"a": 3}, {"a": 2}, id="the same key: mine"),
        pytest.param({"a": 1}, {"a": 1}, {"a": 3}, {"a": 3}, id="unchanged: theirs"),
        pytest.param({"a": 1}, {}, {"a": 1, "b": 2}, {"b": 2}, id="I delete a key"),
        pytest.param({"a": 1}, {}, {"a": 5}, {}, id="I delete what they change"),
        pytest.param({"a": 1}, {"a": 2}, {}, {"a": 2}, id="I change what they delete"),
        pytest.param({"a": 1}, {"a": 1}, {}, {}, id="they delete, I do nothing"),
        pytest.param({"a": 1}, {}, {}, {}, id="both delete it"),
        pytest.param(
            {"o": {"x": 1, "y": 1}},
            {"o": {"x": 2, "y": 1}},
            {"o": {"x": 1, "y": 2}},
            {"o": {"x": 2, "y": 2}},
            id="both change keys of one object",
        ),
        pytest.param(
            {"o": {"p": {"q": {}}}},
            {"o": {"p": {"q": {"mine": 1}}}},
            {"o": {"p": {"q": {"theirs": 2}}}},
            {"o": {"p": {"q": {"mine": 1, "theirs": 2}}}},
            id="deep down",
        ),
        pytest.param(
            {"o": {"x": 1, "y": 1}},
            {"o": {"y": 1}},
            {"o": {"x": 1, "y": 1, "z": 1}},
            {"o": {"y": 1, "z": 1}},
            id="I delete deep down",
        ),
        pytest.param(
            {"l": [1]}, {"l": [1, 2]}, {"l": [1, 3]}, {"l": [1, 2]}, id="arrays whole"
        ),
        pytest.param(
            {"l": [{"x": 1}]},
            {"l": [{"x": 1, "m": 1}]},
            {"l": [{"x": 1, "t": 1}]},
            {"l": [{"x": 1, "m": 1}]},
            id="objects in arrays whole",
        ),
        pytest.param({"l": [1]}, {"l": [1]}, {"l": [2]}, {"l": [2]}, id="same array"),
        pytest.param(
            {}, {"a": None}, {"b": 1}, {"a": None, "b": 1}, id="None is a value"
        ),
        pytest.param({"a": None}, {}, {"a": None}, {}, id="None is deleted"),
        pytest.param({"a": 1}, {"a": None}, {"a": 1}, {"a": None}, id="set to None"),
        pytest.param({"a": None}, {"a": 1}, {"a": None}, {"a": 1}, id="set from None"),
        pytest.param({"a": None}, {"a": None}, {"a": 1}, {"a": 1}, id="None unchanged"),
        pytest.param(
            {"o": {"x": 1, "y": 1}},
            {"o": {"x": 2, "y": 1}},
            {},
            {"o": {"x": 2}},
            id="a missing object on the path is created",
        ),
        pytest.param(
            {"o": {"p": {"x": 1, "y": 1}}},
            {"o": {"p": {"x": 2, "y": 1}}},
            {},
            {"o": {"p": {"x": 2}}},
            id="missing objects on the path are created",
        ),
        pytest.param(
            {"o": {"p": {}}},
            {"o": {"p": {"q": {}}}},
            {},
            {"o": {"p": {"q": {}}}},
            id="a new empty object counts",
        ),
        pytest.param(
            {"o": {"x": 1, "y": 1}},
            {"o": {"y": 1}},
            {},
            {},
            id="deleting below a missing object does nothing",
        ),
        pytest.param(
            {"o": {"p": {"x": 1}}},
            {"o": {"p": {}}},
            {},
            {},
            id="deleting deep below a missing object does nothing",
        ),
        pytest.param(
            {"o": {"p": {"x": 1}, "q": 1}},
            {"o": {"p": {}, "q": 2}},
            {},
            {"o": {"q": 2}},
            id="of a missing object only what was set is created",
        ),
        *(
            pytest.param(
                {"o": {"x": 1, "y": 1}},
                {"o": {"x": 2, "y": 1}},
                {"o": theirs},
                {"o": {"x": 2, "y": 1}},
                id=f"{theirs!r} is in the way: mine whole",
            )
            for theirs in (None, 0, "", [], [{"x": 1}])
        ),
        pytest.param(
            {"o": {"x": 1}}, {"o": 5}, {"o": {"x": 2}}, {"o": 5}, id="object to scalar"
        ),
        pytest.param(
            {"o": 5},
            {"o": {"x": 1}},
            {"o": 5},
            {"o": {"x": 1}},
            id="scalar to object",
        ),
        pytest.param(
            {"o": 5},
            {"o": {"x": 1}},
            {"o": {"y": 2}},
            {"o": {"x": 1, "y": 2}},
            id="both make it an object",
        ),
        pytest.param({"o": 5}, {"o": {}}, {"o": 5}, {"o": {}}, id="scalar to empty"),
        pytest.param({"o": {"x": 1}}, {}, {"o": {"x": 2}}, {}, id="object deleted"),
        pytest.param({"a": 1}, {"a": True}, {"a": 1}, {"a": True}, id="1 to true"),
        pytest.param({"a": 0}, {"a": False}, {"a": 0}, {"a": False}, id="0 to false"),
        pytest.param({"a": 1}, {"a": 1.0}, {"a": 1}, {"a": 1.0}, id="1 to 1.0"),
        pytest.param({"a": [1]}, {"a": [True]}, {"a": [1]}, {"a": [True]}, id="[true]"),
    ],
)
def test_mergesByKey(
    base: JSONObject, mine: JSONObject, theirs: JSONObject, merged: JSONObject
) -> None:
    """
    The keys that this request set and deleted are applied to what others left.
    """
    assert written(merge(theirs, diff(base, mine))) == written(merged)


# What holds for all.


@settings(unhurried, max_examples=300)
@given(objects, objects, objects)
def test_mergingIsThreeWay(base: JSONObject, mine: JSONObject, theirs: Any) -> None:
    """
    Each value, at any depth, is this request's where it changed it, and
    otherwise what others left.
    """
    merged = merge(theirs, diff(base, mine))
    assert alike(merged, threeWay(base, mine, theirs))


@unhurried
@given(objects, objects, objects)
def test_keepsTheKeysOfBothSides(
    base: JSONObject, mine: JSONObject, theirs: Any
) -> None:
    """
    Where two requests set different keys of one object, however deep, all of
    them are kept.
    """

    def under(prefix: str, data: JSONObject) -> JSONObject:
        return {f"{prefix}{key}": value for key, value in data.items()}

    for depth in range(4):

        def buried(data: JSONObject, depth: int = depth) -> JSONObject:
            for _ in range(depth):
                data = {"down": data}
            return data

        ours = buried({**base, **under("mine ", mine)})
        others = buried({**base, **under("theirs ", theirs)})
        merged = merge(others, diff(buried(base), ours))
        both = {**base, **under("mine ", mine), **under("theirs ", theirs)}
        assert alike(merged, buried(both))


@unhurried
@given(objects, objects)
def test_changingNothingIsTheIdentity(base: JSONObject, theirs: JSONObject) -> None:
    """
    A request that changed nothing leaves what others did as it is.
    """
    changes = diff(base, deepcopy(base))
    assert not changes
    assert alike(merge(theirs, changes), theirs)


@unhurried
@given(objects, objects)
def test_changesLeadFromOneToTheOther(base: JSONObject, mine: JSONObject) -> None:
    """
    What changed, applied to what was, gives what is; applying it again changes
    nothing more.
    """
    changes = diff(base, mine)
    merged = merge(base, changes)
    assert alike(merged, mine)
    assert alike(merge(merged, changes), mine)
    assert bool(changes) is not alike(base, mine)


@unhurried
@given(objects, objects, objects)
def test_mutatesNothing(base: JSONObject, mine: JSONObject, theirs: Any) -> None:
    """
    Neither finding out what changed nor merging it touches what it is given.
    """
    before = deepcopy((base, mine, theirs))
    changes = diff(base, mine)
    merge(theirs, changes)
    merge(theirs, changes)
    assert written([base, mine, theirs]) == written(before)


@pytest.mark.parametrize("base", [None, 5, "x", [], [1]])
def test_whatIsNoObjectCountsAsNone(base: Any) -> None:
    """
    An object in the place of something else is a change, even an empty one.
    """
    changes = diff(base, {})
    assert changes
    assert merge({"a": 1}, changes) == {"a": 1}


def test_mergesWhatIsNestedAsDeepAsIsAllowed() -> None:
    """
    Data nested as deep as a session's may be is compared, merged and adopted.
    """

    def nested(bottom: Any) -> JSONObject:
        for _ in range(200):
            bottom = {"down": bottom}
        data: JSONObject = bottom
        return data

    changes = diff(nested({"a": 1}), nested({"a": 2}))
    merged = merge(nested({"a": 1, "b": 1}), changes)
    assert merged == nested({"a": 2, "b": 1})
    assert merge({}, changes) == nested({"a": 2})
    adopt(merged, nested({"c": 1}))
    assert merged == nested({"c": 1})


# Adopting.


@unhurried
@given(objects, objects)
def test_adoptingMakesEqualInPlace(target: JSONObject, source: JSONObject) -> None:
    """
    After adopting, the data is what it was to be, down to the difference of 1
    and true, and its source is as it was.
    """
    before = deepcopy(source)
    adopt(target, source)
    assert alike(target, source)
    assert written(source) == written(before)


def test_whatWasHandedOutStaysAPart() -> None:
    """
    Objects and arrays that somebody holds go on being parts of the session.
    """
    data: JSONObject = {"o": {"p": {"x": 1}}, "l": [1], "same": [{"x": 1}], "s": 1}
    inner, array, element = data["o"]["p"], data["l"], data["same"][0]
    adopt(data, {"o": {"p": {"y": 2}, "q": 3}, "l": [2, 3], "same": [{"x": 1}]})
    assert data == {
        "o": {"p": {"y": 2}, "q": 3},
        "l": [2, 3],
        "same": [{"x": 1}],
    }
    assert data["o"]["p"] is inner
    assert data["l"] is array
    assert data["same"][0] is element


@pytest.mark.parametrize("old", [5, None, [1], "x"])
def test_whatChangedItsKindIsReplaced(old: Any) -> None:
    """
    In the place of something else, an object is simply put.
    """
    data = {"o": old}
    adopt(data, {"o": {"x": 1}})
    assert data == {"o": {"x": 1}}
    adopt(data, {"o": old})
    assert data == {"o": old}


class Opaque:
    """
    Something that JSON cannot hold.
    """


@pytest.mark.parametrize(
    "spoilt", [{1}, (2,), float("nan"), Opaque(), {1: 2}, {(): 1}, b"2"]
)
def test_whatJSONCannotHoldIsDropped(spoilt: Any) -> None:
    """
    Whatever an application put into an array or an object, adopting the stored
    data makes it as it was.
    """
    data: JSONObject = {"l": [1, spoilt], "o": {"x": spoilt}, "s": spoilt}
    source = {"l": [1, [2]], "o": {"x": {"1": 2}}, "s": "2"}
    adopt(data, source)
    assert data == source
    assert type(data["l"][1]) is list


def test_anArrayThatHoldsItselfIsDropped() -> None:
    """
    A cycle that an application made does not outlast adopting.
    """
    data: JSONObject = {"l": [1]}
    data["l"].append(data["l"])
    adopt(data, {"l": [1, [1]]})
    assert data == {"l": [1, [1]]}
