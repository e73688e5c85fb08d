"""Where a sweep's jobs run: engines that do not answer, and stores that do not reach so far."""

from __future__ import annotations

import os
import shutil

from retrain.commands.sweep_runs import FRESH, GIVEN, PARENT
from retrain.config import Config
from retrain.errors import ConfigError, RetrainError, first_line
from retrain.knock import knock_at_port
from retrain.lazy import omegaconf
from retrain.registry.store import SUBMITTED_FROM, tracking_uri

# What reaches a job through its environment. Slurm and local processes inherit it; the workers of
# a Ray cluster that runs already have the one that they were started with.
TOLD = (PARENT, GIVEN, FRESH, SUBMITTED_FROM)
ENGINES = ("joblib", "ray", "submitit")


def check_launcher(launcher: omegaconf.DictConfig, config: Config) -> None:
    """Raises ConfigError, before any job, where the engine does not answer, or where its machines
    could not write into the tracking store."""
    name, cluster = _name(launcher), _cluster(launcher)
    if name in ("SlurmLauncher", "RayAWSLauncher") or cluster:
        _refuse_one_machine(name, config)
    if name == "SlurmLauncher" and shutil.which("srun") is None:
        raise ConfigError(
            "`hydra/launcher=submitit_slurm`: there is no Slurm here (`srun` is not on the PATH). "
            "No job was run.",
            hint="run the command on a node of the cluster that may submit jobs, or choose "
            "`hydra/launcher=submitit_local`",
        )
    host, _, port = (cluster or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            knock_at_port(host.strip("[]"), int(port))
        except OSError as error:
            raise ConfigError(
                f"The Ray cluster {cluster} does not answer ({error}). No job was run.",
                hint="start it (`ray start --head`), or correct `hydra.launcher.ray.init.address` "
                "(RAY_ADDRESS)",
            ) from error


def launcher_settings(launcher: omegaconf.DictConfig) -> list[str]:
    """What Hydra's launcher needs to know beside the user's own settings."""
    if _name(launcher) != "RayLauncher":
        return []
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    init = "++hydra.launcher.ray.init"
    if _cluster(launcher) is None:
        # Without `local` Ray joins any cluster that runs on this machine, somebody else's too.
        return [f"{init}.address=local", f"{init}.include_dashboard=false"]
    return [f"{init}.runtime_env.env_vars.{key}=${{oc.env:{key}}}" for key in TOLD]


def as_engine_error(error: Exception) -> RetrainError | None:
    """What to show of an engine that was lost on the way; None for any other error."""
    if type(error).__module__.partition(".")[0] not in ENGINES and not isinstance(
        error, ConnectionError
    ):
        return None
    return RetrainError(
        f"What runs the jobs was lost: {first_line(error).rstrip('.')}. What is finished stays.",
        hint="see that the engine answers and has memory enough, then the same command goes on "
        "from there",
    )


def _refuse_one_machine(name: str, config: Config) -> None:
    address = tracking_uri(config.tracking)
    if address.startswith(("sqlite:", "file:")) or "://" not in address:
        raise ConfigError(
            f"{name} runs jobs on several machines, and the tracking store is a file, whose locks "
            "hold on one machine alone: it would be damaged. No job was run.",
            hint="`tracking: server` in conf/config.yaml, with a server or database that all "
            "machines reach (docs/scaling.md), or `hydra/launcher=joblib`",
        )


def _name(launcher: omegaconf.DictConfig) -> str:
    return str(launcher.get("_target_", "")).rpartition(".")[2]


def _cluster(launcher: omegaconf.DictConfig) -> str | None:
    """Address of a Ray cluster that runs already, `auto` included; None where Ray is started
    here."""
    if _name(launcher) != "RayLauncher":
        return None
    address = omegaconf.OmegaConf.select(launcher, "ray.init.address")
    address = address or os.environ.get("RAY_ADDRESS")
    return None if address in (None, "", "local") else str(address)
