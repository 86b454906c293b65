"""
The command C{txsession}: sessions as an administrator needs them.

What goes wrong is said in one line, and the process ends with status 1; after a
signal, with 128 and the signal's number.  Neither IDs nor what a store's URL holds
is in what is said.  The reactor is imported when a store is needed, and not before.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from inspect import isawaitable
from pathlib import Path
from secrets import token_hex
from typing import Any, NoReturn, TypeVar
from urllib.parse import unquote, urlsplit

import click
from attrs import asdict, define, field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger, globalLogBeginner
from twisted.python.failure import Failure

from . import __version__
from .backend import Backend
from .copying import Copying, Counts, recordsOf
from .errors import ConfigurationError, SessionError
from .listing import Condition, Entry, described, printable, table
from .service import SessionService
from .signing import fingerprint
from .stores.url import storeFromURL

__all__ = ["cli", "main"]

T = TypeVar("T")

STORE = "TXSESSION_STORE"

TIMEOUT = 10
"""
Seconds that a store may take for an answer about one session.
"""

PRUNE_LIMIT = 1000
"""
How many expired records are deleted at once.
"""

SHOWN_FAILURES = 10
"""
How many of the sessions that could not be copied are named.
"""

_log = Logger()


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Carry out a command line.

    @param arguments: by default, those of the process.
    @return: the status that the process ends with.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    _expectAnything(sys.stdout, sys.stderr)
    try:
        status = cli.main(given, prog_name="txsession", standalone_mode=False)
        sys.stdout.flush()
    except click.UsageError as error:
        return _complain(_usage(error, given))
    except click.ClickException as error:
        return _complain(error.format_message())
    except click.Abort as error:
        return _aborted(error)
    except KeyboardInterrupt:
        return _signalled(signal.SIGINT)
    except _Signalled as error:
        return _signalled(error.number)
    except BrokenPipeError:
        return _unread()
    except SessionError as error:
        return _complain(str(error))
    except Exception as error:
        # A store's, whose authors may see the rest in their tests.
        return _complain(f"{type(error).__name__}: {error}")
    return status if isinstance(status, int) else 0


def _expectAnything(*streams: Any) -> None:
    """
    What a stream's encoding does not know is escaped.
    """
    for stream in streams:
        with suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")


# What goes wrong.


class _Signalled(Exception):
    """
    The process was told to end.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _complain(problem: str) -> int:
    with suppress(BrokenPipeError):
        click.echo(f"txsession: {printable(' '.join(problem.split()))}", err=True)
    return 1


def _signalled(number: int) -> int:
    _complain("interrupted")
    return 128 + number


def _aborted(error: click.Abort) -> int:
    if isinstance(error.__context__, KeyboardInterrupt):
        return _signalled(signal.SIGINT)
    return _complain("nothing was done")


def _unread() -> int:
    """
    Nobody reads what is written, as behind C{| head}.
    """
    # Python flushes it once more at its end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE


def _usage(error: click.UsageError, arguments: Sequence[str]) -> str:
    message = error.format_message()
    for argument in arguments:
        for said in {argument, argument.partition("=")[2]}:
            # It may be an ID or a URL that is in the wrong place.
            if len(said) >= 8 and not re.fullmatch("--[a-z]+", said):
                message = message.replace(said, "...")
    context = error.ctx
    path = "txsession" if context is None else context.command_path
    if isinstance(error, click.NoSuchOption) and path.endswith(("show", "destroy")):
        message += " An ID that begins with - goes behind --."
    return f"{message} {path} --help tells more."


# What all commands have in common.


@define
class _Common:
    """
    Options that may stand before the command as well.
    """

    store: str | None = None
    asJSON: bool = False


def _storeOption(command: Any) -> Any:
    return click.option(
        "--store",
        metavar="URL",
        help="Where the sessions are, as in sqlite:sessions.db. By default what "
        f"{STORE} holds, which nobody else sees.",
    )(command)


