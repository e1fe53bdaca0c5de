"""Small clients of the HTTP API: an agent and a visitor."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pyotp
import pytest

from tests.conftest import Deskline

LIMIT_WINDOW_SECONDS = 10


class Patient(httpx.HTTPTransport):
    """Waits and asks again when told to slow down, as a well-behaved program does.

    All tests of a run share two accounts, and together they ask faster than any person.
    """

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        for _ in range(3):
            answer = super().handle_request(request)
            wait_seconds = int(answer.headers.get("Retry-After", "60"))
            if answer.status_code != 429 or wait_seconds > LIMIT_WINDOW_SECONDS:
                break
            answer.close()
            time.sleep(wait_seconds)
        return answer


class Agent:
    """A logged-in member of the staff."""

    def __init__(
        self, deskline: Deskline, email: str, transport: httpx.HTTPTransport | None = None
    ) -> None:
        self.http = httpx.Client(base_url=deskline.url, timeout=20, transport=transport)
        answer = self.http.post(
            "/api/v1/auth/login", json={"email": email, "password": deskline.password}
        )
        assert answer.status_code == 200, answer.text
        self.user = answer.json()["user"]
        self.csrf = {"X-CSRF-Token": answer.json()["csrf_token"]}

    def get(self, path: str, **params: Any) -> httpx.Response:
        return self.http.get(f"/api/v1{path}", params=params)

    def post(self, path: str, body: Any = None) -> httpx.Response:
        return self.http.post(f"/api/v1{path}", json=body, headers=self.csrf)

    def patch(self, path: str, body: Any) -> httpx.Response:
        return self.http.patch(f"/api/v1{path}", json=body, headers=self.csrf)

    def put(self, path: str, body: Any) -> httpx.Response:
        return self.http.put(f"/api/v1{path}", json=body, headers=self.csrf)

    def delete(self, path: str) -> httpx.Response:
        return self.http.delete(f"/api/v1{path}", headers=self.csrf)

    def send(
        self,
        conversation_id: int,
        body: str,
        *,
        kind: str = "text",
        client_id: str | None = None,
        **more: Any,
    ) -> httpx.Response:
        message = {"client_id": client_id or str(uuid.uuid4()), "body": body, "kind": kind, **more}
        return self.post(f"/conversations/{conversation_id}/messages", message)

    def upload(
        self, conversation_id: int, name: str, content: Any, **headers: str
    ) -> httpx.Response:
        return self.http.post(
            f"/api/v1/conversations/{conversation_id}/attachments",
            params={"name": name},
            content=content,
            headers={**self.csrf, **headers},
        )

    def messages(self, conversation_id: int, **params: Any) -> dict[str, Any]:
        answer = self.get(f"/conversations/{conversation_id}/messages", **params)
        assert answer.status_code == 200, answer.text
        page: dict[str, Any] = answer.json()
        return page


class Visitor:
    """A visitor with a token."""

    def __init__(self, deskline: Deskline, **session: Any) -> None:
        self.http = httpx.Client(base_url=deskline.url, timeout=20)
        self.session = self.open(session.pop("inbox_key", deskline.inbox_key), **session)
        self.http.headers["Authorization"] = f"Bearer {self.session['visitor_token']}"

    @property
    def id(self) -> int:
        return int(self.session["visitor"]["id"])

    def open(self, inbox_key: str, **session: Any) -> dict[str, Any]:
        answer = self.http.post(
            "/api/v1/widget/session",
            json={"inbox_key": inbox_key, **session},
            headers={"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Firefox/133.0"},
        )
        assert answer.status_code == 200, answer.text
        opened: dict[str, Any] = answer.json()
        return opened

    def get(self, path: str, **params: Any) -> httpx.Response:
        return self.http.get(f"/api/v1/widget{path}", params=params)

    def post(self, path: str, body: Any = None) -> httpx.Response:
        return self.http.post(f"/api/v1/widget{path}", json=body)

    def start(self, body: str, client_id: str | None = None) -> httpx.Response:
        message = {"client_id": client_id or str(uuid.uuid4()), "body": body}
        return self.post("/conversations", message)

    def send(
        self, conversation_id: int, body: str, client_id: str | None = None, **more: Any
    ) -> httpx.Response:
        message = {"client_id": client_id or str(uuid.uuid4()), "body": body, **more}
        return self.post(f"/conversations/{conversation_id}/messages", message)

    def upload(
        self, conversation_id: int, name: str, content: Any, **headers: str
    ) -> httpx.Response:
        return self.http.post(
            f"/api/v1/widget/conversations/{conversation_id}/attachments",
            params={"name": name},
            content=content,
            headers=headers,
        )

    def conversation(self, body: str = "hello") -> int:
        """Start a conversation; gives its id."""
        answer = self.start(body)
        assert answer.status_code == 201, answer.text
        return int(answer.json()["conversation"]["id"])


@pytest.fixture(scope="session")
def agent(deskline: Deskline) -> Iterator[Agent]:
    logged_in = Agent(deskline, deskline.email, Patient())
    yield logged_in
    logged_in.http.close()


@pytest.fixture(scope="session")
def second_agent(deskline: Deskline) -> Iterator[Agent]:
    logged_in = Agent(deskline, deskline.second_email, Patient())
    yield logged_in
    logged_in.http.close()


@pytest.fixture
def new_visitor(deskline: Deskline) -> Iterator[Callable[..., Visitor]]:
    made: list[Visitor] = []

    def make(**session: Any) -> Visitor:
        made.append(Visitor(deskline, **session))
        return made[-1]

    yield make
    for visitor in made:
        visitor.http.close()


@pytest.fixture
def visitor(new_visitor: Callable[..., Visitor]) -> Visitor:
    return new_visitor()


PASSWORD = "a-first-password"


class Person(Agent):
    """An account of its own, so that a test can change it."""

    def __init__(self, deskline: Deskline, email: str, password: str = PASSWORD) -> None:
        super().__init__(Deskline(deskline.url, deskline.ws_url, password=password), email)
        self.url = deskline.url
        self.email = email

    def log_in_again(self, **more: Any) -> httpx.Response:
        return httpx.post(
            f"{self.url}/api/v1/auth/login",
            json={"email": self.email, "password": PASSWORD, **more},
            timeout=20,
        )

    @property
    def cookie(self) -> str:
        return self.http.cookies["deskline_session"]


NewAccount = Callable[..., Person]


@pytest.fixture
def new_account(deskline: Deskline, agent: Agent) -> Iterator[NewAccount]:
    made: list[Person] = []

    def make(**values: Any) -> Person:
        email = f"staff-{uuid.uuid4()}@example.com"
        body = {"email": email, "name": "Staff", "password": PASSWORD, **values}
        answer = agent.post("/users", body)
        assert answer.status_code == 201, answer.text
        made.append(Person(deskline, email))
        return made[-1]

    yield make
    for person in made:
        person.http.close()
        agent.patch(f"/users/{person.user['id']}", {"active": False})


@pytest.fixture
def person(new_account: NewAccount) -> Person:
    return new_account()


def assert_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The answer is a problem document with this status and code; gives the document."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert document["status"] == status
    assert document["code"] == code
    assert document["title"]
    assert document["detail"]
    return document


def enrolled(person: Person) -> tuple[pyotp.TOTP, list[str]]:
    """Turn the second factor on; gives the app and the recovery codes."""
    started = person.post("/me/totp", {"password": PASSWORD})
    assert started.status_code == 200, started.text
    app = pyotp.TOTP(started.json()["secret"])
    uri = pyotp.parse_uri(started.json()["otpauth_url"])
    assert (uri.issuer, uri.name) == ("Deskline", person.email)
    assert isinstance(uri, pyotp.TOTP)
    assert uri.secret == app.secret
    # the code of the step before is good as well, which leaves the present one for the test
    code = app.at(int(time.time()) - 30)
    answer = person.post("/me/totp/confirm", {"code": code})
    assert answer.status_code == 200, answer.text
    person.csrf = {"X-CSRF-Token": answer.json()["csrf_token"]}
    return app, answer.json()["recovery_codes"]
