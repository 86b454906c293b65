"""
The plugin of C{twistd} and C{twist}: serves an application with sessions.

What is wrong with its command line is said in one line, and the process ends
with status 1.
"""

from __future__ import annotations

import os
import re
import signal
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from inspect import iscoroutine
from pathlib import Path
from shutil import get_terminal_size
from typing import Any, NoReturn
from urllib.parse import parse_qs, urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.logger import (
    ILogObserver,
    Logger,
    jsonFileLogObserver,
    textFileLogObserver,
)
from twisted.python import usage
from twisted.python.components import Componentized
from twisted.python.logfile import LogFile
from twisted.web.resource import IResource

from .cookies import CookieOptions
from .errors import ConfigurationError
from .lifetime import asSeconds
from .resource import SessionResource
from .secretfile import SecretFileError, ensureSecrets, newSecret, readSecrets
from .service import SessionService
from .serving import GracefulSite, WebService
from .stores.url import storeFromURL
from .tapoptions import (
    LISTEN,
    MANY,
    OPTIONS,
    SECRET,
    STORE,
    Named,
    dashed,
    described,
    usageText,
)

__all__ = ["Options", "makeService"]

_log = Logger()


# The command line.


class Options(usage.Options):
    """
    The command line of C{twistd txsession}.

    Under C{twistd} or C{twist}, bad usage ends the process with one line; alone,
    it raises C{UsageError}.
    """

    synopsis = "[options]"
    optFlags = [[o.name, None, o.says] for o in OPTIONS if not o.value]  # noqa: RUF012
    optParameters = [  # noqa: RUF012
        [o.name, None, None, o.says] for o in OPTIONS if o.value and o.name not in MANY
    ]
    compData = usage.Completions(
        optActions={
            "secret-file": usage.CompleteFiles(),
            "access-log": usage.CompleteFiles("*.log"),
        }
    )

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self["listen"] = []
        self["proxy"] = []

    def opt_listen(self, endpoint: str) -> None:
        """
        Where to serve.
        """
        self["listen"].append(endpoint)

    def opt_proxy(self, network: str) -> None:
        """
        Whose X-Forwarded-Proto to believe.
        """
        self["proxy"].append(network)

    def opt_version(self) -> NoReturn:
        """
        Show the version and exit.
        """
        from . import __version__

        print(f"txsession {__version__}")
        sys.exit(0)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """
        @param options: the arguments; their names may be those of
            C{SessionResource}, too, as C{--saveUninitialized}.
        """
        if options is not None:
            options = [re.sub("^--[A-Za-z.]+", dashed, each) for each in options]
        with _oneLine(self):
            # Or else it would count as the beginning of --secret-file.
            if any(re.match("--secret(=|$)", each) for each in options or ()):
                raise usage.UsageError(
                    "--secret: everybody on this machine can see command lines; name "
                    f"a file by --secret-file PATH, or set {SECRET}"
                )
            super().parseOptions(options)  # type: ignore[no-untyped-call]

    def parseArgs(self, *arguments: str) -> None:
        if arguments:
            raise usage.UsageError(
                f"{arguments[0]!r} belongs to no option; the app is named by --app"
            )

    def postOptions(self) -> None:
        for option in OPTIONS:
            if option.value and isinstance(self[option.name], str):
                with _naming(f"--{option.name}"):
                    self[option.name] = option.read(self[option.name])
        self._check()
        self._setLogFormat()

    def _check(self) -> None:
        if self["create-secret"] and self["secret-file"] is None:
            raise usage.UsageError("--create-secret: needs --secret-file PATH")
        if self["cookie"]:
            for option in OPTIONS:
                if option.policy.startswith("cookie.") and self[option.name]:
                    raise usage.UsageError(
                        f"--{option.name}: does not go together with --cookie"
                    )
        if len(self["proxy"]) > 1 and "all" in self["proxy"]:
            raise usage.UsageError("--proxy: all needs no other network beside it")

    def _setLogFormat(self) -> None:
        """
        Tell C{twist} of the format; C{twistd} asks the application.
        """
        parent: Any = self.parent
        if self["log-format"] is None or parent is None:
            return
        if parent.get("syslog"):
            raise usage.UsageError("--log-format: does not go together with --syslog")
        if "logFormat" in parent:
            parent["logFormat"] = self["log-format"]
            parent["fileLogObserverFactory"] = _OBSERVERS[self["log-format"]]

    def observer(self) -> Any:
        """
        What writes the log under C{twistd}, where it is not to be as C{twistd}
        does it.
        """
        parent: Any = self.parent
        if self["log-format"] != "json" or parent is None or "logfile" not in parent:
            return None
        name, isDaemon = parent["logfile"], not parent["nodaemon"]
        if name == "-" and isDaemon:
            # Which twistd refuses itself.
            return None
        if name == "-" or not (name or isDaemon):
            return jsonFileLogObserver(sys.stdout)
        file = LogFile.fromFullPath(name or "twistd.log")
        if signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL:
            # As twistd has it.
            signal.signal(signal.SIGUSR1, lambda *_: _fromSignal(file.rotate))
        return jsonFileLogObserver(file)

    def getUsage(self, width: int | None = None) -> str:
        """
        The help, by groups.
        """
        return usageText(width or get_terminal_size().columns)


