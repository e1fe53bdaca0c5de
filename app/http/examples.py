"""Example values for the OpenAPI document, made from the schemas so that they cannot go stale.

A field's own ``examples`` win; then a telling value by the field's name, when it fits the schema;
then the simplest value that does. A test checks every example against its schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_MOMENT: Final = "2026-11-23T08:15:30.123456Z"
_BY_NAME: Final[Mapping[str, Any]] = {
    "email": "ann@example.com",
    "name": "Ann Lee",
    "body": "Hello! Where is my order?",
    "client_id": "7f9c24e8-3b1d-4c52-9f0a-2f6f1f0b8a11",
    "key": "shop-key",
    "inbox_key": "shop-key",
    "color": "#0d6b58",
    "greeting": "Hello! How can we help?",
    "language": "en",
    "languages": "en",
    "time_zone": "Asia/Taipei",
    "title": "Blue jacket",
    "url": "https://shop.example/jackets/blue",
    "page_url": "https://shop.example/jackets/blue",
    "referrer": "https://search.example/",
    "browser": "Firefox 133, Linux",
    "phone": "+886 2 5555 0100",
    "password": "correct horse battery staple",
    "code": "123456",
    "socket_id": "1234.5678",
    "channel_name": "private-conversation.1",
    "content_type": "image/png",
    "shortcut": "hello",
    "reason": "spam",
    "network": "192.0.2.0/24",
    "date": "2026-12-25",
    "csrf_token": "9f2c…",
    "next_cursor": None,
    "cursor": None,
    "avatar_url": None,
    "deleted_at": None,
    "edited_at": None,
    "event": None,
    "wsHost": "chat.example.com",
    "authEndpoint": "/broadcasting/auth",
}


def example(  # noqa: PLR0911  a table of cases
    schema: Mapping[str, Any], components: Mapping[str, Any], name: str = ""
) -> Any:
    """A value that fits ``schema``; ``components`` are the document's schemas, ``name`` the field.

    A field that may be left out and has no telling value is left out.
    """
    if "$ref" in schema:
        return example(components[schema["$ref"].rsplit("/", 1)[1]], components, name)
    if schema.get("examples"):
        return schema["examples"][0]
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    branches = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    # an object with branches lists its fields all the same; they only say which go together
    if branches and schema.get("type") != "object":
        if name in _BY_NAME and _BY_NAME[name] is None and {"type": "null"} in branches:
            return None
        return example(branches[0], components, name)
    kind = schema.get("type")
    if kind == "object":
        return _object(schema, components)
    if kind == "array":
        count = max(int(schema.get("minItems", 0)), 1)
        return [example(schema.get("items", {}), components, name) for _ in range(count)]
    if kind == "string":
        return _text(schema, name)
    if kind in ("integer", "number"):
        least = schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
        return max(least, 1) if schema.get("maximum", 1) >= 1 else least
    return {"boolean": True, "null": None}.get(str(kind), "text" if kind is None else None)


def _object(schema: Mapping[str, Any], components: Mapping[str, Any]) -> dict[str, Any]:
    required = schema.get("required", [])
    return {
        name: example(described, components, name)
        for name, described in schema.get("properties", {}).items()
        if name in required or name in _BY_NAME
    }


def _text(schema: Mapping[str, Any], name: str) -> str:
    if schema.get("format") == "date-time":
        return _MOMENT
    if schema.get("format") == "uuid":
        return str(_BY_NAME["client_id"])
    if schema.get("format") == "date":
        return str(_BY_NAME["date"])
    least, most = int(schema.get("minLength", 0)), int(schema.get("maxLength", 10_000))
    telling = _BY_NAME.get(name)
    if isinstance(telling, str) and least <= len(telling) <= most:
        return telling
    return ("text" * (least // 4 + 1))[: max(least, min(4, most))]
