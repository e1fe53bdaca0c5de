"""The JSON of the system page."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from app.http.models import Response, Timestamp


class DatabaseServer(Response):
    answers: bool
    version: str | None
    read_only: Annotated[bool | None, Field(description="null: not known")]


class ReplicaServer(DatabaseServer):
    configured: bool
    lag_seconds: Annotated[
        float | None,
        Field(
            description=(
                "by a row that the worker writes every two seconds; null: not known, because there "
                "is no replica, it does not answer, or no worker ever ran"
            )
        ),
    ]


class SchemaRevision(Response):
    revision: Annotated[str | None, Field(description="of the database; null: not known")]
    expected: Annotated[str, Field(description="the newest that this release knows")]


class RedisState(Response):
    answers: bool
    milliseconds: float | None


class NodeState(Response):
    process: str
    node: str
    version: str
    started_at: Timestamp
    seen_at: Timestamp
    alive: Annotated[bool, Field(description="heard within 20 seconds")]


class JobState(Response):
    name: str
    node: str
    last_success_at: Timestamp
    items: Annotated[int, Field(description="what that run handled")]


class Queue(Response):
    pending: int
    failed_last_day: int


class Backlog(Response):
    outbox: int
    webhook_events: int
    webhook_deliveries: Queue
    mails: Queue


class System(Response):
    """``null`` where something does not answer."""

    version: str
    node: Annotated[str, Field(description="the node that answers")]
    now: Timestamp
    schema_: Annotated[SchemaRevision, Field(alias="schema")]
    primary: DatabaseServer
    replica: ReplicaServer
    redis: RedisState
    nodes: Annotated[
        list[NodeState] | None, Field(description="processes that were heard within a day")
    ]
    jobs: list[JobState] | None
    backlog: Backlog | None
    writer_queue: Annotated[int, Field(description="messages that wait for a commit on this node")]
    events_queue: Annotated[int, Field(description="events that wait for Redis on this node")]
