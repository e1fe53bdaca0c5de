"""A real MySQL for tests and measurements: `python tools/private_mysql.py run [--replica]`.

Debian 12 and 13 have no MySQL server. The one of Debian unstable, with the libraries that it needs
and nothing else, is unpacked once below .cache/mysql and started through its own dynamic linker:
nothing of this system is changed, and no chroot is needed. The servers listen on 127.0.0.1 only,
commit as production does (sync_binlog=1, innodb_flush_log_at_trx_commit=1), keep their data where
the caller says, and end with the process that started them.

Needs root once, to unpack. Run it with the Python of .venv.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pymysql
from pymysql.cursors import DictCursor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools import pick_mirror, system_packages

FOLDER: Final = Path(__file__).resolve().parent.parent / ".cache" / "mysql"
ROOT: Final = FOLDER / "root"
SUITE: Final = "unstable"
PACKAGE: Final = "mysql-server-core"
MIRRORS: Final = (
    "http://deb.debian.org/debian",
    "http://mirrors.aliyun.com/debian",
    "http://mirrors.cloud.tencent.com/debian",
)
_LIBRARIES: Final = f"usr/lib/{os.uname().machine}-linux-gnu"
_LINKERS: Final = {"x86_64": "ld-linux-x86-64.so.2", "aarch64": "ld-linux-aarch64.so.1"}

DATABASE: Final = "deskline"
START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 60.0
BUILD_SECONDS: Final = 900


class MysqlMissing(Exception):
    """There is no MySQL here and none could be made; the text says why and what to do."""


class MysqlFailed(Exception):
    """A server did not do what it should; the text says what and holds the end of its log."""


# The root file system ---------------------------------------------------------------------------


def prepare() -> None:
    """Make the root below .cache/mysql unless a working one is there. Raises MysqlMissing."""
    if _works():
        return
    if os.geteuid() != 0:
        raise MysqlMissing(
            "A private MySQL is unpacked by root, once: sudo .venv/bin/python"
            " tools/private_mysql.py prepare"
        )
    try:
        system_packages.install(["mysql"])
        mirror, skipped = pick_mirror.first(MIRRORS, f"dists/{SUITE}/InRelease")
    except (system_packages.PackagesMissing, pick_mirror.NoMirrorReachable) as failure:
        raise MysqlMissing(str(failure)) from failure
    for line in skipped:
        print(f"Debian: {line}", file=sys.stderr, flush=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _works():
            _unpack(mirror)
    if not _works():
        raise MysqlMissing(f"The MySQL of {mirror} does not start on this machine.")


def _works() -> bool:
    """Whether the root is complete: a killed run leaves no root, a damaged one does not start."""
    if not ROOT.is_dir():
        return False
    asked = subprocess.run([*_mysqld(), "--version"], capture_output=True, text=True, check=False)
    return asked.returncode == 0 and "Ver " in asked.stdout


def _unpack(mirror: str) -> None:
    print(f"Unpacking {PACKAGE} of Debian {SUITE} below {FOLDER} …", file=sys.stderr, flush=True)
    partial = ROOT.with_name("root.partial")
    for remains in (partial, ROOT):
        shutil.rmtree(remains, ignore_errors=True)
    try:
        done = subprocess.run(
            [
                *("mmdebstrap", "--quiet", "--mode=root", "--format=directory"),
                # unpacked only: no maintainer script runs, nothing else is installed
                *("--variant=extract", f"--include={PACKAGE}"),
                "--dpkgopt=force-unsafe-io",
                '--aptopt=Acquire::Languages "none"',
                # a mirror of unstable may be some days behind
                '--aptopt=Acquire::Check-Valid-Until "false"',
                '--aptopt=APT::Install-Recommends "false"',
                *(SUITE, str(partial), mirror),
            ],
            check=False,
            timeout=BUILD_SECONDS,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
        )
    except subprocess.TimeoutExpired:
        raise MysqlMissing(f"mmdebstrap took longer than {BUILD_SECONDS} s.") from None
    if done.returncode:
        raise MysqlMissing(f"mmdebstrap ended with code {done.returncode}: the lines above say why")
    for unneeded in ("usr/share/doc", "usr/share/man", "var/cache/apt", "var/lib/apt"):
        shutil.rmtree(partial / unneeded, ignore_errors=True)
    partial.rename(ROOT)


def _mysqld() -> list[str]:
    """The words that start mysqld with the libraries of its own root."""
    libraries = ROOT / _LIBRARIES
    linker = libraries / _LINKERS.get(os.uname().machine, "ld.so")
    return [str(linker), "--library-path", str(libraries), str(ROOT / "usr/sbin/mysqld")]


# Servers ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Account:
    """A MySQL account of this run; its password lives in memory and in the server only."""

    name: str
    grants: str
    password: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)


@dataclass
class Server:
    """One mysqld. ``folder`` holds its settings, its log and its data."""

    name: str
    folder: Path
    port: int
    server_id: int
    accounts: dict[str, Account]
    cpus: str = ""
    options: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        if self.process is None:
            raise MysqlFailed(f"The {self.name} does not run.")
        return self.process.pid

    def url(self, account: str = "app", database: str = DATABASE) -> str:
        """The SQLAlchemy URL for ``app`` (reads and writes rows), ``migrate`` or ``admin``."""
        known = self.accounts[account]
        login = f"{known.name}:{known.password}"
        return f"mysql+pymysql://{login}@127.0.0.1:{self.port}/{database}"

    def sql(self, statement: str, *values: object) -> list[dict[str, Any]]:
        """Run one statement as the administrator; gives the rows."""
        admin = self.accounts["admin"]
        with (
            pymysql.connect(
                host="127.0.0.1",
                port=self.port,
                user=admin.name,
                password=admin.password,
                cursorclass=DictCursor,
                connect_timeout=5,
                read_timeout=60,
                autocommit=True,
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(statement, values or None)
            return list(cursor.fetchall())

    def create(self) -> None:
        """Make the data folder with the accounts; the binary log begins after them."""
        self.folder.mkdir(parents=True)
        first = self.folder / "first.sql"
        first.touch(0o600)
        statements = [f"CREATE DATABASE {DATABASE}"]
        for account in self.accounts.values():
            who = f"'{account.name}'@'127.0.0.1'"
            statements.append(f"CREATE USER {who} IDENTIFIED BY '{account.password}'")
            statements.append(f"GRANT {account.grants} TO {who}")
        statements.append(f"ALTER USER root@localhost IDENTIFIED BY '{secrets.token_hex(16)}'")
        first.write_text("".join(f"{statement};\n" for statement in statements))
        (self.folder / "my.cnf").write_text(self._settings())
        try:
            done = subprocess.run(
                [
                    *_mysqld(),
                    f"--defaults-file={self.folder / 'my.cnf'}",
                    *("--initialize-insecure", "--disable-log-bin", f"--init-file={first}"),
                ],
                stdin=subprocess.DEVNULL,
                check=False,
                timeout=START_SECONDS,
            )
        finally:
            first.unlink()
        if done.returncode:
            raise MysqlFailed(f"The {self.name} could not be initialised.\n{self.log_end()}")

    def start(self) -> None:
        """Start it and wait until it answers."""
        words = [*_mysqld(), f"--defaults-file={self.folder / 'my.cnf'}"]
        if self.cpus:
            words = ["taskset", "--cpu-list", self.cpus, *words]
        # the kernel ends it when the thread that started it ends, whatever happened to us; data
        # of tests need no orderly stop, and InnoDB stands it
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        give_up_at = time.monotonic() + START_SECONDS
        while True:
            try:
                self.sql("SELECT 1")
            except pymysql.err.Error as error:
                if self.process.poll() is not None or time.monotonic() > give_up_at:
                    self.kill()
                    raise MysqlFailed(
                        f"The {self.name} did not start ({error}).\n{self.log_end()}"
                    ) from error
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """Stop it in good order; killed when that takes longer than a minute."""
        if self.process is None:
            return
        self.resume()
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self.process = None

    def kill(self) -> None:
        """kill -9, as a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def pause(self) -> None:
        """Stop the process as it is: connections stay open, nothing answers.

        Returns when every thread of it has stopped: the signal alone only asks for it.
        """
        os.kill(self.pid, signal.SIGSTOP)
        give_up_at = time.monotonic() + STOP_SECONDS
        while time.monotonic() < give_up_at:
            states = {
                status.read_text().rpartition(")")[2].split()[0]
                for status in Path(f"/proc/{self.pid}/task").glob("*/stat")
            }
            if states == {"T"}:
                return
            time.sleep(0.01)
        raise MysqlFailed(f"mysqld did not stop within {STOP_SECONDS:.0f} seconds")

    def resume(self) -> None:
        """Let a paused process go on."""
        os.kill(self.pid, signal.SIGCONT)

    def log_end(self, lines: int = 20) -> str:
        """The last lines of its log."""
        log = self.folder / "error.log"
        return (
            "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""
        )

    def _settings(self) -> str:
        share = ROOT / "usr/share/mysql"
        values = {
            "basedir": str(ROOT / "usr"),
            "lc_messages_dir": str(share),
            "character_sets_dir": str(share / "charsets"),
            "plugin_dir": str(ROOT / "usr/lib/mysql/plugin"),
            "datadir": str(self.folder / "data"),
            "log_error": str(self.folder / "error.log"),
            # relative: the path of a socket may have 107 characters at most
            "socket": "mysqld.sock",
            "pid_file": "mysqld.pid",
            "bind_address": "127.0.0.1",
            "port": str(self.port),
            "mysqlx": "OFF",
            "skip_name_resolve": "ON",
            "local_infile": "OFF",
            "secure_file_priv": "NULL",
            "server_id": str(self.server_id),
            "character_set_server": "utf8mb4",
            "collation_server": "utf8mb4_0900_ai_ci",
            "max_connections": "300",
            "innodb_buffer_pool_size": "256M",
            "innodb_redo_log_capacity": "256M",
            # as roles/mysql has it: an acknowledged message is on disk
            "innodb_flush_log_at_trx_commit": "1",
            "sync_binlog": "1",
            "gtid_mode": "ON",
            "enforce_gtid_consistency": "ON",
            "log_bin": "binlog",
            "relay_log": "relay",
            "relay_log_recovery": "ON",
            # as roles/mysql has it: the search index on a replica holds what the primary's does
            "innodb_ft_enable_stopword": "OFF",
            **self.options,
        }
        if os.geteuid() == 0:
            values["user"] = "root"
        return "[mysqld]\n" + "".join(f"{name} = {value}\n" for name, value in values.items())


