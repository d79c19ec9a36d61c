"""A real PostgreSQL of the test's own: unix socket in a directory of its own, no network, gone afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

PACKAGE = "Debian package postgresql is not installed (apt-get install postgresql)"


def binaries() -> Path | None:
    """Directory of initdb and postgres, None when there is no PostgreSQL."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


class Server:
    """One cluster. It refuses to run as root, so root starts it as user postgres."""

    def __init__(self, root: Path, bin_dir: Path) -> None:
        self.root, self._bin = root, bin_dir
        self._as: list[str] = []
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(root, user.pw_uid, user.pw_gid)
            self._as = ["runuser", "-u", "postgres", "--"]
        self._run("initdb", "-D", f"{root}/data", "-A", "trust", "-U", "postgres", "-N", "-E", "UTF8", "--locale=C")
        self.start()

    def url(self, driver: str = "postgresql+psycopg") -> str:
        """For SQLAlchemy."""
        return f"{driver}://postgres@/postgres?host={self.root}"

    def start(self) -> None:
        options = f"-c listen_addresses='' -k {self.root} -c fsync=off -c max_connections=60"
        self._run(
            "pg_ctl", "-D", f"{self.root}/data", "-w", "-t", "60", "-l", f"{self.root}/log", "-o", options, "start"
        )

    def stop(self, mode: str = "fast") -> None:
        self._run("pg_ctl", "-D", f"{self.root}/data", "-w", "-t", "60", "-m", mode, "stop")

    def execute(self, statement: str) -> list[tuple[object, ...]]:
        with psycopg.connect(host=str(self.root), user="postgres", dbname="postgres", autocommit=True) as db:
            cursor = db.execute(statement)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def empty(self) -> None:
        """As if nobody had been there."""
        self.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")

    def _run(self, name: str, *words: str) -> None:
        command = [*self._as, str(self._bin / name), *words]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/", timeout=120, check=False
        ) if name != "pg_ctl" else subprocess.run(
            # The server inherits what pg_ctl has; a pipe would never end.
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True, cwd="/", timeout=120, check=False
        )  # fmt: skip
        if done.returncode != 0:
            log = self.root / "log"
            raise RuntimeError(f"{name}: {done.stdout or (log.read_text()[-2000:] if log.exists() else '')}")


@contextmanager
def running() -> Iterator[Server]:
    """A server for as long as the block lasts. Raises LookupError with the package's name when there is none."""
    bin_dir = binaries()
    if bin_dir is None:
        raise LookupError(PACKAGE)
    root = Path(tempfile.mkdtemp(prefix="sft-pg-"))
    server = None
    try:
        server = Server(root, bin_dir)
        yield server
    finally:
        if server is not None:
            for _ in range(2):
                try:
                    server.stop("immediate")
                    break
                except RuntimeError:
                    time.sleep(0.2)
        shutil.rmtree(root, ignore_errors=True)
