"""Accounts, teams and API keys, as admins keep them."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.api.conftest import PASSWORD, Agent, NewAccount, Person, Visitor, assert_problem
from tests.api.test_account import me
from tests.conftest import Deskline


def unique(word: str) -> str:
    return f"{word}-{uuid.uuid4()}"


def audited(agent: Agent, action: str, object_type: str, object_id: int) -> list[Any]:
    """The entries of the audit log about an object, newest first."""
    answer = agent.get(
        "/audit", action=action, object_type=object_type, object_id=str(object_id), limit=10
    )
    assert answer.status_code == 200, answer.text
    items: list[Any] = answer.json()["items"]
    return items


# --- accounts ---------------------------------------------------------------------------------


def test_an_account_is_made_read_changed_and_found(agent: Agent, new_account: NewAccount) -> None:
    name = unique("Bo")
    made = new_account(name=name, role="agent", capacity=3)
    told = agent.get(f"/users/{made.user['id']}").json()
    assert (told["name"], told["role"], told["capacity"]) == (name, "agent", 3)
    assert (told["active"], told["invited"], told["all_inboxes"]) == (True, False, True)
    assert "password" not in str(told)
    changed = agent.patch(f"/users/{told['id']}", {"name": name + "!", "role": "admin"})
    assert changed.json() == {**told, "name": name + "!", "role": "admin"}
    found = agent.get("/users", query=name.upper()[3:10], limit=100).json()["items"]
    assert told["id"] in {item["id"] for item in found}
    assert agent.get("/users", query="100%_nobody").json()["items"] == []


def test_accounts_come_in_pages(agent: Agent, new_account: NewAccount) -> None:
    made = {new_account().user["id"] for _ in range(3)}
    seen: list[int] = []
    cursor = None
    while True:
        page = agent.get("/users", limit=2, **({"cursor": cursor} if cursor else {})).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len(seen) == len(set(seen))
    assert made <= set(seen)


def test_an_address_belongs_to_one_account(agent: Agent, person: Person) -> None:
    body = {"email": person.email.upper(), "name": "Twin", "password": PASSWORD}
    assert_problem(agent.post("/users", body), 409, "email_taken")


@pytest.mark.parametrize(
    "wrong",
    [
        {"email": "nobody"},
        {"email": "a b@example.com"},
        {"email": "a@b@example.com"},
        {"name": ""},
        {"role": "owner"},
        {"password": "short"},
        {"inbox_ids": [2**62]},
        {"inbox_ids": "all"},
        {"capacity": -1},
    ],
)
def test_what_an_account_cannot_be(agent: Agent, wrong: dict[str, Any]) -> None:
    email = f"{unique('wrong')}@example.com"
    body = {"email": email, "name": "Wrong", "password": PASSWORD, **wrong}
    assert_problem(agent.post("/users", body), 422, "invalid_request")
    assert agent.get("/users", query=email).json()["items"] == []


def test_without_mail_an_account_needs_a_password(agent: Agent) -> None:
    body = {"email": f"{unique('invited')}@example.com", "name": "Invited"}
    answer = agent.post("/users", body)
    if answer.status_code == 201:
        pytest.skip("this deployment can send mail")
    document = assert_problem(answer, 409, "mail_not_configured")
    assert "DESKLINE_MAIL_FROM" in document["detail"]
    assert agent.get("/users", query=body["email"]).json()["items"] == []


def test_deactivating_ends_sessions_and_keys_at_once(
    deskline: Deskline, agent: Agent, person: Person
) -> None:
    key = agent.post("/api-keys", {"name": "k", "user_id": person.user["id"]}).json()["key"]
    assert with_key(deskline, key).status_code == 200
    path = f"/users/{person.user['id']}"
    assert agent.patch(path, {"active": False}).json()["active"] is False
    assert_problem(person.get("/me"), 401, "not_authenticated")
    assert_problem(with_key(deskline, key), 401, "not_authenticated")
    assert_problem(person.log_in_again(), 401, "invalid_credentials")
    # and they do not come back with the account
    assert agent.patch(path, {"active": True}).json()["active"] is True
    assert_problem(person.get("/me"), 401, "not_authenticated")
    assert_problem(with_key(deskline, key), 401, "not_authenticated")
    assert person.log_in_again().status_code == 200


def test_an_admin_logs_an_account_out_everywhere(
    deskline: Deskline, agent: Agent, person: Person
) -> None:
    cookie = person.cookie
    assert agent.delete(f"/users/{person.user['id']}/sessions").status_code == 204
    assert_problem(me(deskline, cookie), 401, "not_authenticated")
    assert_problem(agent.delete("/users/0/sessions"), 404, "not_found")


def test_the_inboxes_of_an_account_bound_what_it_sees(
    agent: Agent, new_account: NewAccount, visitor: Visitor
) -> None:
    inbox_id = agent.get("/me").json()["inboxes"][0]["id"]
    conversation_id = visitor.conversation()
    nothing = new_account(all_inboxes=False, inbox_ids=[])
    told = nothing.get("/me").json()
    assert (told["all_inboxes"], told["inboxes"]) == (False, [])
    assert_problem(nothing.get(f"/conversations/{conversation_id}"), 404, "not_found")
    changed = agent.patch(f"/users/{nothing.user['id']}", {"inbox_ids": [inbox_id, inbox_id]})
    assert changed.json()["inbox_ids"] == [inbox_id]
    assert [ref["id"] for ref in nothing.get("/me").json()["inboxes"]] == [inbox_id]


def test_a_role_holds_from_the_next_call(agent: Agent, person: Person) -> None:
    assert_problem(person.get("/users"), 403, "forbidden")
    agent.patch(f"/users/{person.user['id']}", {"role": "admin"})
    assert person.get("/users").status_code == 200
    agent.patch(f"/users/{person.user['id']}", {"role": "agent"})
    assert_problem(person.get("/users"), 403, "forbidden")


def test_admins_that_demote_each_other_at_once_leave_one(
    agent: Agent, new_account: NewAccount
) -> None:
    """Everybody tries to demote all admins at once, as often as it takes."""
    admins = [new_account(role="admin") for _ in range(3)]
    known = {item["id"] for item in agent.get("/users", role="admin", active=True).json()["items"]}
    others = known - {one.user["id"] for one in admins} - {agent.user["id"]}
    if others:
        pytest.skip("this deployment has admins of its own")
    everybody = [agent, *admins]

    def demote(pair: tuple[Agent, Agent]) -> int:
        who, whom = pair
        return who.patch(f"/users/{whom.user['id']}", {"role": "agent"}).status_code

    pairs = [(who, whom) for who in everybody for whom in everybody]
    try:
        with ThreadPoolExecutor(8) as threads:
            codes = list(threads.map(demote, pairs))
    finally:
        left = [one for one in everybody if one.get("/users", limit=1).status_code == 200]
        assert len(left) == 1
        assert left[0].patch(f"/users/{agent.user['id']}", {"role": "admin"}).status_code == 200
    assert 409 in codes
    assert set(codes) <= {200, 403, 409}


def test_the_last_admin_is_told_why(agent: Agent) -> None:
    others = [
        item
        for item in agent.get("/users", role="admin", active=True, limit=100).json()["items"]
        if item["id"] != agent.user["id"]
    ]
    if others:
        pytest.skip("there are other admins")
    for change in ({"role": "agent"}, {"active": False}):
        document = assert_problem(
            agent.patch(f"/users/{agent.user['id']}", change), 409, "conflict"
        )
        assert "last active admin" in document["detail"]
    assert agent.get("/users", limit=1).status_code == 200


def test_agents_see_their_colleagues_and_nothing_more(second_agent: Agent, person: Person) -> None:
    items = second_agent.get("/colleagues").json()["items"]
    (found,) = (item for item in items if item["id"] == person.user["id"])
    assert set(found) == {"id", "name", "avatar_url", "availability"}
    first = second_agent.get("/colleagues", limit=1).json()
    assert len(first["items"]) == 1
    assert first["next_cursor"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/users"),
        ("POST", "/users"),
        ("GET", "/users/1"),
        ("PATCH", "/users/1"),
        ("POST", "/users/1/invite"),
        ("DELETE", "/users/1/totp"),
        ("DELETE", "/users/1/sessions"),
        ("POST", "/teams"),
        ("PATCH", "/teams/1"),
        ("DELETE", "/teams/1"),
        ("PUT", "/teams/1/members/1"),
        ("DELETE", "/teams/1/members/1"),
        ("GET", "/api-keys"),
        ("POST", "/api-keys"),
        ("DELETE", "/api-keys/1"),
    ],
)
def test_agents_keep_neither_accounts_nor_teams_nor_keys(
    second_agent: Agent, method: str, path: str
) -> None:
    answer = second_agent.http.request(method, f"/api/v1{path}", headers=second_agent.csrf, json={})
    assert_problem(answer, 403, "forbidden")


def test_acts_are_in_the_audit_log(agent: Agent, person: Person) -> None:
    user_id = person.user["id"]
    agent.patch(f"/users/{user_id}", {"capacity": 7})
    agent.delete(f"/users/{user_id}/sessions")
    agent.delete(f"/users/{user_id}/totp")
    team = agent.post("/teams", {"name": unique("Team")}).json()["id"]
    agent.put(f"/teams/{team}/members/{user_id}", None)
    agent.patch(f"/teams/{team}", {"member_ids": []})
    agent.delete(f"/teams/{team}")
    key = agent.post("/api-keys", {"name": "robot", "user_id": user_id}).json()
    agent.delete(f"/api-keys/{key['id']}")
    for action, kind, object_id in (
        ("user.created", "user", user_id),
        ("user.updated", "user", user_id),
        ("user.sessions_ended", "user", user_id),
        ("user.totp_reset", "user", user_id),
        ("team.created", "team", team),
        ("team.member_added", "team", team),
        ("team.updated", "team", team),
        ("team.deleted", "team", team),
        ("api_key.created", "api_key", key["id"]),
        ("api_key.revoked", "api_key", key["id"]),
    ):
        (entry, *_) = audited(agent, action, kind, object_id)
        assert entry["actor"]["id"] == agent.user["id"], action
        assert entry["address"], action
        assert PASSWORD not in str(entry), action
        assert key["key"] not in str(entry), action
    (changed, *_) = audited(agent, "user.updated", "user", user_id)
    assert changed["details"] == {"changed": {"capacity": 7}}


def test_what_people_do_with_their_own_accounts_is_audited_too(
    agent: Agent, person: Person
) -> None:
    body = {"password": PASSWORD, "new_password": "a-second-password"}
    assert person.post("/me/password", body).status_code == 200
    (entry,) = audited(agent, "user.password_changed", "user", person.user["id"])
    assert entry["actor"]["id"] == person.user["id"]
    assert "a-second-password" not in str(entry)


# --- teams ------------------------------------------------------------------------------------


def test_a_team_is_made_changed_and_deleted(
    agent: Agent, second_agent: Agent, person: Person
) -> None:
    name, member = unique("Team"), person.user["id"]
    made = agent.post("/teams", {"name": name, "member_ids": [member, member]})
    assert made.status_code == 201, made.text
    path = f"/teams/{made.json()['id']}"
    assert [one["id"] for one in made.json()["members"]] == [member]
    assert made.json() in second_agent.get("/teams").json()["items"]
    assert second_agent.get(path).json() == made.json()
    changed = agent.patch(path, {"name": f"{name}!", "member_ids": []})
    assert (changed.json()["name"], changed.json()["members"]) == (f"{name}!", [])
    assert_problem(agent.post("/teams", {"name": f"{name}!".upper()}), 409, "conflict")
    assert agent.delete(path).status_code == 204
    for answer in (agent.get(path), agent.delete(path), agent.patch(path, {"name": "x"})):
        assert_problem(answer, 404, "not_found")


def test_members_come_and_go_one_at_a_time(agent: Agent, person: Person) -> None:
    team = agent.post("/teams", {"name": unique("Team")}).json()
    member = f"/teams/{team['id']}/members/{person.user['id']}"
    for _ in range(2):
        assert agent.put(member, None).status_code == 204
    assert len(agent.get(f"/teams/{team['id']}").json()["members"]) == 1
    for _ in range(2):
        assert agent.delete(member).status_code == 204
    assert agent.get(f"/teams/{team['id']}").json()["members"] == []
    assert_problem(agent.put(f"/teams/{team['id']}/members/0", None), 404, "not_found")
    assert_problem(agent.put(f"/teams/0/members/{person.user['id']}", None), 404, "not_found")
    agent.delete(f"/teams/{team['id']}")


def test_a_team_of_unknown_members_is_not_made(agent: Agent) -> None:
    name = unique("Team")
    wrong = agent.post("/teams", {"name": name, "member_ids": [2**62]})
    assert_problem(wrong, 422, "invalid_request")
    assert name not in {team["name"] for team in agent.get("/teams").json()["items"]}


def test_a_team_that_conversations_wait_for_stays(
    agent: Agent, person: Person, visitor: Visitor
) -> None:
    body = {"name": unique("Team"), "member_ids": [person.user["id"]]}
    team = agent.post("/teams", body).json()
    conversation_id = visitor.conversation()
    given = agent.post(f"/conversations/{conversation_id}/transfer", {"team_id": team["id"]})
    assert given.status_code == 200, given.text
    assert_problem(agent.delete(f"/teams/{team['id']}"), 409, "conflict")
    agent.post(f"/conversations/{conversation_id}/resolve")
    assert agent.delete(f"/teams/{team['id']}").status_code == 204
    assert agent.get(f"/conversations/{conversation_id}").status_code == 200


# --- API keys ---------------------------------------------------------------------------------


def with_key(
    deskline: Deskline, key: str, path: str = "/me", method: str = "GET", body: Any = None
) -> httpx.Response:
    return httpx.request(
        method,
        f"{deskline.url}/api/v1{path}",
        headers={"Authorization": f"Bearer {key}"},
        json=body,
        timeout=20,
    )


def test_a_key_acts_as_its_account_without_a_csrf_token(
    deskline: Deskline, agent: Agent, person: Person, visitor: Visitor
) -> None:
    made = agent.post("/api-keys", {"name": "robot", "user_id": person.user["id"], "days": 1})
    assert made.status_code == 201, made.text
    key = made.json()["key"]
    assert key.startswith("dk_")
    told = with_key(deskline, key).json()
    assert (told["user"]["id"], told["csrf_token"]) == (person.user["id"], "")
    conversation_id = visitor.conversation()
    message = {"client_id": str(uuid.uuid4()), "body": "from a program"}
    path = f"/conversations/{conversation_id}/messages"
    assert with_key(deskline, key, path, "POST", message).status_code == 201
    # with the account's role
    assert_problem(with_key(deskline, key, "/users"), 403, "forbidden")


def test_a_key_is_shown_once_and_its_use_is_noted(
    deskline: Deskline, agent: Agent, person: Person
) -> None:
    made = agent.post("/api-keys", {"name": "robot", "user_id": person.user["id"]}).json()
    assert made["last_used_at"] is None
    with_key(deskline, made["key"])
    listed = agent.get("/api-keys", limit=100)
    assert made["key"] not in listed.text
    (found,) = (item for item in listed.json()["items"] if item["id"] == made["id"])
    assert found["last_used_at"] is not None
    assert made["key"].startswith(found["prefix"])
    assert found["user"]["id"] == person.user["id"]


def test_a_revoked_key_is_worth_nothing(deskline: Deskline, agent: Agent, person: Person) -> None:
    made = agent.post("/api-keys", {"name": "robot", "user_id": person.user["id"]}).json()
    for _ in range(2):
        assert agent.delete(f"/api-keys/{made['id']}").status_code == 204
    assert_problem(with_key(deskline, made["key"]), 401, "not_authenticated")
    assert_problem(agent.delete("/api-keys/0"), 404, "not_found")
    assert_problem(with_key(deskline, "dk_" + "x" * 43), 401, "not_authenticated")


def test_a_key_cannot_do_what_only_a_person_may(
    deskline: Deskline, agent: Agent, person: Person
) -> None:
    made = agent.post("/api-keys", {"name": "robot"}).json()
    account = f"/users/{person.user['id']}"
    for method, path in (
        ("GET", "/me/sessions"),
        ("DELETE", "/me/sessions"),
        ("POST", "/me/password"),
        ("POST", "/me/totp"),
        ("POST", "/me/totp/confirm"),
        ("POST", "/me/totp/disable"),
        ("POST", "/auth/logout"),
        ("GET", "/api-keys"),
        ("POST", "/api-keys"),
        ("DELETE", f"/api-keys/{made['id']}"),
        # each of these could be made a login that outlives the key
        ("POST", "/users"),
        ("PATCH", account),
        ("POST", f"{account}/invite"),
        ("DELETE", f"{account}/totp"),
        ("DELETE", f"{account}/sessions"),
    ):
        assert_problem(with_key(deskline, made["key"], path, method, {}), 403, "forbidden")
    assert agent.delete(f"/api-keys/{made['id']}").status_code == 204


def test_a_key_for_nobody_is_not_made(agent: Agent) -> None:
    wrong = agent.post("/api-keys", {"name": "robot", "user_id": 2**62})
    assert_problem(wrong, 422, "invalid_request")
    assert_problem(agent.post("/api-keys", {"name": "", "days": 0}), 422, "invalid_request")
