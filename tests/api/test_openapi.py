"""The OpenAPI document: valid, complete, and true of what the server answers."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from tests.api.conftest import Agent, Visitor
from tests.conftest import Deskline

METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture(scope="module")
def document(deskline: Deskline) -> dict[str, Any]:
    answer = httpx.get(f"{deskline.url}/openapi.json")
    assert answer.status_code == 200
    loaded: dict[str, Any] = answer.json()
    return loaded


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    ]


def test_the_document_has_what_openapi_3_1_demands(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    assert document["info"]["title"]
    assert document["info"]["version"]
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names))
    for path, method, operation in operations(document):
        where = f"{method} {path}"
        assert operation["responses"], where
        for status, response in operation["responses"].items():
            assert re.fullmatch(r"[1-5][0-9][0-9]", status), where
            assert response["description"], where
        declared = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
        assert declared == set(re.findall(r"\{(\w+)\}", path)), where
        for scheme in (name for way in operation["security"] for name in way):
            assert scheme in document["components"]["securitySchemes"], where


def test_every_schema_is_valid_and_every_reference_leads_somewhere(
    document: dict[str, Any],
) -> None:
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    found = re.findall(r"'\$ref': '([^']+)'", str(document))
    assert found
    for reference in found:
        assert reference.removeprefix("#/components/schemas/") in schemas


def test_every_body_and_answer_has_an_example_that_fits_its_schema(
    document: dict[str, Any],
) -> None:
    seen = 0
    for path, method, operation in operations(document):
        for part in (operation.get("requestBody", {}), *operation["responses"].values()):
            for content in part.get("content", {}).values():
                if "schema" not in content:
                    continue
                values = [entry["value"] for entry in content.get("examples", {}).values()]
                values += [content["example"]] if "example" in content else []
                if "$ref" in content["schema"]:
                    assert values, f"{method} {path}"
                for value in values:
                    seen += 1
                    schema = {**content["schema"], "components": document["components"]}
                    errors = [
                        f"{error.json_path}: {error.message}"
                        for error in Draft202012Validator(schema).iter_errors(value)
                    ]
                    assert errors == [], f"{method} {path}: {value}"
    assert seen > 100


def test_every_error_names_its_codes(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        for status, response in operation["responses"].items():
            for media, content in response.get("content", {}).items():
                if media == "application/problem+json":
                    codes = content["schema"]["properties"]["code"]["enum"]
                    assert codes, f"{method} {path} {status}"


def test_every_call_of_the_contract_is_described(document: dict[str, Any]) -> None:
    described = {f"{method.upper()} {path}" for path, method, _ in operations(document)}
    assert described >= {
        "POST /api/v1/auth/login",
        "POST /api/v1/auth/logout",
        "GET /api/v1/me",
        "GET /api/v1/conversations",
        "GET /api/v1/conversations/{conversation_id}",
        "POST /api/v1/conversations/{conversation_id}/claim",
        "GET /api/v1/conversations/{conversation_id}/messages",
        "POST /api/v1/conversations/{conversation_id}/messages",
        "POST /api/v1/conversations/{conversation_id}/read",
        "POST /api/v1/widget/session",
        "POST /api/v1/widget/conversations",
        "GET /api/v1/widget/conversations/{conversation_id}/messages",
        "POST /api/v1/widget/conversations/{conversation_id}/messages",
        "POST /api/v1/widget/conversations/{conversation_id}/read",
        "POST /broadcasting/auth",
        "GET /healthz",
        "GET /readyz",
        "GET /metrics",
        "GET /openapi.json",
    }


def test_answers_are_as_described(document: dict[str, Any], agent: Agent, visitor: Visitor) -> None:
    started = visitor.start("hello")
    conversation_id = started.json()["conversation"]["id"]
    path = f"/conversations/{conversation_id}"
    message = agent.send(conversation_id, "answer")
    assert_described(document, "WidgetSession", visitor.session)
    assert_described(
        document,
        "WidgetSession",
        visitor.open("demo", visitor_token=visitor.session["visitor_token"]),
    )
    assert_described(document, "FirstMessage", started.json())
    assert_described(document, "Message", message.json())
    assert_described(document, "Me", agent.get("/me").json())
    assert_described(document, "ConversationPage", agent.get("/conversations").json())
    assert_described(document, "ConversationDetail", agent.get(path).json())
    assert_described(document, "MessagePage", agent.messages(conversation_id))
    assert_described(document, "Conversation", agent.post(f"{path}/claim").json())
    assert_described(document, "ReadResponse", agent.post(f"{path}/read", {"seq": 1}).json())
    assert_described(document, "ProblemDocument", agent.get("/conversations/0").json())
    assert_described(document, "ProblemDocument", agent.get("/conversations", limit=0).json())


def assert_described(document: dict[str, Any], name: str, value: Any) -> None:
    schema = {
        "$ref": f"#/components/schemas/{name}",
        "components": document["components"],
    }
    errors = [error.message for error in Draft202012Validator(schema).iter_errors(value)]
    assert errors == [], name
