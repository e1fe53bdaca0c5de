"""What text may hold, as rules of pydantic models: they stand after a Field with the lengths."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Any, Final

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import core_schema


class TextRule:
    """A rule for text that the OpenAPI document tells as well, as a pattern (ECMA-262)."""

    def __init__(self, check: Callable[[str], str], pattern: str) -> None:
        self._check = check
        self._pattern = pattern

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {**handler(schema), "pattern": self._pattern}


def _without_nul(text: str) -> str:
    if "\x00" in text:
        raise ValueError("should not contain a NUL character")
    return text


def _one_line(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError("should be one line without control characters")
    stripped = text.strip()
    if text and not stripped:
        raise ValueError("should not be blank")
    return stripped


def _one_word(text: str) -> str:
    if _CONTROL.search(text) or any(character.isspace() for character in text):
        raise ValueError("should have neither blanks nor control characters")
    return text


_CONTROLS: Final = r"\u0000-\u001f\u007f-\u009f"
_BLANKS: Final = r"\u0020\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_CONTROL: Final = re.compile(f"[{_CONTROLS}]")
# Annotated[str, Field(max_length=100), OneLine]
NoNul: Final = TextRule(_without_nul, r"^[^\u0000]*$")
# what stands on one line: a name, a title; leading and trailing blanks are cut
OneLine: Final = TextRule(
    _one_line,
    # no control characters, and at least one that is neither blank nor one of them
    rf"^([^{_CONTROLS}]*[^{_CONTROLS}{_BLANKS}][^{_CONTROLS}]*)?$",
)
OneWord: Final = TextRule(_one_word, rf"^[^{_CONTROLS}{_BLANKS}]*$")


# a character that a reader sees: neither a blank nor a control nor an invisible one (ECMA-262)
VISIBLE: Final = (
    r"[^\u0000-\u0020\u007f-\u00a0\u00ad\u034f\u061c\u1680\u180e\u2000-\u200f\u2028-\u202f"
    r"\u205f-\u206f\u3000\ufeff]"
)
_VISIBLE: Final = re.compile(VISIBLE)


def is_blank(text: str) -> bool:
    """Whether a reader sees nothing: only blanks, control and invisible characters."""
    return _VISIBLE.search(text) is None


def folded(text: str) -> str:
    """``text`` in the form in which names are compared: without case, and é is é however typed."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
