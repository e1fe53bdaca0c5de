"""Every route with every role: who is let in, who is refused, and for whom it does not exist.

TABLE names each route of the OpenAPI document once; a new route without a row fails. What a row
expects stands in EXPECTED, one status per role, ``ok`` for anything but a refusal.
"""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx
import pytest

from tests.api.conftest import PASSWORD, Agent, Person, Visitor
from tests.conftest import Deskline

ROLES: Final = (
    "anonymous",
    "visitor",  # the conversation is this one's
    "other visitor",
    "foreign agent",  # sees another inbox only
    "agent",
    "admin",
)
EXPECTED: Final[dict[str, tuple[int | str, ...]]] = {
    "public": ("ok", "ok", "ok", "ok", "ok", "ok"),
    "staff": (401, 401, 401, "ok", "ok", "ok"),
    "admin": (401, 401, 401, 403, 403, "ok"),
    # a conversation and what hangs on it, for staff
    "conversation": (401, 401, 401, 404, "ok", "ok"),
    "of visitor": (401, 401, 401, 404, "ok", "ok"),
    # a visitor's own conversation
    "own": (401, "ok", 404, 401, 401, 401),
    "visitor": (401, "ok", "ok", 401, 401, 401),
    # the agent's own message in a conversation: others may not rewrite it, admins may remove it
    "edit": (401, 401, 401, 404, "ok", 403),
    "delete": (401, 401, 401, 404, "ok", "ok"),
    # a subscription: the Channels protocol knows 403 only
    "channel": (403, "ok", 403, 403, "ok", "ok"),
}


@dataclass(frozen=True)
class Row:
    """``kind`` is a key of EXPECTED; ``body`` replaces the document's example."""

    kind: str
    body: dict[str, Any] | Callable[[World], dict[str, Any]] | None = None
    ends_session: bool = False


class World:
    """Who calls, and a visitor's conversation in an inbox that the foreign agent does not see."""

    def __init__(self, deskline: Deskline, emails: dict[str, str]) -> None:
        self.deskline = deskline
        self.emails = emails
        self.agent_id = 0
        self.conversation_id = 0
        self.clients: dict[str, tuple[httpx.Client, dict[str, str]]] = {
            "anonymous": (httpx.Client(base_url=deskline.url, timeout=30), {}),
            "other visitor": (Visitor(deskline).http, {}),
        }
        self.visitor = self.new_visitor()
        for role in emails:
            self.log_in(role)

    def log_in(self, role: str) -> None:
        if role in self.clients:
            self.clients[role][0].close()
        person = Person(self.deskline, self.emails[role])
        self.clients[role] = (person.http, person.csrf)

    def new_visitor(self) -> Visitor:
        if "visitor" in self.clients:
            self.clients["visitor"][0].close()
        self.visitor = Visitor(self.deskline)
        self.clients["visitor"] = (self.visitor.http, {})
        return self.visitor

    def new_conversation(self) -> None:
        """A new visitor's message (seq 1) and the agent's answer (seq 2)."""
        self.conversation_id = self.new_visitor().conversation()
        path = f"/api/v1/conversations/{self.conversation_id}/messages"
        assert self.call("agent", "POST", path, _message(self)).status_code == 201

    def close(self) -> None:
        for client, _ in self.clients.values():
            client.close()

    def call(
        self, role: str, method: str, path: str, body: Any, *, form: bool = False
    ) -> httpx.Response:
        client, headers = self.clients[role]
        if form:
            return client.request(method, path, data=body, headers=headers)
        if isinstance(body, bytes):
            headers = {**headers, "Content-Type": "text/plain"}
            return client.request(f"{method}", f"{path}?name=a.txt", content=body, headers=headers)
        return client.request(method, path, json=body, headers=headers)


def _message(_world: World) -> dict[str, Any]:
    return {"client_id": str(uuid.uuid4()), "body": "who may write this?"}