_OBSERVERS: dict[str, Callable[[Any], Any]] = {
    "json": jsonFileLogObserver,
    "text": textFileLogObserver,
}


# What is wrong, in one line.


@contextmanager
def _oneLine(options: Options) -> Iterator[None]:
    """
    End the process when its command line is wrong.
    """
    try:
        with _inTermsOf(options):
            yield
    except usage.UsageError as error:
        line = " ".join(str(error).split())
        if line.endswith(" not recognized"):
            line += "; --help lists those that there are"
        if options.parent is None:
            raise usage.UsageError(line) from error
        raise SystemExit(f"txsession: {line}") from None


@contextmanager
def _naming(what: str) -> Iterator[None]:
    try:
        yield
    except usage.UsageError as error:
        raise usage.UsageError(f"{what}: {error}") from error


@contextmanager
def _inTermsOf(options: Options) -> Iterator[None]:
    """
    Speak of the options of the command line where those of the code are wrong.
    """
    try:
        yield
    except ConfigurationError as error:
        message = str(error).removeprefix(f"{error.option}: ")
        for said, meant in _TERMS:
            message = message.replace(said, meant)
        raise usage.UsageError(
            f"{_nameIn(options, error.option)}: {message}"
        ) from error


_TERMS = (
    ("cookie=CookieOptions(secure=True)", "--cookie-secure yes"),
    (
        'set secure=True or "auto", or another sameSite',
        "set --cookie-secure yes or auto",
    ),
    (
        'set secure=True or "auto", or partitioned=False',
        "set --cookie-secure yes or auto",
    ),
    ('path="/"', "the path /"),
    ("give maxAge or expires, not both", "does not go together with --cookie-max-age"),
    ("use maxAge", "use --cookie-max-age"),
    (
        "must have a time zone, as in datetime.now(timezone.utc)",
        "must have a time zone",
    ),
    (
        'list IP networks, as in ["10.0.0.0/8"]',
        "be an IP network, as 10.0.0.0/8, or all",
    ),
)


def _nameIn(options: Options, option: str) -> str:
    if option == "secret" and options["secret-file"] is None:
        return SECRET
    for each in OPTIONS:
        if each.policy == option or each.name == dashed(option):
            return f"--{each.name}"
    return option


def _load(options: Options, option: str) -> Any:
    with _naming(f"--{option}"):
        return options[option].load()


def _loadCallable(options: Options, option: str) -> Any:
    thing = _load(options, option)
    if not callable(thing) and not isinstance(thing, CookieOptions):
        raise _isNo("a callable", option, options[option], thing)
    return thing


