"""What a file is, what it is called, and the virus scanner."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import pytest

from app.chat import attachments, scanner
from app.chat.errors import Busy, Refused
from app.config import ATTACHMENT_TYPES
from tests.sample_files import SCANNER, archive, picture


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (picture("PNG"), "image/png"),
        (picture("JPEG"), "image/jpeg"),
        (picture("GIF"), "image/gif"),
        (picture("WEBP"), "image/webp"),
        (b"%PDF-1.7\n%text only\n", "application/pdf"),
        (archive(), "application/zip"),
        ("plain, 中文, 🚚".encode(), "text/plain"),
        (b"\xef\xbb\xbfwith a mark", "text/plain"),
        # two letters that also begin a format are no proof of it
        (b"BM is a shop in Taipei", "text/plain"),
        (b"MZ", "text/plain"),
        (b"GIF89a/*", "text/plain"),
        (b"MZ\x90\x00\x03\x00\x00\x00", "application/x-msdownload"),
        (b"\x7fELF\x02\x01\x01\x00" + bytes(64), "application/x-executable"),
        (b"a\x00b", "application/octet-stream"),
        ("Big5: 中文".encode("big5"), "application/octet-stream"),
        (b"<!DOCTYPE html><title>x</title>", "text/html"),
        (b"\n\n <HTML><script>alert(1)</script>", "text/html"),
        (b"hello <script src=x></script>", "text/html"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "image/svg+xml"),
        (b"\xef\xbb\xbf<svg onload=alert(1)>", "image/svg+xml"),
        (b'<?xml version="1.0"?><note/>', "text/xml"),
        (b"a < b and <b>bold</b>", "text/plain"),
    ],
)
def test_the_bytes_say_what_a_file_is(content: bytes, expected: str) -> None:
    assert attachments.content_type(content) == expected


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("photo.JPG", "image/jpeg", "photo.JPG"),
        ("../../etc/passwd", "text/plain", "passwd.txt"),
        ("C:\\Users\\me\\scan.pdf", "application/pdf", "scan.pdf"),
        ("run.bat", "text/plain", "run.bat.txt"),
        ("page.html", "text/plain", "page.html.txt"),
        ("invoice.exe", "image/png", "invoice.exe.png"),
        # the mark turns the direction of writing: it would read as "gpj.exe"
        ("\u202egpj.exe", "text/plain", "gpj.exe.txt"),
        ("a\r\nSet-Cookie: x=1.png", "image/png", "aSet-Cookie x=1.png".replace(" x", ": x")),
        ("  two   words .png ", "image/png", "two words .png"),
        ("", "image/png", "file.png"),
        ("...", "image/png", "file.png"),
        (".png", "image/png", "png.png"),
        ("資料.csv", "text/plain", "資料.csv"),
        ("e\u0301.txt", "text/plain", "é.txt"),
        ("report.docx", "application/zip", "report.docx"),
        ("x" * 300 + ".png", "image/png", "x" * 116 + ".png"),
        ("noend", "application/x-unknown", "noend"),
    ],
)
def test_names_are_cleaned_and_end_as_their_type(name: str, kind: str, expected: str) -> None:
    assert attachments.clean_name(name, kind) == expected


def test_a_picture_has_dimensions() -> None:
    file = attachments.examine("a.png", picture("PNG", 40, 30), allowed=ATTACHMENT_TYPES)
    assert (file.width_px, file.height_px, file.content_type) == (40, 30, "image/png")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "attachment_refused"),
        (picture("PNG")[:12], "attachment_refused"),
        # a header that promises 65 000 x 65 000 pixels
        (
            picture("PNG")[:16] + (65000).to_bytes(4, "big") * 2 + picture("PNG")[24:],
            "attachment_refused",
        ),
        (b"<svg onload=alert(1)>", "attachment_type_refused"),
        (b"<html></html>", "attachment_type_refused"),
        (b"MZ\x90\x00\x03\x00\x00\x00", "attachment_type_refused"),
    ],
)
def test_what_is_not_taken(content: bytes, code: str) -> None:
    with pytest.raises(Refused) as refused:
        attachments.examine("a.png", content, allowed=ATTACHMENT_TYPES)
    assert refused.value.code == code


# --- the scanner ------------------------------------------------------------------------------


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "scanner.py"
    path.write_text(SCANNER)
    return path


async def test_clean_and_infected(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESKLINE_SECRET_KEY", "x" * 40)
    command = [sys.executable, str(script)]
    await scanner.check(command, b"clean" * 1_000_000)
    with pytest.raises(Refused) as refused:
        await scanner.check(command, b"an INFECTED file")
    assert refused.value.code == "attachment_infected"


@pytest.mark.parametrize(
    "command",
    [
        ["/bin/sh", "-c", "exit 2"],
        ["/bin/sh", "-c", "kill -9 $$"],
        ["/nonexistent/scanner"],
    ],
)
async def test_a_scanner_that_fails_lets_nothing_through(command: list[str]) -> None:
    with pytest.raises(Busy):
        await scanner.check(command, b"x")


async def test_a_scanner_that_does_not_read_may_still_answer() -> None:
    await scanner.check(["/bin/sh", "-c", "exit 0"], b"x" * 5_000_000)


async def test_a_scanner_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    command = ["/bin/sh", "-c", f"sleep 60 & echo $! > {mark}; wait"]
    started = time.monotonic()
    with pytest.raises(Busy):
        await scanner.check(command, b"x", timeout_seconds=0.5)
    assert time.monotonic() - started < 5
    child = int(mark.read_text())
    for _ in range(50):
        if not _runs(child):
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the scanner's child lives on")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