def _assign(world: World) -> dict[str, Any]:
    return {"user_id": world.agent_id}


def _subscription(world: World) -> dict[str, Any]:
    channel = f"private-conversation.{world.conversation_id}"
    return {"socket_id": "1234.5678", "channel_name": channel}


def _account(_world: World) -> dict[str, Any]:
    unique = uuid.uuid4().hex[:12]
    return {"email": f"{unique}@example.com", "name": unique, "password": f"{unique}-{unique}"}


def _network(_world: World) -> dict[str, Any]:
    return {"network": f"2001:db8:{secrets.randbelow(65536):x}::/48", "reason": "a test"}


def _tomorrow(_world: World) -> dict[str, Any]:
    return {"until": (datetime.now(UTC) + timedelta(days=1)).isoformat()}


def _name(_world: World) -> dict[str, Any]:
    return {"name": f"Permissions {uuid.uuid4().hex[:12]}"}


TABLE: Final[dict[str, Row]] = {
    "POST /api/v1/auth/login": Row("public", {"email": "nobody@example.com", "password": "wrong"}),
    "POST /api/v1/auth/logout": Row("staff", ends_session=True),
    "GET /api/v1/me": Row("staff"),
    "GET /api/v1/conversations": Row("staff"),
    "GET /api/v1/conversations/{conversation_id}": Row("conversation"),
    "GET /api/v1/conversations/{conversation_id}/messages": Row("conversation"),
    "POST /api/v1/conversations/{conversation_id}/messages": Row("conversation", _message),
    "POST /api/v1/conversations/{conversation_id}/read": Row("conversation"),
    "POST /api/v1/conversations/{conversation_id}/delivered": Row("conversation"),
    "POST /api/v1/conversations/{conversation_id}/claim": Row("conversation"),
    "POST /api/v1/conversations/{conversation_id}/release": Row("conversation"),
    "POST /api/v1/conversations/{conversation_id}/assign": Row("conversation", _assign),
    "POST /api/v1/conversations/{conversation_id}/transfer": Row("conversation", _assign),
    "POST /api/v1/conversations/{conversation_id}/snooze": Row("conversation", _tomorrow),
    "POST /api/v1/conversations/{conversation_id}/resolve": Row("conversation"),
    "POST /api/v1/conversations/{conversation_id}/reopen": Row("conversation"),
    "PATCH /api/v1/conversations/{conversation_id}": Row("conversation", {"priority": "high"}),
    "PUT /api/v1/conversations/{conversation_id}/labels": Row("conversation", {"label_ids": []}),
    "GET /api/v1/conversations/{conversation_id}/participants": Row("conversation"),
    "PUT /api/v1/conversations/{conversation_id}/participants/{user_id}": Row("conversation"),
    "DELETE /api/v1/conversations/{conversation_id}/participants/{user_id}": Row("conversation"),
    "POST /api/v1/conversations/{conversation_id}/attachments": Row("conversation"),
    "GET /api/v1/conversations/{conversation_id}/transcript": Row("conversation"),
    "POST /api/v1/conversations/{conversation_id}/transcript/mail": Row("conversation"),
    "PATCH /api/v1/conversations/{conversation_id}/messages/{stream}/{seq}": Row("edit"),
    "DELETE /api/v1/conversations/{conversation_id}/messages/{stream}/{seq}": Row("delete"),
    "GET /api/v1/widget/conversations/{conversation_id}": Row("own"),
    "GET /api/v1/widget/conversations/{conversation_id}/messages": Row("own"),
    "POST /api/v1/widget/conversations/{conversation_id}/messages": Row("own", _message),
    "POST /api/v1/widget/conversations/{conversation_id}/read": Row("own"),
    "POST /api/v1/widget/conversations/{conversation_id}/delivered": Row("own"),
    "PATCH /api/v1/widget/conversations/{conversation_id}/messages/{seq}": Row("own"),
    "DELETE /api/v1/widget/conversations/{conversation_id}/messages/{seq}": Row("own"),
    "POST /api/v1/widget/conversations/{conversation_id}/attachments": Row("own"),
    "POST /api/v1/widget/conversations/{conversation_id}/end": Row("own"),
    "POST /api/v1/widget/conversations/{conversation_id}/rating": Row("own"),
    "GET /api/v1/widget/conversations/{conversation_id}/transcript": Row("own"),
    "POST /api/v1/widget/conversations/{conversation_id}/transcript/mail": Row("own"),
    "GET /api/v1/widget/conversations": Row("visitor"),
    "POST /api/v1/widget/conversations": Row("visitor", _message),
    "POST /api/v1/widget/sync": Row("visitor"),
    "POST /api/v1/widget/page": Row("visitor"),
    "POST /api/v1/widget/session": Row("public", {"inbox_key": "demo"}),
    "POST /broadcasting/auth": Row("channel", _subscription),
    "GET /api/v1/attachments/{token}": Row("public"),
    "GET /healthz": Row("public"),
    "GET /readyz": Row("public"),
    "GET /metrics": Row("public"),
    "GET /openapi.json": Row("public"),
    "GET /api/v1/directory/inboxes": Row("staff"),
    "GET /api/v1/presence": Row("staff"),
    "POST /api/v1/presence": Row("staff"),
    "POST /api/v1/sync": Row("staff"),
    "GET /api/v1/search": Row("staff"),
    "GET /api/v1/labels": Row("staff"),
    "GET /api/v1/canned-responses": Row("staff"),
    "GET /api/v1/canned-responses/{response_id}": Row("staff"),
    "POST /api/v1/canned-responses/{response_id}/render": Row("staff"),
    "POST /api/v1/labels": Row("admin", _name),
    "PATCH /api/v1/labels/{label_id}": Row("admin"),
    "DELETE /api/v1/labels/{label_id}": Row("admin"),
    "POST /api/v1/canned-responses": Row("admin"),
    "PATCH /api/v1/canned-responses/{response_id}": Row("admin"),
    "DELETE /api/v1/canned-responses/{response_id}": Row("admin"),
    "GET /api/v1/inboxes": Row("admin"),
    "POST /api/v1/inboxes": Row("admin", _name),
    "GET /api/v1/inboxes/{inbox_id}": Row("admin"),
    "PATCH /api/v1/inboxes/{inbox_id}": Row("admin"),
    "POST /api/v1/inboxes/{inbox_id}/archive": Row("admin"),
    "POST /api/v1/inboxes/{inbox_id}/restore": Row("admin"),
    "POST /api/v1/inboxes/{inbox_id}/rotate-key": Row("admin"),
    "POST /api/v1/inboxes/{inbox_id}/identity-secret": Row("admin"),
    "DELETE /api/v1/inboxes/{inbox_id}/identity-secret": Row("admin"),
    "GET /api/v1/inboxes/{inbox_id}/members": Row("admin"),
    "PUT /api/v1/inboxes/{inbox_id}/members": Row("admin"),
    "GET /api/v1/business-hours": Row("admin"),
    "POST /api/v1/business-hours": Row("admin"),
    "GET /api/v1/business-hours/{hours_id}": Row("admin"),
    "PATCH /api/v1/business-hours/{hours_id}": Row("admin"),
    "DELETE /api/v1/business-hours/{hours_id}": Row("admin"),
    "GET /api/v1/webhooks": Row("admin"),
    "POST /api/v1/webhooks": Row("admin"),
    "GET /api/v1/webhooks/{webhook_id}": Row("admin"),
    "PATCH /api/v1/webhooks/{webhook_id}": Row("admin"),
    "DELETE /api/v1/webhooks/{webhook_id}": Row("admin"),
    "POST /api/v1/webhooks/{webhook_id}/rotate-secret": Row("admin"),
    "POST /api/v1/webhooks/{webhook_id}/test": Row("admin"),
    "GET /api/v1/webhooks/{webhook_id}/deliveries": Row("admin"),
    "GET /api/v1/webhooks/{webhook_id}/deliveries/{delivery_id}": Row("admin"),
    "POST /api/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/retry": Row("admin"),
    "GET /api/v1/reports/volume": Row("admin"),
    "GET /api/v1/reports/first-response": Row("admin"),
    "GET /api/v1/reports/resolution": Row("admin"),
    "GET /api/v1/reports/csat": Row("admin"),
    "GET /api/v1/reports/agents": Row("admin"),
    "GET /api/v1/reports/inboxes": Row("admin"),
    "GET /api/v1/reports/hours": Row("admin"),
    "POST /api/v1/auth/password-reset": Row("public"),
    "POST /api/v1/auth/password-reset/confirm": Row("public"),
    "POST /api/v1/auth/invitation/accept": Row("public"),
    "PATCH /api/v1/me": Row("staff", {"availability": "online"}),
    "POST /api/v1/me/password": Row("staff"),
    "GET /api/v1/me/sessions": Row("staff"),
    "DELETE /api/v1/me/sessions": Row("staff"),
    "DELETE /api/v1/me/sessions/{session}": Row("staff"),
    "POST /api/v1/me/totp": Row("staff"),
    "POST /api/v1/me/totp/confirm": Row("staff"),
    "POST /api/v1/me/totp/disable": Row("staff"),
    "POST /api/v1/me/totp/recovery-codes": Row("staff"),
    "GET /api/v1/users": Row("admin"),
    "POST /api/v1/users": Row("admin", _account),
    "GET /api/v1/users/{user_id}": Row("admin"),
    "PATCH /api/v1/users/{user_id}": Row("admin"),
    "POST /api/v1/users/{user_id}/invite": Row("admin"),
    "DELETE /api/v1/users/{user_id}/totp": Row("admin"),
    "DELETE /api/v1/users/{user_id}/sessions": Row("admin"),
    "GET /api/v1/colleagues": Row("staff"),
    "GET /api/v1/teams": Row("staff"),
    "POST /api/v1/teams": Row("admin", _name),
    "GET /api/v1/teams/{team_id}": Row("staff"),
    "PATCH /api/v1/teams/{team_id}": Row("admin"),
    "DELETE /api/v1/teams/{team_id}": Row("admin"),
    "PUT /api/v1/teams/{team_id}/members/{user_id}": Row("admin"),
    "DELETE /api/v1/teams/{team_id}/members/{user_id}": Row("admin"),
    "GET /api/v1/api-keys": Row("admin"),
    "POST /api/v1/api-keys": Row("admin"),
    "DELETE /api/v1/api-keys/{api_key_id}": Row("admin"),
    "GET /api/v1/visitors": Row("staff"),
    "GET /api/v1/visitors/{visitor_id}": Row("of visitor"),
    "PATCH /api/v1/visitors/{visitor_id}": Row("of visitor"),
    "POST /api/v1/visitors/{visitor_id}/block": Row("of visitor"),
    "POST /api/v1/visitors/{visitor_id}/unblock": Row("of visitor"),
    "POST /api/v1/visitors/{visitor_id}/export": Row("admin"),
    "POST /api/v1/visitors/{visitor_id}/erase": Row("admin"),
    "GET /api/v1/system": Row("admin"),
    "GET /api/v1/audit": Row("admin"),
    "GET /api/v1/retention": Row("admin"),
    "PUT /api/v1/retention": Row("admin", {"default_days": None}),
    "POST /api/v1/retention/dry-run": Row("admin"),
    "GET /api/v1/blocked-networks": Row("staff"),
    "POST /api/v1/blocked-networks": Row("staff", _network),
    "PATCH /api/v1/blocked-networks/{network_id}": Row("staff"),
    "DELETE /api/v1/blocked-networks/{network_id}": Row("staff"),
}
FILE: Final = b"a file"
OF_CONVERSATION: Final = frozenset({"conversation", "of visitor", "own", "edit", "delete"})
# an id that nothing has: what a role may not do is refused before anybody looks for the thing
NOTHING: Final = 2**40


