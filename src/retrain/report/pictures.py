"""The report's pictures of two models on the same rows, by name, as charts."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrain.config import Task
from retrain.gate.estimates import CHALLENGER, INCUMBENT, TARGET, score_column
from retrain.models.metrics import find_row_loss
from retrain.models.metrics.probability import top_label
from retrain.report.chart import Chart, padded
from retrain.report.formatting import TITLES

BINS, STEPS, MOST_TIMES = 10, 160, 32
CURVE_ROWS = 200_000  # of more, rows spread evenly over them
Array = NDArray[np.float64]
Pairs = dict[str, tuple[Array, Array]]  # target and score of each model
UNITS = ("1h", "6h", "1d", "1w", "1mo", "3mo", "1y")


def draw(
    predictions: pl.DataFrame, time_column: str, task: Task, loss: str, unit: str = ""
) -> dict[str, str]:
    """Charts by name, of the evaluation rows' predictions. `loss` is a loss of single rows, `unit`
    what a target of numbers is."""
    models = [name for name in (CHALLENGER, INCUMBENT) if score_column(name) in predictions.columns]
    target = predictions[TARGET].cast(pl.Float64).to_numpy()
    scores = {model: predictions[score_column(model)].to_numpy() for model in models}
    pairs = {model: top_label(target, score) for model, score in scores.items()}
    losses = {model: find_row_loss(loss)(target, score) for model, score in scores.items()}
    found: dict[str, Callable[[], Chart]]
    if task is Task.regression:
        found = {
            "calibration": lambda: _reliability(pairs, unit),
            "residuals": lambda: _residuals(pairs, unit),
            "predictions": lambda: _errors(pairs, unit),
        }
    else:
        top = task is Task.multiclass
        found = {"calibration": lambda: _calibration(pairs, top)}
        if not top:
            found |= {"roc": lambda: _roc(pairs), "precision_recall": lambda: _precision(pairs)}
        found["predictions"] = lambda: _histogram(pairs, top)
    found["loss_over_time"] = lambda: _over_time(predictions[time_column], losses, loss)
    return {name: chart().svg() for name, chart in found.items()}


def _legend(chart: Chart, pairs: Mapping[str, object], marked: bool = True) -> Chart:
    chart.legend += [(f"{model} line{' mark' if marked else ''}", model) for model in pairs]
    return chart


def _calibration(pairs: Pairs, top: bool) -> Chart:
    what = "probability of the most probable class" if top else "predicted probability"
    chart = Chart(
        "Calibration",
        "Observed share of positives by predicted probability, for each model; on the diagonal "
        "the probabilities are right.",
        (0, 1),
        (0, 1),
        what,
        "share that it happened" if not top else "share of hits",
    )
    chart.line("zero", (0, 1), (0, 1))
    for model, (target, score) in pairs.items():
        index = np.minimum((score * BINS).astype(int), BINS - 1)
        _binned(chart, model, target, score, index)
    chart.legend.append(("zero", "perfect"))
    return _legend(chart, pairs)


def _reliability(pairs: Pairs, unit: str) -> Chart:
    means = {model: _by_prediction(*pair) for model, pair in pairs.items()}
    both = [value for x, y in means.values() for value in (*x, *y)]
    chart = Chart(
        "Predicted and observed",
        "Mean observed value by predicted value, for each model; on the diagonal they agree.",
        padded(both),
        padded(both),
        _with_unit("predicted value", unit),
        _with_unit("observed mean", unit),
    )
    chart.line("zero", chart.x, chart.x)
    for model, (x, y) in means.items():
        chart.line(f"{model} line", x, y)
        for across, up in zip(x, y, strict=True):
            chart.mark(model, across, up, f"{model}: predicted {across:.4g}, observed {up:.4g}")
    chart.legend.append(("zero", "perfect"))
    return _legend(chart, pairs)


def _by_prediction(target: Array, score: Array) -> tuple[Array, Array]:
    cuts = np.unique(np.quantile(score, np.linspace(0, 1, 2 * BINS + 1)[1:-1]))
    return _means(target, score, np.searchsorted(cuts, score))


def _means(target: Array, score: Array, index: NDArray[np.intp]) -> tuple[Array, Array]:
    rows = np.bincount(index)
    seen = rows > 0
    mean, observed = (np.bincount(index, values)[seen] / rows[seen] for values in (score, target))
    return mean, observed


def _binned(chart: Chart, model: str, target: Array, score: Array, index: NDArray[np.intp]) -> None:
    rows = np.bincount(index)
    mean, observed = _means(target, score, index)
    chart.line(f"{model} line", mean, observed)
    for x, y, count in zip(mean, observed, rows[rows > 0], strict=True):
        chart.mark(model, x, y, f"{model}: predicted {x:.3f}, observed {y:.3f}, {count:,} rows")


def _residuals(pairs: Pairs, unit: str) -> Chart:
    """Mean and middle 80 % of observed - predicted, by predicted value."""
    lines: dict[str, list[tuple[float, ...]]] = {}
    for model, (target, score) in pairs.items():
        cuts = np.unique(np.quantile(score, np.linspace(0, 1, BINS + 1)[1:-1]))
        index, error = np.searchsorted(cuts, score), target - score
        parts = [(score[index == number], error[index == number]) for number in np.unique(index)]
        lines[model] = [
            (float(part.mean()), float(off.mean()), *np.quantile(off, [0.1, 0.9]).tolist())
            for part, off in parts
        ]
    points = [point for line in lines.values() for point in line]
    chart = Chart(
        "Residuals",
        "Mean of observed minus predicted by predicted value, with the middle 80 % of the rows.",
        padded(point[0] for point in points),
        padded(value for point in points for value in point[1:]),
        _with_unit("predicted value", unit),
        _with_unit("observed - predicted", unit),
    )
    chart.line("zero", chart.x, (0, 0))
    beside = (chart.x[1] - chart.x[0]) * 0.008  # so that whiskers of two models are both seen
    for model, line in lines.items():
        chart.line(f"{model} line", [point[0] for point in line], [point[1] for point in line])
        for x, mean, low, high in line:
            chart.interval(model, (low, high), x + beside * (model == INCUMBENT))
            chart.mark(model, x, mean, f"{model}: {mean:+.4g}, 80 % in [{low:+.4g}, {high:+.4g}]")
    return _legend(chart, pairs)


def _curve(pair: tuple[Array, Array]) -> tuple[Array, Array, Array, float]:
    """Of thresholds from high to low: true positives, false positives, as shares; precision; and
    the share of positives."""
    target, score = pair
    if len(target) > CURVE_ROWS:
        places = np.linspace(0, len(target) - 1, CURVE_ROWS).astype(np.int64)
        target, score = target[places], score[places]
    order = np.argsort(-score, kind="stable")
    hits, last = np.cumsum(target[order]), np.flatnonzero(np.diff(-score[order], append=np.inf))
    last = last[np.unique(np.linspace(0, len(last) - 1, STEPS).astype(np.int64))]
    found = hits[last]
    positives = float(target.sum())
    negatives = len(target) - positives
    false = last + 1 - found
    return (
        found / (positives or 1),
        false / (negatives or 1),
        found / (last + 1),
        positives / len(target),
    )


def _roc(pairs: Pairs) -> Chart:
    chart = Chart(
        "ROC",
        "True positive rate against false positive rate of every threshold, for each model; above "
        "the diagonal is better than chance.",
        (0, 1),
        (0, 1),
        "false positive rate",
        "true positive rate",
    )
    chart.line("zero", (0, 1), (0, 1))
    for model, pair in pairs.items():
        true, false, _, _ = _curve(pair)
        chart.line(f"{model} line", [0, *false], [0, *true])
    chart.legend.append(("zero", "chance"))
    return _legend(chart, pairs, marked=False)


def _precision(pairs: Pairs) -> Chart:
    curves = {model: _curve(pair) for model, pair in pairs.items()}
    chart = Chart(
        "Precision and recall",
        "Precision against recall of every threshold, for each model; the dashed line is the share "
        "of positives, which chance gives.",
        (0, 1),
        (0, 1),
        "recall",
        "precision",
    )
    for model, (true, _, precision, share) in curves.items():
        chart.line("zero", (0, 1), (share, share))
        chart.line(f"{model} line", true, precision)
    chart.legend.append(("zero", "chance"))
    return _legend(chart, pairs, marked=False)


def _histogram(pairs: Pairs, top: bool) -> Chart:
    what = "probability of the most probable class" if top else "predicted probability"
    return _steps(
        "Predictions",
        "How many rows got which probability, for each model.",
        {model: score for model, (_, score) in pairs.items()},
        (0.0, 1.0),
        what,
    )


def _errors(pairs: Pairs, unit: str) -> Chart:
    errors = {model: target - score for model, (target, score) in pairs.items()}
    low, high = np.quantile(np.concatenate(list(errors.values())), [0.005, 0.995])
    return _steps(
        "Errors",
        "How many rows have which error, for each model; 1 % of the rows lie outside.",
        errors,
        (float(low), float(high)),
        _with_unit("observed - predicted", unit),
    )


def _steps(
    title: str, about: str, values: dict[str, Array], ends: tuple[float, float], xlabel: str
) -> Chart:
    ends = ends if ends[1] > ends[0] else padded(ends)
    counted = {model: np.histogram(found, 40, ends) for model, found in values.items()}
    most = max(int(counts.max()) for counts, _ in counted.values())
    chart = Chart(title, about, ends, (0, most * 1.05 or 1), xlabel, "rows")
    for model, (counts, borders) in counted.items():
        heights = np.concatenate([[0], np.repeat(counts, 2), [0]])
        chart.line(f"{model} line", np.repeat(borders, 2), heights)
    return _legend(chart, values, marked=False)


def _over_time(times: pl.Series, losses: dict[str, Array], loss: str) -> Chart:
    """The mean loss of each hour, day, week ...: the finest of which there are few enough."""
    frame = pl.DataFrame(
        {"time": times} | {name: pl.Series(values) for name, values in losses.items()}
    )
    for unit in UNITS:
        found = frame.group_by(pl.col("time").dt.truncate(unit)).mean().sort("time")
        if len(found) <= MOST_TIMES:
            break
    whole = all(moment.hour == 0 for moment in found["time"])
    places = [
        f"{moment:%Y-%m-%d}" if whole else f"{moment:%m-%d %H:%M}" for moment in found["time"]
    ]
    title = TITLES.get(loss, loss.replace("_", " "))
    chart = Chart(
        f"{title} over time",
        f"Mean {title} of the evaluation rows, for each model.",
        (-0.5, len(places) - 0.5),
        padded(value for model in losses for value in found[model]),
        f"time of the rows, in steps of {unit}",
        f"{title}, lower is better",
        places=places,
    )
    for model in losses:
        chart.line(f"{model} line", range(len(places)), found[model])
        for place, value in enumerate(found[model]):
            chart.mark(model, place, value, f"{model}, {places[place]}: {value:.4f}")
    return _legend(chart, losses)


def _with_unit(text: str, unit: str) -> str:
    return f"{text} ({unit})" if unit else text
