"""One's own account: sessions, password, second factor, profile."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.api.conftest import PASSWORD, Agent, Person, assert_problem, enrolled
from tests.conftest import Deskline


def me(deskline: Deskline, cookie: str) -> httpx.Response:
    return httpx.get(f"{deskline.url}/api/v1/me", cookies={"deskline_session": cookie})


# --- sessions ---------------------------------------------------------------------------------


def test_a_session_that_was_foisted_on_the_browser_ends_with_the_login(
    deskline: Deskline, person: Person
) -> None:
    before = person.cookie
    answer = person.http.post(
        "/api/v1/auth/login", json={"email": person.email, "password": PASSWORD}
    )
    assert answer.status_code == 200
    assert person.cookie != before
    assert_problem(me(deskline, before), 401, "not_authenticated")
    assert me(deskline, person.cookie).status_code == 200


def test_sessions_are_listed_and_ended(deskline: Deskline, person: Person) -> None:
    other = person.log_in_again().cookies["deskline_session"]
    items = person.get("/me/sessions").json()["items"]
    assert [item["current"] for item in items].count(True) == 1
    assert len(items) == 2
    assert all(item["address"] and item["user_agent"].startswith("python-httpx") for item in items)
    # the list gives nothing to log in with
    for item in items:
        assert_problem(me(deskline, item["id"]), 401, "not_authenticated")
    (ended,) = (item["id"] for item in items if not item["current"])
    assert person.delete(f"/me/sessions/{ended}").status_code == 204
    assert_problem(me(deskline, other), 401, "not_authenticated")
    assert_problem(person.delete(f"/me/sessions/{ended}"), 404, "not_found")
    assert_problem(person.delete("/me/sessions/é"), 404, "not_found")
    assert person.get("/me").status_code == 200


def test_nobody_ends_the_sessions_of_others(person: Person, agent: Agent) -> None:
    (theirs,) = (item["id"] for item in person.get("/me/sessions").json()["items"])
    assert_problem(agent.delete(f"/me/sessions/{theirs}"), 404, "not_found")
    assert person.get("/me").status_code == 200


def test_all_other_sessions_end_at_once(deskline: Deskline, person: Person) -> None:
    others = [person.log_in_again().cookies["deskline_session"] for _ in range(2)]
    assert person.delete("/me/sessions").status_code == 204
    for cookie in others:
        assert_problem(me(deskline, cookie), 401, "not_authenticated")
    assert len(person.get("/me/sessions").json()["items"]) == 1


def test_a_browser_with_broken_headers_can_log_in(deskline: Deskline, person: Person) -> None:
    answer = httpx.post(
        f"{deskline.url}/api/v1/auth/login",
        json={"email": person.email, "password": PASSWORD},
        headers={b"User-Agent": b"\xff\xfe strange \x7f" + b"x" * 1000},
    )
    assert answer.status_code == 200
    names = [item["user_agent"] for item in person.get("/me/sessions").json()["items"]]
    assert any("strange" in name and len(name) <= 300 for name in names)


# --- password ---------------------------------------------------------------------------------


def test_a_new_password_ends_every_session_and_renews_the_own(
    deskline: Deskline, person: Person
) -> None:
    other, mine = person.log_in_again().cookies["deskline_session"], person.cookie
    body = {"password": PASSWORD, "new_password": "a-second-password"}
    answer = person.post("/me/password", body)
    assert answer.status_code == 200, answer.text
    for cookie in (other, mine):
        assert_problem(me(deskline, cookie), 401, "not_authenticated")
    person.csrf = {"X-CSRF-Token": answer.json()["csrf_token"]}
    assert person.patch("/me", {"name": "Renewed"}).status_code == 200
    assert_problem(person.log_in_again(), 401, "invalid_credentials")
    assert person.log_in_again(password="a-second-password").status_code == 200


def test_the_present_password_is_needed_for_a_new_one(person: Person) -> None:
    body = {"password": "guessed-wrong", "new_password": "a-second-password"}
    assert_problem(person.post("/me/password", body), 422, "wrong_password")
    assert_problem(
        person.post("/me/password", {"password": PASSWORD, "new_password": "short"}),
        422,
        "invalid_request",
    )
    assert person.log_in_again().status_code == 200


# --- second factor ----------------------------------------------------------------------------


def test_with_a_second_factor_the_password_alone_is_not_enough(person: Person) -> None:
    app, _ = enrolled(person)
    assert_problem(person.log_in_again(), 401, "totp_required")
    assert_problem(person.log_in_again(code="000000"), 401, "invalid_totp")
    assert person.log_in_again(code=app.now()).status_code == 200


def test_a_code_works_once(person: Person) -> None:
    app, _ = enrolled(person)
    code = app.now()
    assert person.log_in_again(code=code).status_code == 200
    assert_problem(person.log_in_again(code=code), 401, "invalid_totp")


@pytest.mark.parametrize("kind", ["app", "recovery"])
def test_a_code_that_is_sent_many_times_at_once_works_once(person: Person, kind: str) -> None:
    app, codes = enrolled(person)
    code = app.now() if kind == "app" else codes[0]
    with ThreadPoolExecutor(5) as threads:
        answers = list(threads.map(lambda _: person.log_in_again(code=code), range(5)))
    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 4


def test_nothing_tells_that_there_is_a_second_factor_before_the_password_is_right(
    person: Person,
) -> None:
    app, codes = enrolled(person)
    for code in (None, "000000", app.now(), codes[0]):
        answer = person.log_in_again(password="guessed-wrong", **({"code": code} if code else {}))
        assert_problem(answer, 401, "invalid_credentials")
    # and the codes that came with a wrong password were not spent
    assert person.log_in_again(code=codes[0]).status_code == 200


def test_recovery_codes_work_once_each(person: Person) -> None:
    _, codes = enrolled(person)
    assert len(set(codes)) == 10
    assert person.get("/me").json()["recovery_codes_left"] == 10
    typed = codes[3].upper().replace("-", " ")
    assert person.log_in_again(code=typed).status_code == 200
    assert_problem(person.log_in_again(code=codes[3]), 401, "invalid_totp")
    assert person.get("/me").json()["recovery_codes_left"] == 9
    new = person.post("/me/totp/recovery-codes", {"password": PASSWORD, "code": codes[4]})
    assert new.status_code == 200
    assert_problem(person.log_in_again(code=codes[5]), 401, "invalid_totp")
    assert person.log_in_again(code=new.json()["recovery_codes"][0]).status_code == 200


def test_enabling_the_second_factor_ends_the_other_sessions(
    deskline: Deskline, person: Person
) -> None:
    other, mine = person.log_in_again().cookies["deskline_session"], person.cookie
    enrolled(person)
    for cookie in (other, mine):
        assert_problem(me(deskline, cookie), 401, "not_authenticated")
    assert person.get("/me").json()["totp_enabled"] is True


def test_logins_that_succeed_use_nothing_up(person: Person) -> None:
    app, codes = enrolled(person)
    for _ in range(12):
        # a code that is missing is no failure
        assert_problem(person.log_in_again(), 401, "totp_required")
    for code in (app.now(), *codes[:3]):
        assert person.log_in_again(code=code).status_code in (200, 401)
    assert person.log_in_again(code=codes[4]).status_code == 200


def test_it_is_not_in_force_before_a_code_confirms_it(person: Person) -> None:
    assert_problem(person.post("/me/totp", {"password": "guessed-wrong"}), 422, "wrong_password")
    assert_problem(person.post("/me/totp/confirm", {"code": "123456"}), 409, "conflict")
    assert person.post("/me/totp", {"password": PASSWORD}).status_code == 200
    assert_problem(person.post("/me/totp/confirm", {"code": "000000"}), 422, "wrong_code")
    assert person.get("/me").json()["totp_enabled"] is False
    assert person.log_in_again().status_code == 200


def test_turning_it_off_needs_the_password_and_a_code(person: Person) -> None:
    app, _ = enrolled(person)
    wrong = {"password": PASSWORD, "code": "000000"}
    assert_problem(person.post("/me/totp/disable", wrong), 422, "wrong_code")
    wrong = {"password": "guessed-wrong", "code": app.now()}
    assert_problem(person.post("/me/totp/disable", wrong), 422, "wrong_password")
    right = {"password": PASSWORD, "code": app.now()}
    assert person.post("/me/totp/disable", right).status_code == 204
    assert person.log_in_again().status_code == 200
    assert_problem(person.post("/me/totp/disable", right), 409, "conflict")


def test_an_admin_can_turn_it_off_for_somebody_who_lost_it(
    deskline: Deskline, person: Person, agent: Agent
) -> None:
    enrolled(person)
    cookie = person.cookie
    assert agent.delete(f"/users/{person.user['id']}/totp").status_code == 204
    assert_problem(me(deskline, cookie), 401, "not_authenticated")
    assert person.log_in_again().status_code == 200


# --- profile ----------------------------------------------------------------------------------


def test_me_tells_what_the_account_may_and_how_it_is(person: Person) -> None:
    told = person.get("/me").json()
    assert told["availability"] == "online"
    assert told["totp_enabled"] is False
    assert told["all_inboxes"] is True
    assert "conversations" in told["permissions"]
    assert "users.manage" not in told["permissions"]


def test_the_own_profile_can_be_changed(person: Person) -> None:
    change = {"name": " Ann 安 ", "avatar_url": "https://example.com/a.png", "availability": "away"}
    answer = person.patch("/me", change)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["name"], answer.json()["avatar_url"]) == ("Ann 安", change["avatar_url"])
    assert person.get("/me").json()["availability"] == "away"
    assert person.patch("/me", {"avatar_url": None}).json()["avatar_url"] is None


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"name": "two\nlines"},
        {"name": None},
        {"name": "x" * 101},
        {"avatar_url": "javascript:alert(1)"},
        {"availability": "gone"},
        {"role": "admin"},
    ],
)
def test_what_the_own_profile_cannot_hold(person: Person, change: dict[str, Any]) -> None:
    answer = person.patch("/me", change)
    if "role" in change:  # unknown fields are ignored
        assert answer.json()["role"] == "agent"
    else:
        assert_problem(answer, 422, "invalid_request")


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT", "DELETE"])
def test_every_unsafe_method_needs_the_csrf_token(person: Person, method: str) -> None:
    path = {
        "POST": "/api/v1/me/password",
        "PATCH": "/api/v1/me",
        "PUT": "/api/v1/teams/1/members/1",
        "DELETE": "/api/v1/me/sessions",
    }[method]
    admin_only = method == "PUT"
    answer = person.http.request(method, path, json={})
    assert_problem(answer, 403, "forbidden" if admin_only else "csrf_failed")
