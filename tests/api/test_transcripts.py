"""A conversation to keep: as a page, as text, as JSON, by mail."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiosmtpd.controller import Controller

from tests.api.conftest import Agent, Visitor, assert_problem
from tests.api.test_edits import delete_own, edit_own
from tests.api.test_links import Mailbox, an_address
from tests.conftest import Deskline, embedded_deskline, free_port

MakeVisitor = Callable[..., Visitor]
FORMATS = ("html", "text", "json")
HOSTILE = (
    "<script>alert(1)</script>",
    "</p></article><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "\u202egpj.exe\u2069\u2069 reversed",
    "z" + "\u0335\u0321\u0322\u0338" * 200 + "algo",
    "x" * 9_000,
    "one\r\n\r\n[2026-01-01 00:00:00] Ann:\n    I owe you",
    "\x1b[2J\x1b]0;title\x07 beep",
    "مرحبا بالعالم",
    "你好 🚚",
)


class Page(HTMLParser):
    """The tags, the attributes and the texts of the messages of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.bodies: list[str] = []
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag == "p" and ("class", "body") in attrs:
            self._inside = True
            self.bodies.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "p"

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.bodies[-1] += data


def fetch(client: Agent | Visitor, conversation_id: int, **params: Any) -> httpx.Response:
    answer = client.get(f"/conversations/{conversation_id}/transcript", **params)
    assert answer.status_code == 200, answer.text
    return answer


def test_all_three_forms_tell_the_same(agent: Agent, visitor: Visitor) -> None:
    conversation_id = visitor.conversation("first, 你好")
    agent.send(conversation_id, "second")
    for client in (agent, visitor):
        page = fetch(client, conversation_id, format="html")
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        assert Page(page.text).bodies == ["first, 你好", "second"]
        text = fetch(client, conversation_id, format="text")
        assert text.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert "    first, 你好\n" in text.text
        assert f"] {agent.user['name']}:\n    second\n" in text.text
        document = fetch(client, conversation_id, format="json").json()
        assert document["messages"] == agent.messages(conversation_id, known_seq=2)["items"]
        assert document["conversation"]["id"] == conversation_id
        for kind, ending in zip(FORMATS, ("html", "txt", "json"), strict=True):
            answer = fetch(client, conversation_id, format=kind)
            name = f'filename="conversation-{conversation_id}.{ending}"'
            assert answer.headers["Content-Disposition"] == f"attachment; {name}"
            assert "sandbox" in answer.headers["Content-Security-Policy"]
            assert answer.headers["Cache-Control"] == "no-store"


def test_what_people_wrote_is_shown_and_not_obeyed(agent: Agent, visitor: Visitor) -> None:
    conversation_id = visitor.conversation(HOSTILE[0])
    for body in HOSTILE[1:]:
        assert visitor.send(conversation_id, body).status_code == 201
    text = fetch(agent, conversation_id, format="html").text
    page = Page(text)
    known = {"html", "head", "meta", "title", "style", "body", "main", "h1", "p", "br", "bdi"}
    assert page.tags <= known | {"article", "header", "time"}
    allowed = {"lang", "charset", "name", "content", "class", "dir", "datetime"}
    assert page.attributes <= allowed
    expected = [re.sub(r"[\x00-\x08\x0b-\x1f]", "", b.replace("\r\n", "\n")) for b in HOSTILE]
    assert page.bodies == expected
    # each in a box of its own direction, in which long words break and piled-up marks stay
    assert text.count('<p class="body" dir="auto">') == len(HOSTILE)
    for rule in ("unicode-bidi:isolate", "overflow-wrap:anywhere", "contain:paint"):
        assert rule in text

    plain = fetch(agent, conversation_id, format="text").text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", plain)
    # no line of a message looks like the head of another one
    heads = [line for line in plain.split("\n") if line.startswith("[")]
    assert len(heads) == len(HOSTILE)
    bodies = [m["body"] for m in fetch(agent, conversation_id, format="json").json()["messages"]]
    assert bodies == list(HOSTILE)


def test_notes_are_for_those_who_ask_and_may(agent: Agent, visitor: Visitor) -> None:
    conversation_id = visitor.conversation("public one")
    agent.send(conversation_id, "secret", kind="note")
    agent.send(conversation_id, "public two")
    for kind in FORMATS:
        without = fetch(agent, conversation_id, format=kind).text
        assert "secret" not in without
        assert "secret" in fetch(agent, conversation_id, format=kind, notes="true").text
        assert "secret" not in fetch(visitor, conversation_id, format=kind, notes="true").text
    merged = fetch(agent, conversation_id, format="json", notes="true").json()["messages"]
    bodies = [item["body"] for item in merged if item["kind"] != "event"]
    assert bodies == ["public one", "secret", "public two"]