@pytest.fixture(scope="module")
def world(deskline: Deskline, agent: Agent) -> Iterator[World]:
    unique = uuid.uuid4().hex[:12]
    inbox = agent.post("/inboxes", {"name": f"Another shop {unique}"})
    assert inbox.status_code == 201, inbox.text
    wanted = {
        "foreign agent": {"all_inboxes": False, "inbox_ids": [inbox.json()["id"]]},
        "agent": {},
        "admin": {"role": "admin"},
    }
    accounts = {}
    for role, more in wanted.items():
        email = f"{role.replace(' ', '-')}-{unique}@example.com"
        body = {"email": email, "name": role, "password": PASSWORD, **more}
        answer = agent.post("/users", body)
        assert answer.status_code == 201, answer.text
        accounts[role] = (email, answer.json()["id"])
    made = World(deskline, {role: email for role, (email, _) in accounts.items()})
    made.agent_id = accounts["agent"][1]
    yield made
    made.close()
    for _, account_id in accounts.values():
        assert agent.patch(f"/users/{account_id}", {"active": False}).status_code == 200
    assert agent.post(f"/inboxes/{inbox.json()['id']}/archive").status_code == 200


@pytest.fixture(scope="module")
def document(deskline: Deskline) -> dict[str, Any]:
    loaded: dict[str, Any] = httpx.get(f"{deskline.url}/openapi.json", timeout=30).json()
    return loaded


