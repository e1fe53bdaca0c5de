"""A ledger that cannot fail proves nothing: it is shown servers that break a promise each."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Deskline
from tests.ledger import liar

RUN_SECONDS = 90.0
# nine runs at once on a machine that has other things to do
pytestmark = pytest.mark.timeout(240)

# what each proxy does wrong, and how the ledger must call it
LIES: dict[str, tuple[type[liar.Lie], set[str]]] = {
    "honest": (liar.Lie, set()),
    "loses": (liar.Loses, {"lost"}),
    "doubles": (liar.Doubles, {"doubled"}),
    "reorders": (liar.Reorders, {"out_of_order"}),
    "drops": (liar.Drops, {"never_delivered"}),
    "shows notes": (liar.ShowsNotes, {"foreign"}),
    "mixes": (liar.Mixes, {"foreign"}),
    "garbles": (liar.Garbles, {"wrong"}),
    "skips": (liar.Skips, {"holes"}),
}


@dataclass(frozen=True)
class Ended:
    """How a run of the tool ended."""

    code: int
    output: str
    told: dict[str, Any]


async def run_ledger(url: str, folder: Path, *arguments: str) -> Ended:
    """The command line tool as a process."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.ledger", "--url", url, "--out", str(folder), *arguments),
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), RUN_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    told = folder / "ledger.json"
    return Ended(
        process.returncode or 0,
        output.decode(),
        json.loads(told.read_text(encoding="utf-8")) if told.exists() else {},
    )


@pytest.fixture(scope="module")
def ended(deskline: Deskline, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """All lies at once: each run mostly waits."""

    async def one(name: str, lie: liar.Lie) -> Ended:
        async with liar.Liar(lie, deskline.url, deskline.ws_url) as proxy:
            return await run_ledger(
                proxy.url,
                tmp_path_factory.mktemp("broken"),
                *("--visitors", "3", "--agents", "2", "--rate", "10", "--seconds", "8"),
                *("--poll", "0", "--settle", "4", "--duplicate", "0.2", "--seed", "7"),
            )

    async def every() -> dict[str, Ended]:
        runs = await asyncio.gather(*(one(name, lie()) for name, (lie, _) in LIES.items()))
        return dict(zip(LIES, runs, strict=True))

    return asyncio.run(every())


@pytest.mark.parametrize("name", LIES)
def test_a_broken_promise_is_told(ended: dict[str, Ended], name: str) -> None:
    run, kinds = ended[name], LIES[name][1]
    assert run.code == (1 if kinds else 0), run.output
    found = {kind for kind, count in run.told["counts"].items() if count}
    assert kinds <= found
    assert run.told["figures"]["live"] > 0
    if not kinds:
        assert found == set()
        assert "CLEAN: every message is accounted for." in run.output
        return
    assert run.told["verdict"] == "not clean"
    for kind in kinds:
        assert any(line.startswith(f"{kind.upper()}: ") for line in run.output.splitlines())
    if name == "shows notes":
        assert ", a visitor, was shown a note: " in run.output
