"""What the server is made of, without starting it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from sanic import Sanic

from app.chat import errors
from app.db.engines import Unavailable
from app.http import openapi, problems, server
from tests.unit.conftest import settings_for

PAGES = {"/", "/<path:path>"}


@pytest.fixture
def app(tmp_path: Path) -> Any:
    Sanic._app_registry.clear()
    return server.create_app(settings_for(tmp_path / "x.db"))


def test_every_route_of_the_app_is_in_the_document(app: Any) -> None:
    document = openapi.document(server.endpoints())
    described = {
        f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item
    }
    routes = set()
    for route in app.router.routes:
        path = f"/{route.path}"
        if path not in PAGES:
            path = re.sub(r"<(\w+):\w+>", r"{\1}", path)
            routes |= {f"{method} {path}" for method in route.methods}
    assert routes == described


def test_every_problem_code_that_is_described_exists() -> None:
    for endpoint in server.endpoints():
        for code in endpoint.problems:
            assert code in problems.CODES


def test_every_error_of_the_domain_has_its_own_answer() -> None:
    made: dict[type[errors.ChatError], errors.ChatError] = {
        errors.NotFound: errors.NotFound(),
        errors.Forbidden: errors.Forbidden(),
        errors.Refused: errors.Refused("conflict", "Look again.", field="x"),
        errors.FieldsRefused: errors.FieldsRefused({"form.name": "should not be blank"}),
        errors.UnknownInbox: errors.UnknownInbox(),
        errors.InvalidCredentials: errors.InvalidCredentials(),
        errors.CodeNeeded: errors.CodeNeeded(),
        errors.InvalidCode: errors.InvalidCode(),
        errors.TooManyAttempts: errors.TooManyAttempts(9),
        errors.AlreadyClaimed: errors.AlreadyClaimed({"id": 1, "name": "A", "avatar_url": None}),
        errors.ClientIdTaken: errors.ClientIdTaken(),
        errors.MessageRefused: errors.MessageRefused(),
        errors.Busy: errors.Busy(2),
    }
    assert set(made) == set(errors.ChatError.__subclasses__())
    for error in made.values():
        assert problems.from_exception(error).code != "internal_error"


def test_a_busy_server_says_when_to_try_again() -> None:
    for error in (errors.Busy(2), Unavailable("x")):
        problem = problems.from_exception(error)
        assert problem.status == 503
        assert int(problem.headers["Retry-After"]) >= 1


def test_an_unexpected_error_tells_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    answer = problems.answer(RuntimeError("password=hunter2"), "id")
    assert answer.status == 500
    assert answer.body is not None
    assert b"hunter2" not in answer.body
    capsys.readouterr()