def routes(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }


def test_the_table_names_every_route_and_no_other(document: dict[str, Any]) -> None:
    described = set(routes(document))
    assert described - set(TABLE) == set(), "a new route needs its row in TABLE"
    assert set(TABLE) - described == set(), "a row without a route"


@pytest.mark.parametrize("route", TABLE)
def test_every_role_gets_what_the_table_says(
    route: str, world: World, document: dict[str, Any]
) -> None:
    row, operation = TABLE[route], routes(document)[route]
    method, _, path = route.partition(" ")
    world.new_conversation()
    path = re.sub(r"\{(\w+)\}", lambda match: _filled(match[1], row, world), path)
    got = []
    for role in ROLES:
        media = next(iter(operation.get("requestBody", {}).get("content", {}).items()), None)
        body = None
        if callable(row.body):
            body = row.body(world)
        elif row.body is not None:
            body = row.body
        elif media is not None:
            body = media[1].get("example", FILE)
        form = media is not None and "form" in media[0]
        answer = world.call(role, method, path, body, form=form)
        assert answer.status_code < 500, (role, answer.text)
        got.append(answer.status_code if _refused(answer, row) else "ok")
        if row.ends_session and role in world.emails:
            world.log_in(role)
    assert dict(zip(ROLES, got, strict=True)) == dict(zip(ROLES, EXPECTED[row.kind], strict=True))


def _refused(answer: httpx.Response, row: Row) -> bool:
    """Whether the caller was turned away, and not what it sent."""
    if answer.status_code < 400:
        return False
    if answer.headers["Content-Type"] != "application/problem+json":
        return False  # the balancer's: it passes /metrics on to nobody
    codes = {"not_authenticated", "forbidden", "csrf_failed"}
    return answer.json()["code"] in codes | (
        {"not_found"} if row.kind in OF_CONVERSATION else set()
    )


def _filled(name: str, row: Row, world: World) -> str:
    if name == "conversation_id":
        return str(world.conversation_id if row.kind in OF_CONVERSATION else NOTHING)
    if name == "visitor_id":
        return str(world.visitor.id if row.kind in OF_CONVERSATION else NOTHING)
    if name == "stream":
        return "public"
    if name == "seq":
        return "1" if row.kind == "own" else "2"
    return str(NOTHING) if name.endswith("_id") else "nothing"