def test_files_edits_and_deletions_are_told(
    deskline: Deskline, agent: Agent, visitor: Visitor
) -> None:
    conversation_id = visitor.conversation("helo")
    edit_own(visitor, conversation_id, 1, "hello")
    file = visitor.upload(conversation_id, 'a"<b>.txt', b"a").json()
    visitor.send(conversation_id, "", attachment_ids=[file["id"]])
    visitor.send(conversation_id, "my secret")
    delete_own(visitor, conversation_id, 3)
    page = fetch(agent, conversation_id, format="html").text
    assert "edited" in page
    assert "deleted" in page
    assert "my secret" not in page
    links = re.findall(r'href="([^"]+)"', page)
    assert [link.endswith(file["url"]) for link in links] == [True]
    assert "<b>" not in page
    text = fetch(agent, conversation_id, format="text").text
    assert f"{file['url']}>" in text


def test_in_the_readers_language_and_time(agent: Agent, visitor: Visitor) -> None:
    conversation_id = visitor.conversation("hello")
    created = agent.messages(conversation_id)["items"][0]["created_at"]
    there = fetch(
        agent, conversation_id, format="text", language="zh-Hant-TW", time_zone="Asia/Taipei"
    ).text
    assert "訪客" in there
    assert "Asia/Taipei" in there
    hour = (int(created[11:13]) + 8) % 24
    assert f" {hour:02d}:{created[14:19]}]" in there
    here = fetch(agent, conversation_id, format="text").text
    assert f"[{created[:10]} {created[11:19]}]" in here
    page = fetch(agent, conversation_id, language="zh-Hant-TW").text
    assert '<html lang="zh-Hant-TW">' in page


@pytest.mark.parametrize(
    "params",
    [
        {"format": "pdf"},
        {"language": "tlh"},
        {"time_zone": "Mars/Olympus"},
        {"time_zone": "../../etc/passwd"},
        {"time_zone": "x" * 100},
    ],
)
def test_what_there_is_not_is_refused(
    agent: Agent, visitor: Visitor, params: dict[str, str]
) -> None:
    conversation_id = visitor.conversation()
    for client in (agent, visitor):
        answer = client.get(f"/conversations/{conversation_id}/transcript", **params)
        assert_problem(answer, 422, "invalid_request")


def test_strangers_get_none(
    deskline: Deskline, agent: Agent, visitor: Visitor, new_visitor: MakeVisitor
) -> None:
    path = f"/conversations/{visitor.conversation()}/transcript"
    assert_problem(new_visitor().get(path), 404, "not_found")
    assert_problem(agent.get("/conversations/999999999/transcript"), 404, "not_found")
    for prefix in ("/api/v1", "/api/v1/widget"):
        answer = httpx.get(f"{deskline.url}{prefix}{path}")
        assert_problem(answer, 401, "not_authenticated")


def test_a_long_conversation_is_complete(
    agent: Agent, second_agent: Agent, new_visitor: MakeVisitor
) -> None:
    visitor = new_visitor()
    conversation_id, count = visitor.conversation("1"), 420
    # three take turns: one alone could pass the limit of what a caller may send
    writers: list[Agent | Visitor] = [agent, second_agent, visitor]
    for number in range(2, count + 1):
        answer = writers[number % 3].send(conversation_id, str(number))
        assert answer.status_code == 201, answer.text
    for kind in FORMATS:
        answer = fetch(agent, conversation_id, format=kind)
        if kind == "json":
            seqs = [item["seq"] for item in json.loads(answer.content)["messages"]]
            assert seqs == list(range(1, count + 1))
        elif kind == "html":
            assert Page(answer.text).bodies == [str(number) for number in range(1, count + 1)]
        else:
            assert re.findall(r"^    (\d+)$", answer.text, re.M) == [
                str(number) for number in range(1, count + 1)
            ]


