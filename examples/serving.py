"""
What the examples share: where their secret comes from, and a server on this
machine to try them on.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, ArgumentTypeError
from secrets import token_urlsafe

from twisted.internet.error import CannotListenError
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.web.resource import IResource
from twisted.web.server import Site

__all__ = ["serve", "sessionSecret"]

VARIABLE = "TXSESSION_SECRET"


def sessionSecret() -> str:
    """
    The secret in the environment, or one that lasts as long as this process.
    """
    return os.environ.get(VARIABLE) or token_urlsafe(32)


def serve(resource: IResource) -> None:
    """
    Serve a resource on this machine, at the port that the command line names,
    until Ctrl-C.
    """
    parser = ArgumentParser(description="Serve this example on 127.0.0.1.")
    parser.add_argument(
        "port",
        nargs="?",
        type=_portNumber,
        default=8080,
        help="8080 if it is left out; 0 takes any that is free",
    )
    arguments = parser.parse_args()

    from twisted.internet import reactor  # only here: importing it installs it

    globalLogBeginner.beginLoggingTo(
        [textFileLogObserver(sys.stderr)], redirectStandardIO=False
    )
    try:
        port = reactor.listenTCP(arguments.port, Site(resource), interface="127.0.0.1")
    except CannotListenError as error:
        parser.exit(1, f"{error}\nName another port, as in: 8081\n")
    if not os.environ.get(VARIABLE):
        print(f"{VARIABLE} is not set: a random secret signs the cookies this time.")
    print(
        f"Open http://127.0.0.1:{port.getHost().port}/ (Ctrl-C stops it).", flush=True
    )
    reactor.run()


def _portNumber(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise ArgumentTypeError(f"not a port number: {text!r}")
    return int(text)
