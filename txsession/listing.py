"""
What an administrator sees of sessions: lines for people, objects for machines.

What is in a session, its ID included, may come from anybody.  So nothing of it is
shown before what a terminal could take for a command is escaped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from attrs import evolve, frozen

from .document import Document, decode, isoDate
from .errors import CorruptRecord
from .record import Record
from .signing import fingerprint

__all__ = ["Condition", "Entry", "asText", "described", "printable", "span", "table"]

LONGEST_CELL = 40
"""
Characters of a value that are shown in a table.
"""

LONGEST_PAYLOAD = 400
"""
Bytes of a corrupt record that are shown.
"""

LONGEST_SPAN = 86400e6
"""
Seconds that are as good as any more.
"""

_MISSING = object()


@frozen
class Entry:
    """
    A session of a store.

    @ivar document: what it holds, or L{None} if that is corrupt.
    @ivar problem: what is wrong with it, or L{None}.
    """

    sid: str
    record: Record
    document: Document | None
    problem: str | None

    @classmethod
    def of(cls, sid: str, record: Record) -> Entry:
        """
        Take a record apart, if it can be.
        """
        try:
            return cls(sid, record, decode(record.payload), None)
        except CorruptRecord as error:
            return cls(sid, record, None, str(error))

    @property
    def fingerprint(self) -> str:
        """
        What stands for the ID.
        """
        return fingerprint(self.sid)

    def value(self, path: str) -> Any:
        """
        What a session holds under a key, or under several with dots between them.

        @raise KeyError: nothing.
        """
        found = _within(self.document.data if self.document else {}, path)
        if found is _MISSING:
            raise KeyError(path)
        return found

    def narrowed(self, keys: Iterable[str]) -> Entry:
        """
        The same, with nothing of the data but what is under these keys.
        """
        if self.document is None:
            return self
        found = ((key, self._valueOr(key, _MISSING)) for key in keys)
        data = {key: value for key, value in found if value is not _MISSING}
        return evolve(self, document=self.document._replace(data=data))

    def asJSON(self, *, reveal: bool, keys: Iterable[str] = ()) -> dict[str, Any]:
        """
        What a list says of it, for machines.

        @param reveal: whether to say the ID.
        @param keys: what to say of its data.
        """
        told: dict[str, Any] = {"id": self.sid} if reveal else {}
        told["fingerprint"] = self.fingerprint
        told["expires"] = isoDate(self.record.expires)
        told["expiresTimestamp"] = self.record.expires
        told["size"] = len(self.record.payload)
        if self.problem is not None:
            told["problem"] = self.problem
        values = {key: self._valueOr(key, None) for key in keys}
        return {**told, "keys": values} if values else told

    def asWholeJSON(self, *, reveal: bool) -> dict[str, Any]:
        """
        All there is to say of it, for machines.
        """
        told = self.asJSON(reveal=reveal)
        if self.document is None:
            return {**told, "payload": _shown(self.record.payload)}
        told["maxAge"] = self.document.maxAge
        created = self.document.created
        if created is not None:
            told["created"] = isoDate(created)
            told["createdTimestamp"] = created
        return {**told, "data": self.document.data}

    def _valueOr(self, key: str, default: Any) -> Any:
        try:
            return self.value(key)
        except KeyError:
            return default

    def row(self, now: float, *, reveal: bool, keys: Iterable[str]) -> list[str]:
        """
        What a list says of it, for people.
        """
        cells = [
            printable(self.sid) if reveal else self.fingerprint,
            f"in {span(self.record.expires - now)}",
            size(len(self.record.payload)),
            *(self._cell(key) for key in keys),
        ]
        return cells if self.problem is None else [*cells, f"corrupt: {self.problem}"]

    def _cell(self, key: str) -> str:
        value = self._valueOr(key, _MISSING)
        return "-" if value is _MISSING else _shortened(_written(value))


def _within(data: Any, path: str) -> Any:
    if not isinstance(data, dict):
        return _MISSING
    # A key may itself have dots.
    if path in data:
        return data[path]
    key, dot, rest = path.partition(".")
    return _within(data.get(key), rest) if dot else _MISSING


@frozen
class Condition:
    """
    That sessions hold a certain value.
    """

    path: str
    text: str

    @classmethod
    def parse(cls, text: str) -> Condition:
        """
        @param text: C{KEY=VALUE}.
        @raise ValueError: it is something else.
        """
        path, equals, value = text.partition("=")
        if not equals or not path:
            raise ValueError("must be KEY=VALUE")
        return cls(path, value)

    def holds(self, entry: Entry) -> bool:
        """
        Whether a session holds it: as text, or as what the value means as JSON.
        """
        try:
            value = entry.value(self.path)
        except KeyError:
            return False
        return value == self.text if isinstance(value, str) else self._means(value)

    def _means(self, value: Any) -> bool:
        try:
            meant = json.loads(self.text)
        except (ValueError, RecursionError):
            return False
        # To Python, 1 and True are equal.
        return type(meant) is type(value) and bool(meant == value)


def asText(document: Any) -> str:
    """
    JSON, in ASCII, so that no encoding and no terminal minds.
    """
    try:
        return json.dumps(document, allow_nan=False)
    except ValueError:
        # 1e999 is infinite to Python and JavaScript, and JSON has no word for that.
        return _STRING_OR_INFINITE.sub(
            lambda found: found[1] or "null", json.dumps(document)
        )


_STRING_OR_INFINITE = re.compile(r'("(?:[^"\\]|\\.)*")|-?Infinity|NaN')


# For people.


def table(
    entries: Sequence[Entry], now: float, *, reveal: bool, keys: Sequence[str]
) -> Iterator[str]:
    """
    The lines of a list.
    """
    heading = ["ID" if reveal else "FINGERPRINT", "EXPIRES", "SIZE"]
    heading += [printable(key) for key in keys]
    rows = [heading]
    rows += [entry.row(now, reveal=reveal, keys=keys) for entry in entries]
    widths = [max(len(row[column]) for row in rows) for column in range(len(heading))]
    for row in rows:
        # What is wrong with a record stands behind the last column.
        padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        yield "  ".join(padded + row[len(widths) :]).rstrip()


def described(entry: Entry, now: float, *, reveal: bool) -> Iterator[str]:
    """
    The lines that say all there is to say of a session.
    """
    if reveal:
        yield f"id           {printable(entry.sid)}"
    yield f"fingerprint  {entry.fingerprint}"
    expires = entry.record.expires
    yield f"expires      in {span(expires - now)}, {isoDate(expires)}"
    yield f"size         {size(len(entry.record.payload))}"
    if entry.document is None:
        yield f"corrupt      {entry.problem}"
        yield f"payload      {printable(_shown(entry.record.payload))}"
        return
    yield from _contents(entry.document, now)


def _contents(document: Document, now: float) -> Iterator[str]:
    if document.created is not None:
        age = span(now - document.created)
        yield f"created      {age} ago, {isoDate(document.created)}"
    if document.maxAge is None:
        yield "cookie       ends with the browser's session"
    else:
        yield f"cookie       ends {span(document.maxAge)} after each renewal"
    yield "data"
    shown = json.dumps(document.data, ensure_ascii=False, indent=2)
    yield from map(printable, shown.split("\n"))


def printable(text: str) -> str:
    """
    The text, with what is not meant to be seen written as JSON would escape it.
    """
    if text.isprintable():
        return text
    return "".join(
        each
        if each.isprintable()
        else json.dumps(each)[1:-1].replace("\x7f", "\\u007f")
        for each in text
    )


def _written(value: Any) -> str:
    written = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return printable(written)


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_CELL else f"{text[: LONGEST_CELL - 1]}…"


def _shown(payload: bytes) -> str:
    more = "…" if len(payload) > LONGEST_PAYLOAD else ""
    return payload[:LONGEST_PAYLOAD].decode("utf-8", "backslashreplace") + more


def span(seconds: float) -> str:
    """
    A length of time, in the unit in which it is easiest to grasp.
    """
    seconds = min(seconds, LONGEST_SPAN)
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    whole = max(0, int(seconds))
    return f"{whole} second{'' if whole == 1 else 's'}"


def size(count: int) -> str:
    """
    A number of bytes.
    """
    for unit, length in (("MB", 1e6), ("kB", 1e3)):
        if count >= length:
            return f"{count / length:.1f} {unit}"
    return f"{count} B"
