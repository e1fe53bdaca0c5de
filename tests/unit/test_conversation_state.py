"""The acts on a conversation where they need agents of other inboxes, teams or another time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import delete, event, insert, select, update

from app import clock
from app.chat import conversation_state as state
from app.chat import conversations
from app.chat.conversation_state import Caller
from app.chat.conversations import Filters
from app.chat.errors import NotFound, Refused
from app.chat.permissions import Actor, Agent, VisitorIdentity
from app.db import schema
from app.db.engines import Database

ANN = Agent(1, "Ann", "ann@example.com", "agent", None)
BY_ANN = Caller(ANN, Actor("agent", 1, "Ann"))
ELSEWHERE = Caller(
    Agent(2, "Bo", "bo@example.com", "agent", None, frozenset({9})), Actor("agent", 2, "Bo")
)
_c = schema.conversations


@pytest.fixture
def staffed(database: Database) -> Database:
    """Agents: 1 sees every inbox, 2 none, 3 is disabled, 4 sees inbox 1. Team 5 has 4, 6 has 2."""
    now = clock.now()
    with database.write() as opened:
        for number in (2, 3, 4):
            opened.execute(
                insert(schema.users).values(
                    id=number,
                    email=f"{number}@example.com",
                    name=f"Agent {number}",
                    role="agent",
                    password_hash="x",
                    active=number != 3,
                    all_inboxes=number == 3,
                    created_at=now,
                )
            )
        opened.execute(insert(schema.inbox_members).values(inbox_id=1, user_id=4))
        for number, member in ((5, 4), (6, 2)):
            opened.execute(
                insert(schema.teams).values(id=number, name=f"Team {number}", created_at=now)
            )
            opened.execute(insert(schema.team_members).values(team_id=number, user_id=member))
    return database


def transfer(database: Database, **to: Any) -> state.Change:
    named = {"user_id": None, "team_id": None, "note": None, **to}
    return state.transfer(database, BY_ANN, 1, **named)


@pytest.mark.parametrize(
    ("to", "field"),
    [
        ({"user_id": 2}, "user_id"),
        ({"user_id": 3}, "user_id"),
        ({"user_id": 99}, "user_id"),
        ({"team_id": 6}, "team_id"),
        ({"team_id": 99}, "team_id"),
    ],
)
def test_only_to_active_agents_who_see_the_inbox(
    staffed: Database, to: dict[str, int], field: str
) -> None:
    with pytest.raises(Refused) as refused:
        transfer(staffed, **to)
    assert (refused.value.code, refused.value.field) == ("invalid_request", field)
    assert conversations.staff_one(staffed, ANN, 1)["version"] == 0


def test_a_team_takes_over_and_its_members_see_it(staffed: Database) -> None:
    state.claim(staffed, BY_ANN, 1)
    change = transfer(staffed, team_id=5)
    assert change.conversation["assignee"] is None
    assert change.conversation["team"] == {"id": 5, "name": "Team 5"}
    member = Agent(4, "Agent 4", "4@example.com", "agent", None, frozenset({1}))

    def team_view(agent: Agent) -> list[int]:
        filters = Filters(view="team")
        items, _ = conversations.staff_list(
            staffed, agent, filters, sort="updated", cursor=None, limit=10
        )
        return [item["id"] for item in items]

    assert team_view(member) == [1]
    assert team_view(ANN) == []
    # to a member it stays the team's, to somebody else it does not
    assert transfer(staffed, user_id=4).conversation["team"] is not None
    assigned = state.assign(staffed, BY_ANN, 1, user_id=1)
    assert assigned.conversation["team"] is None


def test_a_deleted_team_is_no_team(staffed: Database) -> None:
    transfer(staffed, team_id=5)
    with staffed.write() as opened:
        opened.execute(delete(schema.team_members))
        opened.execute(delete(schema.teams))
    assert conversations.staff_one(staffed, ANN, 1)["team"] is None
    assert state.claim(staffed, BY_ANN, 1).conversation["assignee"]["id"] == 1


def test_agents_of_other_inboxes_do_not_know_of_it(staffed: Database) -> None:
    later = clock.now() + timedelta(hours=1)
    acts = [
        lambda: state.claim(staffed, ELSEWHERE, 1),
        lambda: state.release(staffed, ELSEWHERE, 1),
        lambda: state.assign(staffed, ELSEWHERE, 1, user_id=1),
        lambda: state.transfer(staffed, ELSEWHERE, 1, user_id=1, team_id=None, note=None),
        lambda: state.snooze(staffed, ELSEWHERE, 1, until=later),
        lambda: state.resolve(staffed, ELSEWHERE, 1),
        lambda: state.reopen(staffed, ELSEWHERE, 1),
        lambda: state.set_priority(staffed, ELSEWHERE, 1, priority="low"),
        lambda: state.set_labels(staffed, ELSEWHERE, 1, label_ids=[]),
        lambda: state.add_participant(staffed, ELSEWHERE, 1, 1),
        lambda: state.remove_participant(staffed, ELSEWHERE, 1, 1),
        lambda: state.participants(staffed, ELSEWHERE.agent, 1),
    ]
    for act in acts:
        with pytest.raises(NotFound):
            act()
    assert conversations.staff_one(staffed, ANN, 1)["version"] == 0


def test_a_rating_may_be_changed_for_a_day_and_given_anew_after_a_resolution(
    staffed: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    who = VisitorIdentity(1, 1)
    start = datetime(2026, 11, 24, 8, tzinfo=UTC)

    def at(hours: float) -> None:
        monkeypatch.setattr(clock, "now_source", lambda: start + timedelta(hours=hours))

    def rate(score: int) -> dict[str, Any]:
        rating: dict[str, Any] = state.rate(
            staffed, who, 1, score=score, comment=None
        ).conversation["rating"]
        return rating

    at(0)
    state.resolve(staffed, BY_ANN, 1)
    at(1)
    assert rate(2)["score"] == 2
    at(24)
    assert rate(3) == {"score": 3, "comment": None, "at": "2026-11-24T09:00:00.000000Z"}
    at(26)
    with pytest.raises(Refused, match="conflict"):
        rate(4)
    assert rate(3)["score"] == 3
    state.reopen(staffed, BY_ANN, 1)
    with pytest.raises(Refused, match="conflict"):
        rate(4)
    at(27)
    state.resolve(staffed, BY_ANN, 1)
    at(28)
    assert rate(5) == {"score": 5, "comment": None, "at": "2026-11-25T12:00:00.000000Z"}


def test_no_rating_where_none_is_asked_for_or_the_visitor_is_blocked(staffed: Database) -> None:
    who = VisitorIdentity(1, 1)
    state.resolve(staffed, BY_ANN, 1)
    with staffed.write() as opened:
        opened.execute(update(schema.inboxes).values(settings='{"csat_enabled": false}'))
    with pytest.raises(Refused, match="conflict"):
        state.rate(staffed, who, 1, score=5, comment=None)
    with staffed.write() as opened:
        opened.execute(update(schema.visitors).values(blocked_at=clock.now()))
    with pytest.raises(Refused, match="visitor_blocked"):
        state.rate(staffed, who, 1, score=5, comment=None)
    with pytest.raises(NotFound):
        state.end(staffed, VisitorIdentity(2, 1), 1)


def test_webhooks_are_told_in_the_same_transaction(staffed: Database) -> None:
    with staffed.write() as opened:
        opened.execute(
            insert(schema.webhooks).values(
                name="h",
                url="http://x",
                events="[]",
                secret="s",
                active=True,
                created_at=clock.now(),
            )
        )
    later = clock.now() + timedelta(hours=1)
    state.claim(staffed, BY_ANN, 1)
    state.claim(staffed, BY_ANN, 1)
    state.snooze(staffed, BY_ANN, 1, until=later)
    state.reopen(staffed, BY_ANN, 1)
    transfer(staffed, user_id=4, note="please")
    state.resolve(staffed, BY_ANN, 1)
    state.rate(staffed, VisitorIdentity(1, 1), 1, score=5, comment="thanks")
    with staffed.read() as opened:
        rows = opened.execute(select(schema.webhook_events).order_by("id")).all()
    assert [row.event for row in rows] == [
        "conversation.assigned",
        "conversation.snoozed",
        "conversation.reopened",
        "conversation.assigned",
        "message.created",
        "conversation.resolved",
        "conversation.rated",
    ]
    assert {(row.inbox_id, row.conversation_id) for row in rows} == {(1, 1)}


def test_a_list_of_200_takes_two_statements(staffed: Database) -> None:
    now = clock.now()
    with staffed.write() as opened:
        opened.execute(
            insert(schema.labels).values(id=1, name="vip", color="#000000", created_at=now)
        )
        opened.execute(
            insert(_c),
            [
                {
                    "id": number,
                    "inbox_id": 1,
                    "visitor_id": 1,
                    "status": "open",
                    "last_seq_public": 0,
                    "last_seq_staff": 0,
                    "version": 0,
                    "created_at": now,
                    "updated_at": now,
                    "waiting_since": now,
                    "team_id": 5,
                }
                for number in range(100, 400)
            ],
        )
        opened.execute(
            insert(schema.conversation_labels),
            [{"conversation_id": number, "label_id": 1} for number in range(100, 400)],
        )
    statements: list[str] = []
    event.listen(
        staffed.primary,
        "before_cursor_execute",
        lambda _conn, _cursor, statement, *_more: statements.append(statement),
    )
    items, cursor = conversations.staff_list(
        staffed, ANN, Filters(team_id=5, label_id=1), sort="waiting", cursor=None, limit=200
    )
    assert [item["id"] for item in items] == list(range(100, 300))
    assert all(item["labels"] == [{"id": 1, "name": "vip", "color": "#000000"}] for item in items)
    assert len([one for one in statements if one.startswith("SELECT")]) == 2
    rest, end = conversations.staff_list(
        staffed, ANN, Filters(team_id=5, label_id=1), sort="waiting", cursor=cursor, limit=200
    )
    assert ([item["id"] for item in rest], end) == (list(range(300, 400)), None)