def _isNo(what: str, option: str, where: object, thing: object) -> usage.UsageError:
    # Not what it is, which may be a secret, or long.
    return usage.UsageError(
        f"--{option}: must be {what}; {where} is of type {type(thing).__name__}"
    )


# The service.


def makeService(options: Options) -> WebService:
    """
    Make the service that the options describe.
    """
    with _oneLine(options):
        return _makeService(options)


def _makeService(options: Options) -> WebService:
    secrets = _secrets(options)
    store = _store(options)
    policy = _policy(options)
    resource = SessionResource(
        _app(options, policy), secret=secrets, store=store, **policy
    )
    service = _PluginService(
        _site(options, resource),
        *(options["listen"] or [LISTEN]),
        gracePeriod=10 if options["grace-period"] is None else options["grace-period"],
    )
    service.options = options
    SessionService(store, **_pruning(options)).setServiceParent(service)  # type: ignore[no-untyped-call]
    return service


def _site(options: Options, resource: SessionResource) -> GracefulSite:
    path = options["access-log"]
    if path == "off":
        site = GracefulSite(resource)
        site.log = lambda request: None  # type: ignore[method-assign]
        return site
    if path is not None:
        try:
            open(path, "a").close()
        except OSError as error:
            raise usage.UsageError(f"--access-log: {path}: {error.strerror}") from error
    return GracefulSite(resource, logPath=path)


def _app(options: Options, policy: dict[str, Any]) -> Any:
    if options["app"] is None:
        from .welcome import Welcome

        return Welcome(
            asSeconds(policy.get("ttl", 86400), "ttl"), policy.get("absoluteTimeout")
        )
    app, where = _load(options, "app"), str(options["app"])
    if isinstance(app, SessionResource):
        _log.warn(
            "{app} is a SessionResource, whose own options do not count here.  Name "
            "the app that it wraps.",
            app=where,
        )
    try:
        if callable(app) and not _isMade(app):
            where = f"{where}()"
            app = app()
        if iscoroutine(app):
            app.close()
        elif _isMade(app):
            return app if IResource.providedBy(app) else app.resource()
    except (Exception, SystemExit) as error:
        raise usage.UsageError(f"--app: {where} failed: {described(error)}") from error
    what = "an IResource, a Klein app or a callable that makes one"
    raise _isNo(what, "app", where, app)


def _isMade(app: Any) -> bool:
    return IResource.providedBy(app) or (
        callable(getattr(app, "resource", None)) and not isinstance(app, type)
    )


def _policy(options: Options) -> dict[str, Any]:
    """
    The keyword arguments of C{SessionResource} that were given.
    """
    policy: dict[str, Any] = {}
    cookie: dict[str, Any] = {}
    for option in OPTIONS:
        if option.policy in ("", "wrapped", "secret", "store", "cookie", "proxy"):
            continue
        value = options[option.name]
        if not option.value:
            value = option.isFlagFor if value else None
        if isinstance(value, Named):
            value = _loadCallable(options, option.name)
        if value is not None:
            group, _, name = option.policy.rpartition(".")
            (cookie if group else policy)[name] = value
    if options["cookie"]:
        policy["cookie"] = _loadCallable(options, "cookie")
    elif cookie:
        policy["cookie"] = CookieOptions(**cookie)
    if options["proxy"]:
        policy["proxy"] = options["proxy"] == ["all"] or options["proxy"]
    return policy


def _pruning(options: Options) -> dict[str, Any]:
    pruning: dict[str, Any] = {}
    interval = options["prune-interval"]
    if interval is not None:
        pruning["pruneInterval"] = None if interval is False else interval
    if options["prune-limit"] is not None:
        pruning["pruneLimit"] = options["prune-limit"]
    return pruning


