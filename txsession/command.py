"""
The command C{txsession}: sessions as an administrator needs them.

What goes wrong is said in one line, and the process ends with status 1; after a
signal, with 128 and the signal's number.  Neither IDs nor what a store's URL holds
is in what is said.  The reactor is imported when a store is needed, and not before.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click
from attrs import asdict, define
from twisted.internet.task import deferLater
from twisted.logger import Logger

from . import __version__
from .backend import Backend
from .copying import Copying, recordsOf
from .document import TOMBSTONE
from .errors import SessionError
from .listing import Condition, Entry, asText, described, printable, table
from .places import STORE, Place
from .running import Signalled, runReactor, started
from .secretfile import SecretFileError, createSecrets, newSecret, rotateSecrets
from .signing import fingerprint
from .store import resultOf

__all__ = ["cli", "main"]

T = TypeVar("T")

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

UNREAD = 141
"""
The status of a process whose output nobody reads: that of one which has died of
SIGPIPE, a signal that not all systems have.
"""

_log = Logger()


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Carry out a command line.

    @param arguments: by default, those of the process.
    @return: the status that the process ends with.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    _openWhatIsClosed()
    _expectAnything(sys.stdout, sys.stderr)
    try:
        status = _carryOut(given)
        with _unwritten():
            sys.stdout.flush()
    except _Unwritten as error:
        return error.end()
    except KeyboardInterrupt:
        return _interrupted()
    return status


def _carryOut(arguments: list[str]) -> int:
    output = sys.stdout
    try:
        status = cli.main(arguments, prog_name="txsession", standalone_mode=False)
    except click.UsageError as error:
        return _complain(_usage(error, arguments))
    except click.ClickException as error:
        return _complain(error.format_message())
    except click.Abort as error:
        return _aborted(error)
    except Signalled as error:
        return _signalled(error.number, error.progress)
    except _Unwritten:
        raise
    except SystemExit as error:
        # Click's, which has put a quiet stream in place of one that nobody reads; or
        # that of a store.
        if sys.stdout is not output:
            return UNREAD
        return _complain(f"SystemExit: {error}")
    except (SessionError, SecretFileError) as error:
        return _complain(str(error))
    except Exception as error:
        # A store's, whose authors may see the rest in their tests.
        return _complain(f"{type(error).__name__}: {error}")
    return status if isinstance(status, int) else 0


def _openWhatIsClosed() -> None:
    """
    A stream that is closed has nothing to read, and nobody who reads.  (A file would
    otherwise be opened in its place, and be written to.)
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115


def _expectAnything(*streams: Any) -> None:
    """
    What a stream's encoding does not know is escaped.
    """
    for stream in streams:
        with suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")


# What goes wrong.


def _complain(problem: str) -> int:
    with suppress(OSError):
        click.echo(f"txsession: {printable(' '.join(problem.split()))}", err=True)
    return 1


def _signalled(number: int, progress: str = "") -> int:
    _complain(f"interrupted: {progress}" if progress else "interrupted")
    return 128 + number


def _interrupted() -> int:
    # By Ctrl-C, perhaps because nobody reads what is still to be written.
    _writeNoMore()
    return _signalled(signal.SIGINT)


def _aborted(error: click.Abort) -> int:
    if error.__cause__ is None:
        # It was at a question, behind which nothing has been written.
        click.echo(err=True)
    if isinstance(error.__context__, KeyboardInterrupt):
        return _interrupted()
    return _complain("nothing was done")


def _writeNoMore() -> None:
    # Python flushes it once more at its end.
    with suppress(OSError, ValueError):  # it is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Unwritten(Exception):
    """
    The output could not be written.
    """

    def end(self) -> int:
        """
        Say so; but not if just nobody reads it, as behind C{| head}.
        """
        _writeNoMore()
        if isinstance(self.__cause__, BrokenPipeError):
            return UNREAD
        return _complain(f"the output could not be written: {self}")


@contextmanager
def _unwritten() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # Click would deal with some of these by itself.
        raise _Unwritten(error.strerror) from error


def _usage(error: click.UsageError, arguments: Sequence[str]) -> str:
    message = error.format_message()
    for argument in arguments:
        for said in {argument, argument.partition("=")[2]}:
            # It may be an ID or a URL that is in the wrong place.
            if len(said) >= 8 and not re.fullmatch("--[a-z]+", said):
                message = message.replace(said, "...")
                message = message.replace(repr(said)[1:-1], "...")
    context = error.ctx
    path = "txsession" if context is None else context.command_path
    if isinstance(error, click.NoSuchOption) and path.endswith(("show", "destroy")):
        message = f"{message.rstrip('.')}; an ID that begins with - goes behind --"
    message = message.rstrip(".")
    return f"{message}{' See' if message.endswith('?') else '; see'} {path} --help"


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
    with _unwritten():
        sys.stdout.write(f"{line}\n")


