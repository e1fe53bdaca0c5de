"""The OpenAPI 3.1 document, generated from the endpoints and their pydantic models."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.db.schema import STREAMS
from app.http import examples, problems
from app.http.endpoint import CSRF_HEADER, SESSION_COOKIE, Endpoint
from app.http.models import ProblemDocument
from app.version import version

_REF: Final = "#/components/schemas/{model}"
_SECURITY: Final[dict[str, list[dict[str, list[str]]]]] = {
    "anyone": [],
    "staff": [{"session": [], "csrf": []}, {"api_key": []}],
    "visitor": [{"visitor": []}],
    "staff or visitor": [{"session": [], "csrf": []}, {"api_key": []}, {"visitor": []}],
}
# the parts of an address that are no ids
_PATH_SCHEMAS: Final[dict[str, dict[str, Any]]] = {
    "seq": {"type": "integer", "minimum": 1, "maximum": 2**31 - 1},
    "stream": {"type": "string", "enum": list(STREAMS)},
}
# what the wrapper of every endpoint of an audience may answer
_COMMON_PROBLEMS: Final = {
    "anyone": ("service_unavailable",),
    "staff": ("not_authenticated", "forbidden", "service_unavailable"),
    "visitor": ("not_authenticated", "service_unavailable"),
    "staff or visitor": ("forbidden", "service_unavailable"),
}


def document(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """The document of these endpoints, as JSON-ready values."""
    return _document(tuple(endpoints))


@lru_cache(maxsize=4)
def _document(endpoints: tuple[Endpoint, ...]) -> dict[str, Any]:
    used: set[type[BaseModel]] = {ProblemDocument}
    for endpoint in endpoints:
        used.update(model for model in endpoint.answers.values() if model is not None)
        if endpoint.body is not None:
            used.add(endpoint.body)
    ordered = sorted(used, key=lambda model: model.__name__)
    _, definitions = models_json_schema(
        [(model, "validation") for model in ordered], ref_template=_REF
    )
    schemas = definitions.get("$defs", {})
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
        for content in _contents(paths[endpoint.path][endpoint.method.lower()]):
            if "example" not in content and "examples" not in content:
                content["example"] = examples.example(content["schema"], schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Deskline",
            "version": version(),
            "description": (
                "Support chat: the visitor's widget and the staff's dashboard. "
                "Errors are RFC 9457 problem documents with a stable `code`."
            ),
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(endpoint.tag for endpoint in endpoints)],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "session": {"type": "apiKey", "in": "cookie", "name": SESSION_COOKIE},
                "csrf": {"type": "apiKey", "in": "header", "name": CSRF_HEADER},
                "api_key": {"type": "http", "scheme": "bearer"},
                "visitor": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _contents(operation: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The media types of an operation that have a schema: of its body and of its answers."""
    for part in (operation.get("requestBody", {}), *operation["responses"].values()):
        for content in part.get("content", {}).values():
            if "$ref" in content.get("schema", {}):
                yield content


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": endpoint.name,
        "tags": [endpoint.tag],
        "summary": endpoint.summary,
        "description": (endpoint.handler.__doc__ or "").strip(),
        "security": _security(endpoint),
        "responses": _responses(endpoint),
    }
    if parameters := _parameters(endpoint):
        operation["parameters"] = parameters
    if endpoint.body is not None:
        media = "application/x-www-form-urlencoded" if endpoint.form else "application/json"
        schema = {"$ref": _REF.format(model=endpoint.body.__name__)}
        required = not endpoint.body_optional
        operation["requestBody"] = {"required": required, "content": {media: {"schema": schema}}}
    if endpoint.upload:
        # any Content-Type is taken, for none is believed
        file = {"schema": {"type": "string", "format": "binary"}}
        operation["requestBody"] = {
            "required": True,
            "content": {"application/octet-stream": file, "*/*": file},
        }
    return operation