def _store(options: Options) -> Any:
    url = options["store"]
    if url is None:
        url = os.environ.get(STORE)
    elif _hasPassword(url):
        _log.warn(
            "The password in --store is visible to everybody on this machine.  Give "
            "the URL in {variable}.",
            variable=STORE,
        )
    if not url and options["store"] is None:
        _log.info(
            "Sessions are kept in the memory of this process: they are lost when it "
            "ends, and no other process sees them.  --store is for more than that."
        )
        url = "memory:"
    try:
        return storeFromURL(url)
    except ConfigurationError as error:
        where = STORE if options["store"] is None else "--store"
        # The option of another name stands in the URL.
        what = str(error).removeprefix("store: ")
        raise usage.UsageError(f"{where}: {what}") from error


def _hasPassword(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.password) or "password" in parse_qs(parts.query)
    except ValueError:
        return False


# Secrets.


def _secrets(options: Options) -> list[Any]:
    if options["secret-file"] is not None:
        with _naming("--secret-file"):
            return _secretsIn(Path(options["secret-file"]), options["create-secret"])
    secret = os.environ.get(SECRET)
    if secret:
        return [secret]
    if options["app"] is None:
        _log.info(
            "No secret was given: a random one signs the cookies until this process "
            "ends."
        )
        return [newSecret()]
    raise usage.UsageError(
        "there is no secret to sign cookies with: name a file by --secret-file PATH "
        f"(with --create-secret, it is made), or set {SECRET}"
    )


def _secretsIn(path: Path, create: bool) -> list[bytes]:
    try:
        if create:
            ensureSecrets(path)
        secrets = readSecrets(path)
        mode = path.stat().st_mode
    except SecretFileError as error:
        raise usage.UsageError(str(error)) from error
    except OSError as error:
        isMissing = isinstance(error, FileNotFoundError) and not create
        hint = "; --create-secret makes it" if isMissing else ""
        raise usage.UsageError(f"{path}: {error.strerror}{hint}") from error
    if mode & stat.S_IRWXO:
        _log.warn(
            "Everybody on this machine may read the secrets in {path}; chmod 600 is "
            "better.",
            path=str(path),
        )
    return secrets


# What a plugin has to do beside serving.


class _PluginService(WebService):
    """
    Serves, and minds the process that it is in.
    """

    options: Options

    def setServiceParent(self, parent: Any) -> None:
        """
        Become part of the application, whose log is written as the options say.
        """
        observer = self.options.observer()
        if observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, observer)
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]

    def privilegedStartService(self) -> None:
        with self._orExit():
            super().privilegedStartService()

    def startService(self) -> None:
        with self._orExit():
            super().startService()

    def stopService(self) -> Deferred[None]:
        """
        Stop; another signal to stop ends the grace period.
        """
        stopping = super().stopService()
        if self.options.parent is not None:
            _hearSignals(self._signalled, until=stopping)
        return stopping

    def _signalled(self) -> None:
        _log.warn("Told to stop once more: what still runs is cut off.")
        self.hurry()

    @contextmanager
    def _orExit(self) -> Iterator[None]:
        """
        End a process in the foreground if it cannot listen.  That of a daemon
        has twistd tell the one that started it.
        """
        try:
            yield
        except (CannotListenError, OSError, OverflowError) as error:
            parent = self.options.parent
            if parent is None or not parent.get("nodaemon", True):
                raise
            if parent.get("pidfile"):
                # twistd itself does so for exceptions, but shows a traceback.
                with suppress(OSError):
                    os.unlink(parent["pidfile"])
            # By now sys.stderr may be the log.
            print(f"txsession: --listen: {error}", file=sys.__stderr__, flush=True)
            raise SystemExit(1) from None


def _hearSignals(heard: Callable[[], None], until: Deferred[None]) -> None:
    def restore(result: Any) -> Any:
        for number, handler in before.items():
            signal.signal(number, handler)
        return result

    before = {
        number: signal.signal(number, lambda *_: _fromSignal(heard))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    until.addBoth(restore)


def _fromSignal(function: Callable[[], Any]) -> None:
    from twisted.internet import reactor

    reactor.callFromThread(function)  # type: ignore[attr-defined]
