"""Files that are sent with messages: what they are, where they are kept, who may have them.

A file is uploaded to a conversation first and then carried by one message; what no message carries
within a day is removed. What it is called and what its sender says it is are never believed:
:func:`examine` looks at the bytes.
"""

from __future__ import annotations

import hashlib
import io
import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal

import filetype
import imagesize
from sqlalchemy import Connection, and_, bindparam, case, delete, func, insert, select

from app import clock
from app.chat import permissions
from app.chat.errors import NotFound, Refused
from app.chat.permissions import Agent, VisitorIdentity
from app.db import schema
from app.db.engines import Database
from app.db.hot import HotStatement
from app.db.reads import Source
from app.db.routing import HistoryRouting
from app.db.writer import attachment_wire

NAME_MAX_CHARACTERS: Final = 120
PER_MESSAGE: Final = 10
UNSENT_MAX: Final = 20
UNSENT_LIFETIME: Final = timedelta(hours=24)
CONVERSATION_MAX_BYTES: Final = 256 * 1024 * 1024
IMAGE_MAX_PIXELS: Final = 100_000_000

# what browsers show as a picture and do not run
SHOWN_INLINE: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})

# The endings that belong to a type; the first one is added when a name has another. A file that
# is text but called page.html or run.bat would be opened as that on the receiver's machine.
_ENDINGS: Final[Mapping[str, tuple[str, ...]]] = {
    "image/png": ("png",),
    "image/jpeg": ("jpg", "jpeg"),
    "image/gif": ("gif",),
    "image/webp": ("webp",),
    "image/heic": ("heic", "heif"),
    "image/avif": ("avif",),
    "text/plain": ("txt", "log", "csv", "tsv", "md", "json", "yml", "yaml", "ini", "conf", "srt"),
    "application/pdf": ("pdf",),
    "application/rtf": ("rtf",),
    "application/msword": ("doc",),
    "application/vnd.ms-excel": ("xls",),
    "application/vnd.ms-powerpoint": ("ppt",),
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ("docx",),
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": ("xlsx",),
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": ("pptx",),
    "application/vnd.oasis.opendocument.text": ("odt",),
    "application/vnd.oasis.opendocument.spreadsheet": ("ods",),
    "application/vnd.oasis.opendocument.presentation": ("odp",),
    # office programs write archives that not everybody recognizes as theirs
    "application/zip": ("zip", "docx", "xlsx", "pptx", "odt", "ods", "odp", "epub", "pages", "key"),
    "audio/mpeg": ("mp3",),
    "audio/ogg": ("ogg", "oga", "opus"),
    "audio/mp4": ("m4a",),
    "audio/x-wav": ("wav",),
    "video/mp4": ("mp4",),
    "video/quicktime": ("mov",),
    "video/webm": ("webm",),
}
# formats whose files may be text from the first to the last byte
_WRITTEN_AS_TEXT: Final = frozenset(
    {"application/pdf", "application/rtf", "application/postscript"}
)
_MARKUP: Final = (
    (re.compile(rb"<(?:!doctype\s+)?svg[\s>/]", re.I), "image/svg+xml"),
    (re.compile(rb"<(?:!doctype\s+html|html|head|body|script|iframe)[\s>/]", re.I), "text/html"),
    (re.compile(rb"^\s*<\?xml[\s?]", re.I), "text/xml"),
)
_MARKUP_BYTES: Final = 4096

_a, _b, _c, _v = (
    schema.attachments,
    schema.attachment_bytes,
    schema.conversations,
    schema.visitors,
)


@dataclass(frozen=True, slots=True)
class File:
    """A file that was examined and may be kept."""

    name: str
    content_type: str
    content: bytes
    sha256: str
    width_px: int | None = None
    height_px: int | None = None


def content_type(content: bytes) -> str:
    """What the bytes are: a media type, ``application/octet-stream`` when nobody knows.

    Text is what is UTF-8 (RFC 3629) without NUL; text that begins like a page or a drawing with
    scripts is called what it is.
    """
    found = filetype.guess(content)
    kind = str(found.mime) if found is not None else None
    if kind in _WRITTEN_AS_TEXT or not _is_text(content):
        return kind or "application/octet-stream"
    start = content.removeprefix(b"\xef\xbb\xbf")[:_MARKUP_BYTES]
    return next((name for rule, name in _MARKUP if rule.search(start)), "text/plain")