def _jsonOption(command: Any) -> Any:
    return click.option(
        "--json", "asJSON", is_flag=True, help="Write JSON, for machines."
    )(command)


_revealOption = click.option(
    "--reveal",
    is_flag=True,
    help="Write IDs, which are as good as passwords, and not only fingerprints.",
)

_whereOption = click.option(
    "--where",
    "conditions",
    metavar="KEY=VALUE",
    multiple=True,
    callback=lambda context, option, texts: [_condition(text) for text in texts],
    help="Only sessions that hold this, as in user=ada or cart.owner=7. Can be given "
    "several times: then all of it.",
)


def _condition(text: str) -> Condition:
    try:
        return Condition.parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--where") from None


def _isJSON(asJSON: bool) -> bool:
    """
    Whether C{--json} was given, here or before the command.
    """
    return asJSON or bool(click.get_current_context().find_object(_Common).asJSON)  # type: ignore[union-attr]


def _say(line: str) -> None:
    click.echo(line)


def _sayJSON(document: Any) -> None:
    # In ASCII, so that no encoding and no terminal minds.
    click.echo(json.dumps(document))


def _counted(count: int, kind: str = "session") -> str:
    return f"{count} {kind}" if count == 1 else f"{count} {kind}s"


# Stores.


@frozen
class _Place:
    """
    Where a store is.

    @ivar name: what the command line calls it.
    @ivar url: its URL, or C{module:name}.
    """

    name: str
    url: str = field(repr=False)

    @classmethod
    def of(cls, name: str, text: str) -> _Place:
        """
        @param text: what was given; C{env:NAME} is what that variable holds.
        """
        scheme, _, variable = text.partition(":")
        if scheme != "env":
            _warnOfPassword(name, text)
            return cls(name, text)
        url = os.environ.get(variable)
        if not url:
            raise click.ClickException(f"{name}: {variable} is not set")
        return cls(variable, url)

    @classmethod
    def ofOption(cls, store: str | None) -> _Place:
        """
        The one that C{--store} names, here or before the command, or else the
        environment.
        """
        store = store or click.get_current_context().find_object(_Common).store  # type: ignore[union-attr]
        if store:
            return cls.of("--store", store)
        if not os.environ.get(STORE):
            raise click.UsageError(
                f"Which store? Name it by --store URL, or in {STORE}."
            )
        return cls.of("--store", f"env:{STORE}")

    def store(self, *, isMade: bool = False) -> Any:
        """
        Make the store.

        @param isMade: whether its file or table is made if it is missing.
        """
        try:
            return self._named() or storeFromURL(
                self.url if isMade else _asItIs(self.url)
            )
        except ConfigurationError as error:
            problem = str(error).removeprefix("store: ")
            raise click.ClickException(f"{self.name}: {problem}") from error

    def _named(self) -> Any:
        """
        A store of the administrator's own, by its place in a module.
        """
        if not re.fullmatch(r"[^\W\d][\w.]*:[^\W\d]\w*", self.url):
            return None
        module, _, name = self.url.partition(":")
        if not _isModule(module):
            return None
        try:
            thing = getattr(import_module(module), name)
            return thing() if _isMaker(thing) else thing
        except Exception as error:
            raise click.ClickException(
                f"{self.name}: {self.url} could not be made: "
                f"{type(error).__name__}: {error}"
            ) from error


_SCHEMES = ("memory", "sqlite", "postgresql", "postgres", "redis", "rediss")


def _isModule(name: str) -> bool:
    if name in _SCHEMES:
        return False
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _isMaker(thing: Any) -> bool:
    return callable(thing) and (isinstance(thing, type) or not hasattr(thing, "get"))