def _sayJSON(document: Any) -> None:
    _say(asText(document))


def _counted(count: int, kind: str = "session") -> str:
    return f"{count} {kind}" if count == 1 else f"{count} {kind}s"


# Stores.


def _placeOf(store: str | None) -> Place:
    """
    The one that C{--store} names, here or before the command, or else the
    environment.
    """
    return Place.ofOption(
        store or click.get_current_context().find_object(_Common).store  # type: ignore[union-attr]
    )


def _need(store: Any, method: str, command: str, protocol: str, place: Place) -> None:
    if not callable(getattr(store, method, None)):
        raise click.ClickException(
            f"{command}: the store of {place.name} cannot do that: it has no "
            f"{method}() (see {protocol})"
        )


_needAll = partial(_need, method="all", protocol="EnumerableStore")


def _reactor() -> Any:
    from twisted.internet import reactor

    return reactor


def _backend(store: Any) -> Backend:
    return Backend(store=store, log=_log, reactor=_reactor, timeout=TIMEOUT)


def _now() -> float:
    now: float = _reactor().seconds()
    return now


def _withStore(store: Any, work: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
    """
    Do something with a store, and wait until that is done.
    """

    async def whole() -> T:
        async with started(store):
            return await work(store)

    return runReactor(whole)


# The command line.


_EPILOGUE = """\b
Examples:
  export TXSESSION_STORE=sqlite:sessions.db
  txsession list --key user
  txsession destroy --where user=ada
  txsession copy sqlite:sessions.db redis://127.0.0.1

COMMAND --help tells more of each. The store is a URL that storeFromURL knows; or
module:name, a store of your own or a callable that makes one, found from the current
directory; or env:NAME, what that variable holds. What is visible on a command line is
visible to everybody on the machine.
"""


@click.group(
    invoke_without_command=True,
    epilog=_EPILOGUE,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 88},
)
@_storeOption
@_jsonOption
@click.version_option(__version__, message="txsession %(version)s")
@click.pass_context
def cli(context: click.Context, store: str | None, asJSON: bool) -> None:
    """
    Look after the sessions in a store of txsession.
    """
    context.obj = _Common(store, asJSON)
    if context.invoked_subcommand is None:
        commands = ", ".join(sorted(cli.commands))
        raise click.UsageError(f"What is to be done? There is {commands}.", context)


@cli.command(
    name="list",
    epilog="\b\nExample:\n  txsession list --store sqlite:sessions.db --key user",
)
@_storeOption
@_whereOption
@click.option(
    "--key",
    "keys",
    metavar="KEY",
    multiple=True,
    help="Show what sessions hold under this key, as in user or cart.owner. Can be "
    "given several times.",
)
@_revealOption
@_jsonOption
def list_(
    store: str | None,
    conditions: list[Condition],
    keys: tuple[str, ...],
    reveal: bool,
    asJSON: bool,
) -> None:
    """
    List the sessions, those that expire first at the top.

    IDs are shown as fingerprints, as they are in the logs. All other commands take
    these in place of IDs.
    """
    place = _placeOf(store)

    async def find(store: Any) -> tuple[list[Entry], float]:
        _needAll(store, command="list", place=place)
        found = await _found(store, conditions)
        return [entry.narrowed(keys) for entry in found], _now()

    entries, now = _withStore(place.store(), find)
    if _isJSON(asJSON):
        _sayJSONLines(entry.asJSON(reveal=reveal, keys=keys) for entry in entries)
        return
    if entries:
        for line in table(entries, now, reveal=reveal, keys=keys):
            _say(line)
    _say(_counted(len(entries)))


async def _found(store: Any, conditions: Sequence[Condition]) -> Iterator[Entry]:
    """
    The sessions of which all this holds, taken apart one after the other: a store
    may have many.
    """
    records = sorted(
        (await recordsOf(store)).items(), key=lambda item: (item[1].expires, item[0])
    )
    entries = (Entry.of(sid, record) for sid, record in records)
    return (each for each in entries if all(c.holds(each) for c in conditions))


def _sayJSONLines(documents: Iterable[Any]) -> None:
    """
    Write one array, with a line for each of its elements.
    """
    lines = ",\n".join(map(asText, documents))
    _say(f"[{lines}]")


