"""Which text a reader gets."""

from __future__ import annotations

import pytest

from app.chat import languages

TEXTS = {"en": "e", "zh-Hans": "s", "zh-Hant-TW": "t", "pt-BR": "p"}


@pytest.mark.parametrize(
    ("wished", "text"),
    [
        ("en", "e"),
        ("EN-us", "e"),
        ("zh-Hant-TW", "t"),
        ("zh-TW", "t"),
        ("zh-HK", "t"),
        ("zh-Hant", "t"),
        ("zh-CN", "s"),
        ("zh", "s"),
        ("zh-Hans-CN", "s"),
        ("pt", "p"),
        ("pt-PT", "p"),
        ("fr", "e"),
        ("", "e"),
        (None, "e"),
        ("nonsense 🎈", "e"),
    ],
)
def test_the_nearest_language(wished: str | None, text: str) -> None:
    assert languages.choose(TEXTS, wished) == text


def test_no_text_at_all() -> None:
    assert languages.choose({}, "en") is None