def _security(endpoint: Endpoint) -> list[dict[str, list[str]]]:
    needed = _SECURITY[endpoint.audience]
    if endpoint.session_only:
        needed = [way for way in needed if "session" in way]
    if endpoint.method != "GET":
        return needed
    return [{name: [] for name in way if name != "csrf"} for way in needed]


def _parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": _PATH_SCHEMAS.get(name)
            or (
                {"type": "integer", "minimum": 1, "maximum": 2**63 - 1}
                if name.endswith("_id")
                else {"type": "string", "minLength": 1}
            ),
        }
        for name in re.findall(r"\{(\w+)\}", endpoint.path)
    ]
    if endpoint.query is not None:
        schema = endpoint.query.model_json_schema()
        for name, described in schema["properties"].items():
            required = name in schema.get("required", ())
            if not required:
                # an empty value counts as absent
                described.pop("minLength", None)
            parameter = {"name": name, "in": "query", "required": required, "schema": described}
            parameters.append(parameter)
    if endpoint.etag:
        parameters.append(
            {
                "name": "If-None-Match",
                "in": "header",
                "required": False,
                "description": "the ETag of the answer that the client holds",
                "schema": {"type": "string"},
            }
        )
    return parameters


def _responses(endpoint: Endpoint) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, model in endpoint.answers.items():
        response: dict[str, Any] = {"description": HTTPStatus(status).phrase}
        if model is not None:
            schema = {"$ref": _REF.format(model=model.__name__)}
            response["content"] = {"application/json": {"schema": schema}}
        if status == HTTPStatus.OK:
            for media in endpoint.media:
                text = {"schema": {"type": "string"}}
                response.setdefault("content", {})[media] = text
        if endpoint.headers:
            response["headers"] = {
                name: {"description": meaning, "schema": {"type": "string"}}
                for name, meaning in endpoint.headers.items()
            }
        if endpoint.etag and status == HTTPStatus.OK:
            response.setdefault("headers", {})["ETag"] = {
                "description": "changes with the answer",
                "schema": {"type": "string"},
            }
            responses["304"] = {"description": "The client holds this answer already"}
        responses[str(status)] = response
    for status, codes in _problem_codes(endpoint).items():
        response = {
            "description": "code: " + ", ".join(codes),
            "content": {
                problems.CONTENT_TYPE: {
                    "schema": {
                        "allOf": [{"$ref": _REF.format(model="ProblemDocument")}],
                        "properties": {"code": {"enum": codes}},
                    },
                    "examples": {code: {"value": _problem_example(code)} for code in codes},
                }
            },
        }
        if status in (429, 503):
            response["headers"] = {
                "Retry-After": {
                    "description": "after how many seconds to try again",
                    "schema": {"type": "integer", "minimum": 1},
                }
            }
        responses.setdefault(str(status), response)
    return responses


def _problem_example(code: str) -> dict[str, Any]:
    status, title = problems.CODES[code]
    return {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": "What to do about it, in a sentence.",
        "code": code,
    }


def _problem_codes(endpoint: Endpoint) -> dict[int, list[str]]:
    codes = [*endpoint.problems, *_COMMON_PROBLEMS[endpoint.audience]]
    if endpoint.audience.startswith("staff") and endpoint.method != "GET":
        codes.append("csrf_failed")
    if endpoint.audience == "visitor" and endpoint.method != "GET":
        codes.append("visitor_blocked")
    if endpoint.limit is not None:
        codes.append("rate_limited")
    if endpoint.upload:
        codes.append("payload_too_large")
    if endpoint.body is not None or endpoint.query is not None:
        codes.append("invalid_request")
    if endpoint.body is not None:
        codes.append("payload_too_large")
    if endpoint.body is not None and not endpoint.form:
        codes.append("malformed_request")
    if "_id}" in endpoint.path:
        codes.append("not_found")
    by_status: dict[int, list[str]] = {}
    for code in sorted(set(codes)):
        by_status.setdefault(problems.CODES[code][0], []).append(code)
    return dict(sorted(by_status.items()))
