"""Presence channels over all gateways: who is in them, told once for each person.

Public source: https://pusher.com/docs/channels/using_channels/presence-channels/. Why it is made
this way: docs/adr/, "Presence".

Redis keeps one hash for each channel: user id -> ``node,node, user_info``, the nodes that hold
sockets of the user. One script changes it and publishes what changed on the channel's own topic, so
that two nodes at once agree, and so that a change stands in the same order as the channel's events:
``+version LF user LF info`` and ``-version LF user``. Each node keeps the list that its own clients
were told (``view``) and tells them only what changes it. So nothing is told twice, whatever Redis
loses, repeats or forgets.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import ResponseError

from app import log
from app.bus import events
from app.gateway import pusher
from app.gateway.frames import text_frame

if TYPE_CHECKING:
    from app.gateway.connection import Connection
    from app.gateway.node import Node

# In ticks of the node's sweep, which are seconds.
BEAT_SECONDS: Final = 3
# A node whose beat did not change over so many of ours is dead: after 9 to 12 s.
MISSED_BEATS: Final = 3
# Who loses a connection mostly comes back, often through another gateway.
LEAVE_DELAY_SECONDS: Final = 3
# After an interruption of Redis the others write their members again; until then nobody who was
# there before counts as gone.
GRACE_SECONDS: Final = 10
# The keys of a channel that no living node looks after vanish; those of the others are renewed.
KEY_SECONDS: Final = 3600
RENEW_SECONDS: Final = 600
CHANNELS_PER_TURN: Final = 200
TURN_SECONDS: Final = 0.005
USERS_PER_COMMAND: Final = 500
CACHE_READS: Final = 20
NODES_KEY: Final = b"deskline:members:nodes"

# KEYS: the members, their version. ARGV: the command that publishes, topic, this node, most
# members, whether the list is wanted, seconds to live, dead nodes (with commas), the number of
# users who leave, those users, and for each who enters: user, info, "1" to pass over the limit.
# Gives the version, 0 or 1 for each who wants to enter, and the list or an empty one.
SCRIPT: Final = rb"""
local members, at = KEYS[1], KEYS[2]
local publish, topic, node, limit = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local version = tonumber(redis.call('GET', at) or '0')
local function tell(sign, text)
  local now = redis.call('TIME')
  version = math.max(version + 1, tonumber(now[1]) * 1000000 + tonumber(now[2]))
  local number = string.format('%.0f', version)
  redis.call('SET', at, number)
  redis.call(publish, topic, sign .. number .. '\n' .. text)
end
local function remove(user, value, gone)
  local space = string.find(value, ' ', 1, true)
  local holders = string.sub(value, 1, space - 1)
  local left = string.gsub(holders, gone .. ',', '')
  if left == holders then return end
  if left == '' then
    redis.call('HDEL', members, user)
    tell('-', user)
  else
    redis.call('HSET', members, user, left .. string.sub(value, space))
  end
end
for gone in string.gmatch(ARGV[7], '%x+') do
  local all = redis.call('HGETALL', members)
  for i = 1, #all, 2 do remove(all[i], all[i + 1], gone) end
end
local first = 9 + tonumber(ARGV[8])
for i = 9, first - 1 do
  local value = redis.call('HGET', members, ARGV[i])
  if value then remove(ARGV[i], value, node) end
