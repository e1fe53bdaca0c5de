"""Files: uploaded, sent with a message, fetched, refused."""

from __future__ import annotations

import hashlib
import socket
import sqlite3
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.api.conftest import Agent, Visitor, assert_problem
from tests.conftest import Deskline, embedded_deskline
from tests.sample_files import SCANNER, archive, picture

MakeVisitor = Callable[..., Visitor]
MIB = 1024 * 1024


def test_a_visitor_sends_a_picture_and_both_sides_see_it(
    deskline: Deskline, agent: Agent, visitor: Visitor
) -> None:
    conversation_id = visitor.conversation()
    content = picture("PNG", 40, 30)
    uploaded = visitor.upload(conversation_id, "../../螢幕 截圖.png", content)
    assert uploaded.status_code == 201, uploaded.text
    file = uploaded.json()
    assert (file["name"], file["content_type"]) == ("螢幕 截圖.png", "image/png")
    assert (file["size_bytes"], file["width_px"], file["height_px"]) == (len(content), 40, 30)

    sent = visitor.send(conversation_id, "", attachment_ids=[file["id"]])
    assert sent.status_code == 201, sent.text
    message = sent.json()
    assert (message["kind"], message["body"], message["attachments"]) == ("file", "", [file])
    assert agent.messages(conversation_id, after_seq=1)["items"] == [message]

    # an <img> carries no Authorization header: the address alone opens it
    shown = httpx.get(deskline.url + file["url"])
    assert shown.status_code == 200
    assert shown.content == content
    assert shown.headers["Content-Type"] == "image/png"
    assert shown.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in shown.headers["Content-Security-Policy"]
    assert "default-src 'none'" in shown.headers["Content-Security-Policy"]
    assert shown.headers["Content-Disposition"].startswith("inline;")
    assert "filename*=UTF-8''%E8%9E%A2" in shown.headers["Content-Disposition"]
    assert shown.headers["Cache-Control"] == "private, no-cache"
    assert shown.headers["Referrer-Policy"] == "no-referrer"
    assert shown.headers["ETag"] == f'"{hashlib.sha256(content).hexdigest()}"'

    again = httpx.get(deskline.url + file["url"], headers={"If-None-Match": shown.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_text_and_files_go_in_one_message(
    deskline: Deskline, agent: Agent, visitor: Visitor
) -> None:
    conversation_id = visitor.conversation()
    files = [
        agent.upload(conversation_id, "a.txt", "one, 中文".encode()).json(),
        agent.upload(conversation_id, "b.zip", archive()).json(),
    ]
    sent = agent.send(conversation_id, "both", attachment_ids=[file["id"] for file in files])
    assert (sent.status_code, sent.json()["kind"]) == (201, "text")
    shown = visitor.get(f"/conversations/{conversation_id}/messages", known_seq=sent.json()["seq"])
    seen = shown.json()["items"][-1]
    assert seen["attachments"] == files
    saved = httpx.get(deskline.url + files[0]["url"])
    assert saved.headers["Content-Disposition"].startswith("attachment;")
    assert saved.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert saved.text == "one, 中文"


def test_a_repeat_answers_with_the_same_files(visitor: Visitor) -> None:
    conversation_id = visitor.conversation()
    file = visitor.upload(conversation_id, "a.txt", b"a").json()
    client_id = str(uuid.uuid4())
    first = visitor.send(conversation_id, "", client_id, attachment_ids=[file["id"]])
    again = visitor.send(conversation_id, "", client_id, attachment_ids=[file["id"]])
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()


def test_a_file_is_sent_once_by_its_uploader_in_its_conversation(
    agent: Agent, second_agent: Agent, visitor: Visitor, new_visitor: MakeVisitor
) -> None:
    conversation_id, stranger = visitor.conversation(), new_visitor()
    elsewhere = stranger.conversation()
    file = visitor.upload(conversation_id, "a.txt", b"a").json()
    code = "attachment_not_found"
    ids = [file["id"]]
    assert_problem(stranger.send(elsewhere, "", attachment_ids=ids), 422, code)
    assert_problem(agent.send(conversation_id, "mine", attachment_ids=ids), 422, code)
    assert_problem(visitor.send(conversation_id, "", attachment_ids=[2**53]), 422, code)
    assert visitor.send(conversation_id, "", attachment_ids=ids).status_code == 201
    assert_problem(visitor.send(conversation_id, "", attachment_ids=ids), 422, code)
    agents = agent.upload(conversation_id, "a.txt", b"a").json()["id"]
    assert_problem(second_agent.send(conversation_id, "x", attachment_ids=[agents]), 422, code)
    # nothing of all that was stored
    assert [item["seq"] for item in agent.messages(conversation_id)["items"]] == [1, 2]


def test_a_notes_files_are_for_the_staff(
    deskline: Deskline, agent: Agent, second_agent: Agent, visitor: Visitor
) -> None:
    conversation_id = visitor.conversation()
    file = agent.upload(conversation_id, "secret.txt", b"between us").json()

    def strangers_see() -> list[int]:
        return [
            httpx.get(deskline.url + file["url"]).status_code,
            visitor.http.get(file["url"]).status_code,
        ]

    # nobody knows yet whether a note will carry it
    assert strangers_see() == [404, 404]
    note = agent.send(conversation_id, "", kind="note", attachment_ids=[file["id"]])
    assert (note.status_code, note.json()["kind"]) == (201, "note")
    assert strangers_see() == [404, 404]
    assert second_agent.http.get(file["url"]).content == b"between us"


def test_nobody_guesses_an_address(deskline: Deskline) -> None:
    for token in ("x", "A" * 43, "A" * 44, "%2e%2e"):
        answer = httpx.get(f"{deskline.url}/api/v1/attachments/{token}")
        assert_problem(answer, 404, "not_found")


def test_strangers_upload_nothing(
    deskline: Deskline, agent: Agent, visitor: Visitor, new_visitor: MakeVisitor
) -> None:
    conversation_id = visitor.conversation()
    assert_problem(new_visitor().upload(conversation_id, "a.txt", b"a"), 404, "not_found")
    assert_problem(agent.upload(999_999_999, "a.txt", b"a"), 404, "not_found")
    for path in (
        f"/api/v1/conversations/{conversation_id}/attachments",
        f"/api/v1/widget/conversations/{conversation_id}/attachments",
    ):
        answer = httpx.post(deskline.url + path, content=b"a")
        assert_problem(answer, 401, "not_authenticated")
    path = f"/api/v1/conversations/{conversation_id}/attachments"
    assert_problem(agent.http.post(path, content=b"a"), 403, "csrf_failed")


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", 422, "attachment_refused"),
        (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", 415, None),
        (b"<!doctype html><script>alert(1)</script>", 415, None),
        (b"MZ\x90\x00\x03\x00\x00\x00\x04", 415, None),
        (b"\x00\x01\x02 nobody knows", 415, None),
        (picture("PNG")[:14], 422, "attachment_refused"),
    ],
)
def test_what_is_refused(visitor: Visitor, content: bytes, status: int, code: str | None) -> None:
    conversation_id = visitor.conversation()
    # what the sender calls it is not believed
    answer = visitor.upload(conversation_id, "photo.png", content, **{"Content-Type": "image/png"})
    problem = assert_problem(answer, status, code or "attachment_type_refused")
    if status == 415:
        assert "image/png" in problem["allowed_types"]


def test_what_is_called_a_page_is_saved_as_text(deskline: Deskline, visitor: Visitor) -> None:
    conversation_id = visitor.conversation()
    name = 'a"\\\r\nX-Bad: 1.html'
    file = visitor.upload(conversation_id, name, b"just words").json()
    assert file["name"].endswith(".html.txt")
    saved = httpx.get(deskline.url + file["url"])
    assert saved.headers["Content-Disposition"].startswith("attachment;")
    assert "X-Bad" not in saved.headers


@pytest.mark.parametrize("body", ["", " ", "\n\t ", "\u3000", "\u200b\u2060\ufeff", "\u202e"])
def test_blank_text_needs_a_file(agent: Agent, visitor: Visitor, body: str) -> None:
    conversation_id = visitor.conversation()
    for answer in (visitor.send(conversation_id, body), agent.send(conversation_id, body)):
        problem = assert_problem(answer, 422, "invalid_request")
        assert problem["errors"][0]["field"] == "body"
    file = agent.upload(conversation_id, "a.txt", b"a").json()
    sent = agent.send(conversation_id, body, attachment_ids=[file["id"]])
    assert (sent.status_code, sent.json()["kind"], sent.json()["body"]) == (201, "file", "")


@pytest.mark.parametrize("ids", [[1, 1], list(range(1, 12)), [0], ["x"], {}, [2**60]])
def test_ids_that_cannot_be_are_refused(visitor: Visitor, ids: Any) -> None:
    answer = visitor.send(visitor.conversation(), "x", attachment_ids=ids)
    assert_problem(answer, 422, "invalid_request")


def test_files_that_wait_to_be_sent_are_few(visitor: Visitor) -> None:
    conversation_id = visitor.conversation()
    ids = [visitor.upload(conversation_id, "a.txt", b"a").json()["id"] for _ in range(20)]
    assert_problem(visitor.upload(conversation_id, "a.txt", b"a"), 409, "conflict")
    assert visitor.send(conversation_id, "", attachment_ids=ids[:10]).status_code == 201
    assert visitor.upload(conversation_id, "a.txt", b"a").status_code == 201


def test_a_file_of_ten_mebibytes_comes_back_whole(deskline: Deskline, visitor: Visitor) -> None:
    conversation_id = visitor.conversation()
    # every byte value, so that a driver's escaping has something to do
    content = b"%PDF-1.7\n" + (bytes(range(256)) * (40 * 1024))[: 10 * MIB - 9]
    uploaded = visitor.upload(conversation_id, "large.pdf", content)
    assert uploaded.status_code == 201, uploaded.text
    back = httpx.get(deskline.url + uploaded.json()["url"])
    assert hashlib.sha256(back.content).digest() == hashlib.sha256(content).digest()


def chunks(size_bytes: int) -> Iterator[bytes]:
    for _ in range(size_bytes // 65536):
        yield b"x" * 65536


@pytest.mark.parametrize("chunked", [False, True])
def test_a_file_that_is_too_large_is_refused_and_its_sender_hears_why(
    agent: Agent, visitor: Visitor, chunked: bool
) -> None:
    conversation_id = visitor.conversation()
    for client in (visitor, agent):
        content: Any = chunks(11 * MIB) if chunked else b"x" * 11 * MIB
        answer = client.upload(conversation_id, "large.txt", content)
        assert_problem(answer, 413, "payload_too_large")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_body_to_any_other_call_is_refused_quickly(
    visitor: Visitor, agent: Agent, chunked: bool
) -> None:
    conversation_id = visitor.conversation()
    for client, path in (
        (visitor.http, f"/api/v1/widget/conversations/{conversation_id}/messages"),
        (agent.http, f"/api/v1/conversations/{conversation_id}/read"),
        (agent.http, "/api/v1/auth/login"),
    ):
        started = time.monotonic()
        content: Any = chunks(10 * MIB) if chunked else b" " * 10 * MIB
        answer = client.post(path, content=content, headers={"Content-Type": "application/json"})
        assert_problem(answer, 413, "payload_too_large")
        assert time.monotonic() - started < 5
    assert visitor.send(conversation_id, "the line still works").status_code == 201


def test_a_client_that_promises_more_than_it_sends_blocks_nothing(
    deskline: Deskline, visitor: Visitor
) -> None:
    conversation_id = visitor.conversation()
    parts = urlsplit(deskline.url)
    assert parts.hostname
    head = (
        f"POST /api/v1/widget/conversations/{conversation_id}/attachments?name=a HTTP/1.1\r\n"
        f"Host: {parts.netloc}\r\nAuthorization: {visitor.http.headers['Authorization']}\r\n"
        "Content-Length: 1000000\r\n\r\n"
    )
    address = (parts.hostname, parts.port or 80)
    with socket.create_connection(address, timeout=10) as half:
        half.sendall(head.encode() + b"x" * 1000)
        assert visitor.upload(conversation_id, "a.txt", b"a").status_code == 201
    assert visitor.upload(conversation_id, "a.txt", b"a").status_code == 201


def test_files_that_nobody_sent_are_removed_after_a_day(
    deskline: Deskline, visitor: Visitor
) -> None:
    if deskline.data_dir is None:
        pytest.skip("needs the database's file, to make an upload old")
    conversation_id = visitor.conversation()
    old, sent, young = (visitor.upload(conversation_id, "a.txt", b"a").json() for _ in range(3))
    visitor.send(conversation_id, "", attachment_ids=[sent["id"]])
    long_ago = (datetime.now() - timedelta(hours=49)).isoformat(" ", "microseconds")
    from app.chat import attachments  # noqa: PLC0415
    from app.db.engines import make_engine, write_transaction  # noqa: PLC0415

    file = deskline.data_dir / "deskline.db"
    with sqlite3.connect(file, timeout=10) as database:
        database.execute(
            "UPDATE attachments SET created_at = ? WHERE id IN (?, ?)",
            (long_ago, old["id"], sent["id"]),
        )
    engine = make_engine(f"sqlite:///{file}")
    with write_transaction(engine) as connection:
        assert attachments.purge_unsent(connection, 20) == 1
    engine.dispose()
    found = [httpx.get(deskline.url + each["url"]).status_code for each in (old, sent, young)]
    assert found == [404, 200, 200]
    with sqlite3.connect(file, timeout=10) as database:
        query = "SELECT count(*) FROM attachment_bytes WHERE attachment_id = ?"
        assert database.execute(query, (old["id"],)).fetchone() == (0,)


def test_the_address_of_a_file_is_not_logged(deskline: Deskline, visitor: Visitor) -> None:
    if deskline.data_dir is None:
        pytest.skip("needs the log's file")
    file = visitor.upload(visitor.conversation(), "a.txt", b"a").json()
    assert httpx.get(deskline.url + file["url"]).status_code == 200
    token = file["url"].rpartition("/")[2]
    logs = [path for path in deskline.data_dir.parent.rglob("*") if path.suffix in (".log", ".txt")]
    assert logs
    assert not [path for path in logs if token in path.read_text(errors="replace")]


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deskline]:
    folder = tmp_path_factory.mktemp("scanned")
    script = folder / "scanner.py"
    script.write_text(SCANNER)
    command = f"{Path(sys.executable).absolute()} {script}"
    with embedded_deskline(folder, ATTACHMENT_SCANNER=command) as running:
        yield running


def test_the_scanner_decides(scanned: Deskline) -> None:
    visitor = Visitor(scanned)
    conversation_id = visitor.conversation()
    clean = visitor.upload(conversation_id, "a.txt", b"clean")
    assert clean.status_code == 201
    infected = visitor.upload(conversation_id, "a.txt", b"INFECTED")
    assert_problem(infected, 422, "attachment_infected")
    failed = visitor.upload(conversation_id, "a.txt", b"BROKEN")
    assert_problem(failed, 503, "service_unavailable")
    assert failed.headers["Retry-After"]
    assert scanned.data_dir is not None
    with sqlite3.connect(scanned.data_dir / "deskline.db", timeout=10) as database:
        rows = database.execute("SELECT id, scan FROM attachments").fetchall()
        count = database.execute("SELECT count(*) FROM attachment_bytes").fetchone()
    assert rows == [(clean.json()["id"], "clean")]
    assert count == (1,)
    visitor.http.close()
