"""What a sweep does with what launchers report, and with what they do not report."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace

import pytest

from snnrobust import sweeping
from snnrobust.claims import Claim
from snnrobust.job import FAILURE, RESULTS, TRAINING_LOCK, read_json
from snnrobust.launch import launch, read
from snnrobust.launchers.base import Launcher, Outcome, Task
from snnrobust.planning import state_of
from snnrobust.sweeping import ATTEMPTS, sweep
from tests.unit.launched import record, tasks


@dataclass(frozen=True)
class Scripted(Launcher):
    """Does what the test says of each task, by its place in the sweep and the number of its start.

    `record` leaves results and reports them; `fail`; `busy`; `kill` begins and ends this and all later ones of the
    round; `skip` reports nothing and begins nothing.
    """

    script: dict[int, list[str]]
    all: Sequence[Task]
    rounds: list[list[int]] = field(default_factory=list)

    def launch(self, tasks: Sequence[Task]) -> Generator[tuple[int, Outcome], None, None]:
        places = [[t.name for t in self.all].index(task.name) for task in tasks]
        self.rounds.append(places)
        for at, (place, task) in enumerate(zip(places, tasks, strict=True)):
            said = self.script[place].pop(0) if self.script.get(place) else "record"
            if said == "kill":
                with Claim(task.job.home / TRAINING_LOCK) as claim:
                    claim._file.write(f"start {len(self.rounds)}")  # every process has another number
                return
            if said == "record":
                record(task)
                yield at, Outcome("done", f"{task.name}: done")
            elif said != "skip":
                yield at, Outcome("failed" if said == "fail" else "busy", f"{said} {place}")


def scripted(tmp_path, script, *words):
    wanted = tasks(tmp_path, *(words or ("seed=0,1,2,3",)))
    return wanted, Scripted(script, wanted)


def test_a_failure_does_not_touch_the_others(tmp_path, capsys):
    wanted, launcher = scripted(tmp_path, {1: ["fail"]})
    assert sweep(wanted, launcher) == {1: "fail 1"}
    assert capsys.readouterr().err == "4 of 4 runs to do\nfailed: fail 1\n"
    assert launcher.rounds == [[0, 1, 2, 3]]


def test_what_a_killed_process_took_along_is_launched_again(tmp_path, capsys):
    wanted, launcher = scripted(tmp_path, {1: ["kill"]})
    assert sweep(wanted, launcher) == {}
    assert launcher.rounds == [[0, 1, 2, 3], [1, 2, 3]]
    assert "a process was killed; 3 runs are still to do" in capsys.readouterr().err


def test_a_run_that_always_kills_its_process_fails_in_the_end_and_alone(tmp_path):
    wanted, launcher = scripted(tmp_path, {0: ["kill"] * 9})
    failures = sweep(wanted, launcher)
    (failure,) = failures.values()
    assert "its process was killed 3 times" in failure
    assert launcher.rounds == [[0, 1, 2, 3], [0, 1, 2, 3], [1, 2, 3], [0]]
    assert "killed" in (read_json(wanted[0].job.folder / FAILURE) or {})["error"]
    assert [state_of(task.job)[0] for task in wanted] == ["failed", "done", "done", "done"]


def test_runs_that_were_not_begun_are_not_counted_as_killed(tmp_path):
    wanted, launcher = scripted(tmp_path, {2: ["skip"] * (ATTEMPTS + 2)})
    assert sweep(wanted, launcher) == {}
    assert launcher.rounds[-1] == [2]


def test_a_run_of_another_process_is_waited_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sweeping, "POLL", 0.001)
    wanted, launcher = scripted(tmp_path, {3: ["busy"] * 3})
    assert sweep(wanted, launcher) == {}
    assert launcher.rounds == [[0, 1, 2, 3], [3], [3], [3]]
    assert capsys.readouterr().err == "4 of 4 runs to do\n[4/4] seed=3: busy 3 is at work on it\n"


def test_what_is_on_record_is_shown_and_not_launched(tmp_path, capsys):
    wanted, launcher = scripted(tmp_path, {})
    record(wanted[2])
    assert sweep(wanted, launcher) == {}
    assert launcher.rounds == [[0, 1, 3]]
    assert "[3/4] seed=2: clean 50.0 % (recorded earlier; force=true runs it again)\n" in capsys.readouterr().out


def test_one_run_with_a_launcher_is_a_sweep_of_one(tmp_path, capsys):
    words = [f"runs={tmp_path}", "tracker=none"]
    record(read("config", "train", words).tasks[0])
    assert launch("config", "train", [*words, "launcher=parallel"]) == 0
    shown, count = capsys.readouterr().out.splitlines()
    assert shown == "[1/1]: clean 50.0 % (recorded earlier; force=true runs it again)"
    assert count == "1 run: 1 done, 0 failed"


def test_evaluations_wait_for_the_training_that_they_share(tmp_path):
    wanted, launcher = scripted(tmp_path, {}, "seed=0,1", "threat.eps=0.1,0.2,0.3")
    assert sweep(wanted, launcher) == {}
    assert launcher.rounds == [[0, 3], [1, 2, 4, 5]]


def test_force_trains_once_and_evaluates_all(tmp_path):
    wanted, launcher = scripted(tmp_path, {}, "seed=0,1", "threat.eps=0.1,0.2", "force=true")
    for task in wanted:
        record(task)
    assert sweep(wanted, launcher) == {}
    assert launcher.rounds == [[0, 2], [1, 3]]  # the trainings take the results of all their evaluations away


def test_a_forced_run_that_is_killed_goes_on_where_it_was(tmp_path):
    wanted, launcher = scripted(tmp_path, {0: ["kill"]}, "seed=0,1", "force=true")
    record(wanted[0])
    launched: list[bool] = []

    @dataclass(frozen=True)
    class Watched(Launcher):
        def launch(self, tasks: Sequence[Task]) -> Generator[tuple[int, Outcome], None, None]:
            launched.extend(task.job.config["force"] for task in tasks)
            assert not (wanted[0].job.home / RESULTS).exists()
            yield from launcher.launch(tasks)

    assert sweep(wanted, Watched()) == {}
    assert launched == [False] * 4


def test_force_makes_evaluations_of_saved_weights_again(tmp_path):
    (trained,) = tasks(tmp_path, "seed=0")
    record(trained)
    evaluation = replace(
        trained, job=replace(trained.job, kind="evaluate", checkpoint=trained.job.home / "checkpoint.pt")
    )
    forced = replace(evaluation, job=replace(evaluation.job, config={**evaluation.job.config, "force": True}))
    launcher = Scripted({}, [forced])
    assert sweep([forced], launcher) == {}
    assert launcher.rounds == [[0]]


def test_results_that_a_launcher_reports_but_nobody_finds_are_a_failure(tmp_path):
    @dataclass(frozen=True)
    class Liar(Launcher):
        def launch(self, tasks: Sequence[Task]) -> Generator[tuple[int, Outcome], None, None]:
            yield from ((at, Outcome("done", "done")) for at in range(len(tasks)))

    wanted = tasks(tmp_path, "seed=0,1")
    failures = sweep(wanted, Liar())
    assert len(failures) == 2
    assert all("no results" in failure for failure in failures.values())


@pytest.mark.parametrize(
    ("made", "state"), [("results", "done"), ("claim", "running"), ("failure", "failed"), ("", "todo")]
)
def test_a_plan_says_how_far_a_run_is(tmp_path, made, state):
    (task,) = tasks(tmp_path, "seed=0")
    assert state_of(task.job)[0] == "todo"
    if made == "results":
        record(task)
    if made == "failure":
        sweep([replace(task)], Scripted({0: ["kill"] * 3}, [task]))
    if made == "claim":
        with Claim(task.job.home / TRAINING_LOCK):
            assert state_of(task.job)[0] == state
    else:
        assert state_of(task.job)[0] == state