def _asItIs(url: str) -> str:
    """
    The URL of a store whose file or table is not made if it is missing.

    @raise ConfigurationError: the file is missing.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    if parts.scheme == "sqlite" and parts.path and not parts.netloc:
        path = unquote(parts.path)
        if not Path(path).exists():
            raise ConfigurationError(f"there is no file {path}", option="store")
    if parts.scheme in ("postgresql", "postgres") and "createTable=" not in url:
        return f"{url}{'&' if '?' in url else '?'}createTable=false"
    return url


def _warnOfPassword(name: str, url: str) -> None:
    with suppress(ValueError):
        if urlsplit(url).password:
            click.echo(
                f"txsession: warning: the password in {name} is visible to everybody "
                f"on this machine; put the URL into {STORE}, or into a variable that "
                "env:NAME names",
                err=True,
            )


def _need(store: Any, method: str, command: str, protocol: str, place: _Place) -> None:
    if not callable(getattr(store, method, None)):
        raise click.ClickException(
            f"{command}: the store of {place.name} cannot do that: it has no "
            f"{method}() (see {protocol})"
        )


_needAll = partial(_need, method="all", protocol="EnumerableStore")


async def _resultOf(answer: Any) -> Any:
    return await answer if isawaitable(answer) else answer


# The reactor.


@asynccontextmanager
async def _started(*stores: Any) -> AsyncIterator[None]:
    """
    Have stores started, and stopped, as an application does.
    """
    services = [SessionService(store, pruneInterval=None) for store in stores]
    for service in services:
        service.startService()
    try:
        yield
    finally:
        for service in services:
            await service.stopService()


def _backend(store: Any) -> Backend:
    from twisted.internet import reactor

    return Backend(store=store, log=_log, reactor=lambda: reactor, timeout=TIMEOUT)


def _now() -> float:
    from twisted.internet import reactor

    now: float = reactor.seconds()  # type: ignore[attr-defined]
    return now


def _withStore(place: _Place, work: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
    """
    Do something with a store, and wait until that is done.
    """

    async def run() -> T:
        store = place.store()
        async with _started(store):
            return await work(store)

    return _run(run)


def _run(
    work: Callable[[], Coroutine[Any, Any, T]], stop: Callable[[], None] | None = None
) -> T:
    """
    Run the reactor until something is done.

    @param stop: what a signal's handler calls to have it end soon; by default it is
        broken off.  A second signal ends the process.
    @raise _Signalled: there was a signal.
    """
    return _Run(work, stop).result()  # type: ignore[no-any-return]


@define(eq=False)
class _Run:
    """
    The one run of the reactor of this process.
    """

    work: Callable[[], Coroutine[Any, Any, Any]]
    stop: Callable[[], None] | None
    _working: Any = None
    _outcome: Any = None
    _signal: int | None = None

    def result(self) -> Any:
        from twisted.internet.task import react

        # Otherwise what is critical is written to stderr.
        globalLogBeginner.beginLoggingTo([], redirectStandardIO=False)
        with suppress(SystemExit):
            react(self._main)
        if self._signal is not None:
            raise _Signalled(self._signal)
        if isinstance(self._outcome, Failure):
            self._outcome.raiseException()
        return self._outcome

    def _main(self, reactor: Any) -> Deferred[None]:
        ended: Deferred[None] = Deferred()
        # Before that, the reactor would put handlers of its own in place of ours.
        reactor.callWhenRunning(self._begin, reactor, ended)
        return ended

    def _begin(self, reactor: Any, ended: Deferred[None]) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, partial(self._heard, reactor))
        self._working = Deferred.fromCoroutine(self.work())
        self._working.addBoth(self._ended, ended)

    def _heard(self, reactor: Any, number: int, frame: object) -> None:
        self._signal = number
        # Once more, and the process ends as if there were no handler.
        signal.signal(number, signal.SIG_DFL)
        if self.stop is None:
            reactor.callFromThread(self._cancel)
        else:
            self.stop()

    def _cancel(self) -> None:
        self._working.cancel()

    def _ended(self, outcome: Any, ended: Deferred[None]) -> None:
        self._outcome = outcome
        if isinstance(outcome, Failure) and outcome.check(CancelledError) is None:
            # The cause of a broken pipe, say, is for main() to see.
            outcome.cleanFailure()
        ended.callback(None)
