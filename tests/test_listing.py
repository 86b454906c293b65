"""
What an administrator sees of sessions.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from txsession import Record
from txsession.listing import (
    Condition,
    Entry,
    asText,
    described,
    printable,
    size,
    span,
    table,
)
from txsession.signing import fingerprint

from .support import START

SID = "abcdefghijklmnopqrstuvwxyz012345"


def entry(*, sid: str = SID, expires: float = START + 7200, **data: Any) -> Entry:
    cookie = {"originalMaxAge": 3_600_000, "expires": None}
    payload = json.dumps({"cookie": cookie, **data}).encode()
    return Entry.of(sid, Record(payload, expires))


CORRUPT = Entry.of(SID, Record(b"\xff\x1b[2J{", START + 60))


def test_rowOfAList() -> None:
    """
    A list has a line for each session, whose columns stand below each other.
    """
    entries = [entry(user="ada"), entry(sid="short", expires=START + 90, n=[1])]
    lines = table(entries, START, reveal=False, keys=["user", "n"])
    assert list(lines) == [
        "FINGERPRINT  EXPIRES        SIZE  user  n",
        f"{fingerprint(SID)}   in 2 hours     71 B  ada   -",
        f"{fingerprint('short')}   in 90 seconds  66 B  -     [1]",
    ]


def test_revealedList() -> None:
    """
    With reveal, IDs are in place of the fingerprints.
    """
    heading, row = table([entry()], START, reveal=True, keys=[])
    assert (heading.split()[0], row.split()[0]) == ("ID", SID)


def test_corruptRecordIsInTheList() -> None:
    """
    A corrupt record is a line like the others, which says so.
    """
    _, line = table([CORRUPT], START, reveal=False, keys=["user"])
    assert line.endswith("  -     corrupt: the stored record is not JSON")


def test_narrowed() -> None:
    """
    What is kept of an entry for a list is shown as if all of it had been.
    """
    session = entry(user={"name": "ada"}, large="x" * 1000, nothing=None)
    keys = ["user.name", "nothing", "absent"]
    narrow = session.narrowed(keys)
    for each in (session, narrow):
        assert each.row(START, reveal=False, keys=keys)[3:] == ["ada", "null", "-"]
    assert "large" not in narrow.asWholeJSON(reveal=False)["data"]
    assert CORRUPT.narrowed(keys) == CORRUPT


def test_longValuesAreShortened() -> None:
    """
    What is too long for a column is cut.
    """
    _, line = table([entry(text="x" * 100)], START, reveal=False, keys=["text"])
    assert line.split()[-1] == "x" * 39 + "…"


def test_listForMachines() -> None:
    """
    A machine is told times as dates and as timestamps, values as they are, and the
    ID only with reveal.
    """
    session = entry(user={"name": "ada"})
    assert session.asJSON(reveal=True, keys=["user.name", "nothing"]) == {
        "id": SID,
        "fingerprint": fingerprint(SID),
        "expires": "2027-01-15T10:00:00.000Z",
        "expiresTimestamp": START + 7200,
        "size": len(session.record.payload),
        "keys": {"user.name": "ada", "nothing": None},
    }
    assert "id" not in session.asJSON(reveal=False)


def test_jsonOfWhatIsInfinite() -> None:
    """
    What is too large for a number is null, as it is to JavaScript: JSON has no word
    for it.
    """
    payload = b'{"cookie":{},"n":1e999,"list":[1,{"n":-1e999}],"t":"Infinity \\", NaN"}'
    session = Entry.of(SID, Record(payload, float("inf")))
    told = json.loads(
        asText(session.asWholeJSON(reveal=False)), parse_constant=pytest.fail
    )
    assert told["data"] == {
        "n": None,
        "list": [1, {"n": None}],
        "t": 'Infinity ", NaN',
    }
    assert told["expiresTimestamp"] is None


def test_jsonOfWhatIsDeep() -> None:
    """
    However deep arrays are nested, what can be read can be written.
    """
    payload = b'{"cookie":{},"n":' + b"[" * 600 + b"1e999" + b"]" * 600 + b"}"
    session = Entry.of(SID, Record(payload, START))
    assert asText(session.asWholeJSON(reveal=False)).count("[null]") == 1


def test_corruptRecordForMachines() -> None:
    """
    A machine is told what is wrong with a record, and what is in it.
    """
    told = CORRUPT.asWholeJSON(reveal=False)
    assert told["problem"] == "the stored record is not JSON"
    assert told["payload"] == "\\xff\x1b[2J{"
    assert "data" not in told


def test_wholeSessionForMachines() -> None:
    """
    A machine is told all that a session holds.
    """
    told = entry(user="ada", __txsession={"created": START * 1000}).asWholeJSON(
        reveal=False
    )
    assert (told["maxAge"], told["data"]) == (3600.0, {"user": "ada"})
    assert told["created"] == "2027-01-15T08:00:00.000Z"
    assert told["createdTimestamp"] == START


def test_description() -> None:
    """
    A description says how long a session lives, and what it holds.
    """
    session = entry(user="ada", __txsession={"created": (START - 300) * 1000})
    assert list(described(session, START, reveal=True)) == [
        f"id           {SID}",
        f"fingerprint  {fingerprint(SID)}",
        "expires      in 2 hours, 2027-01-15T10:00:00.000Z",
        f"size         {len(session.record.payload)} B",
        "created      5 minutes ago, 2027-01-15T07:55:00.000Z",
        "cookie       ends 60 minutes after each renewal",
        "data",
        "{",
        '  "user": "ada"',
        "}",
    ]


def test_descriptionOfABrowsersSession() -> None:
    """
    A cookie without a lifetime ends with the browser's session.
    """
    session = Entry.of(SID, Record(b'{"cookie":{"originalMaxAge":null}}', START + 60))
    lines = list(described(session, START, reveal=False))
    assert "cookie       ends with the browser's session" in lines
    assert not any(SID in line for line in lines)


def test_descriptionOfACorruptRecord() -> None:
    """
    The description of a corrupt record says so, and shows it harmlessly.
    """
    lines = list(described(CORRUPT, START, reveal=False))
    assert lines[3:] == [
        "corrupt      the stored record is not JSON",
        "payload      \\xff\\u001b[2J{",
    ]


def test_onlyTheBeginningOfACorruptRecordIsShown() -> None:
    """
    Of a long corrupt record, a part is shown.
    """
    told = Entry.of(SID, Record(b"x" * 10_000, START)).asWholeJSON(reveal=False)
    assert told["payload"] == "x" * 400 + "…"


@given(st.text())
def test_nothingShownIsACommandToATerminal(text: str) -> None:
    """
    Whatever is in a session or an ID, all that is shown can be printed, and as
    UTF-8.
    """
    session = entry(sid=text, key=text)
    lines = [
        *described(session, START, reveal=True),
        *table([session], START, reveal=True, keys=["key", text or "-"]),
    ]
    assert all(line.isprintable() for line in lines)
    "".join(lines).encode("utf-8")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Zoë 的 🍪", "Zoë 的 🍪"),
        ("\x1b[31m", "\\u001b[31m"),
        ("\x7f\x9b", "\\u007f\\u009b"),
        ("\u202e", "\\u202e"),
        ("\ud800", "\\ud800"),
        ("a\nb", "a\\nb"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    """
    What cannot be seen is escaped, and nothing else.
    """
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-5, "0 seconds"),
        (1.9, "1 second"),
        (119, "119 seconds"),
        (120, "2 minutes"),
        (7199, "119 minutes"),
        (7200, "2 hours"),
        (172_799, "47 hours"),
        (172_800, "2 days"),
        (31_536_000, "365 days"),
        (float("inf"), "1000000 days"),
    ],
)
def test_span(seconds: float, said: str) -> None:
    """
    Lengths of time are in the unit in which they are at least 2.
    """
    assert span(seconds) == said


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2e6, "2.0 MB")]
)
def test_size(count: int, said: str) -> None:
    """
    Sizes have a unit.
    """
    assert size(count) == said


# Conditions.


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("user=ada", True),
        ("user=Ada", False),
        ("user=", False),
        ("id=7", True),
        ("id=7.0", False),
        ("number=7", True),
        ("flag=true", True),
        ("flag=1", False),
        ("nothing=null", True),
        ("absent=null", False),
        ("passport.user=7", True),
        ("passport.user.x=7", False),
        ("a.b=c=d", True),
        ('list=["x"]', True),
        ("list=x", False),
        ("list=[", False),
    ],
)
def test_condition(text: str, holds: bool) -> None:
    """
    A value is compared as text, or as what the text means as JSON.
    """
    session = entry(
        user="ada",
        id=7,
        number="7",
        flag=True,
        nothing=None,
        passport={"user": 7},
        list=["x"],
        **{"a.b": "c=d"},
    )
    assert Condition.parse(text).holds(session) is holds


def test_corruptRecordHoldsNothing() -> None:
    """
    No condition holds of a corrupt record.
    """
    assert not Condition.parse("user=null").holds(CORRUPT)


@pytest.mark.parametrize("text", ["", "user", "=ada"])
def test_conditionThatIsNone(text: str) -> None:
    """
    A condition names a key and a value.
    """
    with pytest.raises(ValueError, match="KEY=VALUE"):
        Condition.parse(text)
