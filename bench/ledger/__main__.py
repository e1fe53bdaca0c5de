"""Hold real conversations with a Deskline and account for every message afterwards.

Many virtual visitors and agents talk over HTTP and WebSocket, send some requests twice, hang up on
others, and try again with the same client_id. In the end what was acknowledged and what everybody
was shown is compared with what is stored. Ends with 0 when every message is accounted for, 1 when
one is not, 2 when the run could not be carried out.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import secrets
import sys
from pathlib import Path
from typing import Final

import uvloop

from bench.faults import OVER, Marks
from bench.ledger import report
from bench.ledger.people import Habits
from bench.ledger.run import Options, Run, TargetRefused, Unreachable
from bench.ledger.truth import TruthUnknown

ROOT: Final = Path(__file__).resolve().parents[2]
DEMO_ACCOUNTS: Final = [("admin@demo.com", "password123"), ("agent@demo.com", "password123")]
ACCOUNTS_VARIABLE: Final = "LEDGER_ACCOUNTS"
DATABASE_VARIABLE: Final = "LEDGER_DATABASE_URL"
CLEAN, NOT_CLEAN, NOT_RUN = 0, 1, 2


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m bench.ledger",
        description=(__doc__ or "").splitlines()[0],
        epilog="0: every message is accounted for; 1: violations, the first ones are listed; "
        "2: wrong arguments, or the server cannot be reached. docs/engineers/ledger.md tells more.",
    )
    made.add_argument("--url", default="http://127.0.0.1:8000", help="default: %(default)s")
    made.add_argument("--inbox", default="demo", help="the inbox's key (default: %(default)s)")
    made.add_argument(
        "--accounts-file",
        metavar="PATH",
        help="accounts of the staff, a line each: e-mail, space, password; - is stdin. Else the "
        f"variable {ACCOUNTS_VARIABLE} in the same form, else the demo's accounts",
    )
    made.add_argument("--visitors", type=int, default=30, help="default: %(default)s")
    made.add_argument("--agents", type=int, default=4, help="default: %(default)s")
    made.add_argument(
        "--rate", type=float, default=10.0, help="messages per second (default: %(default)s)"
    )
    made.add_argument(
        "--seconds", type=float, default=60.0, help="how long to talk (default: %(default)s)"
    )
    made.add_argument(
        "--duplicate", type=float, default=0.03, help="share of requests sent twice at once"
    )
    made.add_argument(
        "--abort", type=float, default=0.03, help="share of requests that are hung up on"
    )
    made.add_argument(
        "--poll",
        type=float,
        default=30.0,
        help="seconds between the slow polls that pages make besides the socket; 0: never, "
        "then an event that is lost without a sign is a violation (default: %(default)s)",
    )
    made.add_argument(
        "--settle",
        type=float,
        default=0.0,
        help="how long to wait at most for everybody to see everything (default: by --poll)",
    )
    made.add_argument("--seed", type=int, help="makes the same choices again (default: random)")
    made.add_argument(
        "--database-url",
        metavar="URL",
        help="also compare with the database, read-only: sqlite:////path. A URL with a password "
        f"belongs into the variable {DATABASE_VARIABLE}",
    )
    made.add_argument(
        "--marks",
        type=Path,
        metavar="FILE",
        help='JSON lines {"t": unix time, "what": text} '
        "of whatever happens meanwhile; the beginning of the talk is written there too",
    )
    made.add_argument(
        "--until-faults-are-over",
        action="store_true",
        dest="until_over",
        help="talk until bench/faults.py has written so into --marks, at least --seconds and at "
        "most three times as long",
    )
    made.add_argument("--out", type=Path, default=ROOT / "dist" / "ledger", metavar="FOLDER")
    made.add_argument(
        "--i-own-this-server",
        action="store_true",
        dest="mine",
        help="allow a server that is neither this computer nor a local test machine",
    )
    return made


def read_accounts(path: str | None) -> list[tuple[str, str]]:
    """The accounts of the staff. Raises ValueError with a sentence that shows no password."""
    if path == "-":
        text, where = sys.stdin.read(), "stdin"
    elif path is not None:
        try:
            text, where = Path(path).read_text(encoding="utf-8"), path
        except OSError as error:
            raise ValueError(f"--accounts-file {path}: {error.strerror}") from None
    elif ACCOUNTS_VARIABLE in os.environ:
        text, where = os.environ[ACCOUNTS_VARIABLE], ACCOUNTS_VARIABLE
    else:
        return DEMO_ACCOUNTS
    accounts = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        email, _, password = line.strip().partition(" ")
        if "@" not in email or not password:
            raise ValueError(
                f"{where}, line {number}: should be an e-mail address, space, password"
            )
        accounts.append((email, password))
    if not accounts:
        raise ValueError(f"{where} holds no account: give a line with e-mail, space, password")
    return accounts


def main() -> int:
    """Entry point."""
    made = parser()
    given = made.parse_args()
    database_url = given.database_url or os.environ.get(DATABASE_VARIABLE, "")
    if given.database_url and "@" in given.database_url:
        made.error(f"--database-url: everybody can read it there; set {DATABASE_VARIABLE} instead")
    if given.until_over and given.marks is None:
        made.error("--until-faults-are-over: give --marks, the file that they are written into")
    try:
        accounts = read_accounts(given.accounts_file)
    except ValueError as error:
        made.error(str(error))
    options = Options(
        url=given.url.rstrip("/"),
        inbox_key=given.inbox,
        accounts=accounts,
        visitors=given.visitors,
        agents=given.agents,
        rate=given.rate,
        seconds=given.seconds,
        settle_seconds=given.settle,
        seed=given.seed if given.seed is not None else secrets.randbits(32),
        habits=Habits(given.duplicate, given.abort, given.poll),
        database_url=database_url,
        mine=given.mine,
    )
    if problems := options.problems():
        made.error("; ".join(problems))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    bar = report.ProgressBar()

    def phase_began(phase: str) -> None:
        if given.marks is not None:
            Marks(given.marks).add(f"the cast is {phase}", phase=phase)

    def must_go_on() -> bool:
        return given.until_over and Marks(given.marks).phase_began(OVER) is None

    run = Run(options, bar, phase_began=phase_began, must_go_on=must_go_on)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            result = runner.run(run.carry_out())
    except (TargetRefused, Unreachable, TruthUnknown) as error:
        bar.end()
        print(error, file=sys.stderr)
        return NOT_RUN
    except KeyboardInterrupt:
        bar.end()
        print("stopped before the comparison: nothing is proved", file=sys.stderr)
        return NOT_RUN
    bar.end()
    told = report.write(given.out, options, result, report.read_marks(given.marks))
    print(report.table(told))
    print(f"written: {given.out}/ledger.json, ledger.svg, acknowledged.tsv (seed {options.seed})")
    return CLEAN if result.verdict.clean else NOT_CLEAN


if __name__ == "__main__":
    sys.exit(main())
