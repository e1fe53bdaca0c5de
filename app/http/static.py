"""The built web files, for the embedded mode and for nodes without a balancer in front."""

from __future__ import annotations

import asyncio
import mimetypes
from email.utils import formatdate
from pathlib import Path
from typing import Final

from sanic import Blueprint, Request
from sanic.exceptions import NotFound
from sanic.response import HTTPResponse, empty, raw, redirect

from app.config import Settings

LOADER_CACHE: Final = "public, max-age=300"
PAGE_CACHE: Final = "no-cache"
ASSET_CACHE: Final = "public, max-age=31536000, immutable"
_TYPES: Final = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
}
# address -> page of the build; the dashboard's router has more addresses below its own
_PAGES: Final = {
    "login": "dashboard/index.html",
    "dashboard": "dashboard/index.html",
    "widget": "widget/index.html",
    "docs": "docs/index.html",
}


def blueprint(settings: Settings) -> Blueprint:
    """Pages and files; everything that no other route knows."""
    made = Blueprint("pages")
    root = settings.web_root.resolve()

    async def page_or_file(request: Request, path: str = "") -> HTTPResponse:
        path = path.strip("/")
        if not path:
            if not settings.is_demo:
                return redirect("/login")
            return await _send(request, root, "shop/index.html", PAGE_CACHE)
        first = path.partition("/")[0]
        if first == "dashboard" or path in _PAGES:
            return await _send(request, root, _PAGES[first], PAGE_CACHE)
        if path.endswith(".html"):
            return await _send(request, root, path, PAGE_CACHE)
        cache = ASSET_CACHE if first == "assets" else LOADER_CACHE
        return await _send(request, root, path, cache)

    made.add_route(page_or_file, "/", methods=["GET", "HEAD"], name="root")
    made.add_route(page_or_file, "/<path:path>", methods=["GET", "HEAD"], name="file")
    return made


async def _send(request: Request, root: Path, name: str, cache: str) -> HTTPResponse:
    found = await asyncio.to_thread(_read, root, name)
    if found is None:
        raise NotFound
    body, etag, modified = found
    headers = {"ETag": etag, "Last-Modified": modified, "Cache-Control": cache}
    if etag in request.headers.get("If-None-Match", ""):
        return empty(status=304, headers=headers)
    suffix = Path(name).suffix
    kind = _TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    return raw(body, headers=headers, content_type=kind)


def _read(root: Path, name: str) -> tuple[bytes, str, str] | None:
    """The bytes, ETag and date of a file below ``root``; None for anything else."""
    try:
        path = (root / name).resolve()
        if not path.is_relative_to(root) or not path.is_file():
            return None
        status = path.stat()
        body = path.read_bytes()
    except (OSError, ValueError):
        return None
    etag = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
    return body, etag, formatdate(status.st_mtime, usegmt=True)
