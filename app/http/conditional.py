"""Conditional requests: ETag and If-None-Match (RFC 9110 §8.8.3, §13.1.2)."""

from __future__ import annotations

import hashlib
import re
from http import HTTPStatus
from typing import Final

from sanic import Request
from sanic.response import HTTPResponse

_TAG: Final = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')


def answer(request: Request, response: HTTPResponse) -> HTTPResponse:
    """``response`` with the ETag of its bytes, or a 304 when the client holds them already.

    The client may keep the answer, but asks each time: what it may see can change at any moment.
    """
    if response.status != HTTPStatus.OK or response.body is None:
        return response
    tag = etag(response.body)
    response.headers["ETag"] = tag
    response.headers["Cache-Control"] = "private, no-cache"
    if matches(request.headers.get("If-None-Match"), tag):
        return HTTPResponse(status=HTTPStatus.NOT_MODIFIED, headers=dict(response.headers.items()))
    return response


def etag(body: bytes) -> str:
    """The strong entity tag of these bytes."""
    return f'"{hashlib.blake2b(body, digest_size=16).hexdigest()}"'


def matches(if_none_match: str | None, tag: str) -> bool:
    """Whether the client holds what ``tag`` names.

    The comparison is the weak one, as the RFC says: a proxy that compresses an answer makes its
    tag weak.
    """
    if if_none_match is None:
        return False
    if if_none_match.strip() == "*":
        return True
    return tag in _TAG.findall(if_none_match)
