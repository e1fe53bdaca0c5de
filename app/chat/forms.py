"""The pre-chat form: what a visitor answers before its first message."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import orjson

from app.chat.errors import FieldsRefused
from app.chat.inboxes import FormField

Answer = str | bool

TEXT_MAX_CHARACTERS: Final = 200
TEXTAREA_MAX_CHARACTERS: Final = 2000
FORM_MAX_BYTES: Final = 16 * 1024
NAME_MAX_CHARACTERS: Final = 100
_EMAIL_MAX: Final = 254
_PHONE_MAX: Final = 40
_CONTROL: Final = re.compile(r"[\u0000-\u001f\u007f-\u009f]")
# what mail servers refuse is theirs to say; this only keeps out what cannot be an address
_EMAIL: Final = re.compile(r"[^@\s]+@[^@\s]+")
_PHONE: Final = re.compile(r"[0-9+()\-./ ext#*]*")


class _Wrong(Exception):
    """What the answer should be."""


def check(fields: Sequence[FormField], answers: Mapping[str, Answer]) -> dict[str, Answer]:
    """The answers to the inbox's questions, trimmed; empty ones are left out.

    Answers to questions that are not asked (any more) are dropped. Raises :class:`FieldsRefused`
    that names every wrong field as ``form.NAME``.
    """
    kept: dict[str, Answer] = {}
    wrong: dict[str, str] = {}
    for field in fields:
        given = answers.get(field.name)
        try:
            answer = _checked(field, given)
        except _Wrong as error:
            wrong[f"form.{field.name}"] = str(error)
            continue
        if answer is not None:
            kept[field.name] = answer
        elif field.required:
            wrong[f"form.{field.name}"] = (
                "should be ticked" if field.type == "checkbox" else "should be answered"
            )
    if not wrong and len(orjson.dumps(kept)) > FORM_MAX_BYTES:
        wrong["form"] = f"should have at most {FORM_MAX_BYTES // 1024} KiB"
    if wrong:
        raise FieldsRefused(wrong)
    return kept


def about_visitor(answers: Mapping[str, Answer]) -> dict[str, str]:
    """The answers that are kept with the visitor: ``name``, ``email`` and ``phone``."""
    return {
        name: answer[:NAME_MAX_CHARACTERS] if name == "name" else answer
        for name in ("name", "email", "phone")
        if isinstance(answer := answers.get(name), str) and answer
    }


def _checked(field: FormField, given: Answer | None) -> Answer | None:
    """The answer in its stored form; None for no answer. Raises :class:`_Wrong`."""
    if field.type == "checkbox":
        if given is not None and not isinstance(given, bool):
            raise _Wrong("should be true or false")
        return given or (None if field.required else given)
    if given is None:
        return None
    if not isinstance(given, str):
        raise _Wrong("should be a text")
    answer = given.strip()
    if not answer:
        return None
    if field.type == "select":
        if answer not in field.options:
            raise _Wrong("should be one of the options")
        return answer
    return _TEXTS[field.type](answer)


def _line(answer: str) -> str:
    if _CONTROL.search(answer):
        raise _Wrong("should be one line without control characters")
    if len(answer) > TEXT_MAX_CHARACTERS:
        raise _Wrong(f"should have at most {TEXT_MAX_CHARACTERS} characters")
    return answer


def _lines(answer: str) -> str:
    if "\x00" in answer:
        raise _Wrong("should not contain a NUL character")
    if len(answer) > TEXTAREA_MAX_CHARACTERS:
        raise _Wrong(f"should have at most {TEXTAREA_MAX_CHARACTERS} characters")
    return answer


def _email(answer: str) -> str:
    if len(answer) > _EMAIL_MAX or _CONTROL.search(answer) or not _EMAIL.fullmatch(answer):
        raise _Wrong("should be an e-mail address, as ann@example.com")
    return answer


def _phone(answer: str) -> str:
    digits = sum(character.isdigit() for character in answer)
    if len(answer) > _PHONE_MAX or digits < 3 or not _PHONE.fullmatch(answer):
        raise _Wrong("should be a telephone number, as +886 2 5555 0100")
    return answer


_TEXTS: Final[Mapping[str, Callable[[str], str]]] = {
    "text": _line,
    "textarea": _lines,
    "email": _email,
    "phone": _phone,
}