@cli.command(
    epilog="\b\nExample:\n  txsession show --store sqlite:sessions.db 1f0c6a7d2b"
)
@click.argument("session", metavar="ID-OR-FINGERPRINT")
@_storeOption
@_revealOption
@_jsonOption
def show(session: str, store: str | None, reveal: bool, asJSON: bool) -> None:
    """
    Show what a session holds, and how long it lives.

    With - in place of the ID, that is read from standard input, so that it is on no
    command line.
    """
    place = _placeOf(store)
    [session] = _givenSessions([session], "show", only=1)

    async def find(store: Any) -> tuple[Entry, float]:
        found = await _Lookup(store, "show", place).entry(session)
        if found is None:
            raise click.ClickException(f"show: {_missing(session)}")
        return found, _now()

    entry, now = _withStore(place.store(), find)
    if _isJSON(asJSON):
        _sayJSON(entry.asWholeJSON(reveal=reveal))
        return
    for line in described(entry, now, reveal=reveal):
        _say(line)


def _givenSessions(
    sessions: Sequence[str], command: str, only: int | None = None
) -> list[str]:
    """
    What was given on the command line, or on standard input in its place.
    """
    if list(sessions) != ["-"]:
        return list(sessions)
    # With the mark that a file of Windows may begin with.
    text = sys.stdin.read().removeprefix("\ufeff")
    given = [line.strip() for line in text.split("\n") if line.strip()]
    if not given or (only is not None and len(given) != only):
        wanted = "an ID on each line" if only is None else "one ID"
        raise click.ClickException(f"{command}: standard input must hold {wanted}")
    return given


def _asFingerprint(session: str) -> str:
    isOne = re.fullmatch("[0-9a-f]{10}", session)
    return session if isOne else fingerprint(session)


def _missing(session: str) -> str:
    return f"there is no session {_asFingerprint(session)}"


@define(eq=False)
class _Lookup:
    """
    Finds sessions by their IDs or fingerprints.
    """

    store: Any
    command: str
    place: Place
    _all: dict[str, list[str]] | None = None

    async def sid(self, session: str) -> str | None:
        """
        The ID of a session, or L{None} if there is no such session.
        """
        entry = await self.entry(session)
        return None if entry is None else entry.sid

    async def entry(self, session: str) -> Entry | None:
        """
        The session, or L{None} if there is no such session.
        """
        entry = await self._withID(session)
        if entry is not None or _asFingerprint(session) != session:
            return entry
        sid = await self._withFingerprint(session)
        return None if sid is None else await self._withID(sid)

    async def _withID(self, sid: str) -> Entry | None:
        record = await _backend(self.store).ask("get", sid)
        if record is None or record.payload == TOMBSTONE:
            return None
        return Entry.of(sid, record)

    async def _withFingerprint(self, session: str) -> str | None:
        if self._all is None:
            _needAll(self.store, command=self.command, place=self.place)
            self._all = {}
            for sid in await recordsOf(self.store):
                self._all.setdefault(fingerprint(sid), []).append(sid)
        found = self._all.get(session, [])
        if len(found) > 1:
            raise click.ClickException(
                f"{self.command}: {len(found)} sessions have the fingerprint "
                f"{session}; give the ID (list --reveal tells it)"
            )
        return found[0] if found else None


@cli.command(
    epilog="\b\nExamples:\n  txsession destroy 1f0c6a7d2b\n"
    "  txsession destroy --where user=ada"
)
@click.argument("sessions", metavar="[ID-OR-FINGERPRINT]...", nargs=-1)
@_storeOption
@_whereOption
@_jsonOption
def destroy(
    sessions: tuple[str, ...],
    store: str | None,
    conditions: list[Condition],
    asJSON: bool,
) -> None:
    """
    Destroy sessions: whoever has one is logged out.

    Give IDs, fingerprints, or - to read them from standard input, one a line; or
    --where, to log somebody out everywhere. (What list --where lists is what destroy
    --where destroys.)
    """
    place = _placeOf(store)
    if bool(sessions) == bool(conditions):
        raise click.UsageError("Name sessions, or say --where, and not both.")
    given = _givenSessions(sessions, "destroy")

    async def run(store: Any) -> tuple[list[str], list[str]]:
        if conditions:
            _needAll(store, command="destroy", place=place)
            sids = [entry.sid for entry in await _found(store, conditions)]
            return await _destroyed(store, sids), []
        lookup = _Lookup(store, "destroy", place)
        found = {session: await lookup.sid(session) for session in given}
        sids = [sid for sid in found.values() if sid is not None]
        missing = [session for session, sid in found.items() if sid is None]
        return await _destroyed(store, list(dict.fromkeys(sids))), missing

    destroyed, missing = _withStore(place.store(), run)
    if _isJSON(asJSON):
        unknown = [_asFingerprint(session) for session in missing]
        _sayJSON({"destroyed": destroyed, "missing": unknown})
    else:
        _say(f"destroyed {_counted(len(destroyed))}")
    if missing:
        raise click.ClickException("destroy: " + "; ".join(map(_missing, missing)))


