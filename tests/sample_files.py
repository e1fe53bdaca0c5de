"""Small files to send, and a virus scanner."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

SCANNER = """
import os, sys
content = sys.stdin.buffer.read()
if any(name.startswith("DESKLINE_") for name in os.environ):
    sys.exit(9)
sys.exit(3 if b"BROKEN" in content else 1 if b"INFECTED" in content else 0)
"""


def picture(kind: str, width: int = 4, height: int = 3) -> bytes:
    """The smallest file of a kind that names its dimensions."""
    match kind:
        case "PNG":
            head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
            rows = zlib.compress(bytes((width + 1) * height))
            parts = [(b"IHDR", head), (b"IDAT", rows), (b"IEND", b"")]
            return b"\x89PNG\r\n\x1a\n" + b"".join(
                struct.pack(">I", len(data))
                + name
                + data
                + struct.pack(">I", zlib.crc32(name + data))
                for name, data in parts
            )
        case "GIF":
            return b"GIF89a" + struct.pack("<HH", width, height) + b"\x00\x00\x00\x3b"
        case "JPEG":
            frame = struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\x00"
            return b"\xff\xd8\xff\xc0" + struct.pack(">H", len(frame) + 2) + frame + b"\xff\xd9"
        case "WEBP":
            size = struct.pack("<HH", width, height)
            frame = b"\x30\x01\x00\x9d\x01\x2a" + size + bytes(8)
            body = b"WEBPVP8 " + struct.pack("<I", len(frame)) + frame
            return b"RIFF" + struct.pack("<I", len(body)) + body
    raise ValueError(kind)


def archive() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as made:
        made.writestr("a.txt", "a")
    return sink.getvalue()
