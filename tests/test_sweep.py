"""Sweeps: what is refused before any job, what a job tells, what is done once and never again, and how they rank."""

from __future__ import annotations

import math
import pickle
import shlex
import signal
import subprocess
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import yaml
from conftest import REPOSITORY, Project, make_project
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig

from retrain.commands import adopt, candidate, sweep, sweep_progress, sweep_ranking, sweep_summary
from retrain.commands.candidate import Candidate, CandidateRecord
from retrain.commands.sweep_runs import FRESH, GIVEN, JOB_TAG, PARENT, job_name
from retrain.config import compose, compose_raw, parse_overrides, to_yaml
from retrain.errors import ConfigError, RetrainError
from retrain.gate.estimates import Estimate
from retrain.registry.names import fit_text
from retrain.registry.processes import PROCESS, end_abandoned, this_process
from retrain.registry.store import CANDIDATES, Store, ensure_experiment, open_store


@pytest.fixture
def as_job(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As a launcher calls it: in the project's root, with Hydra's settings and the parent run's id around it."""
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(
        sweep.Sweep, "of_environment", lambda store: sweep.Sweep(store, "0", "none")
    )
    monkeypatch.setattr(sweep.Sweep, "known", lambda *_: None)
    monkeypatch.setattr(sweep, "open_store", lambda config: None)
    before = HydraConfig.instance().cfg
    yield
    HydraConfig.instance().cfg = before


def value_of_a_job(overrides: list[str], metrics: dict[str, float] | Exception) -> float:
    def train(config: object, overrides: list[str], *more: object) -> Candidate:
        if isinstance(metrics, Exception):
            raise metrics
        return Candidate("run", metrics, 1.0)

    raw = compose_raw(Path("conf"), overrides)
    HydraConfig.instance().set_config(raw)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(candidate, "train", train)
        return sweep.job(raw)


@pytest.mark.parametrize(
    ("metric", "value", "told"),
    [("log_loss", 0.4, 0.4), ("roc_auc", 0.8, -0.8), ("f1", 0.6, -0.6), ("brier", 0.2, 0.2)],
)
def test_the_value_of_a_job_is_lower_when_the_model_is_better(
    as_job: None, metric: str, value: float, told: float
) -> None:
    assert value_of_a_job([f"data.metric={metric}"], {metric: value}) == told


class Odd(Exception):
    """One that can't be carried to another process, as some libraries' can't."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


def test_a_failed_job_raises_what_every_launcher_can_carry(as_job: None) -> None:
    with pytest.raises(RetrainError, match=r"candidate: Odd: first and second") as error:
        value_of_a_job([], Odd("first", "second"))
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)
    assert error.value.__context__ is None, "Dask and others pickle it along"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "model.estimator.alpha=interval(0.1,1)",
            ["interval(0.1,1)", "range(...)", "hydra/sweeper=optuna"],
        ),
        ("model=dummy,rigde", ["model=rigde", "dummy", "ridge"]),
        ("model=dummy,choice(a)", ["can't be listed"]),
        ("experiment=shrot,short", ["experiment=shrot", "names no file"]),
        ("experiment=null,short", ["can't choose null", "conf/experiment/none.yaml"]),
        ("strategy=choice(full,ful)", ["strategy=ful", "sliding_window"]),
    ],
)
def test_a_sweep_that_can_not_run_is_refused_before_its_first_job(
    override: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises(ConfigError) as error:
        sweep.run([override])
    for word in words:
        assert word in str(error.value)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a snapshot of two months and no run. Shared: copy it."""
    made = make_project(tmp_path_factory.mktemp("sweeps") / "project")
    made.arrive("2013-01", "2013-02")
    made.run("retrain", "snapshot")
    return made


@pytest.fixture
def here(prepared: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy of it that this process works in."""
    copy = prepared.copy(tmp_path / "project")
    monkeypatch.chdir(copy.root)
    monkeypatch.setattr(sys, "argv", sys.argv)
    for name in (PARENT, GIVEN, FRESH, "HYDRA_FULL_ERROR"):
        monkeypatch.setenv(name, "")  # so that what the sweep sets ends with the test
    return copy


def runs_of(project: Project, kind: str = "candidate") -> list:
    client = project.client()
    experiment = client.get_experiment_by_name("slice-candidates").experiment_id
    return client.search_runs([experiment], f"tags.kind = '{kind}'")


def test_the_same_sweep_again_runs_only_what_failed_or_is_missing(here: Project) -> None:
    overrides = ["model=logistic_regression", "model.estimator.C=1,-1"]
    for tries in (1, 2):
        with pytest.raises(RetrainError, match="of the sweep failed"):
            sweep.run(overrides)
        statuses = sorted(run.info.status for run in runs_of(here))
        assert statuses == ["FAILED"] * tries + ["FINISHED"]
    (parent,) = runs_of(here, "sweep")
    assert parent.info.status == "FAILED" and parent.data.tags["best"] == job_name(
        [overrides[0], "model.estimator.C=1"]
    )


def test_a_finished_sweep_again_composes_no_job_and_an_equal_job_of_another_is_known(
    here: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep.run(["model=dummy,logistic_regression"])
    first = capsys.readouterr().out
    before = {run.info.run_id for run in runs_of(here)}
    with monkeypatch.context() as patched:
        patched.setattr(sweep, "_multirun", lambda _: pytest.fail("Hydra was asked"))
        sweep.run(["model=dummy,logistic_regression"])
    assert first.endswith(capsys.readouterr().out), "ranked as before"
    assert {run.info.run_id for run in runs_of(here)} == before

    here.edit("conf/model/dummy.yaml", "\n", "\n# only a comment\n")
    sweep.run(["model=dummy", "seed=20130101,7"])  # the seed of conf/
    linked = [run for run in runs_of(here) if "known_from" in run.data.tags]
    assert [run.info.run_name for run in linked] == ["model=dummy seed=20130101"]
    (old,) = [run for run in runs_of(here) if run.info.run_id == linked[0].data.tags["known_from"]]
    assert old.info.run_name == "model=dummy" and old.data.metrics == linked[0].data.metrics

    sweep.run(["model=dummy,logistic_regression"], fresh=True)
    fresh = max(runs_of(here, "sweep"), key=lambda run: run.info.start_time).info.run_id
    again = [run for run in runs_of(here) if run.data.tags["mlflow.parentRunId"] == fresh]
    assert len(again) == 2 and not [run for run in again if "known_from" in run.data.tags]
    assert len(runs_of(here, "sweep")) == 3


def test_the_parent_run_holds_command_space_table_and_plots_and_a_job_that_fits_no_key_is_a_row(
    here: Project,
) -> None:
    overrides = ["model=dummy", "seed=1,2", "data.name='a \"b\" % 模',slice"]
    with pytest.raises(
        RetrainError, match=r"2 job\(s\) of the sweep failed.*registered_model"
    ) as raised:
        sweep.run(overrides)
    assert "hint:" not in raised.value.message and "GlobalHydra" not in raised.value.message
    (parent,) = runs_of(here, "sweep")
    assert shlex.split(parent.data.tags["overrides"]) == overrides
    space = dict(one.split("=", 1) for one in overrides[1:])
    assert parent.data.params == space
    stored = Path(parent.info.artifact_uri)
    assert yaml.safe_load((stored / "sweep.yaml").read_text()) == {
        "overrides": overrides,
        "space": space,
    }
    assert (stored / "summary.md").is_file() and (stored / "plots/history.svg").is_file()
    statuses = sorted(run.info.status for run in runs_of(here))
    assert statuses == ["FAILED"] * 2 + ["FINISHED"] * 2


def test_a_sweep_that_ends_before_any_job_prints_no_table(
    here: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="gone"):
        sweep.run(["model.estimator.gone=1,2"])
    assert "Candidates on" not in capsys.readouterr().out


def test_an_error_on_one_line_has_its_hint_in_brackets() -> None:
    assert candidate.one_line(ConfigError("a: 1\nis odd.", hint="mend a")) == "a: 1 is odd (mend a)"
    assert candidate.one_line(ValueError("odd")) == "ValueError: odd"
    assert candidate.one_line(KeyboardInterrupt()) == "KeyboardInterrupt"


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=a,b", "seed=1"],
        ["seed=range(1,3)", "data.name='a b',c"],
        ["+strategy.batches=1,2", "~policy", "++seed=choice(3,4)"],
    ],
)
def test_jobs_are_called_as_hydra_calls_them(overrides: list[str]) -> None:
    plain, parsed = compose_raw(REPOSITORY / "conf").hydra.sweeper, parse_overrides(overrides)
    (listed,) = BasicSweeper.split_arguments(parsed, None)
    assert sweep.list_jobs(parsed, plain) == [list(job) for job in listed]


SLOW = """
import time
from sklearn.dummy import DummyClassifier

class Slow(DummyClassifier):
    def fit(self, *arguments, **more):
        time.sleep(300)
"""


def test_a_stopped_and_a_killed_sweep_leave_no_run_running_and_go_on(here: Project) -> None:
    (here.root / "src/project/slow.py").write_text(SLOW)
    overrides = [
        "model=dummy",
        "model.estimator._target_=sklearn.dummy.DummyClassifier,project.slow.Slow",
    ]

    def interrupt(number: int) -> tuple[int, str]:
        command = [str(Path(sys.executable).with_name("retrain")), "train", "-m", *overrides]
        process = subprocess.Popen(
            command, cwd=here.root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        deadline = time.monotonic() + 120
        while not slow_running():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.3)
        process.send_signal(number)
        return process.wait(), process.stdout.read()

    def slow_running() -> bool:
        if not (here.root / "mlflow.db").exists() or not here.client().get_experiment_by_name(
            "slice-candidates"
        ):
            return False
        return any(
            "Slow" in run.info.run_name
            and run.info.status == "RUNNING"
            and "candidate" in run.data.tags
            for run in runs_of(here)
        )

    code, said = interrupt(signal.SIGINT)
    assert code == 130 and "goes on from there: retrain train -m model=dummy" in said
    (parent,) = runs_of(here, "sweep")
    assert parent.info.status == "KILLED"
    assert sorted(run.info.status for run in runs_of(here)) == ["FINISHED", "KILLED"]
    finished = {run.info.run_id for run in runs_of(here) if run.info.status == "FINISHED"}

    interrupt(signal.SIGKILL)
    assert [run.info.status for run in runs_of(here, "sweep")] == ["RUNNING"]
    assert {run.info.run_id for run in runs_of(here) if run.info.status == "FINISHED"} == finished
    sweep.run(["model=dummy"])
    statuses = [run.info.status for run in [*runs_of(here), *runs_of(here, "sweep")]]
    assert sorted(statuses) == ["FINISHED"] * 3 + ["KILLED"] * 3


def test_runs_of_ended_processes_of_this_machine_are_ended(store: Store) -> None:
    experiment, _ = ensure_experiment(store, store.experiment + CANDIDATES)
    host, number, started = this_process().rsplit(" ", 2)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    tags = {
        "this process": this_process(),
        "another machine": f"elsewhere {number} {started}",
        "no tag": "",
        "ended": f"{host} {ended.pid} {started}",
        "same number, another process": f"{host} {number} {float(started) - 1000:.0f}",
        "another process": f"{host} {psutil.Process().ppid()} {psutil.Process(psutil.Process().ppid()).create_time():.0f}",
    }
    made = {
        name: store.client.create_run(experiment, tags={PROCESS: tag}).info.run_id
        for name, tag in tags.items()
    }
    end_abandoned(store)
    killed = {
        name for name, run in made.items() if store.client.get_run(run).info.status == "KILLED"
    }
    assert killed == {"ended", "same number, another process"}


def ranked_by(
    monkeypatch: pytest.MonkeyPatch, metric: str, *losses: list[float]
) -> list[Estimate | None]:
    """Distances from the first of candidates with these losses in blocks of one row each."""
    runs = []
    for number, blocks in enumerate(np.array(losses)):
        means = [blocks.mean(), *(np.delete(blocks, one).mean() for one in range(len(blocks)))]
        record = CandidateRecord([], metric, "rows", means)
        data = SimpleNamespace(metrics={f"{metric}/validation": means[0]}, tags={})
        info = SimpleNamespace(status="FINISHED", run_name=str(number), run_id=str(number))
        runs.append(SimpleNamespace(data=data, info=info, record=record))
    monkeypatch.setattr(sweep_ranking, "read_record", lambda run: run.record)
    return [one.behind for one in sweep_ranking.rank(runs, metric)]


def test_the_distance_from_the_first_is_that_of_pairs_by_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draw = np.random.default_rng(5)
    better = draw.normal(1, 5, 20)  # blocks differ by far more than models do
    worse = better + draw.normal(0.5, 0.1, 20)
    first, second = ranked_by(monkeypatch, "mae", worse.tolist(), better.tolist())
    gaps = worse - better
    assert first is None and second is not None
    assert second.value == pytest.approx(gaps.mean())
    assert second.standard_error == pytest.approx(gaps.std(ddof=1) / math.sqrt(20))
    assert second.interval()[0] > 0


def test_more_is_better_is_ranked_the_other_way_and_other_rows_have_no_distance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = ranked_by(monkeypatch, "r2", [0.1, 0.2, 0.1], [0.9, 0.8, 0.7])
    assert first is None and second is not None and second.value == pytest.approx(2.0 / 3)
    one = CandidateRecord([], "mae", "rows", [1.0, 1.0, 1.0])
    other = CandidateRecord([], "mae", "other rows", [1.0, 1.0, 1.0])
    assert sweep_ranking._behind(one, other, "mae") is None
    assert (
        sweep_ranking._behind(one, CandidateRecord([], "mae", "rows", [1.0, None, 1.0]), "mae")
        is None
    )


def test_progress_counts_what_is_done_in_this_call_and_is_silent_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(
        status: str, value: float | None = None, end: float = 0, **tags: str
    ) -> SimpleNamespace:
        metrics = {} if value is None else {"r2/validation": value}
        info = SimpleNamespace(status=status, end_time=end * 1000)
        return SimpleNamespace(info=info, data=SimpleNamespace(metrics=metrics, tags=tags))

    lines: list[str] = []
    monkeypatch.setattr(sweep_progress, "EVERY_SECONDS", 0.01)
    monkeypatch.setattr(sweep_progress.log, "info", lambda form, line: lines.append(line))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    now = time.time() + 5
    children = [
        run("FINISHED", 0.5),
        run("FAILED", end=now - 100),
        run("FINISHED", 1.0, champion="2"),
    ]
    looked = threading.Event()

    def look() -> list[SimpleNamespace]:
        looked.set()
        return list(children)

    watched = SimpleNamespace(children=look)
    with sweep_progress.progress(watched, "r2", 5, None):
        children.append(run("FINISHED", 0.4))
        assert not looked.wait(0.1)
    children.pop()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("CI", raising=False)
    with sweep_progress.progress(watched, "r2", None, 3):
        assert looked.wait(120)
        time.sleep(0.1)
        deadline = time.monotonic() + 60
        children += [run("FINISHED", 0.7), run("FAILED", end=now), run("RUNNING")]
        while not lines and time.monotonic() < deadline:
            time.sleep(0.01)
    assert lines[-1].startswith("3 of 4 jobs done, 1 failed, best r2 0.7000, about ")


def test_jobs_whose_long_names_begin_alike_are_all_ranked(here: Project) -> None:
    store = open_store(compose(Path("conf")))
    experiment, _ = ensure_experiment(store, store.experiment + CANDIDATES)
    opened = sweep.Sweep(store, experiment, "a parent", "given")
    same = " ".join(f"model.estimator.some_parameter_{number}=1" for number in range(20))
    names = [f"{same} seed={seed}" for seed in (1, 2, 2)]
    for name in names:
        tags = {"mlflow.parentRunId": "a parent", JOB_TAG: opened.job_tag(name)}
        store.client.create_run(experiment, run_name=fit_text(name), tags=tags)
    assert len({fit_text(name) for name in names}) == 1
    assert len(opened.children()) == 2, "one for each job, not for each try"


@pytest.fixture(scope="module")
def unchanged(prepared: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy that no test changes, with one store for all of them."""
    return prepared.copy(tmp_path_factory.mktemp("refused") / "project")


@pytest.fixture
def refused(unchanged: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Works in that copy, and sees to it that nothing under conf/ was written."""
    monkeypatch.chdir(unchanged.root)
    before = conf_texts()
    yield
    assert conf_texts() == before


def conf_texts() -> dict[Path, str]:
    return {path: path.read_text() for path in Path("conf").rglob("*.yaml")}


def test_adopting_writes_what_made_the_candidate_and_keeps_every_comment(
    here: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ["model=logistic_regression", "model.estimator.C=0.5", "seed=7", "gate=superiority"]
    wanted = compose(Path("conf"), overrides[:3])
    candidate.run(compose(Path("conf"), overrides), overrides)
    (run,) = runs_of(here)
    before = conf_texts()
    adopt.run(compose(Path("conf")), Namespace(run=run.info.run_id))
    assert to_yaml(compose(Path("conf"))) == to_yaml(wanted), "the gate is no part of a candidate"
    changed = {path.name: path for path, text in conf_texts().items() if text != before[path]}
    assert set(changed) == {"config.yaml", "logistic_regression.yaml"}
    for path in changed.values():
        old, new = before[path].splitlines(), path.read_text().splitlines()
        assert [line.partition("#")[2] for line in old] == [line.partition("#")[2] for line in new]
    shown = capsys.readouterr().out
    assert "+seed: 7" in shown and "-seed: 20130101" in shown and "not exactly" not in shown
    adopt.run(compose(Path("conf")), Namespace(run=run.info.run_id))
    assert "nothing to write" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.estimator._target_=os.system"], "os.system"),
        (["model.estimator={_target_: subprocess.run, args: [ls]}"], "subprocess.run"),
        (["model.estimator.learning_rate=${oc.env:HOME}"], "refers to another value"),
        (["model.estimator.gone=1"], "gone"),
        (["model=gone"], "names no file"),
        (["~model.estimator.max_iter"], "takes away a key"),
        (["+model.estimator.max_dept=3"], "max_dept"),
        (["evaluation.share_of_newest_batch=-1"], "share_of_newest_batch"),
        (["experiment={"], "can't be read|can't be composed|names no file"),
    ],
)
def test_what_the_store_says_is_checked_before_anything_is_written(
    refused: None, overrides: list[str], words: str
) -> None:
    made = stored_run(overrides)
    with pytest.raises(RetrainError, match=words):
        adopt.run(compose(Path("conf")), Namespace(run=made))


def stored_run(
    overrides: list[str],
    status: str = "FINISHED",
    kind: str = "candidate",
    suffix: str = CANDIDATES,
) -> str:
    store = open_store(compose(Path("conf")))
    experiment, _ = ensure_experiment(store, store.experiment + suffix)
    run = store.client.create_run(experiment, tags={"kind": kind}).info.run_id
    record = CandidateRecord(overrides, "log_loss", "rows", [1.0, 1.0])
    store.client.log_dict(run, record.content(), candidate.RECORD)
    store.client.set_terminated(run, status)
    return run


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"status": "FAILED"}, "did not finish well"),
        ({"kind": "sweep"}, "a whole sweep"),
        ({"suffix": "-of-another-project"}, "another experiment"),
        (None, "There is no run"),
    ],
)
def test_only_a_finished_candidate_of_this_project_is_adopted(
    refused: None, made: dict[str, str] | None, words: str
) -> None:
    run = stored_run(["seed=7"], **made) if made else "0" * 32
    with pytest.raises(RetrainError, match=words):
        adopt.run(compose(Path("conf")), Namespace(run=run))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a.rate=0.02067645079634861 ++b=150", "a.rate=0.02068 ++b=150"),
        ("a.rate=1.234567e-05", "a.rate=1.235e-05"),
        ("a=-0.123456 b=0.05", "a=-0.1235 b=0.05"),
        ("data.name='1.234567 %' seed=1.234567x", "data.name='1.234567 %' seed=1.234567x"),
    ],
)
def test_long_numbers_of_a_search_are_shown_short(name: str, shown: str) -> None:
    run = SimpleNamespace(info=SimpleNamespace(run_name=name))
    assert sweep_ranking.Ranked(run, 0.5).shown == shown


@pytest.mark.parametrize(
    ("shared", "name", "shown"),
    [
        (("a=1",), "a=1 b=2 c=a=1", "b=2 c=a=1"),
        (("b=2", "+c='x y'"), "a=1 b=2 +c='x y'", "a=1"),
        (("a.b=[1]",), "aab=[1] a.b=[1] a.b=[1]2", "aab=[1] a.b=[1]2"),
    ],
)
def test_what_all_jobs_share_is_not_shown_of_each(
    shared: tuple[str, ...], name: str, shown: str
) -> None:
    run = SimpleNamespace(info=SimpleNamespace(run_name=name))
    assert sweep_ranking.Ranked(run, 0.5, shared=shared).shown == shown


def test_ranks_beside_each_other_are_named_together() -> None:
    assert sweep_summary._ranges([2, 3, 4, 7, 9, 10]) == "2 to 4, 7, 9 to 10"
    assert sweep_summary._ranges([5]) == "5"
