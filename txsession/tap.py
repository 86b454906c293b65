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
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from importlib import import_module
from pathlib import Path
from secrets import token_hex
from traceback import extract_tb
from typing import Any, NoReturn
from urllib.parse import urlsplit

from attrs import field, frozen
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
from .service import SessionService
from .serving import GracefulSite, WebService
from .stores.url import storeFromURL

__all__ = ["Options", "makeService"]

SECRET = "TXSESSION_SECRET"
STORE = "TXSESSION_STORE"
LISTEN = "tcp:8080:interface=127.0.0.1"

_log = Logger()


# What can be said on the command line.


def _duration(text: str) -> float:
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhdw]?)", text.strip().lower())
    if found is None:
        raise usage.UsageError(
            "must be seconds, or a number with s, m, h, d or w behind it, as in 30m, "
            f"not {text!r}"
        )
    unit = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}[found[2]]
    return float(found[1]) * unit


def _durationOrOff(text: str) -> float | bool:
    return False if text == "off" else _duration(text)


def _number(text: str) -> int:
    if not re.fullmatch("[0-9]{1,18}", text):
        raise usage.UsageError(f"must be a whole number, not {text!r}")
    return int(text)


def _date(text: str) -> datetime:
    try:
        # Python 3.10 does not know the Z.
        return datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text))
    except ValueError:
        raise usage.UsageError(
            "must be a date with a time and its zone, as in 2030-01-01T00:00:00Z, "
            f"not {text!r}"
        ) from None


def _choice(choices: dict[str, Any]) -> Callable[[str], Any]:
    def choose(text: str) -> Any:
        if text not in choices:
            raise usage.UsageError(f"must be one of {', '.join(choices)}, not {text!r}")
        return choices[text]

    return choose


def _choices(*choices: str) -> Callable[[str], Any]:
    return _choice({choice: choice for choice in choices})


def _named(text: str) -> Any:
    return _Named.parse(text)


@frozen
class _Option:
    """
    An option of the command line.

    @ivar value: how its value is called in the help; empty for a flag.
    @ivar says: what it does.
    @ivar read: makes a value of the text.
    @ivar policy: what the option is called in C{SessionResource}, or, after
        C{cookie.}, in C{CookieOptions}.
    @ivar isFlagFor: what the policy becomes by a flag.
    """

    name: str
    value: str
    says: str
    read: Callable[[str], Any] = str
    policy: str = field(default="", kw_only=True)
    isFlagFor: bool = field(default=True, kw_only=True)


_Group = tuple[str, tuple[_Option, ...]]

