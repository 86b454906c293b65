"""
`txsession.storeFromURL`.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from twisted.internet.task import Clock

from txsession import ConfigurationError, MemoryStore, Record, storeFromURL


def test_memory() -> None:
    """
    "memory:" is a MemoryStore, on the given clock.
    """
    clock = Clock()
    store = storeFromURL("memory:", reactor=clock)
    assert isinstance(store, MemoryStore)
    store.set("a", Record(b"{}", 5.0))
    clock.advance(6)
    assert store.get("a").result is None


def test_memoryWithALimit() -> None:
    """
    "memory:?maxSessions=1" holds one session.
    """
    store = storeFromURL("memory:?maxSessions=1", reactor=Clock())
    store.set("a", Record(b"{}", 5.0))
    store.set("b", Record(b"{}", 6.0))
    assert list(store.all().result) == ["b"]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nosuch://ada:passw0rd@host/", "'nosuch:'; there is memory:"),
        ("sessions.db", "is not a URL, as sqlite:sessions.db is; there is memory:, "),
        ("memory://host", "neither host nor path"),
        ("memory:sessions", "neither host nor path"),
        ("memory:?size=3", "no option 'size'"),
        ("memory:?maxSessions=many", "whole number"),
        ("memory:?maxSessions=0", "above zero"),
        ("memory://[", "is not a URL"),
        ("redis://ada:passw0rd\u2100@host", "is not a URL"),
        (b"redis://ada:passw0rd@host", "must be a str, not bytes"),
        ("memory:?maxSessions=" + "9" * 5000, "whole number"),
        (None, "must be a str"),
    ],
)
def test_errorsSayWhatIsWrongAndHideTheRest(url: Any, message: str) -> None:
    """
    A URL that describes no store is refused, without repeating what may be a
    password.
    """
    with pytest.raises(ConfigurationError) as caught:
        storeFromURL(url)
    assert message in str(caught.value)
    assert "passw0rd" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


# The others.


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """
    With what the stores that need a driver were made, instead of making them.
    """
    calls: list[tuple[Any, ...]] = []

    def recording(name: str) -> Any:
        return lambda *arguments, **options: calls.append((name, *arguments, options))

    for module, name in (
        ("sqlite", "SQLiteStore"),
        ("postgresql", "PostgreSQLStore"),
        ("redis", "RedisStore"),
    ):
        path = f"txsession.stores.{module}.{name}"
        monkeypatch.setattr(path, recording(name))
    return calls


@pytest.mark.parametrize(
    ("url", "name", "argument", "options"),
    [
        ("sqlite:sessions.db", "SQLiteStore", "sessions.db", {}),
        ("sqlite:/var/lib/a.db", "SQLiteStore", "/var/lib/a.db", {}),
        ("sqlite:///var/lib/a.db", "SQLiteStore", "/var/lib/a.db", {}),
        ("SQLITE:My%20Files/%C3%BC+1.db", "SQLiteStore", "My Files/ü+1.db", {}),
        (
            "sqlite:a.db?durable=false&timeout=2.5&readers=4",
            "SQLiteStore",
            "a.db",
            {"durable": False, "timeout": 2.5, "readers": 4},
        ),
        ("sqlite:a.db?durable=true", "SQLiteStore", "a.db", {"durable": True}),
        (
            "postgresql://ada:a%40b@host:5433/db",
            "PostgreSQLStore",
            "postgresql://ada:a%40b@host:5433/db",
            {},
        ),
        ("postgres://host/db", "PostgreSQLStore", "postgres://host/db", {}),
        (
            "postgresql:///db?host=/run/postgresql&table=my%20session&schema=a%26b"
            "&options=-c%20timezone%3DUTC+1&createTable=false&connections=3"
            "&timeout=10&sslmode=require",
            "PostgreSQLStore",
            "postgresql:///db?host=/run/postgresql"
            "&options=-c%20timezone%3DUTC+1&sslmode=require",
            {
                "table": "my session",
                "schema": "a&b",
                "createTable": False,
                "connections": 3,
                "timeout": 10.0,
            },
        ),
        ("redis://host", "RedisStore", "redis://host", {}),
        (
            "redis://ada:a%2Fb@[::1]:6380/3?prefix=shop%3A+&connections=2&timeout=0.5",
            "RedisStore",
            "redis://ada:a%2Fb@[::1]:6380/3",
            {"prefix": "shop:+", "connections": 2, "timeout": 0.5},
        ),
        (
            "rediss://host?caFile=/etc/ca.pem&prefix=",
            "RedisStore",
            "rediss://host?caFile=/etc/ca.pem",
            {"prefix": ""},
        ),
        (
            "redis+unix:///run/redis.sock?database=2&timeout=1",
            "RedisStore",
            "redis+unix:///run/redis.sock?database=2",
            {"timeout": 1.0},
        ),
        (
            "redis+sentinel://a:1,b:2/main/0?sentinelPassword=x%26&prefix=p",
            "RedisStore",
            "redis+sentinel://a:1,b:2/main/0?sentinelPassword=x%26",
            {"prefix": "p"},
        ),
    ],
)
def test_whatTheURLSays(
    made: list[Any], url: str, name: str, argument: str, options: dict[str, Any]
) -> None:
    """
    Each scheme makes its store, with the options in the query; what else is there
    reaches the driver as it was written.
    """
    clock = Clock()
    storeFromURL(url, reactor=clock)
    assert made == [(name, argument, {**options, "reactor": clock})]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:a.db", "<SQLiteStore a.db>"),
        (
            "postgresql://ada:passw0rd@host/db?table=t&schema=s",
            "<PostgreSQLStore s.t of db on host>",
        ),
        (
            "postgresql:///?password=passw0rd",
            "<PostgreSQLStore session of the default database on the default host>",
        ),
        ("redis://ada:passw0rd@host/3", "<RedisStore sess:* on host:6379/3>"),
        ("redis://:passw0rd@host", "<RedisStore sess:* on host:6379/0>"),
        ("redis://@", "<RedisStore sess:* on localhost:6379/0>"),
        ("rediss://:passw0rd@host:1?prefix=p", "<RedisStore p* on host:1/0>"),
        (
            "redis+unix://:passw0rd@/run/a%20b?database=1",
            "<RedisStore sess:* on /run/a b/1>",
        ),
        (
            "redis+sentinel://ada:passw0rd@a,b:2/main/4?sentinelPassword=passw0rd",
            "<RedisStore sess:* on a:26379,b:2/main/4>",
        ),
    ],
)
def test_storesShowWhereButNotHow(url: str, shown: str) -> None:
    """
    The repr of a store says where it is, and nothing of credentials; nor does that
    of anything in it.
    """
    store = storeFromURL(url)
    assert repr(store) == shown
    assert "passw0rd" not in str([repr(part) for part in _within(store)])


def _within(store: Any) -> list[Any]:
    """
    What logs may be told of: not the parameters that a driver is given.
    """
    parts = [value for name, value in vars(store).items() if name != "_parameters"]
    link = getattr(store, "_link", None)
    if link is not None:
        parts += [link.address, link.address.endpoint(1)]
    return parts


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite:", "sqlite:sessions.db"),
        ("sqlite://sessions.db", "with one slash"),
        ("sqlite:a.db?mode=ro", "no option 'mode'"),
        ("sqlite:a.db?durable=yes", "durable: must be true or false"),
        ("sqlite:a.db?timeout=soon", "timeout: must be a number of seconds"),
        ("sqlite:a.db?timeout=0", "timeout"),
        ("sqlite:a.db?readers=1.5", "readers: must be a whole number"),
        ("sqlite:%00", "not the name of a file"),
        ("sqlite::memory:", "use MemoryStore"),
        ("postgresql://ada:passw0rd@host:port/", "port"),
        ("postgresql://ada:passw0rd@host:65536/", "port"),
        ("postgresql://ada:x@passw0rd@host/", "%40"),
        ("postgresql://ada:passw0rd@host/?createTable=maybe", "createTable"),
        ("postgresql://ada:passw0rd@host/?connections=0", "connections"),
        ("postgresql://ada:passw0rd@host/?nosuch=option", "connection string"),
        ("postgresql://ada:12#passw0rd@host/", "%23"),
        ("redis://ada:passw0rd@host:port", "a port that is not a number"),
        ("redis://ada:passw0rd@host:65536", "a port above 65535: 65536"),
        ("redis://ada:passw0rd@a,b", "redis+sentinel:// takes several"),
        ("redis://ada:passw0rd@host/x", "a number for the database, not 'x'"),
        ("redis://ada:passw0rd@host/-1", "a number for the database"),
        ("redis://ada:passw0rd@host?nosuch=1", "not known: 'nosuch'"),
        ("redis://ada:passw0rd@host?caFile=/ca.pem", "not known: 'caFile'"),
        ("redis://ada:12/passw0rd@host/0", "%2F"),
        ("redis://ada:12?passw0rd@host/0", "%3F"),
        ("redis://ada:12#passw0rd@host/0", "%23"),
        ("redis://ada:passw0rd@ho[st", "is not a URL"),
        ("redis+unix://run/redis.sock", "three slashes"),
        ("redis+unix:redis.sock", "three slashes"),
        ("redis+sentinel://ada:passw0rd@a,b", "name the master"),
        ("redis+sentinel://ada:passw0rd@a:x/main", "a port that is not a number"),
        ("redis+sentinel://a/main/one", "a number for the database"),
        ("redis://host?connections=0", "connections"),
        ("redis://host?timeout=-1", "timeout"),
        ("redis:///" + "9" * 5000, "a number for the database"),
    ],
)
def test_errorsOfEachStore(url: str, message: str) -> None:
    """
    What a URL says that its store cannot be made of is told, and the rest is not.
    """
    with pytest.raises(ConfigurationError) as caught:
        storeFromURL(url)
    assert message in str(caught.value)
    error: Any = caught.value
    while error is not None:
        assert "passw0rd" not in f"{error} {error!r}"
        error = error.__cause__ or (
            None if error.__suppress_context__ else error.__context__
        )


@pytest.mark.parametrize(
    ("url", "module", "driver", "remedy"),
    [
        ("sqlite:a.db", "sqlite", "sqlite3", "build Python with it"),
        (
            "postgresql://ada:passw0rd@host/",
            "postgresql",
            "psycopg",
            "pip install 'txsession[postgresql]'",
        ),
        (
            "redis://ada:passw0rd@host/",
            "redis",
            "txredisapi",
            "pip install 'txsession[redis]'",
        ),
    ],
)
def test_aMissingDriver(
    monkeypatch: pytest.MonkeyPatch, url: str, module: str, driver: str, remedy: str
) -> None:
    """
    Where a store's driver is not installed, the error says which extra to install.
    """
    monkeypatch.delitem(sys.modules, f"txsession.stores.{module}", raising=False)
    monkeypatch.setitem(sys.modules, driver, None)
    with pytest.raises(ConfigurationError) as caught:
        storeFromURL(url)
    assert f"needs {driver}, which cannot be imported" in str(caught.value)
    assert str(caught.value).endswith(remedy)
    assert "passw0rd" not in str(caught.value)


def test_noDriverIsImportedUntilItIsNeeded() -> None:
    """
    Importing storeFromURL, and making a MemoryStore with it, imports no driver and
    installs no reactor.
    """
    program = (
        "import sys; from txsession.stores.url import storeFromURL; "
        "storeFromURL('memory:'); "
        "print([m for m in ('sqlite3', 'psycopg', 'txredisapi', 'klein', "
        "'twisted.internet.reactor') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("module", "driver", "extra"),
    [("redis", "txredisapi", "redis"), ("postgresql", "psycopg", "postgresql")],
)
def test_modulesOfStoresNameTheirExtra(module: str, driver: str, extra: str) -> None:
    """
    Who imports a store without its driver is told what to install.
    """
    code = (
        f"import sys; sys.modules[{driver!r}] = None; import txsession.stores.{module}"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"pip install 'txsession[{extra}]'" in done.stderr.splitlines()[-1]
