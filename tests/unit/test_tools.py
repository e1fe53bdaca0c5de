"""The test runner and the environment builder: what they conclude from what they see."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from tools import environment, run_tests, system_packages

RECAP = """
PLAY RECAP *********************************************************************
app1                       : ok=41   changed=0    unreachable=0    failed=0    skipped=3
db1                        : ok=52   changed={changed}    unreachable=0    failed=0    skipped=9
"""


def test_the_recap_of_a_play_is_read() -> None:
    rows = run_tests.recap(RECAP.format(changed=2))
    assert rows["app1"] == {"ok": 41, "changed": 0, "unreachable": 0, "failed": 0}
    assert rows["db1"]["changed"] == 2


def test_a_changed_second_run_fails_and_names_the_host() -> None:
    run_tests.must_not_change(RECAP.format(changed=0), hosts_at_least=2)
    with pytest.raises(run_tests.StageFailed, match="db1"):
        run_tests.must_not_change(RECAP.format(changed=1), hosts_at_least=2)


def test_a_recap_without_enough_hosts_fails() -> None:
    with pytest.raises(run_tests.StageFailed, match="names 2 hosts"):
        run_tests.must_not_change(RECAP.format(changed=0), hosts_at_least=8)


def stage(run: object) -> run_tests.Stage:
    return run_tests.Stage("sample", "a sample", run)  # type: ignore[arg-type]  # a raising lambda


def leave_out(_: run_tests.Stage) -> None:
    raise run_tests.LeftOut("not root")


def test_a_part_that_cannot_run_is_left_out_at_home_and_fails_in_ci(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_tests, "CI", False)
    home = stage(leave_out)
    run_tests.execute(home, set())
    assert (home.outcome, home.detail) == ("left out", "not root")
    monkeypatch.setattr(run_tests, "CI", True)
    ci = stage(leave_out)
    run_tests.execute(ci, set())
    assert ci.outcome == "FAILED"
    assert "not root" in run_tests.table([home, ci], 1.0)


def test_a_stage_whose_need_failed_is_not_run() -> None:
    needy = run_tests.Stage("b", "needs a", leave_out, needs=("a",))
    run_tests.execute(needy, {"a"})
    assert needy.outcome == "FAILED"
    assert "a did not succeed" in needy.detail


def test_lanes_run_at_the_same_time_and_what_wants_to_be_alone_comes_last() -> None:
    both = threading.Barrier(2, timeout=20)
    order: list[str] = []

    def meet(stage: run_tests.Stage) -> None:
        both.wait()  # neither gets past this without the other
        order.append(stage.name)

    def note(stage: run_tests.Stage) -> None:
        order.append(stage.name)

    def fail(stage: run_tests.Stage) -> None:
        note(stage)
        raise run_tests.StageFailed("broken")

    chosen = [
        run_tests.Stage("prepare", "", lambda _: None),
        run_tests.Stage("left", "", meet),
        run_tests.Stage("late", "", note, after="broken"),
        run_tests.Stage("right", "", meet, lane="machines"),
        run_tests.Stage("broken", "", fail, lane="machines"),
        run_tests.Stage("needy", "", note, lane="machines", needs=("broken",)),
        run_tests.Stage("quick", "", note, lane="alone"),
    ]
    run_tests.run_all(chosen)
    assert sorted(order) == ["broken", "late", "left", "quick", "right"]
    assert order.index("broken") < order.index("late")
    assert order[-1] == "quick"
    outcomes = [stage.outcome for stage in chosen]
    assert outcomes == ["ok", "ok", "ok", "ok", "FAILED", "FAILED", "ok"]


def test_a_step_that_hangs_is_ended(tmp_path: Path) -> None:
    with pytest.raises(run_tests.StageFailed, match="longer than 1 s"):
        run_tests.stream(
            ["sleep", "60"],
            env=dict(os.environ),
            cwd=tmp_path,
            log=tmp_path / "log",
            timeout_seconds=1,
            who="sample",
        )


def test_a_step_keeps_its_output_and_fails_by_its_exit_code(tmp_path: Path) -> None:
    script = "import sys; print('3 passed'); sys.exit(int(sys.argv[1]))"
    common = {"env": dict(os.environ), "cwd": tmp_path, "timeout_seconds": 20, "who": "sample"}
    output = run_tests.stream(
        [sys.executable, "-c", script, "0"],
        log=tmp_path / "log",
        **common,  # type: ignore[arg-type]
    )
    assert output == (tmp_path / "log").read_text() == "3 passed\n"
    with pytest.raises(run_tests.StageFailed, match="code 5"):
        run_tests.stream(
            [sys.executable, "-c", script, "5"],
            log=tmp_path / "log",
            **common,  # type: ignore[arg-type]
        )


def test_package_lists_hold_names_and_the_missing_ones_are_found() -> None:
    packages = system_packages.wanted(["tests", "cluster"])
    assert {"chromium", "redis-server", "lxc"} <= set(packages)
    assert system_packages.missing(["dpkg", "no-such-package-as-this"]) == [
        "no-such-package-as-this"
    ]


def test_missing_packages_without_root_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system_packages, "missing", lambda _: ["redis-server"])
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(system_packages.PackagesMissing, match="sudo apt-get install redis-server"):
        system_packages.install(["tests"])


def test_a_higher_level_holds_the_lower_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "VENV", tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    assert not environment.is_current("app")
    (tmp_path / ".deskline-deploy").write_text(environment.digest("deploy"))
    assert environment.is_current("app")
    assert environment.is_current("deploy")
    assert not environment.is_current("dev")
    (tmp_path / ".deskline-deploy").write_text("of an older lock")
    assert not environment.is_current("app")


def test_a_failed_stage_says_which_tests_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_tests, "RESULTS", tmp_path)
    lines = ["FAILED tests/a.py::test_b - assert 1 == 2", *["passed"] * 50, "the end" + "x" * 1000]
    (tmp_path / "sample.log").write_text("\n".join(lines))
    words = run_tests.last_words(stage(leave_out))
    assert words[0] == "[sample] FAILED tests/a.py::test_b - assert 1 == 2"
    assert words[-1].startswith("[sample] the end")
    assert len(words) < 30
    assert max(map(len, words)) < 400
    (tmp_path / "sample.log").unlink()
    assert run_tests.last_words(stage(leave_out)) == ["[sample] … and at the end:"]
