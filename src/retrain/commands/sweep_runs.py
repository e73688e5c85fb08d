"""The runs of a sweep in the tracking store: the parent, its children, and what is known from
before."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shlex
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrain.commands.candidate import DIGEST_TAG, RECORD, CandidateRecord
from retrain.config import Config, to_yaml
from retrain.data.manifest import read_manifest
from retrain.lazy import mlflow
from retrain.masking import mask_tree
from retrain.models.digests import candidate_digest
from retrain.own_code import digest_files, engine_digest
from retrain.registry.names import LONGEST_TAG, fit_name, fit_text
from retrain.registry.processes import PROCESS, this_process
from retrain.registry.runs import CONFIG, masked_tags, read_artifact
from retrain.registry.store import SUBMITTED_FROM, Store
from retrain.workspace import SNAPSHOT

# They reach the jobs of every launcher through the environment: the parent run, what stands for
# conf/, code and snapshot, and whether runs of other sweeps count.
PARENT, GIVEN, FRESH = "RETRAIN_SWEEP_RUN", "RETRAIN_SWEEP_GIVEN", "RETRAIN_SWEEP_FRESH"
SWEEP_TAG, JOB_TAG, KNOWN_TAG = "sweep", "job", "known_from"
# How a sweep is run, and not what it tries: the same sweep goes on with another launcher.
HOW = ("hydra.launcher", "hydra/launcher", "hydra.sweeper.n_jobs", "hydra.sweeper.n_trials")
ADDED_TAG = "champion"  # version whose recipe a run has that no override of the sweep made
MOST_RUNS = 50_000  # in one answer of MLflow
# Of a run that is known from before.
COPIED = (DIGEST_TAG, "kind", "model", "strategy", "snapshot", "validation_window", "git_commit")


@dataclass(frozen=True)
class Sweep:
    """An open parent run.

    Attributes
    ----------
    given
        Digest of all but the overrides that a job's result depends on.
    fresh
        Whether runs of other sweeps don't count.
    """

    store: Store
    experiment: str
    parent: str
    given: str = ""
    fresh: bool = False

    @classmethod
    def of_environment(cls, store: Store) -> Sweep:
        """The one that this process does jobs for."""
        parent = os.environ[PARENT]
        experiment = store.client.get_run(parent).info.experiment_id
        given, fresh = os.environ.get(GIVEN, ""), bool(os.environ.get(FRESH))
        return cls(store, experiment, parent, given, fresh)

    def to_environment(self) -> None:
        """Let jobs, in whatever process, find it."""
        os.environ |= {PARENT: self.parent, GIVEN: self.given, FRESH: "yes" if self.fresh else ""}
        os.environ[SUBMITTED_FROM] = socket.gethostname()

    def job_tag(self, name: str) -> str:
        """What the run of a job that has the same result is tagged with."""
        return job_tag(self.given, name)

    def children(self) -> list[mlflow.entities.Run]:
        """One run for each job, oldest first: the finished one, else the newest try."""
        found = self.store.client.search_runs(
            [self.experiment],
            f"tags.mlflow.parentRunId = '{self.parent}'",
            max_results=MOST_RUNS,
            order_by=["attributes.start_time ASC"],
        )
        kept: dict[str, mlflow.entities.Run] = {}
        for run in sorted(found, key=succeeded):
            kept[run.data.tags.get(JOB_TAG, str(run.info.run_name))] = run
        return sorted(kept.values(), key=lambda run: int(run.info.start_time))

    def known(
        self, digest: str, name: str, overrides: Sequence[str], tags: Mapping[str, str]
    ) -> mlflow.entities.Run | None:
        """The child run of a job that has been done, made now where only another sweep did it."""
        query = f"tags.{DIGEST_TAG} = '{digest}' and attributes.status = 'FINISHED'"
        if self.fresh:
            query += f" and tags.mlflow.parentRunId = '{self.parent}'"
        found = self.store.client.search_runs([self.experiment], query)
        for run in found:
            parent = run.data.tags.get("mlflow.parentRunId")
            if parent == self.parent and run.info.run_name == fit_text(name):
                return run
        for run in found:
            # One whose files are gone, or not what they were, is fitted again.
            with contextlib.suppress(mlflow.exceptions.MlflowException, OSError, ValueError):
                return self._link(run, name, overrides, tags)
        return None

    def _link(
        self,
        known: mlflow.entities.Run,
        name: str,
        overrides: Sequence[str],
        more: Mapping[str, str],
    ) -> mlflow.entities.Run:
        """A child run with what another sweep found for the same recipe, snapshot and code."""
        client, uri = self.store.client, known.info.artifact_uri
        record = dataclasses.replace(read_record(known), overrides=list(overrides))
        config = read_artifact(uri, CONFIG).decode()
        tags = {key: known.data.tags[key] for key in COPIED if key in known.data.tags}
        tags |= {
            "mlflow.parentRunId": self.parent,
            KNOWN_TAG: known.info.run_id,
            PROCESS: this_process(),
            **more,
        }
        made = client.create_run(self.experiment, run_name=fit_text(name), tags=tags).info.run_id
        now = int(time.time() * 1000)
        metrics = [
            mlflow.entities.Metric(key, value, now, 0) for key, value in known.data.metrics.items()
        ]
        params = [mlflow.entities.Param(key, value) for key, value in known.data.params.items()]
        client.log_batch(made, metrics=metrics, params=params)
        client.log_text(made, config, CONFIG)
        client.log_dict(made, record.content(), RECORD)
        client.set_terminated(made)
        return client.get_run(made)


def job_tag(given: str, name: str) -> str:
    """What stands for a job of a sweep, however long its name is: MLflow cuts that of its run."""
    return _digest([given, name])


def job_name(overrides: Sequence[str]) -> str:
    """What the run of a job is called."""
    return " ".join(overrides) or "candidate"


def open_sweep(
    store: Store,
    experiment: str,
    config: Config,
    overrides: Sequence[str],
    fresh: bool,
    space: Mapping[str, str],
    joint: bool = False,
) -> Sweep:
    """The parent run that the same command on the same project has begun, else a new one, which
    holds overrides and search space; `joint` where several may begin it at the same moment, and
    work on it together."""
    given = _given(config)
    tag = _digest([given, *(one for one in overrides if not one.lstrip("+").startswith(HOW))])
    query = f"tags.kind = 'sweep' and tags.{SWEEP_TAG} = '{tag}'"
    newest = ["attributes.start_time DESC"]
    found = store.client.search_runs([experiment], query, max_results=1, order_by=newest)
    if found and not fresh:
        parent = found[0].info.run_id
        store.client.update_run(parent, status="RUNNING")
        store.client.set_tag(parent, PROCESS, this_process())
    else:
        tags = {"kind": "sweep", SWEEP_TAG: tag, PROCESS: this_process()}
        tags |= {"overrides": fit_text(shlex.join(overrides), LONGEST_TAG)}
        made = store.client.create_run(experiment, run_name="sweep", tags=masked_tags(tags))
        parent = made.info.run_id
        if joint and not fresh:
            parent = _first_of_several(store, experiment, query, parent)
        _store_request(store, parent, overrides, space)
    return Sweep(store, experiment, parent, given, fresh)


def _store_request(
    store: Store, parent: str, overrides: Sequence[str], space: Mapping[str, str]
) -> None:
    """What a sweep was asked for, for reading and for comparing in MLflow."""
    asked = mask_tree({"overrides": list(overrides), "space": dict(space)})
    store.client.log_dict(parent, asked, "sweep.yaml")
    params = [
        mlflow.entities.Param(fit_name(key), fit_text(values, LONGEST_TAG))
        for key, values in asked["space"].items()
    ]
    store.client.log_batch(parent, params=params)


def _first_of_several(store: Store, experiment: str, query: str, own: str) -> str:
    """The parent run that all workers take who began at the same moment."""
    time.sleep(1)  # by then the others' runs are in the store
    query += " and attributes.status = 'RUNNING'"
    order = ["attributes.start_time ASC", "attributes.run_id ASC"]
    found = store.client.search_runs([experiment], query, max_results=1, order_by=order)
    first = str(found[0].info.run_id) if found else own
    if first != own:
        store.client.delete_run(own)
    return first


def digest_of(config: Config) -> str | None:
    """Of a candidate, before anything is read; None without a snapshot."""
    if not SNAPSHOT.is_dir():
        return None
    return candidate_digest(config, read_manifest(SNAPSHOT).digest)


def read_record(run: mlflow.entities.Run) -> CandidateRecord:
    """What a candidate's run keeps. Raises MlflowException, OSError or ValueError where it does
    not."""
    return CandidateRecord.read(json.loads(read_artifact(run.info.artifact_uri, RECORD)))


def succeeded(run: mlflow.entities.Run) -> bool:
    return str(run.info.status) == "FINISHED"


def at_work(run: mlflow.entities.Run) -> bool:
    """Whether another process, perhaps on another machine, may still be at it."""
    return str(run.info.status) == "RUNNING"


def _given(config: Config) -> str:
    """All that a job's result depends on but its overrides, so that a finished sweep is known
    without composing a job of it."""
    root = Path.cwd()
    engine = root / "src" / "retrain"
    code = [path for path in (root / "src").rglob("*.py") if not path.is_relative_to(engine)]
    files = [*code, *(root / "conf").rglob("*.yaml")]
    snapshot = read_manifest(SNAPSHOT).digest
    return _digest([snapshot, to_yaml(config), engine_digest((".",)), digest_files(files, root)])


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(parts)).encode()).hexdigest()[:16]
