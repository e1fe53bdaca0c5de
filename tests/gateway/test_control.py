"""The HTTP API of the control port: signature, events, channels."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.gateway import control
from tests.gateway.conftest import APPLICATION, Gateway, RedisServer

# docs/channels/library_auth_reference/rest-api, "Worked authentication example"
EXAMPLE_SECRET = b"7ad3773142a6692b25b8"
EXAMPLE_BODY = b'{"name":"foo","channels":["project-3"],"data":"{\\"some\\":\\"data\\"}"}'
EXAMPLE_PARAMETERS = {
    "auth_key": "278d425bdf160c739803",
    "auth_timestamp": "1353088179",
    "auth_version": "1.0",
}


def test_the_worked_example_of_the_public_documentation() -> None:
    signed = control.sign_request(
        EXAMPLE_SECRET, "POST", "/apps/3/events", EXAMPLE_PARAMETERS, EXAMPLE_BODY
    )
    assert signed["body_md5"] == "ec365a775a4cd0599faeb73354201b6f"
    assert signed["auth_signature"] == (
        "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c"
    )


NOW = 1_800_000_000.0


def signed(
    method: str = "POST",
    path: str = "/apps/app1/events",
    body: bytes = b"{}",
    **changes: str | None,
) -> dict[str, str]:
    fields: dict[str, str | None] = {
        "auth_key": APPLICATION.key,
        "auth_timestamp": str(int(NOW)),
        "auth_version": "1.0",
        **changes,
    }
    given = {name: value for name, value in fields.items() if value is not None}
    return control.sign_request(APPLICATION.secret, method, path, given, body)


def check(parameters: dict[str, str], body: bytes = b"{}", **changes: Any) -> None:
    options: dict[str, Any] = {"method": "POST", "path": "/apps/app1/events", "now": NOW}
    control.check_request(APPLICATION, parameters=parameters, body=body, **{**options, **changes})


def test_a_right_signature_passes() -> None:
    check(signed())
    check(signed(), now=NOW + 599)
    check(signed(method="GET", body=b"", filter_by_prefix="a"), b"", method="GET")


def test_body_md5_of_nothing_is_accepted_on_get() -> None:
    empty = hashlib.md5(b"", usedforsecurity=False).hexdigest()
    check(signed(method="GET", body=b"", body_md5=empty), b"", method="GET")


@pytest.mark.parametrize(
    ("parameters", "changes"),
    [
        ({}, {}),
        (signed(auth_key="other"), {}),
        (signed(auth_version="2"), {}),
        (signed(auth_timestamp="soon"), {}),
        (signed(auth_timestamp="²"), {}),
        (signed(auth_timestamp=None), {}),
        (signed(), {"now": NOW + 601}),
        (signed(), {"now": NOW - 601}),
        (signed(), {"body": b'{"other":1}'}),
        (signed(body=b""), {}),
        (signed(), {"path": "/apps/app1/batch_events"}),
        (signed(), {"method": "PUT"}),
        ({**signed(), "auth_signature": "0" * 64}, {}),
        ({**signed(), "auth_signature": "é"}, {}),
        ({**signed(), "more": "1"}, {}),
    ],
)
def test_anything_else_is_401(parameters: dict[str, str], changes: dict[str, Any]) -> None:
    with pytest.raises(control.ApiError) as refused:
        check(parameters, **changes)
    assert refused.value.status == 401


EVENT = {"name": "ev", "data": "{}", "channels": ["a", "private-b"]}


def test_an_event_becomes_one_publication_per_channel_in_the_gateways_form() -> None:
    body = json.dumps({**EVENT, "socket_id": "12.34"}).encode()
    assert control.parse_event("app1", body) == [
        (b"deskline:ch:app1:a", b'12.34\n{"event":"ev","channel":"a","data":"{}"}'),
        (b"deskline:ch:app1:private-b", b'12.34\n{"event":"ev","channel":"private-b","data":"{}"}'),
    ]


def test_one_channel_may_be_named_alone() -> None:
    body = json.dumps({"name": "ev", "data": "1", "channel": "a"}).encode()
    assert [topic for topic, _ in control.parse_event("app1", body)] == [b"deskline:ch:app1:a"]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"name": ""}, 400),
        ({"name": "x" * 201}, 400),
        ({"name": None}, 400),
        ({"data": {"not": "a string"}}, 400),
        ({"data": "é" * 5121}, 413),
        ({"channels": []}, 400),
        ({"channels": ["a"] * 101}, 400),
        ({"channels": ["a b"]}, 400),
        ({"channels": "a"}, 400),
        ({"socket_id": "1.2\n"}, 400),
        ({"socket_id": 7}, 400),
    ],
)
def test_a_wrong_event_is_refused(change: dict[str, object], status: int) -> None:
    with pytest.raises(control.ApiError) as refused:
        control.parse_event("app1", json.dumps({**EVENT, **change}).encode())
    assert refused.value.status == status


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff"])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    for parse in (control.parse_event, control.parse_batch):
        with pytest.raises(control.ApiError):
            parse("app1", body)


def test_a_batch() -> None:
    event = {"name": "ev", "data": "1", "channel": "a"}
    body = json.dumps({"batch": [event, {**event, "channel": "b"}]}).encode()
    assert [topic[-1:] for topic, _ in control.parse_batch("app1", body)] == [b"a", b"b"]
    for wrong in ([], [event] * 11, [7], [{"name": "ev", "data": "1"}], None):
        with pytest.raises(control.ApiError):
            control.parse_batch("app1", json.dumps({"batch": wrong}).encode())


# --- the routes


def call(
    gateway: Gateway, method: str, path: str, body: object = None, **parameters: str
) -> httpx.Response:
    content = b"" if body is None else json.dumps(body).encode()
    query = signed(method, path, content, **{"auth_timestamp": str(int(time.time())), **parameters})
    return httpx.request(method, f"{gateway.control}{path}", params=query, content=content)


async def test_events_reach_the_subscribers(gateway: Gateway) -> None:
    async with await gateway.connect() as client, await gateway.connect() as other:
        await client.subscribe("private-a")
        await other.subscribe("private-a")
        answer = call(
            gateway,
            "POST",
            "/apps/app1/events",
            {"name": "ev", "data": "1", "channel": "private-a", "socket_id": other.socket_id},
        )
        assert (answer.status_code, answer.json()) == (200, {})
        assert await client.receive() == {"event": "ev", "channel": "private-a", "data": "1"}
        await other.expect_nothing()
        batch = {"batch": [{"name": f"e{n}", "data": "1", "channel": "private-a"} for n in (1, 2)]}
        assert call(gateway, "POST", "/apps/app1/batch_events", batch).status_code == 200
        assert [(await client.receive())["event"] for _ in range(2)] == ["e1", "e2"]


async def test_channels_of_all_nodes_are_listed(
    gateway: Gateway, redis_server: RedisServer, tmp_path: Path
) -> None:
    second = Gateway(redis_server.url, tmp_path).start()
    try:
        async with await gateway.connect() as client, await second.connect() as other:
            await client.subscribe("private-x@1=2")
            await other.subscribe("public-y")
            answer = call(gateway, "GET", "/apps/app1/channels", filter_by_prefix="")
            assert answer.json() == {"channels": {"private-x@1=2": {}, "public-y": {}}}
            answer = call(gateway, "GET", "/apps/app1/channels", filter_by_prefix="public-")
            assert answer.json() == {"channels": {"public-y": {}}}
            path = "/apps/app1/channels/private-x@1=2"
            assert call(second, "GET", path).json() == {"occupied": True}
            assert call(second, "GET", "/apps/app1/channels/none").json() == {"occupied": False}
            answer = call(gateway, "GET", "/apps/app1/channels", info="user_count")
            assert answer.status_code == 400
    finally:
        second.stop()


def test_errors_have_their_status(gateway: Gateway) -> None:
    path = "/apps/app1/events"
    assert httpx.post(f"{gateway.control}{path}").status_code == 401
    assert call(gateway, "POST", "/apps/other/events", {}).status_code == 404
    assert call(gateway, "POST", path, {"name": "x"}).status_code == 400
    assert call(gateway, "POST", path, {**EVENT, "data": "x" * 10_241}).status_code == 413


def test_without_redis_it_is_503(tmp_path: Path) -> None:
    lonely = Gateway("redis://127.0.0.1:1/0", tmp_path).start(ready=False)
    try:
        answer = call(lonely, "POST", "/apps/app1/events", EVENT)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    finally:
        lonely.stop()
