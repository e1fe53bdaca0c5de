"""One run: the cast comes in, talks for a while, waits until everybody has seen everything."""

from __future__ import annotations

import asyncio
import itertools
import resource
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import orjson

from bench.faults import TALKING
from bench.ledger import target, truth
from bench.ledger.book import Book, Message, Verdict
from bench.ledger.people import USER_AGENT, Agent, Habits, Person, Refused, Tally, Visitor, World
from bench.ledger.target import Target, TargetRefused
from bench.ledger.wire import Client, WireError

MAX_VISITORS: Final = 2000
MAX_AGENTS: Final = 200
MAX_RATE: Final = 500.0
MAX_SECONDS: Final = 4 * 3600.0
# The gateway takes 200 channels a socket; an agent has two for each conversation and the inbox's.
MAX_CONVERSATIONS_PER_AGENT: Final = 95
WATCHERS: Final = 2
COME_IN_SECONDS: Final = 300.0
LATE_SHARE: Final = 0.1
VISITOR_SHARE: Final = 0.5
NOTE_SHARE: Final = 0.1
LONGER_AT_MOST: Final = 3.0
GRACE_SECONDS: Final = 60.0
TRUTH_SECONDS: Final = 120.0
PICKS: Final = 8
LOGINS_AT_ONCE: Final = 4
ARRIVALS_AT_ONCE: Final = 12

# Text that has to survive the way: several scripts, combining characters, 4-byte code points.
PHRASES: Final = (
    "Where is my parcel?",
    "請問什麼時候會到貨?",
    "It was ordered on Monday: order 4711.",
    "Ça marche très bien, merci beaucoup",
    "Zwölf Boxkämpfer jagen Viktor quer über den Deich",
    "謝謝您的耐心等候 🙏🏽",
    "e\u0301 is not é, and 👩‍👩‍👧‍👦 is one person more",
    "<b>not bold</b> & \"quoted\" \\ with 'all' of it",
    "a line\nand another\n\tindented",
)


