"""Promises of Redis: nobody comes in without a password, and each process only where it belongs."""

from collections.abc import Callable

import pytest
from testinfra.host import Host

from tests.cluster.conftest import Inventory

PROCESSES = ("web", "gateway", "worker")


@pytest.fixture
def redis_cli(
    inventory: Inventory, machine: Callable[[str], Host], secrets: dict[str, str]
) -> Callable[..., str]:
    """A function that runs one command as `user` ("" for none) and returns the answer's text."""
    name = inventory.groups["redis"][0]
    host = machine(name)

    def run(user: str, *words: str) -> str:
        quoted = " ".join(["%s"] * len(words))
        command = f"redis-cli -h {inventory.address(name)}"
        if not user:
            return str(host.run(f"{command} {quoted}", *words).stdout).strip()
        password = secrets[f"vault_redis_{user.removeprefix('deskline_')}_password"]
        return str(
            host.run(f"REDISCLI_AUTH=%s {command} --user {user} {quoted}", password, *words).stdout
        ).strip()

    return run


def test_ping_without_a_password_is_refused(redis_cli: Callable[..., str]) -> None:
    assert redis_cli("", "PING").startswith("NOAUTH")


@pytest.mark.parametrize("process", PROCESSES)
def test_process_reaches_its_own_keys(redis_cli: Callable[..., str], process: str) -> None:
    key = f"deskline:test:{process}"
    assert redis_cli(f"deskline_{process}", "SET", key, "here", "EX", "10") == "OK"
    assert redis_cli(f"deskline_{process}", "GET", key) == "here"


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize(
    "words",
    [
        ("SET", "elsewhere", "x"),
        ("GET", "elsewhere"),
        ("PUBLISH", "elsewhere", "x"),
        ("FLUSHALL",),
        ("CONFIG", "GET", "*"),
        ("ACL", "LIST"),
        ("KEYS", "*"),
        ("SHUTDOWN",),
        ("CLIENT", "KILL", "TYPE", "pubsub"),
    ],
    ids=" ".join,
)
def test_process_reaches_nothing_else(
    redis_cli: Callable[..., str], process: str, words: tuple[str, ...]
) -> None:
    assert redis_cli(f"deskline_{process}", *words).startswith("NOPERM")


def test_gateway_may_publish_on_our_channels(redis_cli: Callable[..., str]) -> None:
    assert redis_cli("deskline_gateway", "PUBLISH", "deskline:ch:test", "x").isdigit()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("maxmemory-policy", "noeviction"),
        ("appendonly", "yes"),
        ("protected-mode", "yes"),
        ("client-output-buffer-limit", "pubsub 33554432 8388608 60"),
    ],
)
def test_setting_is_in_force(redis_cli: Callable[..., str], setting: str, value: str) -> None:
    assert value in redis_cli("admin", "CONFIG", "GET", setting).splitlines()[1]


def test_memory_is_bounded(redis_cli: Callable[..., str]) -> None:
    assert int(redis_cli("admin", "CONFIG", "GET", "maxmemory").splitlines()[1]) > 0


def test_listens_on_its_address_only(inventory: Inventory, machine: Callable[[str], Host]) -> None:
    name = inventory.groups["redis"][0]
    listening = machine(name).run("ss -Hltn sport = :6379").stdout.splitlines()
    assert {line.split()[3] for line in listening} == {
        f"{inventory.address(name)}:6379",
        "127.0.0.1:6379",
    }
