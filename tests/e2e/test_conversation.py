"""One visitor and one agent at once, each in a browser of their own."""

from __future__ import annotations

import uuid

import pytest
from playwright.sync_api import expect

from tests.conftest import Deskline
from tests.e2e.conftest import Agent, MakeContext, Visitor

pytestmark = pytest.mark.timeout(180)


def words(text: str) -> str:
    """TEXT with a mark that no earlier run used, so that a used database does not matter."""
    return f"{text} #{uuid.uuid4().hex[:8]}"


def test_a_message_goes_there_and_back_without_reload(visitor: Visitor, agent: Agent) -> None:
    question, answer = words("Do you ship to Taipei?"), words("Yes, within three days.")
    visitor.open()
    visitor.write(question)
    expect(visitor.bubble(question)).to_have_attribute("data-state", "sent")

    row = agent.row(question)
    expect(row).to_be_visible()
    expect(row.get_by_test_id("unread-badge")).to_have_text("1")
    row.click()
    expect(agent.bubble(question)).to_be_visible()
    expect(row.get_by_test_id("unread-badge")).to_have_count(0)
    expect(visitor.bubble(question)).to_have_attribute("data-state", "read")

    agent.answer(answer)
    expect(agent.bubble(answer)).to_have_count(1)
    expect(visitor.bubble(answer)).to_be_visible()
    expect(visitor.bubble(answer)).to_have_attribute("data-sender", "agent")
    expect(agent.bubble(answer)).to_have_attribute("data-state", "read")

    more = words("Wonderful!")
    visitor.write(more)
    expect(agent.bubble(more)).to_be_visible()
    for text in (question, answer, more):
        expect(visitor.bubble(text)).to_have_count(1)
        expect(agent.bubble(text)).to_have_count(1)


def test_unread_count_moves_while_another_conversation_is_open(
    context: MakeContext, visitor: Visitor, agent: Agent
) -> None:
    other = Visitor(context().new_page())
    first, second = words("First visitor"), words("Second visitor")
    visitor.open()
    visitor.write(first)
    agent.row(first).click()
    expect(agent.bubble(first)).to_be_visible()
    other.open()
    other.write(second)
    expect(agent.row(second).get_by_test_id("unread-badge")).to_have_text("1")
    follow_up = words("Still there?")
    other.write(follow_up)
    expect(agent.row(follow_up).get_by_test_id("unread-badge")).to_have_text("2")
    expect(agent.bubble(second)).to_have_count(0)


def test_the_visitors_conversation_survives_a_reload(visitor: Visitor, agent: Agent) -> None:
    question, answer = words("Remember me"), words("Of course")
    visitor.open()
    visitor.write(question)
    agent.row(question).click()
    agent.answer(answer)
    expect(visitor.bubble(answer)).to_be_visible()
    visitor.page.reload()
    visitor.open()
    expect(visitor.bubble(question)).to_have_count(1)
    expect(visitor.bubble(answer)).to_have_count(1)


def test_an_answer_to_a_closed_widget_shows_on_the_launcher(visitor: Visitor, agent: Agent) -> None:
    question, answer = words("I will look elsewhere meanwhile"), words("Here is your answer")
    visitor.open()
    visitor.write(question)
    expect(visitor.bubble(question)).to_have_attribute("data-state", "sent")
    visitor.page.keyboard.press("Escape")
    expect(visitor.page.locator('iframe[data-deskline="frame"]')).to_be_hidden()
    agent.row(question).click()
    agent.answer(answer)
    badge = visitor.page.locator('[data-deskline="badge"]')
    expect(badge).to_have_text("1")
    visitor.page.locator('button[data-deskline="launcher"]').click()
    expect(visitor.bubble(answer)).to_be_visible()
    expect(badge).to_be_hidden()


