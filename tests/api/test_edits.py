"""Editing and deleting messages."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.api.conftest import Agent, Visitor, assert_problem
from tests.api.test_realtime import agent_auth, open_socket, visitor_auth
from tests.conftest import Deskline, embedded_deskline

MakeVisitor = Callable[..., Visitor]


def staff_path(conversation_id: int, seq: int, stream: str = "public") -> str:
    return f"/conversations/{conversation_id}/messages/{stream}/{seq}"


def edit_own(visitor: Visitor, conversation_id: int, seq: int, body: str) -> httpx.Response:
    path = f"/api/v1/widget/conversations/{conversation_id}/messages/{seq}"
    return visitor.http.patch(path, json={"body": body})


def delete_own(visitor: Visitor, conversation_id: int, seq: int) -> httpx.Response:
    return visitor.http.delete(f"/api/v1/widget/conversations/{conversation_id}/messages/{seq}")


def test_both_sides_edit_their_own(agent: Agent, visitor: Visitor) -> None:
    conversation_id = visitor.conversation("helo")
    edited = edit_own(visitor, conversation_id, 1, "hello, 你好")
    assert edited.status_code == 200, edited.text
    message = edited.json()
    assert (message["body"], message["seq"]) == ("hello, 你好", 1)
    assert message["edited_at"] is not None
    assert message["deleted_at"] is None
    agent.send(conversation_id, "gud day")
    assert agent.patch(staff_path(conversation_id, 2), {"body": "good day"}).status_code == 200
    page = agent.messages(conversation_id, known_seq=2)["items"]
    assert page[0] == message
    assert [item["body"] for item in page] == ["hello, 你好", "good day"]


def test_saying_the_same_changes_nothing(agent: Agent, visitor: Visitor) -> None:
    conversation_id = visitor.conversation("same")
    assert edit_own(visitor, conversation_id, 1, "same").json()["edited_at"] is None
    assert agent.get(f"/conversations/{conversation_id}").json()["last_edit"]["public"] == 0
    first = edit_own(visitor, conversation_id, 1, "other").json()
    assert edit_own(visitor, conversation_id, 1, "other").json() == first
    assert agent.get(f"/conversations/{conversation_id}").json()["last_edit"]["public"] == 1


def test_a_deleted_message_leaves_its_place_and_no_bytes(
    deskline: Deskline, agent: Agent, visitor: Visitor
) -> None:
    conversation_id = visitor.conversation("one")
    file = visitor.upload(conversation_id, "a.txt", b"a").json()
    visitor.send(conversation_id, "two", attachment_ids=[file["id"]])
    visitor.send(conversation_id, "three")
    deleted = delete_own(visitor, conversation_id, 2)
    assert deleted.status_code == 200
    message = deleted.json()
    assert (message["body"], message["attachments"], message["seq"]) == ("", [], 2)
    assert message["deleted_at"] is not None
    assert httpx.get(deskline.url + file["url"]).status_code == 404
    seqs = [item["seq"] for item in agent.messages(conversation_id, known_seq=3)["items"]]
    assert seqs == [1, 2, 3]
    assert delete_own(visitor, conversation_id, 2).json() == message
    assert_problem(edit_own(visitor, conversation_id, 2, "back"), 409, "message_deleted")


def test_the_lists_do_not_show_what_was_deleted(agent: Agent, visitor: Visitor) -> None:
    conversation_id = visitor.conversation("my password is 1234")
    delete_own(visitor, conversation_id, 1)
    seen = agent.get(f"/conversations/{conversation_id}").json()
    assert seen["last_message"]["body"] == ""
    assert seen["last_message"]["deleted_at"] is not None


def test_sending_again_answers_with_the_message_as_it_is_now(visitor: Visitor) -> None:
    conversation_id, client_id = visitor.conversation(), str(uuid.uuid4())
    visitor.send(conversation_id, "helo", client_id)
    edited = edit_own(visitor, conversation_id, 2, "hello").json()
    again = visitor.send(conversation_id, "helo", client_id)
    assert (again.status_code, again.json()) == (200, edited)
    deleted = delete_own(visitor, conversation_id, 2).json()
    assert visitor.send(conversation_id, "helo", client_id).json() == deleted


def test_nobody_edits_what_somebody_else_wrote(
    agent: Agent, second_agent: Agent, visitor: Visitor, new_visitor: MakeVisitor
) -> None:
    conversation_id, stranger = visitor.conversation("mine"), new_visitor()
    second_agent.send(conversation_id, "the second agent's")
    assert_problem(agent.patch(staff_path(conversation_id, 1), {"body": "x"}), 403, "forbidden")
    assert_problem(agent.patch(staff_path(conversation_id, 2), {"body": "x"}), 403, "forbidden")
    assert_problem(edit_own(visitor, conversation_id, 2, "x"), 403, "forbidden")
    assert_problem(delete_own(visitor, conversation_id, 2), 403, "forbidden")
    for answer in (edit_own(stranger, conversation_id, 1, "x"), delete_own(stranger, 10**9, 1)):
        assert_problem(answer, 404, "not_found")
    path = f"/api/v1/conversations/{conversation_id}/messages/public/1"
    assert_problem(visitor.http.patch(path, json={"body": "x"}), 401, "not_authenticated")
    assert_problem(second_agent.delete(staff_path(conversation_id, 1)), 403, "forbidden")
    bodies = [item["body"] for item in agent.messages(conversation_id)["items"]]
    assert bodies == ["mine", "the second agent's"]


def test_admins_delete_anything_and_it_is_noted(agent: Agent, visitor: Visitor) -> None:
    conversation_id = visitor.conversation("insult")
    assert agent.user["role"] == "admin"
    deleted = agent.delete(staff_path(conversation_id, 1))
    assert (deleted.status_code, deleted.json()["body"]) == (200, "")
    # an event of the timeline is no message of anybody
    agent.post(f"/conversations/{conversation_id}/claim")
    events = agent.messages(conversation_id, stream="staff")["items"]
    if events:
        path = staff_path(conversation_id, events[0]["seq"], "staff")
        assert_problem(agent.delete(path), 403, "forbidden")


@pytest.mark.parametrize("place", ["public/99", "public/0", "public/x", "secret/1", "staff/1"])
def test_there_is_nothing_there(agent: Agent, visitor: Visitor, place: str) -> None:
    conversation_id = visitor.conversation()
    path = f"/conversations/{conversation_id}/messages/{place}"
    assert_problem(agent.patch(path, {"body": "x"}), 404, "not_found")
    assert_problem(agent.delete(path), 404, "not_found")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"body": ""}, "invalid_request"),
        ({"body": " \n"}, "invalid_request"),
        ({"body": "\u200b"}, "invalid_request"),
        ({"body": 7}, "invalid_request"),
        ({}, "invalid_request"),
        ({"body": "a\u0000b"}, "invalid_request"),
        ({"body": "x" * 10_001}, "message_too_long"),
    ],
)
def test_a_text_that_cannot_be_is_refused(
    visitor: Visitor, agent: Agent, body: Any, code: str
) -> None:
    conversation_id = visitor.conversation("kept")
    path = f"/api/v1/widget/conversations/{conversation_id}/messages/1"
    assert_problem(visitor.http.patch(path, json=body), 422, code)
    assert agent.messages(conversation_id)["items"][0]["body"] == "kept"


async def test_the_other_side_hears_of_it(
    deskline: Deskline, agent: Agent, visitor: Visitor
) -> None:
    conversation_id = visitor.conversation("helo")
    key = str(visitor.session["realtime"]["key"])
    public, staff = f"private-conversation.{conversation_id}", f"private-staff.{conversation_id}"
    inbox = f"private-inbox.{visitor.session['inbox']['id']}"
    widget, desk = await open_socket(deskline, key), await open_socket(deskline, key)
    await widget.subscribe(public, visitor_auth(visitor, public, widget.socket_id))
    await desk.subscribe(staff, agent_auth(agent, staff, desk.socket_id))
    await desk.subscribe(inbox, agent_auth(agent, inbox, desk.socket_id))

    note = (await asyncio.to_thread(agent.send, conversation_id, "nte", kind="note")).json()
    path = staff_path(conversation_id, note["seq"], "staff")
    changed = await asyncio.to_thread(agent.patch, path, {"body": "note"})
    assert await desk.receive("message.updated") == changed.json()
    deleted = await asyncio.to_thread(delete_own, visitor, conversation_id, 1)
    # the note's edit went to the staff's channel only, or it would have come first
    assert await widget.receive("message.updated") == deleted.json()
    while True:
        row = await desk.receive("conversation.updated")
        if row["id"] == conversation_id and row["last_edit"]["public"] == 1:
            break
    assert row["last_message"]["deleted_at"] is not None
    for socket in (widget, desk):
        await socket.connection.close()


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deskline]:
    with embedded_deskline(tmp_path_factory.mktemp("strict"), MESSAGE_EDIT_SECONDS="0") as running:
        yield running


def test_too_late_is_too_late(strict: Deskline) -> None:
    visitor, admin, agent = (
        Visitor(strict),
        Agent(strict, strict.email),
        Agent(strict, strict.second_email),
    )
    conversation_id = visitor.conversation("helo")
    agent.send(conversation_id, "gud day")
    assert_problem(edit_own(visitor, conversation_id, 1, "hello"), 409, "edit_window_over")
    assert_problem(delete_own(visitor, conversation_id, 1), 409, "edit_window_over")
    path = staff_path(conversation_id, 2)
    assert_problem(agent.patch(path, {"body": "good day"}), 409, "edit_window_over")
    assert_problem(agent.delete(path), 409, "edit_window_over")
    # admins remove what must not stand there, at any time
    assert admin.delete(path).status_code == 200
    for client in (visitor, admin, agent):
        client.http.close()