class Unreachable(Exception):
    """The run could not begin; the text says what to look at."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is. Times are in seconds, the rate in messages per second."""

    url: str
    inbox_key: str
    accounts: Sequence[tuple[str, str]]
    visitors: int = 30
    agents: int = 4
    rate: float = 10.0
    seconds: float = 60.0
    settle_seconds: float = 0.0
    seed: int = 0
    habits: Habits = field(default_factory=Habits)
    database_url: str = ""
    mine: bool = False

    def problems(self) -> list[str]:
        """What is wrong with the options, one sentence each."""
        checks = (
            (1 <= self.visitors <= MAX_VISITORS, f"--visitors should be 1 to {MAX_VISITORS}"),
            (1 <= self.agents <= MAX_AGENTS, f"--agents should be 1 to {MAX_AGENTS}"),
            (0 < self.rate <= MAX_RATE, f"--rate should be above 0 and at most {MAX_RATE:g}"),
            (1 <= self.seconds <= MAX_SECONDS, f"--seconds should be 1 to {MAX_SECONDS:g}"),
            (0 <= self.habits.duplicate <= 0.5, "--duplicate should be 0 to 0.5"),
            (0 <= self.habits.abort <= 0.5, "--abort should be 0 to 0.5"),
            (0 <= self.habits.poll_seconds <= 300, "--poll should be 0 (never) to 300"),
            (0 <= self.settle_seconds <= 600, "--settle should be 0 (by itself) to 600"),
            (bool(self.accounts), "no account of the staff was given"),
            (
                self.visitors * min(WATCHERS, self.agents)
                <= MAX_CONVERSATIONS_PER_AGENT * self.agents,
                "too many visitors for so few agents: an agent may watch at most "
                f"{MAX_CONVERSATIONS_PER_AGENT} conversations, and each has {WATCHERS} agents",
            ),
        )
        return [sentence for fine, sentence in checks if not fine]

    @property
    def settle(self) -> float:
        """How long to wait at most for everybody to catch up: a poll must have had its turn."""
        return self.settle_seconds or 20.0 + 1.5 * self.habits.poll_seconds


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a run. Times are seconds since ``began`` (time.time() of the first message)."""

    verdict: Verdict
    book: Book
    tally: Tally
    rows: list[Message]
    began: float
    talked_seconds: float
    settled_seconds: float
    longest_silence_seconds: float
    cpu_share: float
    requests: int
    compared_with_database: bool
    notes: list[str]


@dataclass(frozen=True, slots=True)
class Moment:
    """What the progress bar shows. ``phase`` is come in, talk, settle or compare."""

    phase: str
    seconds: float
    of_seconds: float
    sent: int
    acknowledged: int
    waiting: int
    online: int
    people: int
    cpu_share: float
    latencies: list[float]
    retries: int
    unseen: int | None = None


Progress = Callable[[Moment], None]


class Run:
    """Carries one run out."""

    def __init__(
        self,
        options: Options,
        progress: Progress,
        *,
        phase_began: Callable[[str], None] = lambda _phase: None,
        must_go_on: Callable[[], bool] = lambda: False,
    ) -> None:
        """``must_go_on`` is asked once a second when the time to talk is up."""
        self.book = Book()
        self.tally = Tally()
        self.notes: list[str] = []
        self._options = options
        self._progress = progress
        self._phase_began = phase_began
        self._must_go_on = must_go_on
        self._random = Random(options.seed)
        self._visitors: list[Visitor] = []
        self._agents: list[Agent] = []
        self._conversations: list[tuple[Visitor, list[Agent]]] = []
        self._busy: set[tuple[str, int]] = set()
        self._talking: set[asyncio.Task[None]] = set()
        self._coming: set[asyncio.Task[None]] = set()
        self._said = 0
        self._arrivals = asyncio.Semaphore(ARRIVALS_AT_ONCE)
        self._world: World | None = None
        self._cpu_mark = (time.monotonic(), 0.0)
        self._told = 0

    async def carry_out(self) -> Result:
        """The whole run. Raises :class:`Unreachable` or :class:`TargetRefused` before it begins."""
        options = self._options
        server = target.find(options.url, mine=options.mine)
        if options.database_url:  # a wrong one should not be found out after the run
            await asyncio.to_thread(truth.from_database, options.database_url, [0])
        client = Client(server)
        try:
            world = self._world = await self._look_around(client, server)
            await self._come_in(world)
            self._phase_began(TALKING)
            began = time.time()
            cpu_began = _cpu_seconds()
            await self._talk(world)
            talked = time.time() - began
            cpu_share = (_cpu_seconds() - cpu_began) / talked
            world.give_up_at = time.time() + GRACE_SECONDS
            await self._finish_talking(world)
            settled_from = time.time()
            await self._settle(lambda: self.book.unseen() == 0 and not self._fetching())
            settled = time.time() - settled_from
            rows, read_at, compared = await self._truth(world)
            await self._settle(lambda: not self.book.missing(rows))
            return Result(
                verdict=self.book.verdict(rows, read_at=read_at),
                book=self.book,
                tally=self.tally,
                rows=rows,
                began=began,
                talked_seconds=talked,
                settled_seconds=settled,
                longest_silence_seconds=self._longest_silence(began, began + talked),
                cpu_share=cpu_share,
                requests=client.requests,
                compared_with_database=compared,
                notes=self.notes,
            )
        finally:
            for task in self._talking | self._coming:
                task.cancel()
            await asyncio.gather(*(person.leave() for person in self._people()))
            client.close()

    # --- coming in -----------------------------------------------------------------------------

    async def _look_around(self, client: Client, server: Target) -> World:
        """One widget session tells where the WebSocket is."""
        options = self._options
        origin = f"{server.scheme}://{server.host_header}"
        body = orjson.dumps({"inbox_key": options.inbox_key})
        try:
            answer = await client.request(
                "POST",
                "/api/v1/widget/session",
                headers={"User-Agent": USER_AGENT, "Origin": origin},
                body=body,
            )
            if answer.status != 200:
                raise Unreachable(
                    f"{options.url} does not open a widget session for the inbox "
                    f"{options.inbox_key!r} (it answers {answer.problem}): check --url and --inbox"
                )
            realtime: dict[str, Any] = answer.json()["realtime"]
            secure = bool(realtime["forceTLS"])
            port = realtime["wssPort" if secure else "wsPort"]
            url = f"{'wss' if secure else 'ws'}://{realtime['wsHost']}:{port}"
        except (WireError, KeyError, TypeError) as error:
            raise Unreachable(
                f"{options.url} does not answer as Deskline does ({error}): is it running?"
            ) from None
        return World(
            http=client,
            websocket=target.find(url, mine=options.mine),
            websocket_path=f"/app/{realtime['key']}?protocol=7&client=ledger&version=1",
            origin=origin,
            book=self.book,
            tally=self.tally,
            habits=options.habits,
            random=self._random,
            give_up_at=time.time() + COME_IN_SECONDS + options.seconds + GRACE_SECONDS,
        )

    async def _come_in(self, world: World) -> None:
        options = self._options
        logins = asyncio.Semaphore(LOGINS_AT_ONCE)

        async def agent(number: int) -> None:
            email, password = options.accounts[number % len(options.accounts)]
            made = Agent(world, f"agent-{number + 1}")
            async with logins:
                me = await made.log_in(email, password)
            for inbox in me["inboxes"]:
                made.listen(f"private-inbox.{inbox['id']}")
            made.go_online()
            self._agents.append(made)

        late = int(options.visitors * LATE_SHARE) if options.seconds >= 10 else 0
        try:
            async with asyncio.timeout(COME_IN_SECONDS):
                await self._all([agent(number) for number in range(options.agents)], "come in")
                early = [self._visitor(world, n) for n in range(options.visitors - late)]
                await self._all(early, "come in")
                await self._all([person.came_online.wait() for person in self._people()], "come in")
        except TimeoutError:
            online = sum(person.online for person in self._people())
            raise Unreachable(
                f"not everybody could come in within {COME_IN_SECONDS:.0f} s: {len(self._agents)} "
                f"agents, {len(self._conversations)} visitors, {online} sockets; "
                f"troubles: {self._troubles()}"
            ) from None
        except (Refused, WireError, KeyError, TypeError) as error:
            raise Unreachable(
                f"somebody could not come in ({error}): check the accounts of the staff and the "
                f"inbox; troubles: {self._troubles()}"
            ) from None
        for number in range(options.visitors - late, options.visitors):
            wait_seconds = self._random.uniform(0, options.seconds * 0.7)
            self._coming.add(asyncio.create_task(self._late_visitor(world, number, wait_seconds)))

    async def _all(self, work: Sequence[Awaitable[Any]], phase: str) -> None:
        """Await all of it with the progress bar; the first failure ends it."""
        gathered = asyncio.gather(*work)
        begun = time.monotonic()
        try:
            while not gathered.done():
                await asyncio.wait([gathered], timeout=1.0)
                self._show(phase, time.monotonic() - begun, COME_IN_SECONDS)
        finally:
            gathered.cancel()
        await gathered

    async def _late_visitor(self, world: World, number: int, wait_seconds: float) -> None:
        await asyncio.sleep(wait_seconds)
        try:
            await self._visitor(world, number)
        except (Refused, WireError) as error:
            self.notes.append(f"visitor-{number + 1} could not come in: {error}")

    async def _visitor(self, world: World, number: int) -> None:
        async with self._arrivals:
            await self._arrive(Visitor(world, f"visitor-{number + 1}"), number)

    async def _arrive(self, made: Visitor, number: int) -> None:
        await made.open(self._options.inbox_key)
        made.go_online()
        self._visitors.append(made)
        if not await made.begin(self._text()):
            return
        watchers = [
            self._agents[(number + offset) % len(self._agents)]
            for offset in range(min(WATCHERS, len(self._agents)))
        ]
        await watchers[0].claim(made.conversation_id)
        for agent in watchers:
            agent.open_conversation(made.conversation_id)
        self._conversations.append((made, watchers))

    # --- talking -------------------------------------------------------------------------------

    async def _talk(self, world: World) -> None:
        options = self._options
        begun = now = time.monotonic()
        end = begun + options.seconds
        longest = begun + options.seconds * LONGER_AT_MOST
        due = begun
        shown = 0.0
        while True:
            if now >= end:
                if now >= longest or not self._must_go_on():
                    return
                end = min(now + 1.0, longest)
            if now - due > 1.0:  # this computer cannot keep the rate: say so, do not pile up
                world.tally.counts["behind the wanted rate"] += 1
                due = now
            while due <= now:
                self._somebody_speaks()
                due += self._random.expovariate(options.rate)
            if now - shown >= 1.0:
                shown = now
                self._show("talk", now - begun, options.seconds)
            await asyncio.sleep(min(max(due - now, 0.001), 0.25, max(end - now, 0.001)))
            now = time.monotonic()

    def _somebody_speaks(self) -> None:
        for _ in range(PICKS):
            visitor, agents = self._random.choice(self._conversations)
            chance = self._random.random()
            speaker: Person = visitor
            note = False
            if chance >= VISITOR_SHARE:
                speaker = self._random.choice(agents)
                note = chance >= 1 - NOTE_SHARE
            key = (speaker.name, visitor.conversation_id)
            if key not in self._busy:
                self._busy.add(key)
                task = asyncio.create_task(self._speak(key, visitor, speaker, note=note))
                self._talking.add(task)
                task.add_done_callback(self._talking.discard)
                return
        self.tally.counts["everybody was waiting for an answer"] += 1

    async def _speak(
        self, key: tuple[str, int], visitor: Visitor, speaker: Person, *, note: bool
    ) -> None:
        try:
            if isinstance(speaker, Agent):
                await speaker.write(visitor.conversation_id, self._text(), note=note)
            else:
                await visitor.write(self._text())
        finally:
            self._busy.discard(key)

    def _text(self) -> str:
        self._said += 1
        phrase = self._random.choice(PHRASES)
        return f"{self._said}: {phrase}" + " …" * self._random.randrange(12)

    # --- waiting and comparing -----------------------------------------------------------------

    async def _finish_talking(self, world: World) -> None:
        begun = time.monotonic()
        while self._talking or any(not task.done() for task in self._coming):
            passed = time.monotonic() - begun
            if passed > GRACE_SECONDS + 15:
                self.notes.append(f"{len(self._talking)} messages were still being sent at the end")
                return
            self._show("settle", passed, GRACE_SECONDS)
            await asyncio.sleep(0.2)

    async def _settle(self, settled: Callable[[], bool]) -> None:
        """Wait until ``settled`` says so, or the time for it is up."""
        begun = time.monotonic()
        patience = self._options.settle
        while not settled() and (passed := time.monotonic() - begun) < patience:
            self._show("settle", passed, patience, unseen=self.book.unseen())
            await asyncio.sleep(0.25)

    def _fetching(self) -> bool:
        return any(person.busy for person in self._people())

    async def _truth(self, world: World) -> tuple[list[Message], float, bool]:
        """The stored rows, when reading them began, and whether the database was read too."""
        world.give_up_at = time.time() + TRUTH_SECONDS
        read_at = time.time()
        self._show("compare", 0, TRUTH_SECONDS)
        conversations = self.book.conversations()
        rows = await truth.from_api(self._agents[0], conversations)
        url = self._options.database_url
        if not url:
            return rows, read_at, False
        there = await asyncio.to_thread(truth.from_database, url, conversations)
        self.book.compare_sources(told=rows, there=there)
        return there, read_at, True

    def _longest_silence(self, began: float, end: float) -> float:
        """The longest time while people talked without an acknowledgement."""
        times = [began, *sorted(at for at, _ in self.tally.acknowledged if began < at < end), end]
        return max(later - earlier for earlier, later in itertools.pairwise(times))

    # --- telling -------------------------------------------------------------------------------

    def _people(self) -> list[Person]:
        return [*self._agents, *self._visitors]

    def _troubles(self) -> str:
        worst = [item for item in self.tally.counts.most_common(8) if ":" in item[0]]
        return ", ".join(f"{what} ({times} times)" for what, times in worst) or "none"

    def _show(
        self, phase: str, seconds: float, of_seconds: float, unseen: int | None = None
    ) -> None:
        now, used = time.monotonic(), _cpu_seconds()
        then, used_then = self._cpu_mark
        share = (used - used_then) / (now - then) if now > then and used_then else 0.0
        self._cpu_mark = (now, used)
        fresh = [seconds for _, seconds in self.tally.acknowledged[self._told :]]
        self._told += len(fresh)
        self._progress(
            Moment(
                phase=phase,
                seconds=seconds,
                of_seconds=of_seconds,
                sent=len(self.book.sent),
                acknowledged=len(self.tally.acknowledged),
                waiting=len(self._talking),
                online=self.tally.online,
                people=len(self._agents) + len(self._visitors),
                cpu_share=share,
                latencies=fresh,
                retries=sum(
                    times for what, times in self.tally.counts.items() if "retried" in what
                ),
                unseen=unseen,
            )
        )


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


__all__ = ["Moment", "Options", "Result", "Run", "TargetRefused", "Unreachable"]