# --- by mail -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture(scope="module")
def posting(mailbox: Mailbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deskline]:
    """A Deskline that hands its mail to the mailbox."""
    port = free_port()
    controller = Controller(mailbox, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        with embedded_deskline(
            tmp_path_factory.mktemp("posting"),
            SMTP_URL=f"smtp://127.0.0.1:{port}?starttls=none",
            MAIL_FROM="Shop <help@shop.example>",
        ) as running:
            yield running
    finally:
        controller.stop()


def test_staff_send_it_to_anybody_without_notes(posting: Deskline, mailbox: Mailbox) -> None:
    admin, visitor, address = Agent(posting, posting.email), Visitor(posting), an_address()
    conversation_id = visitor.conversation("<b>hello</b>, 你好")
    admin.send(conversation_id, "secret", kind="note")
    path = f"/conversations/{conversation_id}/transcript/mail"
    answer = admin.post(path, {"email": address, "language": "zh-Hant-TW"})
    assert answer.status_code == 202, answer.text
    message = mailbox.to(address)
    assert "對話紀錄" in message["Subject"]
    text, page = message.get_body(["plain"]), message.get_body(["html"])
    assert text is not None
    assert page is not None
    assert "<b>hello</b>, 你好" in text.get_content()
    assert "&lt;b&gt;hello" in page.get_content()
    for part in (text, page):
        assert "secret" not in part.get_content()
    noted = admin.get("/audit", action="conversation.transcript_mailed")
    assert address in noted.text
    for client in (admin, visitor):
        client.http.close()


def test_a_visitor_sends_it_to_an_address_a_few_times(posting: Deskline, mailbox: Mailbox) -> None:
    visitor, stranger = Visitor(posting), Visitor(posting)
    conversation_id = visitor.conversation("hello")
    path = f"/conversations/{conversation_id}/transcript/mail"
    # it has no address of its own
    problem = assert_problem(visitor.post(path, {}), 422, "invalid_request")
    assert problem["errors"][0]["field"] == "email"
    addresses = [an_address() for _ in range(5)]
    for address in addresses:
        assert visitor.post(path, {"email": address}).status_code == 202
    refused = visitor.post(path, {"email": an_address()})
    assert_problem(refused, 429, "rate_limited")
    assert int(refused.headers["Retry-After"]) > 60
    body = mailbox.to(addresses[0]).get_body(["plain"])
    assert body is not None
    assert "    hello" in body.get_content().splitlines()
    assert_problem(stranger.post(path, {"email": an_address()}), 404, "not_found")
    bad = visitor.post(path, {"email": "a@b\r\nBcc: c@d"})
    assert_problem(bad, 422, "invalid_request")
    for client in (visitor, stranger):
        client.http.close()


def test_no_address_gets_many_whoever_asks(posting: Deskline) -> None:
    address, visitors = an_address(), [Visitor(posting) for _ in range(6)]
    paths = [f"/conversations/{one.conversation()}/transcript/mail" for one in visitors]
    for visitor, path, written in zip(
        visitors[:5], paths, (address, address.upper(), address, address, address), strict=False
    ):
        assert visitor.post(path, {"email": written}).status_code == 202
    refused = visitors[5].post(paths[5], {"email": address})
    problem = assert_problem(refused, 429, "rate_limited")
    assert "to this address" in problem["detail"]
    assert int(refused.headers["Retry-After"]) > 60
    assert visitors[5].post(paths[5], {"email": an_address()}).status_code == 202
    for visitor in visitors:
        visitor.http.close()


def test_visitors_of_one_network_send_few(tmp_path: Path) -> None:
    with embedded_deskline(
        tmp_path, SMTP_URL="smtp://127.0.0.1:9?starttls=none", MAIL_FROM="help@shop.example"
    ) as running:
        answers = []
        for number in range(21):
            visitor = Visitor(running)
            path = f"/conversations/{visitor.conversation()}/transcript/mail"
            if number < 20:
                # what is refused is not counted
                assert_problem(visitor.post(path, {}), 422, "invalid_request")
            answers.append(visitor.post(path, {"email": an_address()}))
            visitor.http.close()
        admin = Agent(running, running.email)
        answer = admin.post(path, {"email": an_address()})
        admin.http.close()
    assert [one.status_code for one in answers[:20]] == [202] * 20
    problem = assert_problem(answers[20], 429, "rate_limited")
    assert "network" in problem["detail"]
    assert int(answers[20].headers["Retry-After"]) > 60
    # staff are known, and what they send is noted
    assert answer.status_code == 202


def test_without_mail_it_says_so(agent: Agent, visitor: Visitor, deskline: Deskline) -> None:
    if deskline.data_dir is None:
        pytest.skip("the cluster has a mail server")
    path = f"/conversations/{visitor.conversation()}/transcript/mail"
    answer = agent.post(path, {"email": "ann@example.com"})
    assert answer.json()["code"] == "mail_not_configured"
