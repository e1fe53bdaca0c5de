"""Endpoints: one description of each call, from which both its route and its documentation come.

An endpoint says who may call it, which model its query and body have, and what it answers. The
wrapper made of it authenticates, checks CSRF, validates, and only then calls the handler.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import orjson
from pydantic import BaseModel
from sanic import Blueprint, Request
from sanic.response import HTTPResponse, raw

from app.bus.limits import Scope, Traffic
from app.chat import accounts, permissions, visitors
from app.chat.accounts import API_KEY_PREFIX, Browser, Session
from app.chat.errors import NotFound, Refused
from app.chat.permissions import Actor, Agent, Permission, VisitorIdentity
from app.http import conditional, cors, problems
from app.http.context import Context

SESSION_COOKIE: Final = "deskline_session"
CSRF_HEADER: Final = "X-CSRF-Token"
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_ID_MAX: Final = 2**63 - 1

Audience = Literal["anyone", "staff", "visitor", "staff or visitor"]


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an endpoint, checked. ``query`` and ``body`` are of the endpoint's models.

    ``ids`` holds the numbers of the path (names that end in ``_id``), ``names`` its texts.
    """

    request: Request
    context: Context
    session: Session | None
    visitor: VisitorIdentity | None
    ids: Mapping[str, int]
    names: Mapping[str, str]
    query: Any
    body: Any

    @property
    def agent(self) -> Agent:
        """The calling agent, of an endpoint for staff."""
        assert self.session is not None  # noqa: S101  the wrapper has authenticated
        return self.session.agent

    @property
    def login(self) -> Session:
        """The calling session or API key, of an endpoint for staff."""
        assert self.session is not None  # noqa: S101  the wrapper has authenticated
        return self.session

    @property
    def who(self) -> VisitorIdentity:
        """The calling visitor, of an endpoint for visitors."""
        assert self.visitor is not None  # noqa: S101  the wrapper has authenticated
        return self.visitor

    @property
    def caller(self) -> Agent | VisitorIdentity:
        """Who calls an endpoint that both may call."""
        return self.visitor if self.visitor is not None else self.agent

    @property
    def actor(self) -> Actor:
        """The calling agent for the audit log, of an endpoint for staff."""
        assert self.session is not None  # noqa: S101  the wrapper has authenticated
        return self.session.actor(self.request.ctx.client_address)


# None: the handler has answered by itself, as with a file that is sent in pieces
Handler = Callable[[Call], Coroutine[Any, Any, HTTPResponse | None]]


@dataclass(frozen=True, slots=True, eq=False)
class Endpoint:
    """The description of one call; ``path`` is written as in OpenAPI, with ``{name}`` for ids."""

    method: str
    path: str
    tag: str
    summary: str
    audience: Audience
    permission: Permission | None
    handler: Handler
    answers: Mapping[int, type[BaseModel] | None]
    problems: tuple[str, ...]
    query: type[BaseModel] | None
    body: type[BaseModel] | None
    body_optional: bool
    form: bool
    upload: bool
    headers: Mapping[str, str]
    limit: Traffic | None
    media: tuple[str, ...]
    session_only: bool
    etag: bool

    @property
    def name(self) -> str:
        """The operationId."""
        return self.handler.__name__


@dataclass(slots=True)
class Endpoints:
    """The endpoints of one audience."""

    tag: str
    all: list[Endpoint] = field(default_factory=list)

    def add(
        self,
        method: str,
        path: str,
        summary: str,
        *,
        audience: Audience,
        permission: Permission | None = None,
        answers: Mapping[int, type[BaseModel] | None],
        problems: tuple[str, ...] = (),
        query: type[BaseModel] | None = None,
        body: type[BaseModel] | None = None,
        body_optional: bool = False,
        form: bool = False,
        upload: bool = False,
        headers: Mapping[str, str] | None = None,
        limit: Traffic | Literal["none", "by method"] = "by method",
        media: tuple[str, ...] = (),
        session_only: bool = False,
        etag: bool = False,
    ) -> Callable[[Handler], Handler]:
        """Decorate a handler: ``answers`` maps each status to its model (None: no content).

        ``permission`` is what a calling agent's role must hold: every endpoint for staff names one.
        ``media`` are content types that a good answer may have besides JSON.
        ``limit`` is the kind of traffic that a call counts as: by default ``reads`` for a GET and
        ``writes`` for the rest.
        ``session_only``: a program with an API key may not call it (403).
        ``etag``: a good answer has an ETag of its bytes, and a client that holds them gets a 304.
        ``body_optional``: no body at all stands for an empty JSON object.
        With ``upload`` the body is a file, which the handler reads with
        :func:`app.http.uploads.receive`.
        """
        if audience.startswith("staff") != (permission is not None):
            raise TypeError(f"{method} {path}: an endpoint for staff names its permission")

        traffic: Traffic | None = None
        if limit == "by method":
            traffic = "reads" if method in _SAFE_METHODS else "writes"
        elif limit != "none":
            traffic = limit

        def register(handler: Handler) -> Handler:
            self.all.append(
                Endpoint(
                    method,
                    path,
                    self.tag,
                    summary,
                    audience,
                    permission,
                    handler,
                    answers,
                    problems,
                    query,
                    body,
                    body_optional,
                    form,
                    upload,
                    headers or {},
                    traffic,
                    media,
                    session_only,
                    etag,
                )
            )
            return handler

        return register

    def blueprint(self) -> Blueprint:
        """The Sanic blueprint with a route for each endpoint."""
        blueprint = Blueprint(self.tag)
        for endpoint in self.all:
            path = endpoint.path.replace("{", "<").replace("}", ":str>")
            blueprint.add_route(
                _wrapped(endpoint),
                path,
                methods=[endpoint.method],
                name=endpoint.name,
                stream=endpoint.upload,
            )
        return blueprint