end
local entered = {}
for i = first, #ARGV, 3 do
  local user, info = ARGV[i], ARGV[i + 1]
  local value = redis.call('HGET', members, user)
  local accepted = 1
  if value then
    local holders = string.sub(value, 1, string.find(value, ' ', 1, true))
    if not string.find(holders, node, 1, true) then
      redis.call('HSET', members, user, node .. ',' .. value)
    end
  elseif ARGV[i + 2] == '1' or redis.call('HLEN', members) < limit then
    redis.call('HSET', members, user, node .. ', ' .. info)
    tell('+', user .. '\n' .. info)
  else
    accepted = 0
  end
  entered[#entered + 1] = accepted
end
if redis.call('EXPIRE', members, ARGV[6]) == 1 then
  redis.call('EXPIRE', at, ARGV[6])
else
  redis.call('DEL', at)
end
local list = {}
if ARGV[5] == '1' then list = redis.call('HGETALL', members) end
return {string.format('%.0f', version), entered, list}
"""


def keys(topic: bytes) -> tuple[bytes, bytes]:
    """The keys of a channel's members and of their version.

    The braces put them, in Redis Cluster, on the node that has the topic itself.
    """
    return b"deskline:members:{%b}" % topic, b"deskline:members:{%b}:version" % topic


class Person:
    """A user with sockets on this node in one channel.

    ``held`` says that Redis knows it, since ``version``; ``leaving`` that the time for coming
    back is over; ``accepted`` that a client of theirs was let in, so that no limit applies again.
    """

    __slots__ = ("accepted", "held", "info", "leave_at", "leaving", "sockets", "version")

    def __init__(self, info: bytes) -> None:
        self.info = info
        self.sockets = 0
        self.held = False
        self.leaving = False
        self.leave_at = 0
        self.accepted = False
        self.version = 0


class Arrival:
    """Stands in a presence channel for a socket until the client is told who is there.

    ``needed`` is the version that the view must have reached. On a cache channel the last event
    is read again when another one came meanwhile (it was written before it was published).
    """

    __slots__ = ("_connection", "disturbed", "needed", "outgoing", "reads")

    def __init__(self, connection: Connection) -> None:
        self.outgoing: list[bytes] | None = None
        self.needed: int | None = None
        self.disturbed = False
        self.reads = 0
        self._connection = connection

    @property
    def writer(self) -> Arrival:
        """Events come here instead of to the socket's transport."""
        return self

    @property
    def socket_id(self) -> str:
        """The socket's id, for events that leave it out."""
        return self._connection.socket_id

    def write(self, _data: bytes) -> None:
        """Forget it: the client has not been told yet that it is subscribed."""
        self.disturbed = True

    def subscribed(self, _channel: str) -> None:
        """The events flow; :meth:`Presence.confirmed` does what follows."""


@dataclass(frozen=True, slots=True)
class _Request:
    """What one run of the script was asked."""

    epoch: int
    entering: Sequence[str]
    leaving: Sequence[str]
    dead: frozenset[str]
    listing: bool


class Roster:
    """One presence channel on this node."""

    __slots__ = (
        "application_id",
        "arrivals",
        "busy",
        "careful_until",
        "changed",
        "check_at",
        "dead",
        "epoch",
        "flowing",
        "listing",
        "name",
        "people",
        "prefix",
        "since",
        "sockets",
        "topic",
        "version",
        "view",
    )

    def __init__(self, prefix: bytes, name: str) -> None:
        self.prefix = prefix
        self.name = name
        self.topic = prefix + name.encode()
        self.application_id = prefix.split(b":")[2].decode()
        self.people: dict[str, Person] = {}
        self.sockets: dict[Connection, str] = {}
        self.arrivals: dict[Connection, Arrival] = {}
        # user -> info: what the clients here were told; None before there is anything to tell
        self.view: dict[str, bytes] | None = None
        self.version = 0
        # whether the list must be read, and what changed (version, info or None) meanwhile
        self.listing = True
        self.since: dict[str, tuple[int, bytes | None]] = {}
        self.flowing = False
        self.changed: set[str] = set()
        self.dead: set[str] = set()
        self.busy = False
        self.epoch = 0
        self.careful_until = 0
        self.check_at = 0

    def begin(self, careful_until: int) -> None:
        """The events flow from now on: write all that is here again and read the list."""
        self.flowing = True
        self.epoch += 1
        self.listing = True
        self.since.clear()
        self.careful_until = careful_until
        self.changed.update(self.people)
        for person in self.people.values():
            person.held = False
        for arrival in self.arrivals.values():
            arrival.needed = None

    def end(self) -> None:
        """Nobody listens here any more: what was told is nobody's knowledge."""
        self.flowing = False
        self.epoch += 1
        self.view = None
        self.since.clear()


class Presence:
    """The presence channels of a node. Nothing here happens for a socket that is silent."""

    def __init__(self, node: Node) -> None:
        self.id = secrets.token_hex(6)
        self._node = node
        self._rosters: dict[bytes, Roster] = {}
        self._dirty: dict[Roster, None] = {}
        self._failed: list[Roster] = []
        self._departures: deque[tuple[int, Roster, str]] = deque()
        self._checks: defaultdict[int, list[Roster]] = defaultdict(list)
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._settling: dict[Roster, None] = {}
        # other nodes: their last beat and how often it was the same; those that count as dead
        self._others: dict[str, tuple[bytes, int]] = {}
        self._dead: set[str] = set()
        self._suspects: list[tuple[Roster, set[str]]] = []
        self._registered = False
        self._beating = False
        self._beats = 0
        self._beaten_at = 0
        self._log = log.get("gateway.presence")
        self._refusal = ""
        # counters, read by metrics.py
        self.joins = 0
        self.leaves = 0
        self.reaped_nodes = 0

    def __len__(self) -> int:
        return len(self._rosters)

    # --- called by connections, through the node

    def join(
        self, prefix: bytes, name: str, user_id: str, info: bytes, connection: Connection
    ) -> None:
        """Put a socket into a presence channel as ``user_id``; it is told when all nodes know."""
        topic = prefix + name.encode()
        roster = self._rosters.get(topic)
        if roster is None:
            roster = self._rosters[topic] = Roster(prefix, name)
        person = roster.people.get(user_id)
        if person is None:
            person = roster.people[user_id] = Person(info)
        person.sockets += 1
        person.leaving = False
        roster.sockets[connection] = user_id
        arrival = roster.arrivals[connection] = Arrival(connection)
        if person.held:
            arrival.needed = person.version
            self._settle_soon(roster)
        else:
            self._change(roster, user_id)
        self._node.channels.join(prefix, name, arrival)

    def leave(
        self, prefix: bytes, name: str, connection: Connection, *, at_once: bool = False
    ) -> None:
        """Take a socket out. Unless ``at_once``, its user has some seconds to come back."""
        roster = self._rosters.get(prefix + name.encode())
        if roster is None or connection not in roster.sockets:
            return
        user_id = roster.sockets.pop(connection)
        arrival = roster.arrivals.pop(connection, None)
        self._node.channels.leave(prefix, name, arrival or connection)
        if not roster.sockets:
            roster.end()
        person = roster.people[user_id]
        person.sockets -= 1
        if person.sockets:
            return
        if at_once:
            person.leaving = True
            self._change(roster, user_id)
        else:
            person.leave_at = self._node.tick + LEAVE_DELAY_SECONDS
            self._departures.append((person.leave_at, roster, user_id))

    def users(self, topic: bytes) -> list[str]:
        """The ids of the users with sockets on this node in a channel, known to all nodes."""
        roster = self._rosters.get(topic)
        if roster is None:
            return []
        return [user for user, person in roster.people.items() if person.held]

    # --- called by the Redis reader and the fan-out, through the node

    def interrupted(self, concerns: Callable[[bytes], bool] | None = None) -> None:
        """Redis is away, or a shard of it: nobody is told anything until it is back."""
        self._registered = False
        for roster in self._rosters.values():
            if concerns is None or concerns(roster.topic):
                roster.flowing = False
                roster.epoch += 1

    def confirmed(self, topic: bytes) -> None:
        """The events of ``topic`` flow from now on."""
        roster = self._rosters.get(topic)
        if roster is not None:
            self._begin(roster)

    def change(self, topic: bytes, head: bytes, text: bytes) -> bytes | None:
        """Take a change of a channel's members; gives the message for its clients, if any."""
        roster = self._rosters.get(topic)
        if roster is None or not roster.flowing or not head[1:].isdigit():
            return None
        version, (user, _, info) = int(head[1:]), text.partition(b"\n")
        user_id = user.decode()
        entering = head[:1] == b"+"
        if roster.listing:
            roster.since[user_id] = version, info if entering else None
            return None
        if version <= roster.version:
            return None
        roster.version = version
        if roster.arrivals:
            self._settle_soon(roster)
        return self._apply(roster, user_id, info if entering else None)

    # --- called by the sweep, once a second

    def tick(self) -> None:
        """Beat, let those go who did not come back, try again what failed."""
        now = self._node.tick
        while self._departures and self._departures[0][0] <= now:
            due, roster, user_id = self._departures.popleft()
            person = roster.people.get(user_id)
            if person is not None and not person.sockets and person.leave_at == due:
                person.leaving = True
                self._change(roster, user_id)
        for roster in self._checks.pop(now, ()):
            if roster.check_at == now and roster.flowing:
                roster.listing = True
                self._mark(roster)
        failed, self._failed = self._failed, []
        for roster in failed:
            self._mark(roster)
        if not self._rosters:
            self._resign()
        elif not self._registered or now - self._beaten_at >= BEAT_SECONDS:
            self._beat(counted=self._registered)

    # --- what Redis is told

    def _begin(self, roster: Roster) -> None:
        careful = roster.view is not None
        roster.begin(self._node.tick + GRACE_SECONDS if careful else 0)
        self._mark(roster)

    def _change(self, roster: Roster, user_id: str) -> None:
        roster.changed.add(user_id)
        self._mark(roster)

    def _mark(self, roster: Roster) -> None:
        self._dirty[roster] = None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        """Send the scripts of some channels; the rest a little later, so that nothing stalls."""
        self._timer = None
        if not self._registered:
            self._beat(counted=False)
            return
        for roster in list(self._dirty)[:CHANNELS_PER_TURN]:
            del self._dirty[roster]
            if not roster.busy:
                self._send(roster)
        if self._dirty:
            self._timer = asyncio.get_running_loop().call_later(TURN_SECONDS, self._turn)

    def _send(self, roster: Roster) -> None:
        entering: list[str] = []
        leaving: list[str] = []
        for user_id in list(roster.changed):
            person = roster.people.get(user_id)
            if len(entering) + len(leaving) >= USERS_PER_COMMAND:
                break
            if person is None:
                roster.changed.discard(user_id)
            elif person.sockets or not person.leaving:
                if person.held:
                    roster.changed.discard(user_id)
                elif roster.flowing:
                    entering.append(user_id)
            else:
                person.held = False
                leaving.append(user_id)
        listing = roster.listing and roster.flowing
        if not (entering or leaving or roster.dead or listing):
            self._forget(roster)
            return
        application = self._node.applications.by_id.get(roster.application_id)
        limit = application.max_presence_members if application else 0
        people = roster.people
        request = _Request(roster.epoch, entering, leaving, frozenset(roster.dead), listing)
        roster.busy = True
        self._node.commands.send(
            b"EVAL",
            SCRIPT,
            b"2",
            *keys(roster.topic),
            self._node.publish_command,
            roster.topic,
            self.id.encode(),
            b"%d" % limit,
            b"1" if listing else b"0",
            b"%d" % KEY_SECONDS,
            ",".join(sorted(request.dead)).encode(),
            b"%d" % len(leaving),
            *(user_id.encode() for user_id in leaving),
            *(
                word
                for user_id in entering
                for word in (
                    user_id.encode(),
                    people[user_id].info,
                    b"1" if people[user_id].accepted else b"0",
                )
            ),
            then=lambda reply: self._answered(roster, request, reply),
        )

    def _answered(self, roster: Roster, request: _Request, reply: Any) -> None:
        roster.busy = False
        if isinstance(reply, Exception):
            self._complain(reply)
            # perhaps it was carried out all the same; it is the same a second time
            roster.changed.update(request.leaving)
            self._failed.append(roster)
            return
        version, accepted, listed = int(reply[0]), reply[1], reply[2]
        roster.dead -= request.dead
        for user_id in request.leaving:
            person = roster.people.get(user_id)
            if person is not None and not person.sockets:
                del roster.people[user_id]
                roster.changed.discard(user_id)
        if request.epoch == roster.epoch:
            for user_id, yes in zip(request.entering, accepted, strict=True):
                roster.changed.discard(user_id)
                self._entered(roster, user_id, version if yes else None)
            if request.listing:
                self._listed(roster, version, listed)
        if roster.changed or roster.dead or roster.listing:
            self._mark(roster)
        self._forget(roster)
        self._settle_soon(roster)

    def _entered(self, roster: Roster, user_id: str, version: int | None) -> None:
        person = roster.people.get(user_id)
        if person is None:
            return
        theirs = [
            connection for connection in roster.arrivals if roster.sockets[connection] == user_id
        ]
        if version is None:
            for connection in theirs:
                connection.presence_refused(roster.name)
            return
        person.held = person.accepted = True
        person.version = version
        for connection in theirs:
            roster.arrivals[connection].needed = version
        if person.leaving:
            roster.changed.add(user_id)

    def _forget(self, roster: Roster) -> None:
        """Drop a channel that has nobody left here."""
        if not roster.people and not roster.busy and not roster.sockets:
            self._rosters.pop(roster.topic, None)

    def _complain(self, error: Exception) -> None:
        """Say once that Redis refuses; that it is away is said elsewhere."""
        if isinstance(error, ResponseError) and str(error) != self._refusal:
            self._refusal = str(error)
            self._log.error(
                "presence channels do not work",
                error=self._refusal,
                advice="let the gateway's user of Redis run EVAL, HSET, HGETALL and HDEL on the "
                "keys deskline:members:*",
            )

    # --- what the clients are told

    def _listed(self, roster: Roster, version: int, listed: list[bytes]) -> None:
        """Compare the list in Redis with what the clients here were told."""
        target: dict[str, bytes] = {}
        holders: set[str] = set()
        for user, value in zip(listed[::2], listed[1::2], strict=True):
            nodes, _, info = value.partition(b" ")
            holders.update(nodes.decode().split(","))
            target[user.decode()] = info
        strangers = holders - self._others.keys() - {"", self.id}
        dead = holders & self._dead
        if dead:
            roster.dead |= dead
            return
        if strangers:
            self._suspects.append((roster, strangers))
            self._beat(counted=False)
            return
        for user_id, (changed_at, change) in roster.since.items():
            if changed_at > version and change is not None:
                target[user_id] = change
            elif changed_at > version:
                target.pop(user_id, None)
            version = max(version, changed_at)
        roster.since.clear()
        roster.listing = False
        roster.version = version
        careful = self._node.tick < roster.careful_until
        if roster.view is None:
            roster.view = target
        else:
            for user_id, info in target.items():
                self._announce(roster, self._apply(roster, user_id, info))
            if not careful:
                for user_id in roster.view.keys() - target.keys():
                    self._announce(roster, self._apply(roster, user_id, None))
        wait = GRACE_SECONDS if careful else RENEW_SECONDS + int(60 * self._node.random.random())
        roster.check_at = self._node.tick + wait
        self._checks[roster.check_at].append(roster)

    def _apply(self, roster: Roster, user_id: str, info: bytes | None) -> bytes | None:
        """Change the view; gives the message that tells it, or None when it is known already."""
        view = roster.view
        if view is None:
            return None
        if info is not None:
            if user_id in view:
                return None
            view[user_id] = info
            self.joins += 1
            return pusher.member_added(roster.name, user_id, info)
        person = roster.people.get(user_id)
        if person is not None and person.sockets:
            # Another node took us for dead. The user is here: say so again, tell nobody.
            person.held = False
            self._change(roster, user_id)
            return None
        if view.pop(user_id, None) is None:
            return None
        self.leaves += 1
        return pusher.member_removed(roster.name, user_id)

    def _announce(self, roster: Roster, message: bytes | None) -> None:
        channel = self._node.channels.get(roster.topic)
        if message is None or channel is None:
            return
        frame = text_frame(message)
        for member in list(channel.members):
            member.writer.write(frame)

    def _settle_soon(self, roster: Roster) -> None:
        """Not now: a fan-out may be walking over the members just now."""
        if not self._settling:
            asyncio.get_running_loop().call_soon(self._settle_all)
        self._settling[roster] = None

    def _settle_all(self) -> None:
        rosters, self._settling = list(self._settling), {}
        for roster in rosters:
            for connection, arrival in list(roster.arrivals.items()):
                if self._may_be_told(roster, arrival):
                    if pusher.remembers(roster.name):
                        self._read_last_event(roster, connection, arrival)
                    else:
                        self._tell(roster, connection, arrival)

    def _may_be_told(self, roster: Roster, arrival: Arrival) -> bool:
        return (
            roster.flowing
            and not roster.listing
            and arrival.needed is not None
            and roster.version >= arrival.needed
        )

    def _tell(self, roster: Roster, connection: Connection, arrival: Arrival) -> None:
        del roster.arrivals[connection]
        self._node.channels.replace(roster.prefix, roster.name, arrival, connection)
        connection.send(pusher.presence_succeeded(roster.name, roster.view or {}))

    def _read_last_event(self, roster: Roster, connection: Connection, arrival: Arrival) -> None:
        """Read a cache channel's last event, then tell the client both."""
        if arrival.reads:
            return

        def ask() -> None:
            arrival.reads += 1
            arrival.disturbed = False
            key = events.cache_key(roster.application_id, roster.name).encode()
            self._node.commands.send(b"GET", key, then=answer)

        def answer(last: Any) -> None:
            if roster.arrivals.get(connection) is not arrival:
                return  # it has left
            if arrival.disturbed and arrival.reads < CACHE_READS:
                ask()
                return
            arrival.reads = 0
            if not self._may_be_told(roster, arrival):
                return  # Redis was interrupted; it is settled again
            self._tell(roster, connection, arrival)
            # without an answer the client learns that it has to ask elsewhere
            known = isinstance(last, bytes)
            connection.send(last if known else pusher.cache_miss(roster.name))

        ask()

    # --- which nodes are alive

    def _beat(self, *, counted: bool) -> None:
        """Tell the others that we live and look whether they do; ``counted``: three seconds on."""
        if self._beating:
            return
        self._beating = True
        self._beats += 1
        known: list[Any] = []
        self._node.commands.send(
            b"HSET", NODES_KEY, self.id.encode(), b"%d" % self._beats, then=known.append
        )
        self._node.commands.send(
            b"HGETALL", NODES_KEY, then=lambda reply: self._beaten(known[0], reply, counted)
        )

    def _resign(self) -> None:
        """There is nobody to speak for: no beat is missed from now on."""
        if self._registered:
            self._registered = False
            self._node.commands.send(b"HDEL", NODES_KEY, self.id.encode())

    def _beaten(self, known: Any, reply: Any, counted: bool) -> None:
        self._beating = False
        for answer in (known, reply):
            if isinstance(answer, Exception):
                self._registered = False
                self._complain(answer)
                return
        self._refusal = ""
        self._beaten_at = self._node.tick
        beats = _pairs(reply)
        beats.pop(self.id, None)
        self._observe(beats, counted)
        suspects, self._suspects = self._suspects, []
        for roster, strangers in suspects:
            roster.dead |= strangers - beats.keys()
            self._mark(roster)
        if known == 1 and self._registered:
            # Redis has lost its memory, or the others took us for dead
            for roster in self._rosters.values():
                if roster.flowing:
                    self._begin(roster)
        self._registered = True
        if self._dirty and self._timer is None:
            self._turn()

    def _observe(self, beats: dict[str, bytes], counted: bool) -> None:
        gone = set(self._others) - set(beats)
        for node, beat in beats.items():
            before, missed = self._others.get(node, (b"", 0))
            if beat != before:
                self._others[node] = beat, 0
                self._dead.discard(node)
            elif counted:
                self._others[node] = beat, missed + 1
                if missed + 1 >= MISSED_BEATS:
                    gone.add(node)
        for node in gone:
            self._reap(node, listed=node in beats)

    def _reap(self, node: str, *, listed: bool) -> None:
        """Remove the people of a node that is dead, or that is not listed any more because another
        one found it dead or it has resigned, from the channels that are here."""
        if not listed:
            del self._others[node]
            if node in self._dead:  # that was done already
                self._dead.discard(node)
                return
        else:
            self._node.commands.send(b"HDEL", NODES_KEY, node.encode())
            if node in self._dead:
                return
            self._dead.add(node)
            self.reaped_nodes += 1
            self._log.warning("a gateway is gone", gateway=node, channels=len(self._rosters))
        for roster in self._rosters.values():
            roster.dead.add(node)
            self._mark(roster)


def _pairs(reply: Iterable[bytes] | dict[bytes, bytes]) -> dict[str, bytes]:
    """The fields of an HGETALL, which redis-py gives as a dict or, raw, as a list."""
    if isinstance(reply, dict):
        return {name.decode(): value for name, value in reply.items()}
    flat = list(reply)
    return {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}
