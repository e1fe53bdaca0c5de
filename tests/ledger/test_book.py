"""The accounting against made-up histories: a clean one, and one for every way to fail."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.ledger.book import KINDS, PUBLIC, STAFF, Book, Message, Watch, digest

CONVERSATION = 7


def message(seq: int, client_id: str, *, stream: str = PUBLIC, who: str = "visitor") -> Message:
    return Message(CONVERSATION, stream, seq, client_id, who, digest(f"body of {client_id}"))


class Story:
    """A conversation of one visitor and one agent who both saw all of it."""

    def __init__(self) -> None:
        self.book = Book()
        self.visitor = self.book.watch("visitor-1", CONVERSATION, PUBLIC)
        self.agent = self.book.watch("agent-1", CONVERSATION, PUBLIC)
        self.notes = self.book.watch("agent-1", CONVERSATION, STAFF)
        self.rows: list[Message] = []
        self.at = 0.0
        for client_id, sender, stream in (
            ("a", "visitor", PUBLIC),
            ("b", "agent", PUBLIC),
            ("c", "agent", STAFF),
            ("d", "visitor", PUBLIC),
        ):
            seq = 1 + sum(row.stream == stream for row in self.rows)
            self.say(message(seq, client_id, stream=stream, who=sender))

    def say(self, told: Message, *, acknowledged: bool = True, shown: bool = True) -> None:
        """One message that everybody who may see it is shown."""
        self.at += 1
        self.book.send(
            told.client_id,
            sender=f"{told.sender_type}-1",
            stream=told.stream,
            body=f"body of {told.client_id}",
            at=self.at,
            conversation=CONVERSATION,
        )
        if acknowledged:
            self.book.acknowledge(told.client_id, told, self.at + 0.1)
        self.rows.append(told)
        if shown:
            for watch in (self.visitor, self.agent, self.notes):
                if watch.stream == told.stream:
                    self.show(watch, told)

    def show(self, watch: Watch, told: Message) -> None:
        self.book.see(watch, told, at=self.at + 0.2, how="live")

    def forget(self, watch: Watch, seq: int) -> None:
        del watch.seen[seq]

    def kinds(self) -> set[str]:
        return {kind for kind, count in self.book.verdict(self.rows).counts.items() if count}


@pytest.fixture
def story() -> Story:
    return Story()


def test_a_good_history_is_clean(story: Story) -> None:
    verdict = story.book.verdict(story.rows)
    assert verdict.violations == []
    assert verdict.clean
    assert verdict.figures["acknowledged"] == verdict.figures["stored"] == 4
    assert verdict.figures["live"] == 7
    assert set(verdict.counts) == set(KINDS)


def test_rows_of_other_conversations_are_left_out(story: Story) -> None:
    story.rows.append(replace(message(9, "elsewhere"), conversation_id=CONVERSATION + 1))
    assert story.book.verdict(story.rows).clean


def test_what_the_system_says_is_not_foreign(story: Story) -> None:
    told = message(4, "system", who="system")
    story.rows.append(told)
    story.show(story.visitor, told)
    story.show(story.agent, told)
    assert story.book.verdict(story.rows).clean


def test_a_run_that_showed_nothing_live_is_not_clean() -> None:
    assert not Book().verdict([]).clean
    story = Story()
    for watch in story.book.watches.values():
        watch.seen = {
            seq: (told, replace(sight, how="poll")) for seq, (told, sight) in watch.seen.items()
        }
    verdict = story.book.verdict(story.rows)
    assert verdict.violations == []
    assert not verdict.clean


def test_a_repeat_that_tells_the_same_is_fine(story: Story) -> None:
    story.book.acknowledge("a", message(1, "a"), 9.0)
    story.show(story.agent, message(1, "a"))
    assert story.book.verdict(story.rows).clean
    assert story.book.sent["a"].acknowledged_at == 1.1


def test_lost(story: Story) -> None:
    story.rows.pop()
    for watch in (story.visitor, story.agent):
        story.forget(watch, 3)
    assert story.kinds() == {"lost"}


def test_an_unacknowledged_message_may_be_stored_or_not(story: Story) -> None:
    story.say(message(4, "e"), acknowledged=False)
    assert story.kinds() == {"unacknowledged"}
    story.rows.pop()
    for watch in (story.visitor, story.agent):
        story.forget(watch, 4)
    assert story.kinds() == {"unacknowledged"}


def test_doubled_rows(story: Story) -> None:
    again = message(4, "d")
    story.rows.append(again)
    for watch in (story.visitor, story.agent):
        story.show(watch, again)
    assert story.kinds() == {"doubled"}


def test_doubled_because_the_retry_opened_a_second_conversation(story: Story) -> None:
    other = replace(message(1, "a"), conversation_id=CONVERSATION + 1)
    story.book.acknowledge("a", other, 3.0)
    story.rows.append(other)
    assert story.kinds() == {"doubled"}


def test_one_seq_given_out_twice_in_the_database(story: Story) -> None:
    story.say(message(3, "e", who="agent"), shown=False)
    assert "doubled" in story.kinds()


def test_doubled_by_two_acknowledgements(story: Story) -> None:
    story.book.acknowledge("d", message(4, "d"), 9.0)
    assert story.kinds() == {"doubled", "out_of_order"}


def test_doubled_on_a_screen(story: Story) -> None:
    story.show(story.agent, message(2, "d"))
    assert story.kinds() == {"doubled"}


def test_out_of_order_acknowledgement(story: Story) -> None:
    story.rows[1], story.rows[3] = (
        replace(story.rows[1], seq=3),
        replace(story.rows[3], seq=2),
    )
    assert story.kinds() == {"out_of_order"}


def test_out_of_order_on_one_screen(story: Story) -> None:
    for seq in (2, 3):
        story.forget(story.agent, seq)
    story.show(story.agent, message(2, "d"))
    story.show(story.agent, message(3, "b", who="agent"))
    assert story.kinds() == {"out_of_order"}


def test_a_later_message_with_a_lower_seq(story: Story) -> None:
    first, last = story.book.sent["a"], story.book.sent["d"]
    first.begun_at, last.begun_at = last.begun_at, first.begun_at
    assert story.kinds() == {"out_of_order"}


def test_holes(story: Story) -> None:
    story.say(message(5, "e"))
    assert story.kinds() == {"holes"}


@pytest.mark.parametrize(
    ("seqs", "kind"), [([2, 3], ""), ([3], "holes"), ([3, 2], "out_of_order"), ([2, 2], "holes")]
)
def test_a_page_of_history_goes_on_where_it_was_asked_to(
    story: Story, seqs: list[int], kind: str
) -> None:
    story.book.page(story.agent, 1, seqs)
    assert story.kinds() == ({kind} if kind else set())


def test_never_delivered(story: Story) -> None:
    story.forget(story.agent, 3)
    assert story.book.unseen() == 1
    assert story.kinds() == {"never_delivered"}


def test_wrong_body_in_the_database(story: Story) -> None:
    story.rows[0] = replace(story.rows[0], digest=digest("something else"))
    assert story.kinds() == {"wrong"}


def test_wrong_body_on_a_screen(story: Story) -> None:
    story.forget(story.visitor, 2)
    story.show(story.visitor, replace(message(2, "b"), digest=digest("something else")))
    assert story.kinds() == {"wrong"}


def test_wrong_answer(story: Story) -> None:
    story.book.acknowledge("a", message(2, "b"), 9.0)
    assert story.kinds() == {"wrong"}


def test_a_note_stored_in_the_public_stream(story: Story) -> None:
    story.book.sent["b"].stream = STAFF
    assert story.kinds() == {"wrong"}


def test_a_visitor_who_sees_a_note(story: Story) -> None:
    story.show(story.visitor, message(1, "c", stream=STAFF))
    assert story.kinds() == {"foreign"}


def test_a_message_of_another_conversation(story: Story) -> None:
    story.show(story.visitor, replace(message(4, "x"), conversation_id=CONVERSATION + 1))
    assert story.kinds() == {"foreign"}


def test_a_message_that_nobody_sent(story: Story) -> None:
    told = message(4, "stranger")
    story.rows.append(told)
    story.show(story.visitor, told)
    story.show(story.agent, told)
    assert story.kinds() == {"foreign"}


def test_phantom(story: Story) -> None:
    story.say(message(4, "e"), acknowledged=False)
    story.rows.pop()
    assert story.kinds() == {"phantom", "unacknowledged"}


def test_refused(story: Story) -> None:
    story.say(message(4, "e"), acknowledged=False, shown=False)
    story.rows.pop()
    story.book.refuse("e", "409 client_id_conflict")
    assert story.kinds() == {"refused"}