def test_a_message_written_offline_is_sent_once_when_the_line_is_back(
    visitor: Visitor, agent: Agent
) -> None:
    first, second = words("Before the tunnel"), words("In the tunnel")
    visitor.open()
    visitor.write(first)
    expect(visitor.bubble(first)).to_have_attribute("data-state", "sent")
    agent.row(first).click()
    visitor.page.context.set_offline(True)
    expect(visitor.element("connection-state")).not_to_have_attribute("data-state", "connected")
    visitor.write(second)
    expect(visitor.bubble(second)).not_to_have_attribute("data-state", "sent")
    missed = words("Written meanwhile")
    agent.answer(missed)
    expect(agent.bubble(missed)).to_have_attribute("data-state", "sent")
    visitor.page.context.set_offline(False)
    expect(visitor.bubble(missed)).to_be_visible(timeout=40_000)
    expect(visitor.bubble(second)).to_have_attribute("data-state", "read", timeout=40_000)
    expect(visitor.bubble(second)).to_have_count(1)
    expect(agent.bubble(second)).to_have_count(1)


def test_two_tabs_of_one_visitor_show_the_same_once(visitor: Visitor, agent: Agent) -> None:
    question, answer = words("From the first tab"), words("To both tabs")
    visitor.open()
    visitor.write(question)
    expect(visitor.bubble(question)).to_have_attribute("data-state", "sent")
    second = Visitor(visitor.page.context.new_page())
    second.open()
    expect(second.bubble(question)).to_have_count(1)
    agent.row(question).click()
    agent.answer(answer)
    for tab in (visitor, second):
        expect(tab.bubble(answer)).to_have_count(1)
    from_second = words("From the second tab")
    second.write(from_second)
    expect(visitor.bubble(from_second)).to_have_count(1)
    expect(second.bubble(from_second)).to_have_count(1)


def test_claim_shows_the_assignee_to_both(visitor: Visitor, agent: Agent) -> None:
    question = words("Who takes me?")
    visitor.open()
    visitor.write(question)
    agent.row(question).click()
    agent.element("claim").click()
    expect(agent.element("assignee")).to_be_visible()
    expect(agent.element("claim")).to_have_count(0)


@pytest.mark.allowed_console("401")
def test_a_wrong_password_is_refused_in_words(context: MakeContext, deskline: Deskline) -> None:
    page = context().new_page()
    page.goto("/login")
    page.get_by_test_id("login-email").fill(f"nobody-{uuid.uuid4().hex}@example.com")
    page.get_by_test_id("login-password").fill("not the password")
    page.get_by_test_id("login-submit").click()
    expect(page.get_by_role("alert")).to_be_visible()
    page.goto("/dashboard")
    expect(page.get_by_test_id("login-email")).to_be_visible()


@pytest.mark.allowed_console("401")
def test_log_out_ends_the_session(agent: Agent) -> None:
    agent.element("logout").click()
    expect(agent.element("login-email")).to_be_visible()
    agent.page.goto("/dashboard")
    expect(agent.element("login-email")).to_be_visible()


def test_keyboard_only_visitor(context: MakeContext, agent: Agent) -> None:
    visitor = Visitor(context().new_page())
    question = words("No mouse here")
    visitor.page.goto("/")
    launcher = visitor.page.locator('button[data-deskline="launcher"]')
    launcher.focus()
    visitor.page.keyboard.press("Enter")
    expect(visitor.element("widget-composer")).to_be_focused()
    visitor.page.keyboard.type(question)
    visitor.page.keyboard.press("Enter")
    expect(agent.row(question)).to_be_visible()
    visitor.page.keyboard.press("Escape")
    expect(launcher).to_be_focused()


def test_both_faces_speak_traditional_chinese(context: MakeContext, deskline: Deskline) -> None:
    one = context(locale="zh-TW").new_page()
    visitor = Visitor(one)
    visitor.open()
    placeholder = visitor.element("widget-composer").get_attribute("placeholder") or ""
    assert any("\u4e00" <= letter <= "\u9fff" for letter in placeholder), placeholder
    agent = Agent(context(locale="zh-TW").new_page(), deskline)
    agent.page.goto("/login")
    assert any("\u4e00" <= letter <= "\u9fff" for letter in agent.page.inner_text("body"))
    agent.log_in()
    expect(agent.page.locator("html")).to_have_attribute("lang", "zh-Hant-TW")
