"""Pictures of a sweep, as SVG: how it went, which values did well, which parameters mattered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrain.lazy import matplotlib, sklearn
from retrain.report.plots import svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GOOD, BAD, CHAMPION = "#1f6f8b", "#c8553d", "#8a6d1f"
LONGEST, MOST_LEVELS = 24, 12  # signs of a label, labels of an axis
WIDE = 100  # times the smallest: such numbers are drawn on a log scale
FEWEST = 4  # trials that importance can be told from
UNSET = "not set"


@dataclass(frozen=True)
class Trial:
    """A job of a sweep.

    Attributes
    ----------
    values
        What its overrides say, by key; empty where it failed.
    metric
        NaN where it failed.
    """

    values: Mapping[str, str]
    metric: float


def draw(
    trials: Sequence[Trial], metric: str, lower_is_better: bool, champion: float | None
) -> dict[str, str]:
    """SVG documents by name. Needs one trial that did not fail; what takes several is left out
    without them."""
    sign = 1 if lower_is_better else -1
    scored = [trial for trial in trials if math.isfinite(trial.metric)]
    varied = _varied(scored)
    drawn = {"history": svg(lambda axes: _history(axes, trials, metric, sign, champion))}
    if varied:
        width = max(5.2, 1.6 * (len(varied) + 1))
        drawn["parallel_coordinates"] = svg(
            lambda axes: _parallel(axes, scored, varied, metric, sign), False, width
        )
    shares = importance(scored, varied)
    if shares:
        drawn["importance"] = svg(lambda axes: _bars(axes, shares), False)
    return drawn


def _varied(trials: Sequence[Trial]) -> dict[str, list[str]]:
    """What each parameter was, trial by trial, for those that were not always the same."""
    keys = dict.fromkeys(key for trial in trials for key in trial.values)
    columns = {key: [trial.values.get(key, UNSET) for trial in trials] for key in keys}
    return {key: column for key, column in columns.items() if len(set(column)) > 1}


def _numbers(column: Sequence[str]) -> NDArray[np.float64] | None:
    try:
        found = np.array([float(value) for value in column])
    except ValueError:
        return None
    return found if np.isfinite(found).all() else None


def importance(trials: Sequence[Trial], varied: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """The share of each parameter in what a forest explains of the metric by all of them (mean
    decrease in impurity, as Optuna's evaluator of that name); empty where there is nothing to
    tell apart."""
    metric = np.array([trial.metric for trial in trials])
    if len(varied) < 2 or len(trials) < FEWEST or np.ptp(metric) == 0:
        return {}
    columns, owners = [], []
    for key, column in varied.items():
        numbers = _numbers(column)
        levels = [] if numbers is not None else sorted(set(column))
        coded = [numbers] if numbers is not None else [np.array(column) == one for one in levels]
        columns += coded
        owners += [key] * len(coded)
    forest = sklearn.ensemble.RandomForestRegressor(n_estimators=64, random_state=0)
    forest.fit(np.column_stack(columns).astype(float), metric)
    shares = dict.fromkeys(varied, 0.0)
    for key, share in zip(owners, forest.feature_importances_, strict=True):
        shares[key] += float(share)
    return dict(sorted(shares.items(), key=lambda item: item[1]))


def _history(
    axes: Axes, trials: Sequence[Trial], metric: str, sign: int, champion: float | None
) -> None:
    number = np.arange(1, len(trials) + 1)
    values = np.array([trial.metric for trial in trials])
    failed = ~np.isfinite(values)
    best = sign * np.fmin.accumulate(sign * values)
    axes.plot(number, best, drawstyle="steps-post", color=GOOD, linewidth=1, label="best so far")
    axes.plot(number[~failed], values[~failed], "o", markersize=4, color=GOOD, label="job")
    if failed.any():
        bottom = axes.get_xaxis_transform()
        axes.plot(
            number[failed],
            np.full(failed.sum(), 0.02),
            "x",
            markersize=5,
            color=BAD,
            label="failed",
            transform=bottom,
        )
    if champion is not None:
        axes.axhline(champion, color=CHAMPION, linewidth=1, linestyle="--", label="champion")
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlim(0.5, len(trials) + 0.5)
    axes.set(xlabel="job", ylabel=_short(metric), title="Validation metric by job")


def _parallel(
    axes: Axes,
    trials: Sequence[Trial],
    varied: Mapping[str, Sequence[str]],
    metric: str,
    sign: int,
) -> None:
    """A line for each trial, through its values; the darkest is the best."""
    places = []
    for at, (key, column) in enumerate(varied.items()):
        places.append(_axis(axes, at, column))
        axes.text(at, 1.08, _short(key.rpartition(".")[2]), ha="center", fontsize=8)
    scores = np.array([trial.metric for trial in trials])
    places.append(_axis(axes, len(varied), [f"{score:.4g}" for score in scores]))
    axes.text(len(varied), 1.08, _short(metric), ha="center", fontsize=8, weight="bold")
    rank = np.argsort(np.argsort(sign * scores))
    colors = matplotlib.colormaps["viridis"](rank / max(len(trials) - 1, 1) * 0.9)
    for one in np.argsort(-rank):  # the best last, on top
        width = 2 if rank[one] == 0 else 0.9
        axes.plot([place[one] for place in places], color=colors[one], linewidth=width, alpha=0.8)
    axes.set(xlim=(-0.5, len(varied) + 0.7), ylim=(-0.05, 1.15))
    axes.set_axis_off()


def _axis(axes: Axes, at: int, column: Sequence[str]) -> NDArray[np.float64]:
    """Draw a parameter's axis with its labels; returns where each trial crosses it, from 0 to 1."""
    axes.axvline(at, 0.05 / 1.2, 1.05 / 1.2, color="#999999", linewidth=0.8)
    numbers, levels = _numbers(column), sorted(set(column))
    if numbers is None:
        places = np.array([levels.index(value) for value in column]) / (len(levels) - 1)
    else:
        wide = numbers.min() > 0 and numbers.max() / numbers.min() >= WIDE
        scaled = np.log(numbers) if wide else numbers
        places = (scaled - scaled.min()) / (np.ptp(scaled) or 1)
    shown = column if numbers is None else [f"{number:.4g}" for number in numbers]
    labels = dict(sorted(zip(places.tolist(), shown, strict=True)))
    if numbers is not None and len(labels) > MOST_LEVELS // 2:
        marks = np.linspace(scaled.min(), scaled.max(), MOST_LEVELS // 2)
        ends = np.exp(marks) if wide else marks
        labels = {one / (len(marks) - 1): f"{value:.3g}" for one, value in enumerate(ends)}
    step = math.ceil(len(labels) / MOST_LEVELS)
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.6}
    for place, label in [*labels.items()][::step]:
        axes.text(at + 0.04, place, _short(label), fontsize=7, va="center", bbox=box, zorder=5)
    return places


def _bars(axes: Axes, shares: Mapping[str, float]) -> None:
    axes.barh(range(len(shares)), list(shares.values()), color=GOOD)
    axes.set_yticks(range(len(shares)), [_short(key) for key in shares], fontsize=8)
    axes.set(xlabel="share of what the parameters explain", title="Importance", xlim=(0, 1))


def _short(name: str) -> str:
    """The end of a long name: that is where dotted keys differ."""
    return name if len(name) <= LONGEST else f"...{name[3 - LONGEST :]}"
