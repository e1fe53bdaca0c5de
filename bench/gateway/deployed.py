"""Nginx and gateways on loopback, configured by the very templates that the roles deploy.

``render.yml`` writes nginx.conf and the gateways' settings with Ansible, so that what is measured
is what is deployed. What differs from a machine is in :meth:`Deployed.variables`: ports, folders,
and limits that this machine cannot give.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from bench.gateway import processes
from bench.gateway.processes import APP_ID, HOST, KEY, ROOT, SECRET, BenchFailed

NGINX: Final = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
START_SECONDS: Final = 60.0
PORTS_APART: Final = 10  # of two gateways, as in the role
MOST_FILES: Final = 30_000  # of a process, also where more would be allowed
# Of a worker's descriptors, for listeners, logs and the channels between the workers.
NGINX_OWN_DESCRIPTORS: Final = 200


def nginx_workers(sockets: int, connections: int) -> int:
    """How many workers hold ``sockets`` when each may have so many ``connections``.

    Two connections for each socket, and a tenth to spare: the kernel spreads by a hash.
    """
    return max(1, -(-sockets * 2 * 11 // (10 * connections)))


def _free_base(count: int) -> int:
    """A port P so that P, P+1, P+10, P+11 … can be listened on.

    Below the ports that the kernel gives to connections; at random, for the sake of whoever looks
    for some at the same time.
    """
    bases = range(10_000, 16_000, 100)
    for base in random.sample(bases, len(bases)):
        wanted = [base + PORTS_APART * number + one for number in range(count) for one in (0, 1)]
        if all(_is_free(port) for port in wanted):
            return base
    raise BenchFailed("No ports between 10,000 and 16,000 are free.")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


class Deployed:
    """A private Redis, gateways, and an Nginx in front of them and of ``web_nodes``.

    ``redis``, ``nginx`` and ``gateway-1`` … are the names by which they are started and ended.
    """

    def __init__(
        self,
        folder: Path,
        *,
        gateways: int,
        sockets: int,
        web_nodes: Sequence[str] = (),
        **variables: Any,
    ) -> None:
        """``variables`` are the roles', over the defaults. Nothing is started yet."""
        if NGINX is None:
            raise BenchFailed("Nginx is missing (Debian, Ubuntu: apt-get install nginx).")
        if shutil.which("redis-server") is None:
            raise BenchFailed(
                "redis-server is missing (Debian, Ubuntu: apt-get install redis-server)."
            )
        self.folder = folder
        self.redis_port = processes.free_port()
        self.port = processes.free_port()
        self.gateways = [f"gateway-{number + 1}" for number in range(gateways)]
        self._base = _free_base(gateways)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        self._limit = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
        self._connections = self._limit - NGINX_OWN_DESCRIPTORS
        self.workers = nginx_workers(sockets, self._connections)
        self._variables = self.variables(web_nodes) | variables
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def variables(self, web_nodes: Sequence[str]) -> dict[str, Any]:
        """What the roles are told: only what loopback and this machine's limits ask for."""
        return {
            "deployed_folder": str(self.folder),
            # Nobody asks for pages here; an upstream without a server is refused by Nginx.
            "nginx_web_nodes": list(web_nodes) or [f"{HOST}:9"],
            "nginx_gateway_nodes": [f"{HOST}:{self.port_of(name)}" for name in self.gateways],
            "nginx_websocket_origin": f"ws://{HOST}:{self.port}",
            "nginx_listen_address": HOST,
            "nginx_http_port": self.port,
            "nginx_worker_processes": self.workers,
            "nginx_worker_connections": self._connections,
            "nginx_limit_nofile": self._limit,
            "__nginx_pid_file": f"{self.folder}/nginx.pid",
            "__nginx_log_folder": str(self.folder),
            "gateway_processes": len(self.gateways),
            "gateway_host": HOST,
            "gateway_port": self._base,
            "gateway_control_port": self._base + 1,
            "gateway_node": "bench",
            "gateway_redis_url": f"redis://{HOST}:{self.redis_port}/0",
            "gateway_pusher_app_id": APP_ID,
            "gateway_pusher_key": KEY,
            "gateway_pusher_secret": SECRET,
            "gateway_trusted_proxies": [HOST],
        }

    def port_of(self, gateway: str) -> int:
        """The port of a gateway's WebSockets; the next one is its control port."""
        return self._base + PORTS_APART * self.gateways.index(gateway)

    def pid(self, name: str) -> int:
        """The process id of one."""
        return self._processes[name].pid

    def render(self) -> None:
        """Write nginx.conf and the gateways' settings with Ansible, and have Nginx check it."""
        given = self.folder / "variables.json"
        given.write_text(json.dumps(self._variables), encoding="utf-8")
        given.chmod(0o600)
        play = Path(__file__).with_name("render.yml")
        done = subprocess.run(
            [
                *(str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,"),
                *(str(play), "-e", f"@{given}"),
                *("-e", f"ansible_python_interpreter={sys.executable}"),
            ],
            cwd=ROOT,
            env=os.environ | {"ANSIBLE_NOCOLOR": "1"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode:
            raise BenchFailed(f"The roles' templates could not be rendered:\n{done.stdout[-2000:]}")
        if os.geteuid() != 0:  # else Nginx complains that it cannot change its user
            config = self.folder / "nginx.conf"
            config.write_text(config.read_text().replace("user www-data;\n", ""))
        checked = subprocess.run(
            [*self._nginx(), "-t"], capture_output=True, text=True, timeout=30, check=False
        )
        if checked.returncode:
            raise BenchFailed(f"Nginx refuses the rendered configuration:\n{checked.stderr}")

    def _nginx(self) -> list[str]:
        assert NGINX is not None  # noqa: S101  looked for when this was made
        return [NGINX, "-e", f"{self.folder}/error.log", "-c", f"{self.folder}/nginx.conf"]

    def names(self) -> list[str]:
        """What is started, in that order."""
        return ["redis", *self.gateways, "nginx"]

    def command(self, name: str) -> list[str]:
        """How one is started."""
        if name == "redis":
            words = ["redis-server", "--port", str(self.redis_port), "--bind", HOST]
            return [*words, "--save", "", "--appendonly", "no", "--dir", str(self.folder)]
        if name == "nginx":
            return [*self._nginx(), "-g", "daemon off;"]
        settings = self.folder / f"{name}.env"
        process = name.partition("-")[0]
        return [sys.executable, "-m", "app", "--env-file", str(settings), process]

    def start(self, name: str) -> None:
        """Start one, unless it runs."""
        running = self._processes.get(name)
        if running is not None and running.poll() is None:
            return
        env = {key: value for key, value in os.environ.items() if key[:9] != "DESKLINE_"}
        words = self.command(name)
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                words, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def start_all(self) -> None:
        """Start everything and wait until every gateway is ready and Nginx listens."""
        for name in self.names():
            self.start(name)
        give_up_at = time.monotonic() + START_SECONDS
        while not self.ready():
            ended = [name for name, one in self._processes.items() if one.poll() is not None]
            if ended or time.monotonic() > give_up_at:
                raise BenchFailed(f"Not everything started ({ended}): see {self.folder}/*.log")
            time.sleep(0.1)

    def ready(self) -> bool:
        """Whether every gateway may get clients and Nginx passes them on."""
        try:
            for name in self.gateways:
                url = f"http://{HOST}:{self.port_of(name) + 1}/readyz"
                with urllib.request.urlopen(url, timeout=2):
                    pass
            with socket.create_connection((HOST, self.port), timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send one of them a signal."""
        self._processes[name].send_signal(number)

    def wait(self, name: str, seconds: float) -> None:
        """Wait for the end of one. Raises :class:`BenchFailed` when it does not come."""
        try:
            self._processes[name].wait(seconds)
        except subprocess.TimeoutExpired:
            raise BenchFailed(f"{name} did not end within {seconds:.0f} s") from None

    def complaints(self) -> list[str]:
        """The lines of Nginx's error log."""
        log = self.folder / "error.log"
        return log.read_text(errors="replace").splitlines() if log.exists() else []

    def metrics(self, gateway: str) -> Mapping[str, float]:
        """The counts of a gateway, by name (labels included)."""
        url = f"http://{HOST}:{self.port_of(gateway) + 1}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        found = (line.rpartition(" ") for line in lines if line and line[0] != "#")
        return {name: float(value) for name, _, value in found}

    def stop(self) -> None:
        """End everything, Nginx's workers too."""
        for name in sorted(self._processes, key=lambda each: each != "nginx"):
            process = self._processes[name]
            if process.poll() is None:
                # SIGKILL would leave Nginx's workers behind
                process.send_signal(signal.SIGTERM if name == "nginx" else signal.SIGKILL)
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


@contextmanager
def deployed(folder: Path, *, gateways: int, sockets: int, **variables: Any) -> Iterator[Deployed]:
    """A :class:`Deployed` that runs, ended with the block."""
    made = Deployed(folder, gateways=gateways, sockets=sockets, **variables)
    made.render()
    try:
        made.start_all()
        yield made
    finally:
        made.stop()
