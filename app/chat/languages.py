"""Texts in several languages, and which of them a reader gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from app.chat.text import NoNul

# a tag of BCP 47 (RFC 5646) without the rarer parts
Language = Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$", max_length=35)]
Label = Annotated[str, Field(min_length=1, max_length=100), NoNul]
ShortText = Annotated[str, Field(min_length=1, max_length=500), NoNul]
LongText = Annotated[str, Field(min_length=1, max_length=2000), NoNul]
LANGUAGES_MAX = 20


def localized() -> Any:
    """The Field of a text per language."""
    return Field(
        max_length=LANGUAGES_MAX,
        description="text by language tag",
        examples=[{"en": "Welcome", "zh-Hant-TW": "歡迎光臨"}],
    )


def choose(texts: Mapping[str, str], wished: str | None) -> str | None:
    """The text for a reader who wishes this language; else the first one; None without any.

    A tag is shortened from its end until one fits, as in the lookup of RFC 4647 §3.4; after that
    a text of the same language in another form is better than one of another language.
    """
    if not texts:
        return None
    by_tag = {tag.lower(): text for tag, text in texts.items()}
    parts = (wished or "").lower().split("-")
    for length in range(len(parts), 0, -1):
        if (found := by_tag.get("-".join(parts[:length]))) is not None:
            return found
    same = [tag for tag in by_tag if tag.split("-")[0] == parts[0]]
    if same:
        return by_tag[max(same, key=lambda tag: _likeness(tag, parts))]
    return next(iter(by_tag.values()))


def _likeness(tag: str, wished: list[str]) -> tuple[int, int]:
    """How well a form of a language serves: Chinese by its script, which the region tells."""
    own = tag.split("-")
    return int(_traditional(own) == _traditional(wished)), len(set(own) & set(wished))


def _traditional(parts: list[str]) -> bool:
    return "hant" in parts or ("hans" not in parts and bool({"tw", "hk", "mo"} & set(parts)))