def _is_text(content: bytes) -> bool:
    if b"\x00" in content:
        return False
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def clean_name(name: str, kind: str) -> str:
    """A file name that shows what it says and ends as its type does.

    Folders, control characters and marks that turn the direction of writing are cut out.
    """
    text = unicodedata.normalize("NFC", re.split(r"[/\\]", name)[-1])
    kept = "".join(one for one in text if unicodedata.category(one)[0] != "C")
    kept = re.sub(r"\s+", " ", kept).strip(" .")
    stem, dot, ending = kept.rpartition(".")
    endings = _ENDINGS.get(kind, ())
    if not dot or not stem:
        stem, ending = kept or "file", endings[0] if endings else ""
    elif endings and ending.lower() not in endings:
        stem, ending = kept, endings[0]
    ending = ending[:16]
    stem = stem[: NAME_MAX_CHARACTERS - len(ending) - 1]
    return f"{stem}.{ending}" if ending else stem


def examine(name: str, content: bytes, *, allowed: Collection[str]) -> File:
    """Look at a file; raises :class:`Refused` unless it may be kept. Blocking, for large files."""
    if not content:
        raise Refused("attachment_refused", "The file is empty: choose another one.")
    kind = content_type(content)
    if kind not in allowed:
        raise Refused(
            "attachment_type_refused",
            f"The file is {kind}, which is not taken here: send it in another format.",
            extra={"allowed_types": sorted(allowed)},
        )
    width, height = None, None
    if kind in SHOWN_INLINE:
        width, height = _dimensions(content)
    return File(
        clean_name(name, kind),
        kind,
        content,
        hashlib.sha256(content).hexdigest(),
        width,
        height,
    )


def _dimensions(content: bytes) -> tuple[int, int]:
    try:
        width, height = imagesize.get(io.BytesIO(content))
    except Exception:  # noqa: BLE001  whatever the reader stumbles over, it is no picture
        width, height = -1, -1
    if width < 1 or height < 1:
        raise Refused("attachment_refused", "The picture is damaged: save it again and retry.")
    if width * height > IMAGE_MAX_PIXELS:
        raise Refused(
            "attachment_refused",
            f"The picture has {width} by {height} pixels: send a smaller one.",
        )
    return int(width), int(height)


def check_room(database: Database, conversation_id: int, uploader: Agent | VisitorIdentity) -> None:
    """Raise :class:`NotFound` or :class:`Refused` unless the uploader may add a file. Blocking."""
    with database.read() as connection:
        _check_room(connection, conversation_id, uploader, 0)


def store(
    database: Database,
    conversation_id: int,
    uploader: Agent | VisitorIdentity,
    file: File,
    *,
    scan: Literal["none", "clean"],
) -> dict[str, Any]:
    """Keep a file until a message carries it; gives the API's Attachment.

    Raises :class:`NotFound` or :class:`Refused`. Blocking.
    """
    uploader_type = "visitor" if isinstance(uploader, VisitorIdentity) else "agent"
    with database.write() as connection:
        _check_room(connection, conversation_id, uploader, len(file.content))
        values = {
            "token": clock.token(32),
            "conversation_id": conversation_id,
            "uploader_type": uploader_type,
            "uploader_id": uploader.id,
            "name": file.name,
            "content_type": file.content_type,
            "size_bytes": len(file.content),
            "width_px": file.width_px,
            "height_px": file.height_px,
            "sha256": file.sha256,
            "scan": scan,
            "created_at": clock.now(),
        }
        key = connection.execute(insert(_a).values(**values)).inserted_primary_key
        assert key is not None  # noqa: S101  every dialect used here gives the new id
        connection.execute(insert(_b).values(attachment_id=int(key[0]), content=file.content))
        row = connection.execute(select(_a).where(_a.c.id == int(key[0]))).one()
    return attachment_wire(row)


