"""Visitors that are merged while they write, on a real primary and through two web processes."""

from __future__ import annotations

import hashlib
import hmac
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.conftest import Agent, Visitor
from tests.mysql.conftest import Web, environment, web_process
from tools.private_mysql import Servers

ROUNDS = 6
TABS = 4
MESSAGES = 15


@pytest.fixture
def webs(mysql: Servers, redis_url: str, demo: None, tmp_path: Path) -> Iterator[list[Web]]:
    env = environment(mysql, redis_url)
    with web_process(env, tmp_path / "a") as first, web_process(env, tmp_path / "b") as second:
        yield [first, second]


@pytest.mark.timeout(300)
def test_nothing_is_lost_doubled_or_left_behind(webs: list[Web]) -> None:
    agent = Agent(webs[0].deskline, webs[0].deskline.email)
    inbox = agent.post("/inboxes", {"name": "Merges"}).json()
    path = f"/inboxes/{inbox['id']}/identity-secret"
    secret = agent.post(path).json()["identity_secret"].encode()
    for _ in range(ROUNDS):
        who = uuid.uuid4().hex
        signed = {
            "inbox_key": inbox["key"],
            "identity": {"identifier": who},
            "identity_hash": hmac.new(secret, who.encode(), hashlib.sha256).hexdigest(),
        }
        tabs = [
            Visitor(webs[number % 2].deskline, inbox_key=inbox["key"]) for number in range(TABS)
        ]
        conversations = [tab.conversation("0") for tab in tabs]
        start = threading.Barrier(2 * TABS)
        with ThreadPoolExecutor(2 * TABS) as threads:
            writers = [
                threads.submit(_write, webs, tab, inbox["key"], conversation_id, start)
                for tab, conversation_id in zip(tabs, conversations, strict=True)
            ]
            openers = [
                threads.submit(_identify, webs[(number + 1) % 2], tab, signed, start)
                for number, tab in enumerate(tabs)
            ]
            sent = [writer.result(120) for writer in writers]
            ids = {opener.result(120) for opener in openers}
        assert len(ids) == 1
        for conversation_id, bodies in zip(conversations, sent, strict=True):
            items = agent.messages(conversation_id, known_seq=MESSAGES + 1, limit=100)["items"]
            assert [item["seq"] for item in items] == list(range(1, MESSAGES + 2))
            assert [item["body"] for item in items] == ["0", *bodies]
            assert {item["sender"]["id"] for item in items} == ids
            seen = agent.get(f"/conversations/{conversation_id}").json()
            assert {seen["visitor"]["id"]} == ids


def _write(
    webs: list[Web], tab: Visitor, key: str, conversation_id: int, start: threading.Barrier
) -> list[str]:
    token, sent = tab.session["visitor_token"], []
    start.wait(30)
    for number in range(MESSAGES):
        message = {"client_id": str(uuid.uuid4()), "body": uuid.uuid4().hex}
        while True:
            url = f"{webs[number % 2].url}/api/v1/widget/conversations/{conversation_id}/messages"
            answer = httpx.post(
                url, json=message, headers={"Authorization": f"Bearer {token}"}, timeout=20
            )
            if answer.status_code in (200, 201):
                break
            assert answer.status_code == 401, answer.text
            token = tab.open(key, visitor_token=token)["visitor_token"]
        sent.append(message["body"])
    return sent


def _identify(web: Web, tab: Visitor, signed: dict[str, Any], start: threading.Barrier) -> int:
    start.wait(30)
    time.sleep(0.05)
    answer = httpx.post(
        f"{web.url}/api/v1/widget/session",
        json={**signed, "visitor_token": tab.session["visitor_token"]},
        timeout=20,
    )
    assert answer.status_code == 200, answer.text
    return int(answer.json()["visitor"]["id"])
