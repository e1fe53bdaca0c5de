"""The release archive: the same for the same sources, another version for any change."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tools import build_release

PYPROJECT = '[project]\nversion = "1.2.3"\n'
LOCK = r"""one==1.0 \
    --hash=sha256:aa
two==2.0 ; python_full_version < '3.11.3' \
    --hash=sha256:bb
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small project, with the builder pointed at it and the wheels there already."""
    for name, text in {
        "pyproject.toml": PYPROJECT,
        "requirements-app.txt": LOCK,
        "app/__init__.py": "",
        "app/main.py": "print('hello')\n",
        "app/__pycache__/main.cpython-313.pyc": "compiled",
        "web/dist/index.html": "<h1>one</h1>\n",
        "cache/one-1.0-py3-none-any.whl": "wheel",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "dist").mkdir()
    monkeypatch.setattr(build_release, "ROOT", tmp_path)
    monkeypatch.setattr(build_release, "LOCK", tmp_path / "requirements-app.txt")
    monkeypatch.setattr(build_release, "DIST", tmp_path / "dist")
    monkeypatch.setattr(build_release, "WEB_DIST", tmp_path / "web" / "dist")
    monkeypatch.setattr(build_release, "web_files_are_current", lambda: True)
    monkeypatch.setattr(build_release, "wheels", lambda: sorted((tmp_path / "cache").glob("*.whl")))
    return tmp_path


def test_archive_holds_what_a_server_needs(tree: Path) -> None:
    archive, built = build_release.build()
    assert built
    with tarfile.open(archive) as packed:
        members = {member.name: member for member in packed}
        version = packed.extractfile("VERSION")
        assert version is not None
        assert archive.name == f"deskline-{version.read().decode().strip()}.tar.gz"
    assert sorted(members) == [
        "VERSION",
        "app/__init__.py",
        "app/main.py",
        "requirements-app.txt",
        "web/index.html",
        "wheels/one-1.0-py3-none-any.whl",
    ]
    assert {(member.uid, member.gid, member.mode) for member in members.values()} == {(0, 0, 0o644)}
    assert (tree / "dist" / "LATEST").read_text() == f"{archive.name}\n"


def test_the_same_sources_make_the_same_bytes(tree: Path) -> None:
    archive, _ = build_release.build()
    content = archive.read_bytes()
    assert build_release.build() == (archive, False)
    archive.unlink()
    (tree / "app" / "main.py").touch()
    assert build_release.build() == (archive, True)
    assert archive.read_bytes() == content


def change_text(tree: Path) -> None:
    (tree / "web" / "dist" / "index.html").write_text("<h1>two</h1>\n")


def change_name(tree: Path) -> None:
    (tree / "app" / "main.py").rename(tree / "app" / "other.py")


def change_mode(tree: Path) -> None:
    (tree / "app" / "main.py").chmod(0o755)


def change_lock(tree: Path) -> None:
    (tree / "requirements-app.txt").write_text(LOCK.replace("aa", "cc"))


@pytest.mark.parametrize("change", [change_text, change_name, change_mode, change_lock])
def test_any_change_makes_another_version(tree: Path, change: Callable[[Path], None]) -> None:
    before, _ = build_release.build()
    change(tree)
    after, built = build_release.build()
    assert built
    assert after != before
    assert (tree / "dist" / "LATEST").read_text().strip() == after.name


def test_a_page_of_the_same_length_gets_another_time(tree: Path) -> None:
    """Nginx's ETag is the time and the size."""
    times = set()
    for change in (lambda _: None, change_text):
        change(tree)
        archive, _ = build_release.build()
        with tarfile.open(archive) as packed:
            times.add(packed.getmember("web/index.html").mtime)
    assert len(times) == 2


def test_old_archives_go(tree: Path) -> None:
    for number in range(build_release.KEPT_ARCHIVES + 2):
        (tree / "app" / "main.py").write_text(f"print({number})\n")
        newest, _ = build_release.build()
    kept = list((tree / "dist").glob("*.tar.gz"))
    assert len(kept) == build_release.KEPT_ARCHIVES
    assert newest in kept


def test_what_only_a_target_needs_is_not_left_out() -> None:
    assert build_release.lock_without_markers(LOCK) == (
        "one==1.0 \\\n    --hash=sha256:aa\ntwo==2.0 \\\n    --hash=sha256:bb\n"
    )


def test_stale_web_files_are_refused(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_release, "web_files_are_current", lambda: False)
    with pytest.raises(build_release.ReleaseFailure, match="make release"):
        build_release.build()
