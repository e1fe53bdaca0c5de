"""The pre-chat form, and what else a visitor is checked for."""

from __future__ import annotations

from typing import Any

import pytest

from app.chat import attributes, forms
from app.chat.blocking import NetworkSet, normalized_network
from app.chat.errors import FieldsRefused, Refused
from app.chat.inboxes import FormField, identity_hash, normalized_origin


def field(name: str, kind: str, **more: Any) -> FormField:
    return FormField.model_validate({"name": name, "type": kind, "label": {"en": name}, **more})


FIELDS = [
    field("name", "text", required=True),
    field("email", "email"),
    field("phone", "phone"),
    field("topic", "select", options=["Order", "退貨"]),
    field("more", "textarea"),
    field("agree", "checkbox", required=True),
    field("news", "checkbox"),
]
GOOD = {"name": "Ann", "agree": True}


def test_good_answers_are_trimmed_and_kept() -> None:
    answers = {
        **GOOD,
        "name": "  陳小明 👋 e\u0301 ",
        "email": " ann@example.com",
        "phone": "+886 2 5555-0100",
        "topic": "退貨",
        "more": "two\nlines\ttab",
        "news": False,
        "unknown": "is dropped",
    }
    kept = forms.check(FIELDS, answers)
    assert kept == {
        "name": "陳小明 👋 e\u0301",
        "email": "ann@example.com",
        "phone": "+886 2 5555-0100",
        "topic": "退貨",
        "more": "two\nlines\ttab",
        "agree": True,
        "news": False,
    }
    assert forms.about_visitor(kept) == {
        "name": "陳小明 👋 e\u0301",
        "email": "ann@example.com",
        "phone": "+886 2 5555-0100",
    }


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"name": None}, ["name"]),
        ({"name": "   "}, ["name"]),
        ({"name": "a\nb"}, ["name"]),
        ({"name": "x" * 201}, ["name"]),
        ({"name": True}, ["name"]),
        ({"agree": None}, ["agree"]),
        ({"agree": False}, ["agree"]),
        ({"agree": "yes"}, ["agree"]),
        ({"email": "nobody"}, ["email"]),
        ({"email": "a b@example.com"}, ["email"]),
        ({"email": "a@" + "b" * 254}, ["email"]),
        ({"phone": "call me"}, ["phone"]),
        ({"phone": "12"}, ["phone"]),
        ({"phone": "1" * 41}, ["phone"]),
        ({"topic": "Other"}, ["topic"]),
        ({"more": "x" * 2001}, ["more"]),
        ({"more": "a\u0000"}, ["more"]),
        ({"name": "", "agree": False, "email": "x"}, ["name", "email", "agree"]),
    ],
)
def test_every_wrong_answer_is_named(change: dict[str, Any], names: list[str]) -> None:
    answers = {name: value for name, value in {**GOOD, **change}.items() if value is not None}
    with pytest.raises(FieldsRefused) as caught:
        forms.check(FIELDS, answers)
    assert list(caught.value.fields) == [f"form.{name}" for name in names]


def test_a_form_may_not_fill_the_column() -> None:
    many = [field(f"f{number}", "textarea") for number in range(20)]
    with pytest.raises(FieldsRefused) as caught:
        forms.check(many, {f"f{number}": "𠜎" * 2000 for number in range(20)})
    assert list(caught.value.fields) == ["form"]


def test_without_questions_nothing_is_kept() -> None:
    assert forms.check([], {"name": "Ann"}) == {}


def test_attributes_are_merged_removed_and_bounded() -> None:
    stored = attributes.merged(None, {"plan": "gold", "訂單": 3, "news": True})
    assert attributes.read(stored) == {"plan": "gold", "訂單": 3, "news": True}
    stored = attributes.merged(stored, {"plan": None, "news": False})
    assert attributes.read(stored) == {"訂單": 3, "news": False}
    assert attributes.merged(stored, {"訂單": None, "news": None}) is None
    with pytest.raises(Refused):
        attributes.merged(stored, {f"a{number}": 1 for number in range(49)})
    with pytest.raises(Refused):
        attributes.merged(None, {f"a{number}": "𠜎" * 500 for number in range(10)})


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("192.0.2.7", "192.0.2.7/32"),
        (" 192.0.2.7/24 ", "192.0.2.0/24"),
        ("2001:DB8::1", "2001:db8::1/128"),
        ("2001:db8:1:2:3::/48", "2001:db8:1::/48"),
        ("::ffff:192.0.2.7", "192.0.2.7/32"),
        ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ("10.0.0.0/8", "10.0.0.0/8"),
    ],
)
def test_networks_have_one_form(given: str, stored: str) -> None:
    assert normalized_network(given) == stored


@pytest.mark.parametrize(
    "given", ["", "example.com", "1.2.3", "1.2.3.4/33", "0.0.0.0/0", "::/0", "10.0.0.0/7", "a::/15"]
)
def test_networks_that_are_none_or_too_wide(given: str) -> None:
    with pytest.raises(ValueError, match="should be"):
        normalized_network(given)


def test_a_set_of_networks_finds_addresses() -> None:
    networks = NetworkSet(["192.0.2.0/24", "203.0.113.7/32", "2001:db8:1::/48", "10.0.0.0/8"])
    for inside in ("192.0.2.0", "192.0.2.255", "203.0.113.7", "2001:db8:1:ffff::1", "10.9.8.7"):
        assert inside in networks, inside
    assert "::ffff:192.0.2.9" in networks
    for outside in ("192.0.3.0", "203.0.113.8", "2001:db8:2::1", "11.0.0.0", "nonsense", ""):
        assert outside not in networks, outside
    assert "192.0.2.1" not in NetworkSet()


def test_identity_hashes_are_the_published_hmac() -> None:
    """Test case 2 of RFC 4231 §4.3."""
    assert identity_hash("Jefe", "what do ya want for nothing?") == (
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )


def test_origins_are_as_browsers_write_them() -> None:
    assert normalized_origin("HTTP://Example.COM:80/") == "http://example.com"
    assert normalized_origin("https://example.com:8443") == "https://example.com:8443"
    assert normalized_origin("https://[2001:DB8::1]:443") == "https://[2001:db8::1]"
    assert normalized_origin("https://商店.example") == "https://xn--czr70e.example" or (
        normalized_origin("https://商店.example").startswith("https://xn--")
    )