_GROUPS: tuple[_Group, ...] = (
    (
        "What is served",
        (
            _Option(
                "app",
                "MODULE:NAME",
                "a Klein app, a resource, or a callable that makes one; found from "
                "the current directory (default: a page that shows a session)",
                _named,
                policy="wrapped",
            ),
            _Option(
                "listen",
                "ENDPOINT",
                "where, as a Twisted endpoint; can be given several times (default: "
                f"{LISTEN})",
            ),
            _Option(
                "grace-period",
                "DURATION",
                "how long requests have to end when the server stops (default: 10s)",
                _duration,
            ),
        ),
    ),
    (
        "Secrets and store",
        (
            _Option(
                "secret-file",
                "PATH",
                "a file with the secrets that sign the cookies, one a line, newest "
                f"first (default: the secret in {SECRET})",
                policy="secret",
            ),
            _Option(
                "create-secret",
                "",
                "make that file with a new secret, if it is missing",
            ),
            _Option(
                "store",
                "URL",
                "where the sessions are, as in sqlite:sessions.db (default: the URL "
                f"in {STORE}, or else memory:)",
                policy="store",
            ),
            _Option(
                "prune-interval",
                "DURATION|off",
                "how often expired sessions are deleted (default: about every 15m)",
                _durationOrOff,
            ),
            _Option(
                "prune-limit",
                "NUMBER",
                "how many are deleted at once (default: 1000)",
                _number,
            ),
            _Option(
                "store-timeout",
                "DURATION",
                "how long the store may take for an answer (default: 10s)",
                _duration,
                policy="storeTimeout",
            ),
            _Option(
                "store-down",
                "error|anonymous",
                "what is served while the store is down: an error, or the app "
                "without sessions (default: error)",
                policy="storeDown",
            ),
        ),
    ),
    (
        "Cookie",
        (
            _Option(
                "name",
                "NAME",
                "what it is called (default: connect.sid)",
                policy="name",
            ),
            _Option(
                "cookie-max-age",
                "DURATION",
                "how long a session lives after its last use (default: until the "
                "browser is closed)",
                _duration,
                policy="cookie.maxAge",
            ),
            _Option(
                "cookie-expires",
                "DATE",
                "when new sessions end, as in 2030-01-01T00:00:00Z",
                _date,
                policy="cookie.expires",
            ),
            _Option(
                "cookie-path",
                "PATH",
                "which part of the site has sessions (default: /)",
                policy="cookie.path",
            ),
            _Option(
                "cookie-domain",
                "DOMAIN",
                "which hosts it is sent to (default: this one)",
                policy="cookie.domain",
            ),
            _Option(
                "cookie-secure",
                "yes|no|auto",
                "whether it is sent over HTTPS only (default: auto, if it was set "
                "over HTTPS)",
                _choice({"yes": True, "no": False, "auto": "auto"}),
                policy="cookie.secure",
            ),
            _Option(
                "cookie-same-site",
                "lax|strict|none|auto|off",
                "whether other sites' requests bring it along (default: lax)",
                _choice(
                    {
                        "lax": "lax",
                        "strict": "strict",
                        "none": "none",
                        "auto": "auto",
                        "off": False,
                    }
                ),
                policy="cookie.sameSite",
            ),
            _Option(
                "cookie-priority",
                "low|medium|high",
                "which cookies a full browser keeps",
                policy="cookie.priority",
            ),
            _Option(
                "cookie-partitioned",
                "",
                "keep it apart for each top-level site",
                policy="cookie.partitioned",
            ),
            _Option(
                "no-cookie-http-only",
                "",
                "let scripts in the page read it",
                policy="cookie.httpOnly",
                isFlagFor=False,
            ),
            _Option(
                "cookie",
                "MODULE:NAME",
                "a CookieOptions, or a callable that is given the request and "
                "returns one, in place of the options above",
                _named,
                policy="cookie",
            ),
        ),
    ),
    (
        "Sessions",
        (
            _Option(
                "ttl",
                "DURATION",
                "how long sessions live whose cookie has no max-age (default: 24h)",
                _duration,
                policy="ttl",
            ),
            _Option(
                "absolute-timeout",
                "DURATION",
                "how long any session lives, however active (default: for ever)",
                _duration,
                policy="absoluteTimeout",
            ),
            _Option(
                "touch-interval",
                "DURATION",
                "how often an unmodified session's expiry is renewed; 0: by every "
                "request (default: a hundredth of its lifetime)",
                _duration,
                policy="touchInterval",
            ),
            _Option(
                "rolling", "", "renew the cookie with every response", policy="rolling"
            ),
            _Option(
                "resave", "", "save sessions that were not modified", policy="resave"
            ),
            _Option(
                "save-uninitialized",
                "",
                "save new sessions that hold nothing",
                policy="saveUninitialized",
            ),
            _Option(
                "unset",
                "keep|destroy",
                "what taking the session off its request does (default: keep)",
                policy="unset",
            ),
            _Option(
                "on-conflict",
                "merge|overwrite|error",
                "what happens when another request changed the session (default: "
                "merge)",
                policy="onConflict",
            ),
            _Option(
                "lazy", "", "load sessions when the app asks for that", policy="lazy"
            ),
            _Option(
                "genid",
                "MODULE:NAME",
                "a callable that is given the request and returns an ID",
                _named,
                policy="genid",
            ),
            _Option(
                "on-error",
                "MODULE:NAME",
                "a callable that answers a request whose session could not be loaded "
                "or saved",
                _named,
                policy="onError",
            ),
        ),
    ),
    (
        "HTTP and logs",
        (
            _Option(
                "proxy",
                "NETWORK|all",
                "whose X-Forwarded-Proto is believed, as in 10.0.0.0/8; can be given "
                "several times (default: nobody's)",
                policy="proxy",
            ),
            _Option(
                "no-cache-headers",
                "",
                "leave Vary and Cache-Control to the app",
                policy="cacheHeaders",
                isFlagFor=False,
            ),
            _Option(
                "access-log",
                "PATH|off",
                "a file for the requests, in Combined Log Format (default: they are "
                "in Twisted's log)",
            ),
            _Option(
                "log-format",
                "text|json",
                "how Twisted's log is written (default: as twistd or twist does)",
                _choices("text", "json"),
            ),
        ),
    ),
)