@dataclass
class Servers:
    """A primary and, when asked for, its replica."""

    primary: Server
    replica: Server | None = None

    def replicate(self, *, delay_seconds: int = 0) -> None:
        """Point the replica at the primary by GTID and start it, ``delay_seconds`` behind."""
        replica, account = self._replica(), self.primary.accounts["replication"]
        replica.sql("STOP REPLICA")
        replica.sql(
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = %s,"
            " SOURCE_USER = %s, SOURCE_PASSWORD = %s, SOURCE_SSL = 1, SOURCE_AUTO_POSITION = 1,"
            " SOURCE_CONNECT_RETRY = 1, SOURCE_RETRY_COUNT = 86400, SOURCE_DELAY = %s",
            *(self.primary.port, account.name, account.password, delay_seconds),
        )
        replica.sql("START REPLICA")

    def catch_up(self, seconds: float = 30.0) -> None:
        """Wait until the replica has applied all that the primary has committed."""
        executed = self.primary.sql("SELECT @@global.gtid_executed AS gtids")[0]["gtids"]
        waited = self._replica().sql(
            "SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, %s) AS late", executed, seconds
        )
        if waited[0]["late"]:
            state = self._replica().sql("SHOW REPLICA STATUS")[0]
            raise MysqlFailed(
                f"The replica is still behind after {seconds:g} s:"
                f" {state['Last_IO_Error'] or state['Last_SQL_Error'] or 'no error'}"
            )

    def _replica(self) -> Server:
        if self.replica is None:
            raise MysqlFailed("There is no replica: ask for one.")
        return self.replica


