"""
Where the stores are that the command works on, and how they are made.

What is wrong with a place is raised as one of click's exceptions, without what its
URL holds.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import click
from attrs import field, frozen

from .errors import ConfigurationError
from .stores.url import storeFromURL

__all__ = ["STORE", "Place"]

STORE = "TXSESSION_STORE"
"""
The variable that holds the URL of the store, unless C{--store} does.
"""


@frozen
class Place:
    """
    Where a store is.

    @ivar name: what the command line calls it.
    @ivar url: its URL, or C{module:name}.
    """

    name: str
    url: str = field(repr=False)

    @classmethod
    def of(cls, name: str, text: str) -> Place:
        """
        @param text: what was given; C{env:NAME} is what that variable holds.
        """
        scheme, _, variable = text.partition(":")
        if scheme != "env":
            _warnOfPassword(name, text)
            return cls(name, text)
        url = os.environ.get(variable)
        if not url:
            raise click.ClickException(f"{name}: {variable or text} is not set")
        return cls(variable, url)

    @classmethod
    def ofOption(cls, store: str | None) -> Place:
        """
        The one that C{--store} names, or else the environment.
        """
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
            named = self._named()
            if named is not None:
                return named
            return storeFromURL(self.url if isMade else _asItIs(self.url))
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
        except (Exception, SystemExit) as error:
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