def browser(request: Request) -> Browser:
    """Where a request comes from, as sessions note it."""
    return Browser(request.ctx.client_address, request.headers.get("User-Agent"))


def json(
    document: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> HTTPResponse:
    """A JSON answer that nobody may store."""
    return raw(
        orjson.dumps(document),
        status=status,
        headers={"Cache-Control": "no-store", **(headers or {})},
        content_type="application/json",
    )


def _wrapped(endpoint: Endpoint) -> Callable[..., Coroutine[Any, Any, HTTPResponse | None]]:
    async def handle(request: Request, **parameters: str) -> HTTPResponse | None:
        context: Context = request.app.ctx.deskline
        context.in_flight += 1
        try:
            return await carry_out(context, request, parameters)
        finally:
            context.in_flight -= 1

    async def carry_out(
        context: Context, request: Request, parameters: Mapping[str, str]
    ) -> HTTPResponse | None:
        _spend(endpoint, context, "address", request.ctx.client_network)
        session, visitor = await _authenticate(endpoint.audience, request, context)
        if session is not None:
            request.ctx.user = f"agent:{session.agent.id}"
            _spend(endpoint, context, "caller", session.limited_as)
            if endpoint.permission is not None:
                permissions.require(session.agent, endpoint.permission)
            if endpoint.session_only and session.api_key_id is not None:
                raise problems.Problem(
                    "forbidden", "An API key may not do this: log in with a browser."
                )
            if endpoint.method not in _SAFE_METHODS and session.api_key_id is None:
                _check_csrf(request, context, session)
            if session.api_key_id is None:
                context.presence.note(session.agent.id)
        elif visitor is not None:
            request.ctx.user = f"visitor:{visitor.id}"
            await cors.decide(request, context, visitor.inbox_id)
            _spend(endpoint, context, "caller", request.ctx.user)
            if endpoint.audience == "visitor" and endpoint.method not in _SAFE_METHODS:
                await context.doors.admit(request.ctx.client_address)
        call = Call(
            request,
            context,
            session,
            visitor,
            {name: _id(text) for name, text in parameters.items() if name.endswith("_id")},
            {name: text for name, text in parameters.items() if not name.endswith("_id")},
            _query(endpoint, request),
            _body(endpoint, request),
        )
        try:
            response = await endpoint.handler(call)
        except NotFound:
            # the token is read without asking the database whose it is, so that only a call that
            # fails pays for finding out that its visitor was merged or erased
            if visitor is not None and await context.database.run(
                visitors.is_gone, context.database, visitor
            ):
                raise problems.not_authenticated() from None
            raise
        if endpoint.etag and response is not None:
            return conditional.answer(request, response)
        return response

    return handle


def _spend(endpoint: Endpoint, context: Context, scope: Scope, who: str) -> None:
    """Count the request. Raises :class:`Refused` when it is one too many."""
    if endpoint.limit is None:
        return
    if seconds := context.rates.spend(scope, endpoint.limit, who):
        raise Refused(
            "rate_limited",
            f"Slow down; try again in {seconds} seconds.",
            retry_seconds=seconds,
        )


async def agent_if_any(request: Request, context: Context) -> Agent | None:
    """The calling agent of an endpoint for anyone, when the request carries a valid login."""
    try:
        session, _ = await _authenticate("staff", request, context)
    except problems.Problem:
        return None
    return session.agent if session is not None else None


async def _authenticate(
    audience: Audience, request: Request, context: Context
) -> tuple[Session | None, VisitorIdentity | None]:
    if audience == "anyone":
        return None, None
    bearer = _bearer(request)
    if bearer.startswith(API_KEY_PREFIX) and audience != "visitor":
        key = await context.logins.api_key(bearer)
        if key is None:
            raise _refused(audience)
        return key, None
    if audience == "visitor" or (audience == "staff or visitor" and bearer):
        visitor = context.visitor_tokens.read(bearer) if bearer else None
        if visitor is None:
            raise _refused(audience)
        return None, visitor
    token = request.cookies.get(SESSION_COOKIE)
    session = None
    if token:
        session = await context.logins.session(token, browser(request))
    if session is None:
        raise _refused(audience)
    return session, None


def _refused(audience: Audience) -> problems.Problem:
    if audience == "staff or visitor":
        # the Channels protocol knows only 403 for a subscription that is not allowed
        return problems.forbidden()
    return problems.not_authenticated()


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _check_csrf(request: Request, context: Context, session: Session) -> None:
    given = request.headers.get(CSRF_HEADER, "")
    if not accounts.csrf_matches(context.settings.secret_key, session.token_hash, given):
        raise problems.csrf_failed()


def _id(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        raise NotFound
    if not 1 <= int(text) <= _ID_MAX:
        raise NotFound
    return int(text)


def _query(endpoint: Endpoint, request: Request) -> BaseModel | None:
    if endpoint.query is None:
        return None
    arguments = request.get_args(keep_blank_values=True)
    given = {name: values[-1] for name, values in arguments.items()}
    return endpoint.query.model_validate(given)


def _body(endpoint: Endpoint, request: Request) -> BaseModel | None:
    if endpoint.body is None:
        return None
    if endpoint.form:
        given = {name: values[-1] for name, values in (request.form or {}).items()}
        return endpoint.body.model_validate(given)
    if endpoint.body_optional and not request.body:
        return endpoint.body()
    # a page of another site can send a form, but JSON only after a preflight that nobody answers
    content_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise problems.Problem(
            "malformed_request", "Send JSON with Content-Type: application/json."
        )
    # strict: a number in quotes or a truth value is no number, as the document says
    return endpoint.body.model_validate_json(request.body, strict=True)
