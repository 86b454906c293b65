"""
What a request changed in a session, and how to lay that over newer data.

A session's data is a JSON object.  Two requests that change different keys of
it, at any depth of objects, do not disturb each other: the changes of one are
the keys it set and the keys it deleted, and these are applied to whatever the
other left.  Arrays and scalars are taken whole.
"""

from __future__ import annotations

import json
from typing import Any, cast

from attrs import Factory, frozen

__all__ = ["Changes", "adopt", "diff", "merge"]

JSONObject = dict[str, Any]


@frozen
class Changes:
    """
    What was done to one object.

    @ivar assigned: keys set to a scalar or an array, with the values.
    @ivar deleted: keys removed.
    @ivar nested: keys that hold an object, with what was done in it.
    @ivar whole: the object as it is after the changes.
    @ivar isNew: whether there was no object in its place before.
    """

    whole: JSONObject
    isNew: bool = False
    assigned: JSONObject = Factory(dict)
    deleted: frozenset[str] = frozenset()
    nested: dict[str, Changes] = Factory(dict)

    def __bool__(self) -> bool:
        return bool(self.isNew or self.assigned or self.deleted or self.nested)

    @property
    def creates(self) -> bool:
        """
        Whether the changes call for the object where it is missing: a deletion
        alone does not.
        """
        return bool(
            self.isNew
            or self.assigned
            or any(each.creates for each in self.nested.values())
        )


def _same(one: object, other: object) -> bool:
    """
    Whether two JSON values are written alike: C{1}, C{1.0} and C{true} are not.
    """
    if one is other:
        return True
    # Equality comes first: what an application put into a list and JSON cannot
    # hold equals nothing that came from JSON, and json.dumps would refuse it, or
    # write a tuple like a list.
    return (
        type(one) is type(other)
        and one == other
        and json.dumps(one) == json.dumps(other)
    )


def diff(base: object, mine: JSONObject) -> Changes:
    """
    The changes that lead from C{base} to C{mine}.

    @param base: the object as it was; anything that is not an object counts as
        there having been none.
    """
    isNew = not isinstance(base, dict)
    before = {} if isNew else cast(JSONObject, base)
    assigned: JSONObject = {}
    nested: dict[str, Changes] = {}
    for key, value in mine.items():
        if isinstance(value, dict):
            inner = diff(before.get(key), value)
            if inner:
                nested[key] = inner
        elif key not in before or not _same(before[key], value):
            assigned[key] = value
    deleted = frozenset(before.keys() - mine.keys())
    return Changes(mine, isNew, assigned, deleted, nested)


def merge(theirs: JSONObject, changes: Changes) -> JSONObject:
    """
    C{theirs} with the changes applied; C{theirs} itself stays as it is.

    Missing objects on the way to a change are created.  Where something other
    than an object is in the way, the changed object is taken whole.  Deleting
    below a missing object does nothing.
    """
    merged = {key: value for key, value in theirs.items() if key not in changes.deleted}
    merged.update(changes.assigned)
    for key, inner in changes.nested.items():
        current = merged.get(key, _MISSING)
        if isinstance(current, dict):
            merged[key] = merge(current, inner)
        elif current is not _MISSING:
            merged[key] = inner.whole
        elif inner.creates:
            merged[key] = merge({}, inner)
    return merged


_MISSING = object()


def adopt(target: JSONObject, source: JSONObject) -> None:
    """
    Make C{target} equal to C{source} in place, and with it the objects and
    arrays inside, so that who holds one of them goes on holding a part of the
    session.
    """
    for key in target.keys() - source.keys():
        del target[key]
    for key, value in source.items():
        current = target.get(key)
        if isinstance(current, dict) and isinstance(value, dict):
            adopt(current, value)
        elif isinstance(current, list) and isinstance(value, list):
            if not _same(current, value):
                current[:] = value
        else:
            target[key] = value
