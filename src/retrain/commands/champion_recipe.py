"""The champion's recipe as a candidate: what the jobs of a sweep have to beat."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

from retrain.commands.candidate import DIGEST_TAG
from retrain.config import Config, read_resolved, to_container
from retrain.data.manifest import read_manifest
from retrain.errors import RetrainError, StoreError
from retrain.lazy import mlflow
from retrain.models.digests import candidate_digest
from retrain.own_code import code_digests
from retrain.registry.entries import current_champion, training_of
from retrain.registry.ledger import Ledger
from retrain.registry.runs import CONFIG, read_artifact
from retrain.registry.store import LEDGER, Store
from retrain.registry.versions import get_version, training_run
from retrain.workspace import SNAPSHOT

log = logging.getLogger("retrain")
CHAMPION = "RETRAIN_SWEEP_CHAMPION"  # tells a job that it is this one, and what it is called


@dataclass(frozen=True)
class ChampionRecipe:
    """Model, strategy and seed of the champion in today's configuration.

    Attributes
    ----------
    digest
        Of the candidate that it makes.
    """

    version: int
    config: Config
    digest: str

    @property
    def name(self) -> str:
        """What its run is called."""
        return f"recipe of version {self.version}"

    def is_of(self, run: mlflow.entities.Run) -> bool:
        """Whether a candidate's run has this recipe."""
        return run.data.tags.get(DIGEST_TAG) == self.digest


def find_recipe(store: Store, config: Config) -> ChampionRecipe | None:
    """None without a champion, and, with a warning, for one whose recipe can't be had."""
    if store.client.get_experiment_by_name(store.registered_model + LEDGER) is None:
        return None  # to open it would make one
    try:
        return read_recipe(store, config)
    except (RetrainError, mlflow.exceptions.MlflowException, OSError) as error:
        log.warning("The champion's recipe is not compared with: %s", error)
        return None


def read_recipe(store: Store, config: Config) -> ChampionRecipe | None:
    """None without a champion. Raises StoreError where its run does not hold what the ledger
    recorded: what that names would be executed."""
    entries = Ledger.open(store).entries()
    champion = current_champion(entries)
    if champion is None or champion.champion is None:
        return None
    version = champion.champion
    run_id = str(training_run(store, get_version(store, version)))
    entry = training_of(entries, run_id)
    text = read_artifact(store.client.get_run(run_id).info.artifact_uri, CONFIG)
    if entry is None or hashlib.sha256(text).hexdigest() != entry.run_config:
        raise StoreError(f"{CONFIG} of version {version} is not known to the ledger.")
    then = read_resolved(text.decode(), f"{CONFIG} of version {version}")
    trusted = list(dict.fromkeys([*config.trusted_types, *then.trusted_types]))
    mixed = dataclasses.replace(
        config, model=then.model, strategy=then.strategy, seed=then.seed, trusted_types=trusted
    )
    mixed.code = code_digests(to_container(mixed), Path())
    return ChampionRecipe(version, mixed, candidate_digest(mixed, read_manifest(SNAPSHOT).digest))
