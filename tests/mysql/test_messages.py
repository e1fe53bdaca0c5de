"""Files, edits, catching up and waiting on MySQL with a replica."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import create_engine

from app.chat import messages, sync
from tests.api.conftest import Agent, Visitor
from tests.api.test_edits import delete_own, edit_own, staff_path
from tests.mysql.conftest import Web, environment, web_process
from tools.private_mysql import Servers

MIB = 1024 * 1024
PATIENCE_SECONDS = 40


@pytest.fixture
def agent(web: Web) -> Iterator[Agent]:
    logged_in = Agent(web.deskline, web.deskline.email)
    yield logged_in
    logged_in.http.close()


@pytest.fixture
def visitor(web: Web) -> Iterator[Visitor]:
    made = Visitor(web.deskline)
    yield made
    made.http.close()


@contextmanager
def stopped_replica(mysql: Servers) -> Iterator[None]:
    assert mysql.replica is not None
    mysql.catch_up()
    mysql.replica.sql("STOP REPLICA")
    try:
        yield
    finally:
        mysql.replica.sql("START REPLICA")
        mysql.catch_up()


@pytest.mark.parametrize(
    "content",
    [
        # the driver writes two bytes for each of these
        b"%PDF-1.7\n" + bytes(10 * MIB - 9),
        b"%PDF-1.7\n" + os.urandom(10 * MIB - 9),
    ],
    ids=["zeros", "noise"],
)
def test_the_largest_file_goes_in_and_comes_out(
    mysql: Servers, web: Web, visitor: Visitor, content: bytes
) -> None:
    conversation_id = visitor.conversation()
    uploaded = visitor.upload(conversation_id, "large.pdf", content)
    assert uploaded.status_code == 201, uploaded.text
    file = uploaded.json()
    assert visitor.send(conversation_id, "", attachment_ids=[file["id"]]).status_code == 201
    digest = hashlib.sha256(content).digest()
    # at once, whatever the replica has; and then from there
    assert hashlib.sha256(httpx.get(web.url + file["url"]).content).digest() == digest
    mysql.catch_up()
    before = web.metric("deskline_history_reads_total", target="replica", why="ok")
    assert hashlib.sha256(httpx.get(web.url + file["url"]).content).digest() == digest
    assert web.metric("deskline_history_reads_total", target="replica", why="ok") == before + 1


def test_a_file_is_there_before_the_replica_has_it_and_gone_before_it_hears(
    mysql: Servers, web: Web, visitor: Visitor
) -> None:
    conversation_id = visitor.conversation()
    old = visitor.upload(conversation_id, "a.txt", b"old").json()
    visitor.send(conversation_id, "", attachment_ids=[old["id"]])
    with stopped_replica(mysql):
        file = visitor.upload(conversation_id, "a.txt", b"fresh").json()
        assert httpx.get(web.url + file["url"]).content == b"fresh"
        assert delete_own(visitor, conversation_id, 2).status_code == 200
        assert httpx.get(web.url + old["url"]).status_code == 404


def test_what_a_failing_insert_says_holds_no_bytes(
    mysql: Servers, redis_url: str, demo: None, tmp_path: Path
) -> None:
    mark = "do-not-log-me"
    kept = mysql.primary.sql("SELECT @@global.max_allowed_packet AS size")[0]["size"]
    mysql.primary.sql("SET GLOBAL max_allowed_packet = 1048576")
    try:
        # a process whose connections all have the limit
        with web_process(environment(mysql, redis_url), tmp_path) as web:
            visitor = Visitor(web.deskline)
            conversation_id = visitor.conversation()
            answer = visitor.upload(conversation_id, "a.txt", (mark * 200_000).encode())
            assert answer.status_code in (500, 503)
            assert mark not in answer.text
            assert visitor.upload(conversation_id, "a.txt", b"small").status_code == 201
            visitor.http.close()
            assert mark not in web.output.read_text()
    finally:
        mysql.primary.sql(f"SET GLOBAL max_allowed_packet = {kept}")


def test_edits_at_once_get_one_number_each(agent: Agent, visitor: Visitor) -> None:
    conversation_id, count = visitor.conversation("1"), 24
    for number in range(2, count + 1):
        agent.send(conversation_id, str(number))

    def change(seq: int) -> int:
        if seq == 1:
            return edit_own(visitor, conversation_id, 1, "changed").status_code
        # others write meanwhile
        assert agent.send(conversation_id, f"more {seq}").status_code == 201
        if seq % 3 == 0:
            return agent.delete(staff_path(conversation_id, seq)).status_code
        return agent.patch(staff_path(conversation_id, seq), {"body": f"c{seq}"}).status_code

    with ThreadPoolExecutor(12) as pool:
        assert set(pool.map(change, range(1, count + 1))) == {200}
    assert agent.get(f"/conversations/{conversation_id}").json()["last_edit"]["public"] == count
    known = {str(conversation_id): {"public": count, "edits": {"public": 0}}}
    seen = agent.post("/sync", {"known": known}).json()
    assert [item["seq"] for item in seen["edits"]] == list(range(1, count + 1))
    assert seen["known"][str(conversation_id)]["edits"]["public"] == count


def test_sync_misses_nothing_when_the_replica_stands_still(
    mysql: Servers, agent: Agent, visitor: Visitor
) -> None:
    conversation_id = visitor.conversation("one")
    with stopped_replica(mysql):
        visitor.send(conversation_id, "two")
        edit_own(visitor, conversation_id, 1, "ONE")
        known = {str(conversation_id): {"public": 1, "edits": {"public": 0, "staff": 0}}}
        seen = agent.post("/sync", {"known": known}).json()
        assert [item["body"] for item in seen["messages"]] == ["two"]
        assert [item["body"] for item in seen["edits"]] == ["ONE"]
        assert seen["gone"] == []
        fresh = Visitor.conversation(visitor, "again")
        assert fresh == conversation_id


def test_waiting_ends_with_the_message_although_the_replica_stands_still(
    mysql: Servers, agent: Agent, visitor: Visitor
) -> None:
    conversation_id = visitor.conversation("one")
    with stopped_replica(mysql), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(
            agent.http.get,
            f"/api/v1/conversations/{conversation_id}/messages",
            params={"after_seq": 1, "wait": 20},
            timeout=PATIENCE_SECONDS,
        )
        time.sleep(1)
        started = time.monotonic()
        sent = visitor.send(conversation_id, "two").json()
        answer = waiting.result()
        assert answer.json()["items"] == [sent]
        assert time.monotonic() - started < 5
        assert answer.headers["X-Deskline-Read"] == "primary"


def test_catching_up_reads_by_the_key(mysql: Servers, agent: Agent, visitor: Visitor) -> None:
    conversation_id = visitor.conversation("1")
    for number in range(2, 60):
        agent.send(conversation_id, str(number))
    engine = create_engine(mysql.primary.url("app"), paramstyle="format")
    keys = [(conversation_id, 0, seq) for seq in range(3, 6)]
    statements: list[tuple[Any, dict[str, Any]]] = [
        (messages._THESE, {"ids": [conversation_id], "keys": keys}),
        (sync._EDITS, {"ids": [conversation_id], "keys": keys}),
    ]
    try:
        with engine.connect() as connection:
            for statement, parameters in statements:
                explained = _explain(connection, statement, parameters)
                table = explained[0]
                assert table["type"] in ("range", "const", "eq_ref"), explained
                assert table["key"] == "PRIMARY", explained
                assert table["rows"] <= 10, explained
    finally:
        engine.dispose()


def _explain(connection: Any, statement: Any, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    from sqlalchemy import event  # noqa: PLC0415

    seen: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, text: str, values: Any, _x: Any, _many: bool) -> None:
        seen.append((text, values))

    event.listen(connection, "before_cursor_execute", note)
    connection.execute(statement, parameters).all()
    event.remove(connection, "before_cursor_execute", note)
    text, values = seen[0]
    rows = connection.exec_driver_sql(f"EXPLAIN FORMAT=TRADITIONAL {text}", values).mappings().all()
    return [dict(row) for row in rows]
