"""
What can be said on the command line of the plugin: one table of all options, how
their values are read, and how the help shows them.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Callable
from datetime import datetime
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from traceback import extract_tb
from typing import Any

from attrs import field, frozen
from twisted.python.usage import UsageError

__all__ = [
    "GROUPS",
    "LISTEN",
    "MANY",
    "OPTIONS",
    "SECRET",
    "STORE",
    "Named",
    "Option",
    "dashed",
    "described",
    "usageText",
]

SECRET = "TXSESSION_SECRET"
STORE = "TXSESSION_STORE"
LISTEN = "tcp:8080:interface=127.0.0.1"


# Things by name.


@frozen
class Named:
    """
    Something in a module.
    """

    module: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Named:
        module, _, name = text.partition(":")
        parts = [*module.split("."), *name.split(".")]
        if not all(part.isidentifier() for part in parts):
            raise UsageError(
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
            module = import_module(self.module)
        except (Exception, SystemExit) as error:
            raise UsageError(self._notImported(error, here)) from error
        try:
            return attrgetter(self.name)(module)
        except AttributeError:
            raise UsageError(f"{self.module} has no {self.name!r}") from None
        except Exception as error:
            raise UsageError(f"{self} failed: {described(error)}") from error

    def _notImported(self, error: BaseException, here: str) -> str:
        missing = getattr(error, "name", None)
        if isinstance(error, ModuleNotFoundError) and (
            missing == self.module or self.module.startswith(f"{missing}.")
        ):
            isFile = self.module.endswith(".py")
            hint = f"; write {self.module[:-3]}:{self.name}" if isFile else ""
            return (
                f"there is no module {missing!r}, neither in {here} nor elsewhere{hint}"
            )
        return f"{self.module} could not be imported: {described(error)}"


def described(error: BaseException) -> str:
    """
    An exception of the application, and where it comes from.
    """
    theirs = [
        each
        for each in extract_tb(error.__traceback__)
        if OURS not in Path(each.filename).parents and each.filename[:1] != "<"
    ]
    place = ""
    if theirs and not isinstance(error, SyntaxError):  # which says itself where
        place = f" ({theirs[-1].filename}, line {theirs[-1].lineno})"
    return f"{type(error).__name__}: {error}{place}"


OURS = Path(__file__).parent


# Values.


def _duration(text: str) -> float:
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhdw]?)", text.strip().lower())
    if found is None:
        raise UsageError(
            "must be seconds, or a number with s, m, h, d or w behind it, as in 30m, "
            f"not {text!r}"
        )
    unit = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}[found[2]]
    return float(found[1]) * unit


def _durationOrOff(text: str) -> float | bool:
    return False if text == "off" else _duration(text)


def _path(text: str) -> str:
    if not text:
        raise UsageError("must name a file")
    return text


def _number(text: str) -> int:
    if not re.fullmatch("[0-9]{1,18}", text):
        raise UsageError(f"must be a whole number, not {text!r}")
    return int(text)


def _date(text: str) -> datetime:
    try:
        # Python 3.10 does not know the Z.
        return datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text))
    except ValueError:
        raise UsageError(
            "must be a date with a time and its zone, as in 2030-01-01T00:00:00Z, "
            f"not {text!r}"
        ) from None


def _choice(choices: dict[str, Any]) -> Callable[[str], Any]:
    def choose(text: str) -> Any:
        for name, choice in choices.items():
            if text.lower() == name.lower():
                return choice
        raise UsageError(f"must be one of {', '.join(choices)}, not {text!r}")

    return choose


def _choices(*choices: str) -> Callable[[str], Any]:
    return _choice({choice: choice for choice in choices})


@frozen
class Option:
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


_Group = tuple[str, tuple[Option, ...]]

GROUPS: tuple[_Group, ...] = (
    (
        "What is served",
        (
            Option(
                "app",
                "MODULE:NAME",
                "a Klein app, a resource, or a callable that makes one; found from "
                "the current directory (default: a page that shows a session)",
                Named.parse,
                policy="wrapped",
            ),
            Option(
                "listen",
                "ENDPOINT",
                "where, as a Twisted endpoint; can be given several times (default: "
                f"{LISTEN})",
            ),
            Option(
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
            Option(
                "secret-file",
                "PATH",
                "a file with the secrets that sign the cookies, one a line, newest "
                f"first (default: the secret in {SECRET})",
                _path,
                policy="secret",
            ),
            Option(
                "create-secret",
                "",
                "make that file with a new secret, if it is missing",
            ),
            Option(
                "store",
                "URL",
                "where the sessions are, as in sqlite:sessions.db (default: the URL "
                f"in {STORE}, or else memory:)",
                policy="store",
            ),
            Option(
                "prune-interval",
                "DURATION|off",
                "how often expired sessions are deleted (default: about every 15m)",
                _durationOrOff,
            ),
            Option(
                "prune-limit",
                "NUMBER",
                "how many are deleted at once (default: 1000)",
                _number,
            ),
            Option(
                "store-timeout",
                "DURATION",
                "how long the store may take for an answer (default: 10s)",
                _duration,
                policy="storeTimeout",
            ),
            Option(
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
            Option(
                "name",
                "NAME",
                "what it is called (default: connect.sid)",
                policy="name",
            ),
            Option(
                "cookie-max-age",
                "DURATION",
                "how long a session lives after its last use (default: until the "
                "browser is closed)",
                _duration,
                policy="cookie.maxAge",
            ),
            Option(
                "cookie-expires",
                "DATE",
                "when new sessions end, as in 2030-01-01T00:00:00Z",
                _date,
                policy="cookie.expires",
            ),
            Option(
                "cookie-path",
                "PATH",
                "which part of the site has sessions (default: /)",
                policy="cookie.path",
            ),
            Option(
                "cookie-domain",
                "DOMAIN",
                "which hosts it is sent to (default: this one)",
                policy="cookie.domain",
            ),
            Option(
                "cookie-secure",
                "yes|no|auto",
                "whether it is sent over HTTPS only (default: auto, if it was set "
                "over HTTPS)",
                _choice({"yes": True, "no": False, "auto": "auto"}),
                policy="cookie.secure",
            ),
            Option(
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
            Option(
                "cookie-priority",
                "low|medium|high",
                "which cookies a full browser keeps",
                policy="cookie.priority",
            ),
            Option(
                "cookie-partitioned",
                "",
                "keep it apart for each top-level site",
                policy="cookie.partitioned",
            ),
            Option(
                "no-cookie-http-only",
                "",
                "let scripts in the page read it",
                policy="cookie.httpOnly",
                isFlagFor=False,
            ),
            Option(
                "cookie",
                "MODULE:NAME",
                "a CookieOptions, or a callable that is given the request and "
                "returns one, in place of the options above",
                Named.parse,
                policy="cookie",
            ),
        ),
    ),
    (
        "Sessions",
        (
            Option(
                "ttl",
                "DURATION",
                "how long sessions live whose cookie has no max-age (default: 24h)",
                _duration,
                policy="ttl",
            ),
            Option(
                "absolute-timeout",
                "DURATION",
                "how long any session lives, however active (default: for ever)",
                _duration,
                policy="absoluteTimeout",
            ),
            Option(
                "touch-interval",
                "DURATION",
                "how often an unmodified session's expiry is renewed; 0: by every "
                "request (default: a hundredth of its lifetime)",
                _duration,
                policy="touchInterval",
            ),
            Option(
                "rolling", "", "renew the cookie with every response", policy="rolling"
            ),
            Option(
                "resave", "", "save sessions that were not modified", policy="resave"
            ),
            Option(
                "save-uninitialized",
                "",
                "save new sessions that hold nothing",
                policy="saveUninitialized",
            ),
            Option(
                "unset",
                "keep|destroy",
                "what taking the session off its request does (default: keep)",
                policy="unset",
            ),
            Option(
                "on-conflict",
                "merge|overwrite|error",
                "what happens when another request changed the session (default: "
                "merge)",
                policy="onConflict",
            ),
            Option(
                "lazy", "", "load sessions when the app asks for that", policy="lazy"
            ),
            Option(
                "genid",
                "MODULE:NAME",
                "a callable that is given the request and returns an ID",
                Named.parse,
                policy="genid",
            ),
            Option(
                "on-error",
                "MODULE:NAME",
                "a callable that answers a request whose session could not be loaded "
                "or saved",
                Named.parse,
                policy="onError",
            ),
        ),
    ),
    (
        "HTTP and logs",
        (
            Option(
                "proxy",
                "NETWORK|all",
                "whose X-Forwarded-Proto is believed, as in 10.0.0.0/8; can be given "
                "several times (default: nobody's)",
                policy="proxy",
            ),
            Option(
                "no-cache-headers",
                "",
                "leave Vary and Cache-Control to the app",
                policy="cacheHeaders",
                isFlagFor=False,
            ),
            Option(
                "access-log",
                "PATH|off",
                "a file for the requests, in Combined Log Format (default: they are "
                "in Twisted's log)",
                _path,
            ),
            Option(
                "log-format",
                "text|json",
                "how Twisted's log is written (default: as twistd or twist does)",
                _choices("text", "json"),
            ),
        ),
    ),
)

OPTIONS = tuple(option for _, group in GROUPS for option in group)
MANY = ("listen", "proxy")


# The help.


_EPILOGUE = (
    "A duration is seconds, or a number with s, m, h, d or w behind it: 90, 30m, 14d. "
    "What is visible on a command line is visible to everybody on the machine: give a "
    f"store's URL that holds a password in {STORE}."
)


def usageText(width: int) -> str:
    """
    The help, by groups.
    """
    parts = [f"\n{title}:\n{_help(group, width)}" for title, group in GROUPS]
    return "".join(parts) + "\n" + _wrapped(_EPILOGUE, "", width)


def _help(group: tuple[Option, ...], width: int) -> str:
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


def dashed(name: re.Match[str] | str) -> str:
    """
    A name as it is written in code, as one of the command line.
    """
    text = name if isinstance(name, str) else name[0]
    return re.sub(r"\.|(?=[A-Z])", "-", text).lower()
