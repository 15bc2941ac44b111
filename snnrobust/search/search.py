"""`snnrobust search`: proposes trials, has them run like the runs of a sweep, and shows the Pareto front."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from snnrobust.building import instantiate
from snnrobust.console import stdout
from snnrobust.job import SEARCH, Job, failure_of, results_of
from snnrobust.launch import spelt_out, split
from snnrobust.launchers.base import Launcher, Task
from snnrobust.launchers.local import Local
from snnrobust.placement import placement
from snnrobust.schema import ConfigError
from snnrobust.search import findings
from snnrobust.search.asked import Asked, asked
from snnrobust.search.findings import Found
from snnrobust.search.objectives import Missing, means
from snnrobust.search.study import Study, Trial
from snnrobust.sweeping import say, sweep


def search(arguments: Sequence[str]) -> int:
    """Searches, or goes on where the same command was interrupted.

    Returns:
        0 if no trial failed; 1 if one did, after a line for each.

    Raises:
        ConfigError: before the first run, if a setting of the search, its space or a corner of it is not in order.
    """
    flags, typed = split(arguments)
    if flags:
        raise ConfigError(f"{flags[0]}: a search is many runs by itself; allowed: no flag but --help")
    if placement() is not None:
        raise ConfigError("search: these processes do one run together; allowed: a search without torchrun")
    request = asked(spelt_out(typed))
    launcher: Launcher = instantiate("launcher", request.launcher)
    if request.settings.batch == 1 and request.settings.over_seeds is None and not isinstance(launcher, Local):
        say("one run at a time, whatever the launcher; with search.batch=N, N trials are run together")
    study = Study(request.folder, request.settings, request.space)
    try:
        found = _record(request, study)
        while batch := study.ask():
            _run(request, study, launcher, batch)
            found = _record(request, study)
    finally:
        study.close()
    return _told(request, found)


def _run(request: Asked, study: Study, launcher: Launcher, batch: Sequence[Trial]) -> None:
    """Has the runs of some trials done and tells the study of each."""
    jobs: dict[int, tuple[Job, ...]] = {}
    for trial in batch:
        try:
            jobs[trial.number] = request.jobs(trial.values)
        except ConfigError as error:
            _fail(study, trial, " ".join(str(error).split()))
    going = [trial for trial in batch if trial.number in jobs]
    sweep([Task(_name(request, trial, job), job) for trial in going for job in jobs[trial.number]], launcher)
    for trial in going:
        _tell(request, study, trial, jobs[trial.number])


def _tell(request: Asked, study: Study, trial: Trial, jobs: Sequence[Job]) -> None:
    results = [results_of(job) for job in jobs]
    there = [found for found in results if found is not None]
    if len(there) < len(jobs):  # the sweep has said so
        failed = jobs[results.index(None)]
        study.tell_failed(trial.number, str(failure_of(failed)))
        return
    names = request.settings.objectives
    try:
        objectives = means(names, there)
    except Missing as error:
        _fail(study, trial, str(error))
        return
    study.tell(trial.number, objectives)
    print(f"trial {trial.number}: {findings.line(request.settings, objectives)}", flush=True)


def _fail(study: Study, trial: Trial, error: str) -> None:
    study.tell_failed(trial.number, error)
    say(f"trial {trial.number} failed: {error}")


def _name(request: Asked, trial: Trial, job: Job) -> str:
    """`[7] weight=0.0031 seed=2`: the number of a trial, its words, and which of its runs this is."""
    seed = [f"seed={job.config['seed']}"] if request.settings.over_seeds is not None else []
    own = (
        (word.partition("=")[0].rpartition(".")[2], word.partition("=")[2]) for word in request.space.own(trial.values)
    )
    return " ".join([f"[{trial.number}]", *(f"{key}={value}" for key, value in own), *seed])


def _record(request: Asked, study: Study) -> list[Found]:
    """Writes `search.json`."""
    with study.alone():  # another process may know less, and must not write later
        trials = study.trials()
        jobs = {trial.number: _known(request, trial) for trial in trials}
        found = findings.judged(trials, jobs, request.settings)
        findings.write(request.folder, request.settings, request.space, found)
    return found


def _known(request: Asked, trial: Trial) -> tuple[Job, ...]:
    """The runs of a trial; none where its values do not go together, which is why it failed."""
    try:
        return request.jobs(trial.values)
    except ConfigError:
        return ()


def _told(request: Asked, found: Sequence[Found]) -> int:
    """Shows the front, and what failed."""
    states = Counter(one.trial.state for one in found)
    if states["done"]:
        stdout().print(findings.table(request.settings, request.space, found))
        print("Pareto front on validation data; on test data, which chose nothing, the same runs beside it")
    print(f"{len(found)} trials: " + ", ".join(f"{number} {state}" for state, number in states.items()))
    print(f"trials: {request.folder / SEARCH}")
    for one in found:
        if one.trial.state == "failed":
            say(f"snnrobust: trial {one.trial.number}: {one.trial.error}")
    return 1 if states["failed"] else 0