@contextmanager
def servers(
    folder: Path,
    *,
    replica: bool = False,
    cpus: str = "",
    options: dict[str, str] | None = None,
) -> Iterator[Servers]:
    """Running servers with an empty schema ``deskline``; they stop at the end of the block.

    ``folder`` is made and holds their data; it stays, and must be empty or missing. ``cpus`` is a
    list as taskset takes it. ``options`` are further lines of my.cnf. Accounts: ``app`` reads and
    writes the rows of every schema named deskline…, ``migrate`` changes those schemas, ``admin``
    may do everything. Raises MysqlMissing or MysqlFailed.
    """
    prepare()
    accounts = {
        "app": Account("deskline_app", "SELECT, INSERT, UPDATE, DELETE ON `deskline%`.*"),
        "migrate": Account("deskline_migrate", "ALL ON `deskline%`.*"),
        "admin": Account("admin", "ALL ON *.*"),
        "replication": Account("deskline_replication", "REPLICATION SLAVE ON *.*"),
    }
    folder = folder.resolve()
    made: list[Server] = []
    with ExitStack() as running:
        for number, name in enumerate(("primary", "replica") if replica else ("primary",), 1):
            server = Server(
                name, folder / name, _free_port(), number, accounts, cpus, dict(options or {})
            )
            if name == "replica":
                server.options["super_read_only"] = "ON"
            server.create()
            running.callback(server.stop)
            server.start()
            made.append(server)
        both = Servers(*made)
        if replica:
            both.replicate()
            both.catch_up()
        yield both


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


# The command ------------------------------------------------------------------------------------


def _run(arguments: argparse.Namespace) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ExitStack() as stack:
        folder = arguments.folder or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="deskline-mysql-"))
        )
        both = stack.enter_context(servers(folder, replica=arguments.replica))
        for server in filter(None, (both.primary, both.replica)):
            for account in ("app", "migrate", "admin"):
                print(f"{server.name:<8} {account:<8} {server.url(account)}")
        print("Ctrl-C stops it.", flush=True)
        try:
            while all(
                server.process is not None and server.process.poll() is None
                for server in filter(None, (both.primary, both.replica))
            ):
                time.sleep(0.5)
            print("A server ended by itself: see its error.log.", file=sys.stderr)
        except KeyboardInterrupt:
            print("Stopping …", flush=True)


def main() -> int:
    """Entry point; 0, or 2 with one sentence."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("prepare", help="unpack the server, unless that is done")
    run = verbs.add_parser("run", help="start it and print its addresses; Ctrl-C stops it")
    run.add_argument("--replica", action="store_true", help="with a replica")
    run.add_argument("--folder", type=Path, help="keep the data there (default: thrown away)")
    arguments = parser.parse_args()
    try:
        if arguments.verb == "prepare":
            prepare()
        else:
            _run(arguments)
    except (MysqlMissing, MysqlFailed) as failure:
        print(failure, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
