"""The report's pictures over batches, slices and columns, as charts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from retrain.data.profiles import ColumnProfile
from retrain.gate.estimates import CHALLENGER, INCUMBENT, Estimate
from retrain.models.metrics import lower_is_better
from retrain.registry.entries import ROLLBACK, VERDICT, Entry
from retrain.report.chart import Chart, padded, shorten
from retrain.report.formatting import TITLES
from retrain.types import Score

MOST_BATCHES, MOST_SLICES, MOST_LEVELS, MOST_IMPORTANT = 60, 24, 8, 12
BEFORE, AFTER = "before", "after"


def title_of(metric: str) -> str:
    return TITLES.get(metric, metric.replace("_", " "))


def served_when(entries: Sequence[Entry], metric: str) -> str:
    """The metric of challenger and champion at each verdict, with a strip of who served; the last
    verdict of each batch counts. Empty without one."""
    decided = {entry.newest_batch: entry for entry in entries if entry.kind == VERDICT}
    batches = list(decided)[-MOST_BATCHES:]
    figures = {
        model: [decided[batch].figures.get(f"{metric}/{model}", math.nan) for batch in batches]
        for model in (INCUMBENT, CHALLENGER)
    }
    if not any(map(math.isfinite, figures[CHALLENGER])):
        return ""
    low, high = padded([value for found in figures.values() for value in found], 0.12)
    floor = low - (high - low) * 0.16
    title, better = title_of(metric), "lower" if lower_is_better(metric) else "higher"
    chart = Chart(
        f"{title} over batches, and who served",
        f"{title} of the champion and of each challenger on the evaluation rows of "
        f"{len(batches)} batches; below, the version that served when the batch came.",
        (-0.5, len(batches) + 0.5),
        (floor, high),
        "batch whose newest rows both were compared on; below the line: version that served then",
        f"{title}, {better} is better",
        places=[*batches, "now"],
        width=900,
        height=320,
    )
    _strip(chart, entries, batches, (floor, low))
    chart.line("incumbent line", range(len(batches)), figures[INCUMBENT])
    for place, batch in enumerate(batches):
        _marks(chart, decided[batch], place, figures)
    chart.legend += [
        ("incumbent line mark", "champion at that time"),
        ("challenger mark", "challenger, promoted"),
        ("challenger mark open", "challenger, not promoted"),
    ]
    return chart.svg()


def _marks(chart: Chart, entry: Entry, place: int, figures: Mapping[str, list[float]]) -> None:
    champion, value = figures[INCUMBENT][place], figures[CHALLENGER][place]
    batch = entry.newest_batch
    chart.mark(INCUMBENT, place, champion, f"{batch}: version {entry.incumbent}, {champion:.4f}")
    what = f"{batch}: version {entry.challenger}, {value:.4f}, {entry.verdict}"
    beside = place + 0.05 * (entry.incumbent is not None)  # so that both are seen
    chart.mark(CHALLENGER, beside, value, what, opened=not entry.moved)


def _strip(
    chart: Chart, entries: Sequence[Entry], batches: Sequence[str], ends: tuple[float, float]
) -> None:
    """A band for each span of batches in which one version served."""
    top = ends[0] + (ends[1] - ends[0]) * 0.75
    spans: list[tuple[str, int, int]] = []
    for place, (version, rolled_back) in enumerate(_serving(entries, batches)):
        name = f"v{version}{' (rolled back to)' if rolled_back else ''}" if version else "none"
        if spans and spans[-1][0] == name:
            spans[-1] = name, spans[-1][1], place
        else:
            spans.append((name, place, place))
    for name, first, last in spans:
        chart.bar("band", (first - 0.5, last + 0.5), (ends[0], top), f"{name} served")
        room = (last - first + 1) / (len(batches) + 1) * (chart.width - chart.left)
        text = name if len(name) * 6.5 < room else name.split()[0]
        if len(text) * 6 < room:
            chart.words(text, (first + last) / 2, (ends[0] + top) / 2)


def _serving(entries: Sequence[Entry], batches: Sequence[str]) -> list[tuple[int | None, bool]]:
    """Who served as each batch came, and now; and whether a rollback had brought that back."""
    serving: list[tuple[int | None, bool]] = [(None, False)] * (len(batches) + 1)
    version, back, after = None, False, 0
    for entry in entries:
        if entry.kind == VERDICT and entry.newest_batch in batches:
            after = batches.index(entry.newest_batch) + 1
        if entry.moved:
            version, back = entry.champion, entry.kind == ROLLBACK
        for place in range(after, len(serving)):
            serving[place] = version, back
    return serving


def losses_of(scores: Sequence[Score], loss: str, champion: int | None) -> str:
    """The champion's loss on the labelled batches that it was not trained on; empty for fewer than
    two."""
    if len(scores) < 2:
        return ""
    known = [(score.low, score.high) for score in scores]
    ends = [end for pair in known for end in pair if end is not None]
    title = title_of(loss)
    chart = Chart(
        f"{title} of the champion (version {champion}) by batch",
        f"{title} on {len(scores)} labelled batches that it was not trained on, with 95 % "
        "intervals.",
        (-0.5, len(scores) - 0.5),
        padded([*(score.value for score in scores), *ends]),
        "batch",
        f"{title}, lower is better",
        places=[score.period for score in scores],
        width=900,
        height=260,
    )
    chart.line("incumbent line", range(len(scores)), [score.value for score in scores])
    for place, score in enumerate(scores):
        if score.low is not None and score.high is not None:
            chart.interval(INCUMBENT, (score.low, score.high), place)
        whose = f"version {score.version or champion}"
        chart.mark(INCUMBENT, place, score.value, f"{score.period}: {whose}, {score.value:.4f}")
    return chart.svg()


def draw_slices(found: Mapping[str, tuple[int, Estimate]], loss: str) -> str:
    """A dot plot: by how much the challenger's loss differs on each slice, the worst first; of
    many those whose difference is surest."""
    known = {name: one for name, one in found.items() if math.isfinite(one[1].standard_error)}

    def surprise(name: str) -> float:
        estimate = known[name][1]
        return abs(estimate.value) / (estimate.standard_error or 1e-12)

    shown = sorted(known, key=surprise, reverse=True)[:MOST_SLICES]
    shown.sort(key=lambda name: -known[name][1].value)
    if not shown:
        return ""
    title = title_of(loss)
    ends = {name: known[name][1].interval() for name in shown}
    some = f" ({len(shown)} of {len(known)}, those that differ most surely)"
    chart = Chart(
        f"Slices of the rows{some if len(known) > len(shown) else ''}",
        f"{title} of the challenger minus that of the champion on {len(shown)} slices, with 95 % "
        "intervals; right of 0 the challenger is worse.",
        padded([0.0, *(end for pair in ends.values() for end in pair)]),
        (0.4 - len(shown), 0.6),
        f"{title}, challenger - champion: right of 0 is worse; 95 % intervals",
        names=[f"{shorten(name, 24)} ({known[name][0]:,})" for name in shown],
        width=760,
        height=94 + 19 * len(shown),
        left=240,
    )
    chart.line("zero", (0, 0), chart.y)
    for place, name in enumerate(shown):
        rows, estimate = known[name]
        low, high = ends[name]
        chart.interval(CHALLENGER, (low, high), -place, across=True)
        tip = f"{name}: {estimate.value:+.4f} [{low:+.4f}, {high:+.4f}], {rows:,} rows"
        chart.mark(CHALLENGER, estimate.value, -place, tip)
    chart.legend.append(("challenger mark", "slice (rows)"))
    return chart.svg()


def draw_column(
    name: str, before: ColumnProfile, after: ColumnProfile, batches: tuple[str, str]
) -> str:
    """A column in two batches, the earlier first: a distribution of numbers, or shares of
    levels."""
    about = f"{name} in batch {batches[0]} (before) and {batches[1]} (after)."
    chart = (_levels if before.levels or after.levels else _numbers)(name, before, after, about)
    chart.legend += [
        (f"{kind} {'mark' if chart.names else 'line'}", shorten(batch, 16))
        for kind, batch in zip((BEFORE, AFTER), batches, strict=True)
    ]
    return chart.svg()


def _levels(name: str, before: ColumnProfile, after: ColumnProfile, about: str) -> Chart:
    columns = {BEFORE: before, AFTER: after}
    shares = {
        kind: {level: rows / (column.rows or 1) for level, rows in column.levels.items()}
        | ({"(missing)": column.null_share} if column.nulls else {})
        for kind, column in columns.items()
    }
    levels = dict.fromkeys([*shares[BEFORE], *shares[AFTER]])

    def change(level: str) -> float:
        return abs(shares[AFTER].get(level, 0.0) - shares[BEFORE].get(level, 0.0))

    shown = sorted(levels, key=lambda level: (-change(level), level))[:MOST_LEVELS]
    most = max((share.get(level, 0.0) for share in shares.values() for level in shown), default=1)
    chart = Chart(
        shorten(name, 40),
        about,
        (0, most * 1.08 or 1),
        (0.4 - len(shown), 0.6),
        "share of the rows",
        names=[shorten(level, 18) for level in shown],
        width=300,
        height=94 + 22 * len(shown),
        left=120,
    )
    for place, level in enumerate(shown):
        for kind, share in shares.items():
            value = share.get(level, 0.0)
            chart.mark(kind, value, -place, f"{level}, {kind}: {value:.2%}", opened=kind == BEFORE)
    return chart


def _numbers(name: str, before: ColumnProfile, after: ColumnProfile, about: str) -> Chart:
    """The share of rows in 24 equal steps; half a percent at either end is left out."""
    both = np.array([*before.quantiles, *after.quantiles] or [0.0])
    low, high = (float(end) for end in np.quantile(both, [0.005, 0.995]))
    low, high = (low, high) if high > low else padded([low])
    borders = np.linspace(low, high, 25)
    shares = {
        kind: np.histogram(np.clip(column.quantiles, low, high), borders)[0]
        / (len(column.quantiles) or 1)
        * (1 - column.null_share)
        for kind, column in ((BEFORE, before), (AFTER, after))
    }
    most = max(float(share.max()) for share in shares.values())
    missing = f"missing: {before.null_share:.1%}, then {after.null_share:.1%}"
    chart = Chart(
        shorten(name, 40),
        f"{about} {missing}.",
        (low, high),
        (0, most * 1.1 or 1),
        missing if before.nulls or after.nulls else "value",
        "share of the rows",
        width=300,
        height=230,
    )
    for kind, share in shares.items():
        chart.line(f"{kind} line", np.repeat(borders, 2), [0, *np.repeat(share, 2), 0])
    return chart


def draw_importance(found: Mapping[str, Mapping[str, float]], loss: str) -> str:
    """By how much each model's loss grows when a feature is shuffled, the most important first;
    empty without a figure."""
    names = dict.fromkeys(name for model in found.values() for name in model)
    shown = sorted(
        names, key=lambda name: -max(model.get(name, -math.inf) for model in found.values())
    )[:MOST_IMPORTANT]
    if not shown:
        return ""
    title = title_of(loss)
    chart = Chart(
        f"Importance of features{f' ({len(shown)} of {len(names)})' if len(names) > 12 else ''}",
        f"By how much the {title} of each model grows when a feature is shuffled.",
        padded([0.0, *(model.get(name, math.nan) for model in found.values() for name in shown)]),
        (0.4 - len(shown), 0.6),
        f"growth of {title} when the feature is shuffled",
        names=[shorten(name, 30) for name in shown],
        width=620,
        height=94 + 19 * len(shown),
        left=210,
    )
    chart.line("zero", (0, 0), chart.y)
    for model, importance in found.items():
        for place, name in enumerate(shown):
            value = importance.get(name, math.nan)
            chart.mark(model, value, -place, f"{name}, {model}: {value:+.4f}")
    chart.legend += [(f"{model} mark", model) for model in found]
    return chart.svg()
