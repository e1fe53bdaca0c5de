"""Delivered marks: what reached a reader's device, before it was read."""

from __future__ import annotations

import pytest

from tests.api.conftest import Agent, Visitor, assert_problem


def test_delivered_moves_forward_only_and_is_told_to_the_other_side(
    agent: Agent, visitor: Visitor
) -> None:
    conversation_id = visitor.conversation("one")
    for body in ("two", "three"):
        agent.send(conversation_id, body)
    path = f"/conversations/{conversation_id}"
    assert agent.get(path).json()["visitor_delivered_seq"] == 1
    assert visitor.post(f"{path}/delivered", {"seq": 2}).json() == {"delivered_seq": 2}
    assert visitor.post(f"{path}/delivered", {"seq": 1}).json() == {"delivered_seq": 2}
    seen = agent.get(path).json()
    assert (seen["visitor_delivered_seq"], seen["visitor_read_seq"]) == (2, 1)
    # never beyond the last message
    assert visitor.post(f"{path}/delivered", {"seq": 99}).json() == {"delivered_seq": 3}


def test_what_was_read_was_delivered(agent: Agent, visitor: Visitor) -> None:
    conversation_id = visitor.conversation("one")
    visitor.send(conversation_id, "two")
    path = f"/conversations/{conversation_id}"
    assert agent.post(f"{path}/delivered", {"seq": 1}).json() == {"delivered_seq": 1}
    seen = visitor.open("demo", visitor_token=visitor.session["visitor_token"])["conversation"]
    assert (seen["staff_delivered_seq"], seen["staff_read_seq"]) == (1, 0)
    assert agent.post(f"{path}/read", {"seq": 2}).json() == {"read_seq": 2}
    seen = visitor.open("demo", visitor_token=visitor.session["visitor_token"])["conversation"]
    assert (seen["staff_delivered_seq"], seen["staff_read_seq"]) == (2, 2)
    # a delivered mark behind the read mark changes neither
    assert agent.post(f"{path}/delivered", {"seq": 1}).json() == {"delivered_seq": 2}
    assert agent.get(path).json()["read_seq"]["public"] == 2


def test_notes_have_a_delivered_mark_of_their_own(agent: Agent, visitor: Visitor) -> None:
    conversation_id = visitor.conversation()
    agent.send(conversation_id, "between us", kind="note")
    path = f"/conversations/{conversation_id}/delivered"
    assert agent.post(path, {"seq": 1, "stream": "staff"}).json() == {"delivered_seq": 1}
    assert agent.post(path, {"seq": 0}).json() == {"delivered_seq": 0}


@pytest.mark.parametrize("seq", [-1, 2**31, "x", None])
def test_a_seq_that_is_none_is_refused(agent: Agent, visitor: Visitor, seq: object) -> None:
    path = f"/conversations/{visitor.conversation()}/delivered"
    assert_problem(agent.post(path, {"seq": seq}), 422, "invalid_request")
    assert_problem(visitor.post(path, {"seq": seq}), 422, "invalid_request")


def test_strangers_cannot_say_what_was_delivered(visitor: Visitor, new_visitor: object) -> None:
    assert callable(new_visitor)
    stranger = new_visitor()
    path = f"/conversations/{visitor.conversation()}/delivered"
    assert_problem(stranger.post(path, {"seq": 1}), 404, "not_found")