def _check_room(
    connection: Connection,
    conversation_id: int,
    uploader: Agent | VisitorIdentity,
    size_bytes: int,
) -> None:
    place = connection.execute(
        select(_c.c.inbox_id, _c.c.visitor_id, _v.c.blocked_at)
        .join(_v, _v.c.id == _c.c.visitor_id)
        .where(_c.c.id == conversation_id)
    ).one_or_none()
    if place is None:
        raise NotFound
    permissions.reach(uploader, inbox_id=place.inbox_id, visitor_id=place.visitor_id)
    of_visitor = isinstance(uploader, VisitorIdentity)
    if of_visitor and place.blocked_at is not None:
        raise Refused(
            "visitor_blocked", "The support team does not take messages from this visitor."
        )
    mine_unsent = and_(
        _a.c.seq.is_(None),
        _a.c.uploader_type == ("visitor" if of_visitor else "agent"),
        _a.c.uploader_id == uploader.id,
    )
    used = connection.execute(
        select(
            func.coalesce(func.sum(_a.c.size_bytes), 0).label("size_bytes"),
            func.coalesce(func.sum(case((mine_unsent, 1), else_=0)), 0).label("unsent"),
        ).where(_a.c.conversation_id == conversation_id)
    ).one()
    if used.unsent >= UNSENT_MAX:
        raise Refused(
            "conflict",
            f"{UNSENT_MAX} files wait to be sent already: send them with a message first.",
        )
    if used.size_bytes + size_bytes > CONVERSATION_MAX_BYTES:
        raise Refused(
            "conflict",
            f"The files of a conversation may have {CONVERSATION_MAX_BYTES // 1024**2} MiB in "
            "all: send a link instead.",
        )


@dataclass(frozen=True, slots=True)
class Kept:
    """An attachment as it stands in the database, without its bytes."""

    id: int
    conversation_id: int
    stream: int | None
    seq: int | None
    name: str
    content_type: str
    sha256: str


_FIND: Final = (
    select(
        _a.c.id,
        _a.c.conversation_id,
        _a.c.stream,
        _a.c.seq,
        _a.c.name,
        _a.c.content_type,
        _a.c.sha256,
        _a.c.uploader_type,
        _c.c.inbox_id,
        _c.c.visitor_id,
    )
    .join(_c, _c.c.id == _a.c.conversation_id)
    .where(_a.c.token == bindparam("token"))
)
_BYTES: Final = HotStatement(select(_b.c.content).where(_b.c.attachment_id == bindparam("id")))


def find(database: Database, token: str, agent: Agent | None) -> Kept:
    """The attachment with this token; raises :class:`NotFound` unless the caller may have it.

    What the visitor may see is given to whoever knows the token. What a member of the staff
    uploaded and what a note carries is given only to staff who see the inbox: ``agent``. Blocking.
    """
    with database.view() as connection:
        row = connection.execute(_FIND, {"token": token}).one_or_none()
    if row is None:
        raise NotFound
    if row.stream is None:
        open_to_visitor = row.uploader_type == "visitor"
    else:
        open_to_visitor = row.stream == schema.PUBLIC
    if not open_to_visitor:
        if agent is None:
            raise NotFound
        permissions.reach(agent, inbox_id=row.inbox_id, visitor_id=row.visitor_id)
    return Kept(
        row.id,
        row.conversation_id,
        row.stream,
        row.seq,
        row.name,
        row.content_type,
        row.sha256,
    )


async def content(routing: HistoryRouting, kept: Kept) -> bytes:
    """The bytes of an attachment, from the replica when that has them: they never change.

    Raises :class:`NotFound` when they are gone by now.
    """

    async def read(source: Source) -> Sequence[Any]:
        return await source.rows(_BYTES, {"id": kept.id})

    rows, _ = await routing.read(read, bool)
    if not rows:
        raise NotFound
    return bytes(rows[0][0])


def purge_unsent(connection: Connection, limit: int) -> int:
    """Delete at most ``limit`` files that no message carried in time; gives how many."""
    old = and_(_a.c.seq.is_(None), _a.c.created_at < clock.now() - UNSENT_LIFETIME)
    ids = connection.execute(select(_a.c.id).where(old).order_by(_a.c.id).limit(limit)).scalars()
    # the condition again: a message may have taken the file in the meantime
    gone = connection.execute(delete(_a).where(_a.c.id.in_(list(ids)), _a.c.seq.is_(None)))
    return gone.rowcount