_OPTIONS = tuple(option for _, group in _GROUPS for option in group)
_MANY = ("listen", "proxy")


class Options(usage.Options):
    """
    The command line of C{twistd txsession}.

    Under C{twistd} or C{twist}, bad usage ends the process with one line; alone,
    it raises C{UsageError}.
    """

    synopsis = "[options]"
    optFlags = [[o.name, None, o.says] for o in _OPTIONS if not o.value]  # noqa: RUF012
    optParameters = [  # noqa: RUF012
        [o.name, None, None, o.says]
        for o in _OPTIONS
        if o.value and o.name not in _MANY
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
            options = [re.sub("^--[A-Za-z.]+", _dashed, each) for each in options]
        with _oneLine(self):
            super().parseOptions(options)  # type: ignore[no-untyped-call]

    def parseArgs(self, *arguments: str) -> None:
        if arguments:
            raise usage.UsageError(
                f"{arguments[0]!r} belongs to no option; the app is named by --app"
            )

    def postOptions(self) -> None:
        for option in _OPTIONS:
            if option.value and isinstance(self[option.name], str):
                with _naming(f"--{option.name}"):
                    self[option.name] = option.read(self[option.name])
        self._check()
        self._setLogFormat()

    def _check(self) -> None:
        if self["create-secret"] and self["secret-file"] is None:
            raise usage.UsageError("--create-secret: needs --secret-file PATH")
        if self["cookie"]:
            for option in _OPTIONS:
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
        return jsonFileLogObserver(LogFile.fromFullPath(name or "twistd.log"))

    def getUsage(self, width: int | None = None) -> str:
        """
        The help, by groups.
        """
        width = width or int(os.environ.get("COLUMNS", "80"))
        parts = [f"\n{title}:\n{_help(group, width)}" for title, group in _GROUPS]
        return "".join(parts) + "\n" + _wrapped(_EPILOGUE, "", width)


_OBSERVERS: dict[str, Callable[[Any], Any]] = {
    "json": jsonFileLogObserver,
    "text": textFileLogObserver,
}

_EPILOGUE = (
    "A duration is seconds, or a number with s, m, h, d or w behind it: 90, 30m, 14d. "
    "What is visible on a command line is visible to everybody on the machine: give a "
    f"store's URL that holds a password in {STORE}."
)


def _help(group: Iterable[_Option], width: int) -> str:
    return "".join(
        f"  --{option.name} {option.value}".rstrip()
        + "\n"
        + _wrapped(option.says, " " * 8, width)
        for option in group
    )


def _wrapped(text: str, indent: str, width: int) -> str:
    lines = textwrap.wrap(
        text,
        max(width - 1, 40),
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )
    return "".join(f"{line}\n" for line in lines)


def _dashed(name: re.Match[str] | str) -> str:
    """
    A name as it is written in code, as one of the command line.
    """
    text = name if isinstance(name, str) else name[0]
    return re.sub(r"\.|(?=[A-Z])", "-", text).lower()


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
    for each in _OPTIONS:
        if each.policy == option or each.name == _dashed(option):
            return f"--{each.name}"
    return option


# Things by name.


@frozen
class _Named:
    """
    Something in a module.
    """

    module: str
    name: str

    @classmethod
    def parse(cls, text: str) -> _Named:
        module, _, name = text.partition(":")
        parts = [*module.split("."), *name.split(".")]
        if not all(part.isidentifier() for part in parts):
            raise usage.UsageError(
                f"must be package.module:name, as in shop.web:app, not {text!r}"
            )
        return cls(module, name)

    def __str__(self) -> str:
        return f"{self.module}:{self.name}"

    def load(self) -> Any:
        """
        Import it, from the current directory or wherever Python looks.
        """
        here = str(Path.cwd())
        if here not in sys.path:
            sys.path.insert(0, here)
        try:
            thing: Any = import_module(self.module)
        except Exception as error:
            raise usage.UsageError(self._notImported(error, here)) from error
        for part in self.name.split("."):
            try:
                thing = getattr(thing, part)
            except AttributeError:
                raise usage.UsageError(f"{self.module} has no {self.name!r}") from None
        return thing

    def _notImported(self, error: Exception, here: str) -> str:
        missing = getattr(error, "name", None)
        if isinstance(error, ModuleNotFoundError) and (
            missing == self.module or self.module.startswith(f"{missing}.")
        ):
            return f"there is no module {missing!r}, neither in {here} nor elsewhere"
        return f"{self.module} could not be imported: {_described(error)}"


def _described(error: Exception) -> str:
    """
    An exception of the application, and where it comes from.
    """
    frames = extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    if isinstance(error, SyntaxError):
        # Which says itself where.
        place = ""
    return f"{type(error).__name__}: {error}{place}"


def _load(options: Options, option: str) -> Any:
    with _naming(f"--{option}"):
        return options[option].load()


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
    app = _load(options, "app")
    if isinstance(app, SessionResource):
        _log.warn(
            "{app} is a SessionResource, whose own options do not count here.  Name "
            "the app that it wraps.",
            app=str(options["app"]),
        )
    isMade = IResource.providedBy(app) or (
        callable(getattr(app, "resource", None)) and not isinstance(app, type)
    )
    if isMade or not callable(app):
        return app
    try:
        return app()
    except Exception as error:
        raise usage.UsageError(
            f"--app: {options['app']}() failed: {_described(error)}"
        ) from error


def _policy(options: Options) -> dict[str, Any]:
    """
    The keyword arguments of C{SessionResource} that were given.
    """
    policy: dict[str, Any] = {}
    cookie: dict[str, Any] = {}
    for option in _OPTIONS:
        if option.policy in ("", "wrapped", "secret", "store", "cookie", "proxy"):
            continue
        value = options[option.name]
        if not option.value:
            value = option.isFlagFor if value else None
        if isinstance(value, _Named):
            value = _load(options, option.name)
        if value is not None:
            group, _, name = option.policy.rpartition(".")
            (cookie if group else policy)[name] = value
    if options["cookie"]:
        policy["cookie"] = _load(options, "cookie")
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
        return bool(urlsplit(url).password)
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
        return [token_hex(32)]
    raise usage.UsageError(
        "there is no secret to sign cookies with: name a file by --secret-file PATH "
        f"(with --create-secret, it is made), or set {SECRET}"
    )


def _secretsIn(path: Path, create: bool) -> list[bytes]:
    try:
        if create:
            _createSecret(path)
        lines = path.read_bytes().splitlines()
        mode = path.stat().st_mode
    except OSError as error:
        hint = (
            "; --create-secret makes it" if isinstance(error, FileNotFoundError) else ""
        )
        raise usage.UsageError(f"{path}: {error.strerror}{hint}") from error
    if mode & stat.S_IRWXO:
        _log.warn(
            "Everybody on this machine may read the secrets in {path}; chmod 600 is "
            "better.",
            path=str(path),
        )
    return _secretsOf(path, [line.strip() for line in lines])


def _secretsOf(path: Path, lines: Sequence[bytes]) -> list[bytes]:
    for number, line in enumerate(lines, 1):
        # A comment must not become a secret, nor a secret a comment.
        if line.startswith(b"#") and line[1:2] not in (b"", b" "):
            raise usage.UsageError(
                f"{path}, line {number}: a secret cannot begin with #, and a comment "
                "needs a space after it"
            )
    secrets = [line for line in lines if line and not line.startswith(b"#")]
    if not secrets:
        raise usage.UsageError(f"{path} holds no secret; it takes one a line")
    return secrets


def _createSecret(path: Path) -> None:
    """
    Make a file with a secret that nobody else may read, unless it is there.
    """
    if path.exists():
        return
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(handle, "w") as file:
            file.write(f"{token_hex(32)}\n")
        # Whole or not at all: other processes may be starting, too.
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()


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
        except (CannotListenError, OSError) as error:
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
    from twisted.internet import reactor

    def handle(number: int, frame: object) -> None:
        reactor.callFromThread(heard)  # type: ignore[attr-defined]

    def restore(result: Any) -> Any:
        for number, handler in before.items():
            signal.signal(number, handler)
        return result

    before = {
        number: signal.signal(number, handle)
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    until.addBoth(restore)
