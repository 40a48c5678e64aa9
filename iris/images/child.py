"""One decode process as the front sees it: start it, ask it, end it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import iris
from iris.images import wire

_SOURCE: Final = str(Path(iris.__file__).resolve().parent.parent)
_START_TIMEOUT_S: Final = 60.0
_READ_BYTES: Final = 1024 * 1024
# A decode process gets no more of the environment than it needs to start: not the database's URL.
_PASSED_ON: Final = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "TZ")


class ChildDied(Exception):
    """The process ended, or answered nonsense, before it gave its result.

    began: it had the whole file by then, so the file may be the cause.
    """

    def __init__(self, *, began: bool) -> None:
        super().__init__("the decode process ended early")
        self.began = began


@dataclass(frozen=True, slots=True)
class Limits:
    """What one decode process may take."""

    memory_mb: int
    timeout_s: float


class Child:
    """A running decode process, made by `start`; it answers one job at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        if process.stdin is None or process.stdout is None:
            raise ValueError("a decode process needs both its pipes")
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout
        self.pid = process.pid

    @classmethod
    async def start(cls, limits: Limits) -> Child:
        """Start a process and wait until it is warm.

        Raises:
            ChildDied: it ended or stayed silent instead of saying hello.
            OSError: the system did not start it.
        """
        env = {key: os.environ[key] for key in _PASSED_ON if key in os.environ}
        env["PYTHONPATH"] = os.pathsep.join([_SOURCE, *(entry for entry in sys.path if entry)])
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-P", "-m", "iris.images.worker"),
            *("--parent-pid", str(os.getpid())),
            *("--memory-mb", str(limits.memory_mb)),
            *("--cpu-s", str(limits.timeout_s)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=env,
            close_fds=True,
            limit=_READ_BYTES,
        )
        child = cls(process)
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                hello, _ = await child._read(max_blob_bytes=0)
            if hello.get("ready") is not True:
                raise ChildDied(began=False)
        except (wire.BrokenFrame, OSError, EOFError) as error:
            await child.end()
            raise ChildDied(began=False) from error
        except BaseException:
            child.kill()
            raise
        return child

    async def ask(
        self, head: wire.Head, blob: bytes, *, timeout_s: float, max_blob_bytes: int
    ) -> tuple[wire.Head, bytes]:
        """Hand over one job and wait for its result.

        Raises:
            TimeoutError: no result within `timeout_s`; the process is still busy and must end.
            ChildDied: the process ended or broke the protocol, and must end.
        """
        began = False
        async with asyncio.timeout(timeout_s):
            try:
                self._stdin.write(wire.pack(head, len(blob)))
                self._stdin.write(blob)
                await self._stdin.drain()
                await self._read(max_blob_bytes=0)
                began = True
                return await self._read(max_blob_bytes=max_blob_bytes)
            except (wire.BrokenFrame, ConnectionError, EOFError) as error:
                raise ChildDied(began=began) from error

    @property
    def alive(self) -> bool:
        """Whether nothing is known of its death yet."""
        return self._process.returncode is None and not self._stdout.at_eof()

    def kill(self) -> None:
        """Kill the process now; safe to repeat."""
        # Not Process.kill: that polls first, and so takes the exit status away from the event loop.
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # ended on its own just now
                os.kill(self.pid, signal.SIGKILL)

    async def end(self) -> None:
        """Kill the process and wait until nothing of it is left. Not while `ask` is waiting."""
        self.kill()
        if not self._stdin.is_closing():
            self._stdin.transport.abort()
        with contextlib.suppress(ConnectionError):
            while await self._stdout.read(_READ_BYTES):  # the pipe is closed only once it is empty
                pass
        await self._process.wait()

    async def _read(self, *, max_blob_bytes: int) -> tuple[wire.Head, bytes]:
        raw = await self._stdout.readexactly(wire.LENGTHS.size)
        head_bytes, blob_bytes = wire.lengths(raw, max_blob_bytes=max_blob_bytes)
        head = wire.unpack_head(await self._stdout.readexactly(head_bytes))
        return head, await self._stdout.readexactly(blob_bytes)
