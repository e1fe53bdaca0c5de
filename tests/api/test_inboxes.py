"""Inboxes and business hours, as admins keep them and widgets see them."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.api.conftest import Agent, Visitor, assert_problem
from tests.conftest import Deskline

MakeVisitor = Callable[..., Visitor]


def make(agent: Agent, **more: Any) -> dict[str, Any]:
    answer = agent.post("/inboxes", {"name": f"Shop {uuid.uuid4().hex[:8]}", **more})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def session(deskline: Deskline, key: str, **more: Any) -> httpx.Response:
    return httpx.post(
        f"{deskline.url}/api/v1/widget/session", json={"inbox_key": key, **more}, timeout=20
    )


def widget_inbox(deskline: Deskline, key: str, **more: Any) -> dict[str, Any]:
    answer = session(deskline, key, **more)
    assert answer.status_code == 200, answer.text
    inbox: dict[str, Any] = answer.json()["inbox"]
    return inbox


def test_an_inbox_has_sensible_defaults(agent: Agent, deskline: Deskline) -> None:
    made = make(agent, name=" 咖啡店 ☕ cafe\u0301 ")
    assert made["name"] == "咖啡店 ☕ cafe\u0301"
    assert made["languages"] == ["en", "zh-Hant-TW"]
    assert made["csat_enabled"] is True
    assert made["auto_assign"] is False
    assert made["identity_verified"] is False
    assert (made["retention_days"], made["business_hours_id"], made["archived_at"]) == (None,) * 3
    assert f'data-inbox="{made["key"]}"' in made["snippet"]
    assert agent.get(f"/inboxes/{made['id']}").json() == made
    seen = widget_inbox(deskline, made["key"])
    assert (seen["open"], seen["opens_at"], seen["form_required"]) == (True, None, False)
    assert seen["theme"] == {"position": "right", "color_scheme": "auto", "launcher_text": None}


def test_everything_that_is_set_comes_back_and_reaches_the_widget(
    agent: Agent, deskline: Deskline
) -> None:
    made = make(
        agent,
        color="#AA0000",
        greeting="Hi",
        greetings={"en": "Hello 👋", "zh-Hant-TW": "您好"},
        languages=["zh-Hant-TW", "en"],
        allowed_origins=[
            "HTTPS://Shop.Example:443/",
            "http://localhost:8080",
            "https://bücher.example",
        ],
        theme={"position": "left", "color_scheme": "dark", "launcher_text": {"en": "Chat 💬"}},
        pre_chat=[
            {
                "name": "name",
                "label": {"en": "Name", "zh-Hant-TW": "姓名"},
                "type": "text",
                "required": True,
            },
            {"name": "topic", "label": {"en": "Topic"}, "type": "select", "options": ["A", "退貨"]},
        ],
        offline_form={"enabled": True, "message": {"en": "We are away."}},
        consent={"en": "We keep what you write."},
        csat_enabled=False,
        retention_days=30,
        auto_assign=True,
    )
    assert made["allowed_origins"] == [
        "https://shop.example",
        "http://localhost:8080",
        "https://xn--bcher-kva.example",
    ]
    assert (made["retention_days"], made["auto_assign"]) == (30, True)
    chinese = widget_inbox(deskline, made["key"], language="zh-TW")
    assert chinese["greeting"] == "您好"
    assert chinese["color"] == "#AA0000"
    assert chinese["theme"] == {
        "position": "left",
        "color_scheme": "dark",
        "launcher_text": "Chat 💬",
    }
    assert chinese["pre_chat"][0]["label"] == "姓名"
    assert chinese["pre_chat"][1]["options"] == ["A", "退貨"]
    assert chinese["offline_form"] == {"enabled": True, "message": "We are away."}
    assert chinese["consent"] == "We keep what you write."
    assert chinese["csat_enabled"] is False
    assert chinese["form_required"] is True
    assert widget_inbox(deskline, made["key"], language="en-GB")["greeting"] == "Hello 👋"
    assert widget_inbox(deskline, made["key"], language="fr")["greeting"] == "Hello 👋"
    assert "allowed_origins" not in chinese

    # a change replaces what it names, and nothing else
    changed = agent.patch(f"/inboxes/{made['id']}", {"theme": {"position": "right"}}).json()
    assert changed == {
        **made,
        "theme": {"position": "right", "color_scheme": "auto", "launcher_text": {}},
    }
    changed = agent.patch(f"/inboxes/{made['id']}", {"retention_days": None}).json()
    assert changed["retention_days"] is None
    assert changed["greetings"] == made["greetings"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": " "}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": None}, "name"),
        ({"color": "red"}, "color"),
        ({"greeting": "x" * 501}, "greeting"),
        ({"greeting": "a\u0000"}, "greeting"),
        ({"greetings": {"english!": "x"}}, "greetings"),
        ({"greetings": {"en": ""}}, "greetings"),
        ({"languages": []}, "languages"),
        ({"languages": ["en", "EN"]}, "languages"),
        ({"languages": ["en_US"]}, "languages"),
        ({"allowed_origins": ["shop.example"]}, "allowed_origins"),
        ({"allowed_origins": ["https://shop.example/path"]}, "allowed_origins"),
        ({"allowed_origins": ["https://shop.example?x"]}, "allowed_origins"),
        ({"allowed_origins": ["https://user@shop.example"]}, "allowed_origins"),
        ({"allowed_origins": ["https://*.example"]}, "allowed_origins"),
        ({"allowed_origins": ["javascript:alert(1)"]}, "allowed_origins"),
        ({"allowed_origins": ["https://shop.example:99999"]}, "allowed_origins"),
        ({"allowed_origins": ["https://["]}, "allowed_origins"),
        ({"theme": {"position": "top"}}, "theme"),
        ({"pre_chat": [{"name": "x", "label": {}, "type": "text"}]}, "pre_chat"),
        ({"pre_chat": [{"name": "X!", "label": {"en": "X"}, "type": "text"}]}, "pre_chat"),
        ({"pre_chat": [{"name": "x", "label": {"en": "X"}, "type": "file"}]}, "pre_chat"),
        ({"pre_chat": [{"name": "x", "label": {"en": "X"}, "type": "select"}]}, "pre_chat"),
        ({"pre_chat": [{"name": "x", "label": {"en": "X"}, "type": "text"}] * 2}, "pre_chat"),
        ({"pre_chat": [{"name": "email", "label": {"en": "X"}, "type": "text"}]}, "pre_chat"),
        ({"offline_form": {"enabled": "maybe"}}, "offline_form"),
        ({"consent": {"en": "x" * 2001}}, "consent"),
        ({"csat_enabled": None}, "csat_enabled"),
        ({"retention_days": 0}, "retention_days"),
        ({"business_hours_id": 2**60}, "business_hours_id"),
        ({"auto_assign": []}, "auto_assign"),
    ],
)
def test_a_wrong_setting_is_named_and_changes_nothing(
    agent: Agent, body: dict[str, Any], field: str
) -> None:
    made = make(agent)
    problem = assert_problem(agent.patch(f"/inboxes/{made['id']}", body), 422, "invalid_request")
    assert problem["errors"][0]["field"].split(".")[0] == field
    assert agent.get(f"/inboxes/{made['id']}").json() == made
    new = agent.post("/inboxes", {"name": "ok", **body})
    assert_problem(new, 422, "invalid_request")


def test_a_key_belongs_to_one_inbox(agent: Agent) -> None:
    key = f"k-{uuid.uuid4().hex}"
    assert make(agent, key=key)["key"] == key
    problem = assert_problem(agent.post("/inboxes", {"name": "x", "key": key}), 409, "conflict")
    assert problem["errors"][0]["field"] == "key"
    for wrong in ("", "a b", "x" * 65, "é", None):
        answer = agent.post("/inboxes", {"name": "x", "key": wrong})
        assert_problem(answer, 422, "invalid_request")


def test_a_rotated_key_opens_and_the_old_one_does_not(agent: Agent, deskline: Deskline) -> None:
    made = make(agent)
    opened = session(deskline, made["key"]).json()
    rotated = agent.post(f"/inboxes/{made['id']}/rotate-key").json()
    assert rotated["key"] != made["key"]
    assert_problem(session(deskline, made["key"]), 404, "unknown_inbox")
    resumed = session(deskline, rotated["key"], visitor_token=opened["visitor_token"])
    assert resumed.json()["visitor"] == opened["visitor"]


def test_an_archived_inbox_opens_no_more_and_comes_back(agent: Agent, deskline: Deskline) -> None:
    made = make(agent)
    path = f"/inboxes/{made['id']}"
    archived = agent.post(f"{path}/archive").json()
    assert archived["archived_at"] is not None
    assert agent.post(f"{path}/archive").json() == archived
    assert_problem(session(deskline, made["key"]), 410, "inbox_archived")
    own = [item["id"] for item in agent.get("/directory/inboxes").json()["items"]]
    assert made["id"] not in own
    assert made["id"] not in [item["id"] for item in everything(agent)]
    assert made["id"] in [item["id"] for item in everything(agent, archived=True)]
    assert agent.post(f"{path}/restore").json() == made
    assert session(deskline, made["key"]).status_code == 200


def everything(agent: Agent, **params: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        answer = agent.get("/inboxes", limit=2, **params, **cursor)
        assert answer.status_code == 200, answer.text
        found += answer.json()["items"]
        if answer.json()["next_cursor"] is None:
            return found
        cursor = {"cursor": answer.json()["next_cursor"]}


def test_the_list_has_every_inbox_once(agent: Agent) -> None:
    made = [make(agent)["id"] for _ in range(3)]
    ids = [item["id"] for item in everything(agent)]
    assert ids == sorted(set(ids))
    assert set(made) <= set(ids)


def test_members_are_set_as_a_whole(agent: Agent, second_agent: Agent) -> None:
    made = make(agent)
    path = f"/inboxes/{made['id']}/members"
    assert agent.get(path).json() == {"items": [], "next_cursor": None}
    both = [agent.user["id"], second_agent.user["id"]]
    answer = agent.put(path, {"user_ids": [*both, both[0]]})
    assert sorted(item["id"] for item in answer.json()["items"]) == sorted(both)
    answer = agent.put(path, {"user_ids": both[1:]})
    assert [item["id"] for item in answer.json()["items"]] == both[1:]
    assert answer.json()["items"][0]["name"] == second_agent.user["name"]
    problem = assert_problem(agent.put(path, {"user_ids": [2**60]}), 422, "invalid_request")
    assert problem["errors"][0]["field"] == "user_ids"
    assert [item["id"] for item in agent.get(path).json()["items"]] == both[1:]
    assert agent.put(path, {"user_ids": []}).json()["items"] == []
    assert_problem(agent.put("/inboxes/999999999/members", {"user_ids": []}), 404, "not_found")


def test_the_identity_secret_is_shown_once(agent: Agent) -> None:
    made = make(agent)
    path = f"/inboxes/{made['id']}"
    first = agent.post(f"{path}/identity-secret")
    assert first.status_code == 201
    second = agent.post(f"{path}/identity-secret").json()["identity_secret"]
    assert second != first.json()["identity_secret"]
    seen = agent.get(path)
    assert seen.json()["identity_verified"] is True
    assert second not in seen.text
    assert agent.delete(f"{path}/identity-secret").status_code == 204
    assert agent.get(path).json()["identity_verified"] is False


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("PATCH", ""),
        ("POST", "/archive"),
        ("POST", "/restore"),
        ("POST", "/rotate-key"),
        ("POST", "/identity-secret"),
        ("DELETE", "/identity-secret"),
        ("GET", "/members"),
        ("PUT", "/members"),
    ],
)
def test_only_admins_manage_inboxes(
    agent: Agent, second_agent: Agent, visitor: Visitor, method: str, path: str
) -> None:
    body = {"user_ids": []} if path == "/members" else {}
    for address, code in ((999_999_999, "not_found"), (make(agent)["id"], None)):
        url = f"/api/v1/inboxes/{address}{path}"
        refused = second_agent.http.request(method, url, json=body, headers=second_agent.csrf)
        assert_problem(refused, 403, "forbidden")
        assert_problem(visitor.http.request(method, url, json=body), 401, "not_authenticated")
        answer = agent.http.request(method, url, json=body, headers=agent.csrf)
        if code:
            assert_problem(answer, 404, code)
        else:
            assert answer.is_success, answer.text


def test_agents_read_the_inboxes_that_they_see(agent: Agent, second_agent: Agent) -> None:
    made = make(agent, languages=["fr"])
    item = next(
        item
        for item in second_agent.get("/directory/inboxes").json()["items"]
        if item["id"] == made["id"]
    )
    assert item == {
        "id": made["id"],
        "name": made["name"],
        "color": made["color"],
        "languages": ["fr"],
        "auto_assign": False,
        "open": True,
        "opens_at": None,
    }
    assert_problem(second_agent.get("/inboxes"), 403, "forbidden")
    assert_problem(second_agent.post("/inboxes", {"name": "x"}), 403, "forbidden")


# --- business hours ---------------------------------------------------------------------------


def hours(agent: Agent, **more: Any) -> dict[str, Any]:
    body = {"name": "Hours", "time_zone": "Asia/Taipei", "weekly": {}, **more}
    answer = agent.post("/business-hours", body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def test_business_hours_open_and_close_the_widget(agent: Agent, deskline: Deskline) -> None:
    closed = hours(agent, name="打烊 🌙", holidays=[])
    made = make(agent, business_hours_id=closed["id"])
    seen = widget_inbox(deskline, made["key"])
    assert (seen["open"], seen["opens_at"]) == (False, None)

    tomorrow = datetime.now(UTC) + timedelta(days=1)
    day = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")[tomorrow.weekday()]
    changed = agent.patch(
        f"/business-hours/{closed['id']}",
        {"time_zone": "UTC", "weekly": {day: [["09:00", "17:00"]]}},
    ).json()
    assert changed["weekly"][day] == [["09:00", "17:00"]]
    assert changed["name"] == "打烊 🌙"
    seen = widget_inbox(deskline, made["key"])
    opens = tomorrow.replace(hour=9, minute=0, second=0, microsecond=0)
    assert seen["open"] is False
    assert datetime.fromisoformat(seen["opens_at"]) == opens
    assert changed["opens_at"] == seen["opens_at"]

    always = {day: [["00:00", "24:00"]] for day in changed["weekly"]}
    agent.patch(f"/business-hours/{closed['id']}", {"weekly": always})
    seen = widget_inbox(deskline, made["key"])
    assert (seen["open"], seen["opens_at"]) == (True, None)

    holidays = [
        {
            "date": (datetime.now(UTC) + timedelta(days=n)).date().isoformat(),
            "name": "放假",
            "hours": [],
        }
        for n in (-1, 0, 1)
    ]
    agent.patch(f"/business-hours/{closed['id']}", {"holidays": holidays})
    assert widget_inbox(deskline, made["key"])["open"] is False

    problem = assert_problem(agent.delete(f"/business-hours/{closed['id']}"), 409, "conflict")
    assert made["name"] in problem["detail"]
    agent.patch(f"/inboxes/{made['id']}", {"business_hours_id": None})
    assert agent.delete(f"/business-hours/{closed['id']}").status_code == 204
    assert_problem(agent.get(f"/business-hours/{closed['id']}"), 404, "not_found")
    assert widget_inbox(deskline, made["key"])["open"] is True


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": ""}, "name"),
        ({"time_zone": "Mars/Olympus"}, "time_zone"),
        ({"time_zone": "../../etc/passwd"}, "time_zone"),
        ({"weekly": {"mon": [["17:00", "17:00"]]}}, "weekly"),
        ({"weekly": {"mon": [["9", "17:00"]]}}, "weekly"),
        ({"weekly": {"mon": [["09:00", "12:00"], ["11:00", "13:00"]]}}, "weekly"),
        ({"weekly": None}, "weekly"),
        ({"holidays": [{"date": "2026-02-30", "name": "x"}]}, "holidays"),
        ({"holidays": [{"date": 7, "name": "x"}]}, "holidays"),
        ({"holidays": [{"date": "2026-02-01", "name": ""}]}, "holidays"),
        ({"holidays": [{"date": "2026-02-01", "name": "x"}] * 2}, "holidays"),
    ],
)
def test_wrong_hours_name_the_field(agent: Agent, change: dict[str, Any], field: str) -> None:
    body = {"name": "Hours", "time_zone": "Asia/Taipei", "weekly": {}, **change}
    problem = assert_problem(agent.post("/business-hours", body), 422, "invalid_request")
    assert problem["errors"][0]["field"].split(".")[0] == field
    made = hours(agent)
    path = f"/business-hours/{made['id']}"
    assert_problem(agent.patch(path, change), 422, "invalid_request")
    assert agent.get(path).json()["weekly"] == made["weekly"]


def test_only_admins_manage_business_hours(agent: Agent, second_agent: Agent) -> None:
    made = hours(agent)
    path = f"/business-hours/{made['id']}"
    assert made in agent.get("/business-hours").json()["items"]
    assert_problem(second_agent.get("/business-hours"), 403, "forbidden")
    assert_problem(second_agent.get(path), 403, "forbidden")
    assert_problem(second_agent.patch(path, {}), 403, "forbidden")
    assert_problem(second_agent.delete(path), 403, "forbidden")
