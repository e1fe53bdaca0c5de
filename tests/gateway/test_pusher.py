"""The Pusher protocol's messages, without sockets."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.gateway import pusher
from app.gateway.applications import Application, Applications
from app.gateway.pusher import Send, Subscribe, Unsubscribe

APPLICATION = Application("app1", "key1", b"a-secret-for-tests-only")
SOCKET_ID = "1234.5678"


def session() -> pusher.Session:
    return pusher.Session(APPLICATION, SOCKET_ID)


def say(event: str, **data: object) -> bytes:
    return json.dumps({"event": event, "data": data}).encode()


def sent(actions: tuple[pusher.Action, ...]) -> list[dict[str, Any]]:
    messages = []
    for action in actions:
        assert isinstance(action, Send)
        messages.append(json.loads(action.message))
    return messages


# --- connecting


@pytest.mark.parametrize(
    ("path", "query", "code"),
    [
        ("/app/key1", {"protocol": "7"}, None),
        ("/app/key1", {"protocol": "5"}, None),
        ("/app/other", {"protocol": "7"}, 4001),
        ("/app/ké", {"protocol": "7"}, 4001),
        ("/app/", {"protocol": "7"}, 4005),
        ("/", {"protocol": "7"}, 4005),
        ("/app/key1/more", {"protocol": "7"}, 4005),
        ("/app/key1", {"protocol": "seven"}, 4006),
        ("/app/key1", {"protocol": "4"}, 4007),
        ("/app/key1", {"protocol": "8"}, 4007),
        ("/app/key1", {}, 4008),
    ],
)
def test_a_wrong_address_has_its_documented_code(
    path: str, query: dict[str, str], code: int | None
) -> None:
    found = pusher.check_connect(Applications([APPLICATION]), path, query, "")
    if code is None:
        assert found is APPLICATION
    else:
        assert isinstance(found, pusher.Rejection)
        assert found.code == code


def test_the_greeting_has_its_data_as_a_json_string() -> None:
    message = json.loads(pusher.connection_established("1.2", 60))
    assert message["event"] == "pusher:connection_established"
    assert json.loads(message["data"]) == {"socket_id": "1.2", "activity_timeout": 60}


def test_a_socket_id_is_two_numbers() -> None:
    numbers = iter((7, 999_999_999))
    assert pusher.make_socket_id(lambda _: next(numbers)) == "7.999999999"


# --- signatures


def test_the_worked_example_of_the_public_documentation() -> None:
    # docs/channels/library_auth_reference/auth-signatures, "Private channel"
    application = Application("1", "278d425bdf160c739803", b"7ad3773142a6692b25b8")
    assert pusher.sign_channel(application, "1234.1234", "private-foobar") == (
        "278d425bdf160c739803:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"
    )


def test_the_worked_example_with_channel_data() -> None:
    application = Application("1", "278d425bdf160c739803", b"7ad3773142a6692b25b8")
    data = '{"user_id":10,"user_info":{"name":"Mr. Channels"}}'
    assert pusher.sign_channel(application, "1234.1234", "presence-foobar", data) == (
        "278d425bdf160c739803:31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80"
    )


# --- subscribing


def test_a_public_channel_needs_no_signature() -> None:
    client = session()
    assert client.receive(say("pusher:subscribe", channel="news")) == (Subscribe("news"),)
    assert client.channels == ("news",)


def test_a_private_channel_needs_the_signature_for_this_socket_and_channel() -> None:
    client = session()
    text = f"{SOCKET_ID}:private-conversation.7".encode()
    digest = hmac.new(APPLICATION.secret, text, hashlib.sha256).hexdigest()
    good = say("pusher:subscribe", channel="private-conversation.7", auth=f"key1:{digest}")
    assert client.receive(good) == (Subscribe("private-conversation.7"),)


@pytest.mark.parametrize(
    "auth",
    [
        None,
        7,
        "",
        "key1:",
        "key1:00",
        "é",
        pusher.sign_channel(APPLICATION, "1.1", "private-a"),
        pusher.sign_channel(APPLICATION, SOCKET_ID, "private-b"),
        pusher.sign_channel(APPLICATION, SOCKET_ID, "private-a").replace("key1", "key2"),
        pusher.sign_channel(APPLICATION, SOCKET_ID, "private-a", "data"),
    ],
)
def test_any_other_signature_is_refused_and_the_socket_stays_open(auth: object) -> None:
    client = session()
    answers = sent(client.receive(say("pusher:subscribe", channel="private-a", auth=auth)))
    assert [answer["event"] for answer in answers] == ["pusher:subscription_error", "pusher:error"]
    assert answers[0]["channel"] == "private-a"
    assert answers[0]["data"]["type"] == "AuthError"
    assert answers[0]["data"]["status"] == 401
    assert answers[1]["data"]["code"] == 4009
    assert client.channels == ()


def test_a_signature_over_channel_data_needs_that_data() -> None:
    auth = pusher.sign_channel(APPLICATION, SOCKET_ID, "private-a", "data")
    client = session()
    message = say("pusher:subscribe", channel="private-a", auth=auth, channel_data="data")
    assert client.receive(message) == (Subscribe("private-a"),)
    assert sent(
        session().receive(
            say("pusher:subscribe", channel="private-a", auth=auth, channel_data={"a": 1})
        )
    )


@pytest.mark.parametrize("name", ["", "a b", "ä", "a\n", "x" * 165, "a*", 7, None])
def test_a_wrong_channel_name_is_refused(name: object) -> None:
    (answer,) = sent(session().receive(say("pusher:subscribe", channel=name)))
    assert answer["event"] == "pusher:subscription_error"
    assert answer["data"]["status"] == 400


def test_all_documented_characters_are_allowed() -> None:
    assert pusher.is_channel_name("aZ09_-=@,.;")
    assert pusher.is_channel_name("x" * 164)


def test_the_same_channel_twice_is_an_error_and_changes_nothing() -> None:
    client = session()
    client.receive(say("pusher:subscribe", channel="news"))
    (answer,) = sent(client.receive(say("pusher:subscribe", channel="news")))
    assert (answer["event"], answer["data"]["code"]) == ("pusher:error", None)
    assert client.channels == ("news",)


def test_one_socket_cannot_be_in_more_channels_than_the_limit() -> None:
    client = session()
    for number in range(APPLICATION.max_channels_per_socket):
        client.receive(say("pusher:subscribe", channel=f"c{number}"))
    (answer,) = sent(client.receive(say("pusher:subscribe", channel="one-more")))
    assert answer["data"]["type"] == "LimitReached"
    client.receive(say("pusher:unsubscribe", channel="c0"))
    assert client.receive(say("pusher:subscribe", channel="one-more")) == (Subscribe("one-more"),)


def test_unsubscribing() -> None:
    client = session()
    client.receive(say("pusher:subscribe", channel="news"))
    assert client.receive(say("pusher:unsubscribe", channel="other")) == ()
    assert client.receive(say("pusher:unsubscribe", channel="news")) == (Unsubscribe("news"),)
    assert client.channels == ()


def test_data_may_be_a_json_string() -> None:
    message = json.dumps({"event": "pusher:subscribe", "data": '{"channel":"news"}'}).encode()
    assert session().receive(message) == (Subscribe("news"),)


# --- users


def test_the_worked_example_of_a_sign_in() -> None:
    # docs/channels/library_auth_reference/auth-signatures, "User authentication"
    application = Application("1", "278d425bdf160c739803", b"7ad3773142a6692b25b8")
    assert pusher.sign_user(application, "1234.1234", '{"id":"12345"}') == (
        "278d425bdf160c739803:4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba"
    )


def sign_in(client: pusher.Session, user_data: str) -> tuple[pusher.Action, ...]:
    auth = pusher.sign_user(APPLICATION, SOCKET_ID, user_data)
    return client.receive(say("pusher:signin", auth=auth, user_data=user_data))


def test_signing_in_opens_the_users_own_channel_and_no_other() -> None:
    client = session()
    channel = pusher.user_channel("7")
    assert channel == "#server-to-user-7"
    answers = sent(client.receive(say("pusher:subscribe", channel=channel, auth="")))
    assert [answer["event"] for answer in answers] == ["pusher:subscription_error", "pusher:error"]
    (answer,) = sent(sign_in(client, '{"id":"7","user_info":{"name":"Bo"}}'))
    assert answer["event"] == "pusher:signin_success"
    assert json.loads(answer["data"]) == {"user_data": '{"id":"7","user_info":{"name":"Bo"}}'}
    assert client.receive(say("pusher:subscribe", channel=channel, auth="")) == (
        Subscribe(channel),
    )
    answers = sent(client.receive(say("pusher:subscribe", channel=pusher.user_channel("8"))))
    assert answers[0]["data"]["status"] == 401


@pytest.mark.parametrize("user_data", ["", "7", "{}", '{"id":7}', '{"id":""}', '{"id":"a\\n"}'])
def test_a_user_needs_an_id(user_data: str) -> None:
    (action,) = sign_in(session(), user_data)
    assert isinstance(action, pusher.Close)
    assert action.code == 4009


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"auth": "key1:00"},
        {"auth": "key1:00", "user_data": {"id": "7"}},
        {"auth": "key1:00", "user_data": '{"id":"7"}'},
        {"auth": "é", "user_data": '{"id":"7"}'},
        {
            "auth": pusher.sign_user(APPLICATION, "1.1", '{"id":"7"}'),
            "user_data": '{"id":"7"}',
        },
    ],
)
def test_a_sign_in_that_is_not_signed_for_this_socket_closes_it(data: dict[str, object]) -> None:
    client = session()
    (action,) = client.receive(say("pusher:signin", **data))
    assert isinstance(action, pusher.Close)
    assert action.code == 4009
    assert client.user == ""


def test_a_socket_has_one_user() -> None:
    client = session()
    sign_in(client, '{"id":"7"}')
    (answer,) = sent(sign_in(client, '{"id":"7"}'))
    assert answer["event"] == "pusher:signin_success"
    (answer,) = sent(sign_in(client, '{"id":"8"}'))
    assert (answer["event"], client.user) == ("pusher:error", "7")


# --- owners


def subscribe_as(client: pusher.Session, channel: str, data: str, now: float = 0.0) -> object:
    auth = pusher.sign_channel(APPLICATION, SOCKET_ID, channel, data)
    return client.receive(
        say("pusher:subscribe", channel=channel, auth=auth, channel_data=data), now
    )


def test_the_signed_data_of_a_subscription_tells_whose_socket_it_is() -> None:
    client = session()
    assert not client.belongs_to("")
    subscribe_as(client, "private-a", '{"owner":"user.7"}')
    subscribe_as(client, "private-b", '{"owner":"user.7"}')
    subscribe_as(client, "private-c", '{"owner":"visitor.7"}')
    subscribe_as(client, "private-d", "{}")
    assert client.owners == "user.7\nvisitor.7"
    assert client.belongs_to("user.7")
    assert client.belongs_to("visitor.7")
    assert not client.belongs_to("user.77")
    assert not client.belongs_to("user.7\nvisitor.7")


def test_a_signature_may_end() -> None:
    client = session()
    data = '{"owner":"user.7","until":1000}'
    assert subscribe_as(client, "private-a", data, 1000.0) == (Subscribe("private-a"),)
    answers = sent(cast(Any, subscribe_as(client, "private-b", data, 1001.0)))
    assert answers[0]["data"]["status"] == 401
    assert client.channels == ("private-a",)


# --- client events


def member(**limits: Any) -> pusher.Session:
    """A session in private-a."""
    application = dataclasses.replace(APPLICATION, client_events=True, **limits)
    client = pusher.Session(application, SOCKET_ID)
    client.channels = ("private-a", "public", "private-encrypted-a")
    return client


def client_event(**changes: object) -> bytes:
    fields = {"event": "client-typing", "channel": "private-a", "data": {"on": True}, **changes}
    return json.dumps(fields).encode()


@pytest.mark.parametrize("data", [{"on": True}, '{"on":true}', None, [1], "é" * 5000])
def test_a_client_event_is_published_as_it_was_sent(data: object) -> None:
    (action,) = member().receive(client_event(data=data))
    assert isinstance(action, pusher.Publish)
    assert action.channel == "private-a"
    assert json.loads(action.message) == {
        "event": "client-typing",
        "channel": "private-a",
        "data": data,
    }


def test_nothing_but_the_documented_fields_is_passed_on() -> None:
    (action,) = member().receive(client_event(user_id="someone else", more=1))
    assert isinstance(action, pusher.Publish)
    assert set(json.loads(action.message)) == {"event", "channel", "data"}


def test_on_a_presence_channel_the_others_learn_who_it_was() -> None:
    client = member()
    client.channels, client.presences = ("presence-a",), (("presence-a", "7"),)
    (action,) = client.receive(client_event(channel="presence-a"))
    assert isinstance(action, pusher.Publish)
    assert json.loads(action.message)["user_id"] == "7"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"channel": "private-b"}, 4009),
        ({"channel": "presence-b"}, 4009),
        ({"channel": "public"}, None),
        ({"channel": "private-encrypted-a"}, None),
        ({"channel": 7}, None),
        ({"channel": None}, None),
        ({"event": "client-" + "x" * 194}, None),
        ({"data": "x" * 10_239}, None),
    ],
)
def test_a_client_event_is_for_members_of_signed_channels(
    changes: dict[str, object], code: int | None
) -> None:
    (answer,) = sent(member().receive(client_event(**changes)))
    assert (answer["event"], answer["data"]["code"]) == ("pusher:error", code)


def test_client_events_may_be_off() -> None:
    client = member()
    client.application = dataclasses.replace(APPLICATION, client_events=False)
    (answer,) = sent(client.receive(client_event()))
    assert "not enabled" in answer["data"]["message"]


def test_client_events_have_a_rate() -> None:
    client = member(client_events_per_second=10)

    def accepted(count: int, now: float) -> int:
        return sum(
            isinstance(client.receive(client_event(), now)[0], pusher.Publish) for _ in range(count)
        )

    assert accepted(15, 1000.0) == 10
    assert accepted(5, 1000.05) == 0
    assert accepted(5, 1000.3) == 3
    assert accepted(30, 1005.0) == 10
    assert sum(accepted(1, 1010.0 + n / 10) for n in range(100)) == 100
    assert accepted(1, 1.0) == 1  # a clock that was set back stops nobody


# --- everything else


def test_a_ping_is_answered_with_a_pong_and_a_pong_with_nothing() -> None:
    assert session().receive(say("pusher:ping")) == (Send(pusher.PONG),)
    assert session().receive(say("pusher:pong")) == ()


@pytest.mark.parametrize("event", ["client-typing", "pusher:unknown", "something"])
def test_unsupported_events_are_answered_not_swallowed(event: str) -> None:
    (answer,) = sent(session().receive(say(event)))
    assert answer["event"] == "pusher:error"
    assert answer["data"]["code"] is None


@given(
    st.one_of(
        st.binary(max_size=80),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=9),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["event", "data", "channel", "auth"]), inner, max_size=4
                )
            ),
            max_leaves=8,
        ).map(lambda value: json.dumps(value).encode()),
        st.builds(
            lambda event, data: json.dumps({"event": event, "data": data}).encode(),
            st.sampled_from(["pusher:subscribe", "pusher:unsubscribe", "pusher:ping"]),
            st.one_of(
                st.none(),
                st.text(max_size=5),
                st.lists(st.integers(), max_size=2),
                st.dictionaries(
                    st.sampled_from(["channel", "auth", "channel_data"]),
                    st.one_of(st.integers(), st.text(max_size=5), st.lists(st.text(max_size=2))),
                ),
            ),
        ),
    )
)
def test_no_message_of_a_client_raises(text: bytes) -> None:
    for action in session().receive(text):
        if isinstance(action, Send):
            assert json.loads(action.message)["event"].startswith("pusher:")


def test_secrets_are_not_in_the_repr() -> None:
    assert "secret" not in repr(APPLICATION)