async def _destroyed(store: Any, sids: list[str]) -> list[str]:
    backend = _backend(store)
    for sid in sids:
        await backend.ask("destroy", sid)
    return [fingerprint(sid) for sid in sids]


@cli.command(epilog="\b\nExample:\n  txsession prune --store sqlite:sessions.db")
@_storeOption
@_jsonOption
def prune(store: str | None, asJSON: bool) -> None:
    """
    Delete what is left of expired sessions.

    A server does so by itself, too, from time to time.
    """
    place = _placeOf(store)

    async def run(store: Any) -> int:
        _need(store, "prune", "prune", "PrunableStore", place)
        total = 0
        while True:
            pruned: int = await resultOf(store.prune(PRUNE_LIMIT))
            total += pruned
            if pruned < PRUNE_LIMIT:
                return total
            # A store that answers at once must not keep Ctrl-C from being heard.
            await deferLater(_reactor(), 0)

    pruned = _withStore(place.store(), run)
    if _isJSON(asJSON):
        _sayJSON({"pruned": pruned})
    else:
        _say(f"deleted {_counted(pruned, 'expired session')}")


def _confirm(question: str) -> None:
    # Not click's, which in some versions writes a blank to the standard output.
    click.echo(f"{question} [y/N]: ", nl=False, err=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise click.Abort


@cli.command(epilog="\b\nExample:\n  txsession clear --store sqlite:sessions.db")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_storeOption
@_jsonOption
def clear(yes: bool, store: str | None, asJSON: bool) -> None:
    """
    Forget every session: everybody is logged out. It asks before it does.
    """
    place = _placeOf(store)
    made = place.store()
    if not yes:
        _confirm(f"Forget every session in {printable(repr(made))}?")

    async def run(store: Any) -> int:
        _need(store, "clear", "clear", "EnumerableStore", place)
        count: int = await resultOf(store.length())
        await resultOf(store.clear())
        return count

    cleared = _withStore(made, run)
    if _isJSON(asJSON):
        _sayJSON({"cleared": cleared})
    else:
        _say(f"forgot {_counted(cleared)}")


@cli.command(
    epilog="\b\nExamples:\n  txsession copy sqlite:sessions.db redis://127.0.0.1\n"
    "  txsession copy env:OLD_STORE env:NEW_STORE --overwrite --delete"
)
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option(
    "--overwrite",
    is_flag=True,
    help="Where a session has other data in TO, write that of FROM over it.",
)
@click.option(
    "--delete",
    is_flag=True,
    help="At the end, delete the sessions in TO that are not in FROM.",
)
@_jsonOption
def copy(source: str, target: str, overwrite: bool, delete: bool, asJSON: bool) -> None:
    """
    Copy every session from one store to another.

    It can be broken off, by Ctrl-C for instance, and begun again: what is there
    already is skipped. A session that has other data in TO keeps it, as TO may be in
    use; one that ends later in FROM will do so in TO as well.

    To move an application, copy while it runs, which may take its time; then stop it
    and copy with --overwrite --delete, for what was changed or destroyed meanwhile;
    then start it on TO. Do not copy again from then on: that would bring back the
    sessions of those who have logged out.
    """
    places = Place.of("FROM", source), Place.of("TO", target)
    transfer = _Transfer(*places, overwrite, delete, _isJSON(asJSON))
    transfer.run()


@define(eq=False)
class _Transfer:
    """
    One run of C{copy}.
    """

    source: Place
    target: Place
    overwrites: bool
    deletes: bool
    isJSON: bool
    _copying: Any = None
    _bar: Any = None
    _signal: int | None = None
    _named: int = 0

    def run(self) -> None:
        """
        Copy, and say how that went.
        """
        try:
            runReactor(self._work, self._stop)
        except SessionError as error:
            if self._bar is None:
                raise click.ClickException(f"{self.source.name}: {error}") from error
            self._report()
            raise click.ClickException(
                f"{self.target.name}: {error}; {self._progress()}"
            ) from error
        finally:
            if self._bar is not None:
                self._bar.close()
        self._report()
        if self._signal is not None:
            raise Signalled(self._signal, self._progress())
        if self._copying.counts.failed:
            failed = _counted(self._copying.counts.failed)
            raise click.ClickException(f"copy: {failed} could not be copied")

    async def _work(self) -> None:
        source, target = self.source.store(), self.target.store(isMade=True)
        _needAll(source, command="copy", place=self.source)
        if self.deletes:
            _needAll(target, command="copy --delete", place=self.target)
        async with started(source, target):
            self._copying = Copying(
                _backend(source),
                _backend(target),
                _now,
                overwrites=self.overwrites,
                deletes=self.deletes,
                began=self._began,
                advanced=self._advanced,
                failed=self._failed,
            )
            if self._signal is None:
                await self._copying.run()

    def _stop(self, number: int) -> None:
        self._signal = number
        if self._copying is not None:
            self._copying.stop()

    def _began(self, total: int) -> None:
        from tqdm import tqdm

        self._bar = tqdm(
            total=total,
            unit=" sessions",
            file=sys.stderr,
            disable=None,  # where it is no terminal
            **_dimensions(sys.stderr),
        )

    def _advanced(self) -> None:
        self._bar.update()

    def _failed(self, session: str, error: Exception) -> None:
        self._named += 1
        if self._named <= SHOWN_FAILURES:
            self._bar.clear()
            _complain(f"copy: session {session}: {_withoutContext(error)}")

    def _report(self) -> None:
        counts = self._copying.counts
        if self.isJSON:
            _sayJSON({**asdict(counts), "interrupted": self._signal is not None})
            return
        _say(
            f"copied {counts.copied}, skipped {counts.skipped}, failed {counts.failed}"
        )
        for count, meaning in (
            (counts.overwritten, "of the copied had other data in TO"),
            (counts.renewed, "of the skipped live longer now"),
            (counts.different, "of the skipped kept other data in TO (--overwrite)"),
            (counts.deleted, "deleted that were only in TO"),
        ):
            if count:
                _say(f"  {count} {meaning}")

    def _progress(self) -> str:
        counts = self._copying.counts
        return (
            f"{counts.done} of {_counted(counts.total)} are dealt with; the same "
            "command goes on from there"
        )


def _dimensions(stream: Any) -> dict[str, Any]:
    """
    Those of a terminal that does not know them itself.
    """
    try:
        isKnown = 0 not in os.get_terminal_size(stream.fileno())
    except OSError:
        isKnown = True
    return {} if isKnown else {"ncols": 80, "nrows": 24}


def _withoutContext(error: Exception) -> str:
    # An operation and a session that the line names already.
    message = error.args[0] if isinstance(error, SessionError) and error.args else error
    return str(message)


@cli.command(
    epilog="\b\nExamples:\n  txsession secret --create secrets\n"
    "  txsession secret --rotate secrets --keep 2"
)
@click.option(
    "--create",
    "created",
    metavar="PATH",
    help="Make a file with a new secret, which nobody else may read.",
)
@click.option(
    "--rotate",
    "rotated",
    metavar="PATH",
    help="Put a new secret into the first line of such a file; the others remain.",
)
@click.option(
    "--keep",
    metavar="NUMBER",
    type=click.IntRange(min=1),
    help="With --rotate: leave only this many secrets in the file, the newest.",
)
@_jsonOption
def secret(
    created: str | None, rotated: str | None, keep: int | None, asJSON: bool
) -> None:
    """
    Make a new secret to sign cookies with.

    It is printed, or put into a file, which is one for --secret-file of twistd
    txsession: a secret on each line, the newest first. Such a file is never
    overwritten: what was in it remains, unless --keep says otherwise.
    """
    if created is not None and rotated is not None:
        raise click.UsageError("--create and --rotate do not go together.")
    if keep is not None and rotated is None:
        raise click.UsageError("--keep needs --rotate.")
    if created is not None:
        _tellOfFile(created, createSecrets(Path(created)), _isJSON(asJSON))
    elif rotated is not None:
        _tellOfFile(rotated, rotateSecrets(Path(rotated), keep), _isJSON(asJSON))
    elif _isJSON(asJSON):
        _sayJSON({"secret": newSecret()})
    else:
        _say(newSecret())


def _tellOfFile(name: str, count: int, isJSON: bool) -> None:
    if isJSON:
        _sayJSON({"file": name, "secrets": count})
    else:
        _say(f"{name} begins with a new secret and holds {count}")
