"""Questions beside the primary one: harm that an average hides. A guardrail fails on proven harm, not on doubt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from retrain.config import Task
from retrain.errors import ConfigError, PromotionError
from retrain.promotion.checks import Check, CheckResult, NonInferiority, Outcome, confidence_of, margin_of
from retrain.promotion.figures import (
    BASELINE,
    BLOCK,
    CHALLENGER,
    INCUMBENT,
    TARGET,
    WINDOW,
    Comparison,
    Estimate,
    lower_is_better,
)

if TYPE_CHECKING:
    import polars as pl

MOST_LEVELS_OF_A_NUMBER = 20
_WORSENING, _REFERENCE, _SLICE = "worsening", "reference_loss", "slice"
NO_INCUMBENT = CheckResult(Outcome.not_applicable, "there is no incumbent to compare with")


class Slices(Check):
    """On no slice of the rows is the challenger worse than the incumbent by more than a margin.

    `by` holds feature columns (each level is a slice; a number with many values is cut at its quartiles) and Polars SQL
    expressions that are true on a slice (`"distance > 2000"`); null stands for every categorical and boolean feature. A
    slice counts from `minimum_rows` and `minimum_blocks` on. `metric` is a loss of single rows; null for the one that goes
    with the primary metric. It fails when its worsening is proven to exceed the margin,
    with p-values corrected for the number of slices (Holm 1979, Scandinavian Journal of Statistics 6).
    """

    def __init__(
        self,
        by: list[str] | None,
        metric: str | None,
        margin: float,
        margin_is: str,
        confidence: float,
        minimum_rows: int,
        minimum_blocks: int,
    ) -> None:
        self.by, self.loss, self.confidence = by, _loss_named(metric), confidence_of(confidence)
        self.margin, self.margin_is = margin_of(margin, margin_is)
        self.minimum_rows, self.minimum_blocks = minimum_rows, max(2, minimum_blocks)
        self.columns = None if by is None else tuple(dict.fromkeys(name for one in by for name in _names(one)))

    def judge(self, comparison: Comparison) -> CheckResult:
        rows = comparison.rows_judged
        if rows is None or INCUMBENT not in rows.columns:
            return NO_INCUMBENT
        metric = self.loss or comparison.loss
        rows = _with_losses(rows, metric)
        judged: dict[str, tuple[float, Estimate, float]] = {}  # slice -> p-value, worsening, margin
        small = 0
        for name, estimate, reference, size in self._slices(rows):
            if size < self.minimum_rows or estimate.degrees_of_freedom + 1 < self.minimum_blocks:
                small += 1
                continue
            margin = self.margin * (abs(reference) if self.margin_is == "relative" else 1)
            judged[name] = estimate.p_above(margin), estimate, margin
        skipped = f"; {small} too small to judge" if small else ""
        if not judged:
            return CheckResult(Outcome.not_applicable, f"no slice has enough rows and blocks{skipped}")
        adjusted = _holm({name: p for name, (p, _, _) in judged.items()})
        worse = [name for name, p in adjusted.items() if p < 1 - self.confidence]
        worst = max(judged, key=lambda name: judged[name][1].value - judged[name][2])
        figures = {"slices": len(judged), "worse": len(worse), "largest_worsening": judged[worst][1].value}
        if worse:
            shown = ", ".join(f"{name} {judged[name][1].value:+.4f} (p {adjusted[name]:.2g})" for name in worse[:5])
            reason = (
                f"{metric}: worse by more than the margin on {len(worse)} of {len(judged)} slices: {shown}{skipped}"
            )
            return CheckResult(Outcome.failed, reason, figures)
        reason = (
            f"{metric}: on none of {len(judged)} slices proven worse by more than the margin; most on {worst}: "
            f"{judged[worst][1].value:+.4f} (margin {judged[worst][2]:.4f}){skipped}"
        )
        return CheckResult(Outcome.passed, reason, figures)

    def _slices(self, rows: pl.DataFrame) -> Iterator[tuple[str, Estimate, float, int]]:
        """Name, worsening, the incumbent's loss and number of rows of each slice."""

        for by in self.by if self.by is not None else _categories(rows):
            for (level,), sums in _grouped(rows, _key(rows, by)).partition_by(_SLICE, as_dict=True).items():
                if by not in rows.columns and level is not True:
                    continue  # an expression names the rows where it is true
                name = by if by not in rows.columns else f"{by}={'missing' if level is None else level}"
                size = int(sums["len"].sum())
                yield name, _mean(sums), float(sums[_REFERENCE].sum() / size), size


class Forgetting(Check):
    """On the reference windows (the evaluation rows of earlier batches) the challenger is not proven worse by more than a margin.

    A model may have been trained on such rows: what is asked is whether it lost what its predecessor knew. Not
    applicable while there are no earlier batches, or with `evaluation.reference_windows: 0`.
    """

    def __init__(self, metric: str | None, margin: float, margin_is: str, confidence: float) -> None:
        self.loss, self.confidence = _loss_named(metric), confidence_of(confidence)
        self.margin, self.margin_is = margin_of(margin, margin_is)

    def judge(self, comparison: Comparison) -> CheckResult:
        import polars as pl

        rows = comparison.reference_rows
        if rows is None or rows.is_empty():
            return CheckResult(Outcome.not_applicable, "there is no reference window yet")
        if INCUMBENT not in rows.columns:
            return NO_INCUMBENT
        metric = self.loss or comparison.loss
        sums = _grouped(_with_losses(rows, metric), pl.lit(True))
        worsening = _mean(sums)
        incumbent = float(sums[_REFERENCE].sum() / len(rows))
        margin = self.margin * (incumbent if self.margin_is == "relative" else 1)
        proven = worsening.p_above(margin) < 1 - self.confidence
        windows = rows[WINDOW].unique().sort().to_list()
        reason = (
            f"{metric} on the old evaluation rows of {', '.join(windows)}: {worsening.value:+.4f} against the incumbent's "
            f"{incumbent:.4f}, {'proven to be more' if proven else 'not proven to be more'} than the margin of {margin:.4f}"
        )
        figures = {"worsening": worsening.value, "incumbent": incumbent, "margin": margin, "windows": len(windows)}
        return CheckResult(Outcome.failed if proven else Outcome.passed, reason, figures)


class Deterioration(NonInferiority):
    """A metric of the challenger is not proven worse than the incumbent's by more than a margin: doubt is for the challenger, not
    against it."""

    def judge(self, comparison: Comparison) -> CheckResult:
        metric = self.metric or comparison.metric
        worsening, margin = comparison.worsening(INCUMBENT, metric), self.allowed(comparison, metric)
        bound = worsening.quantile(1 - self.confidence)
        passed = bound <= margin
        reason = (
            f"{metric}: {_better_or_worse(worsening.value)} than the incumbent, {'not ' if passed else ''}proven worse"
            f" by more than {margin:.4f}"
        )
        figures = {"worsening": worsening.value, "bound": bound, "margin": margin}
        return CheckResult(Outcome.passed if passed else Outcome.failed, reason, figures)


class Floor(Check):
    """The challenger is not proven worse than the best constant prediction for its training rows, and where the incumbent is
    better than that constant, so is the challenger.

    On rows that are hard for everybody both may be a little worse; one that has unlearnt everything is not.
    """

    def __init__(self, metric: str | None, confidence: float) -> None:
        self.metric, self.confidence = metric, confidence_of(confidence)

    def judge(self, comparison: Comparison) -> CheckResult:
        metric = self.metric or comparison.metric
        worsening = comparison.worsening(BASELINE, metric)
        bound = worsening.quantile(1 - self.confidence)
        gap = comparison.score(INCUMBENT, metric).value - comparison.score(BASELINE, metric).value
        incumbent = gap if lower_is_better(metric) else -gap
        passed = worsening.value < 0 or (bound < 0 <= incumbent)
        reason = f"{metric}: {_better_or_worse(worsening.value)} than the baseline"
        if worsening.value >= 0:
            reason += f", {'proven' if bound >= 0 else 'not proven'}; the incumbent is {_better_or_worse(incumbent)}"
        figures = {"worsening": worsening.value, "bound": bound, "incumbent": incumbent}
        return CheckResult(Outcome.passed if passed else Outcome.failed, reason, figures)


def _better_or_worse(worsening: float) -> str:
    return f"{abs(worsening):.4f} {'better' if worsening < 0 else 'worse'}"


class Churn(Check):
    """No more than a share of the rows changes sides between incumbent and challenger.

    Of two classes, at a threshold of the probability; of several, when another one is the most probable. Whoever acts on the predictions has to live with every flip, also with those that make the average better.
    """

    def __init__(self, threshold: float, maximum: float) -> None:
        self.threshold, self.maximum = threshold, maximum

    def judge(self, comparison: Comparison) -> CheckResult:
        rows = comparison.rows_judged
        if rows is None or INCUMBENT not in rows.columns:
            return NO_INCUMBENT
        if comparison.task is Task.regression:
            return CheckResult(Outcome.not_applicable, "numbers have no sides to change")
        new, old = rows[CHALLENGER].to_numpy(), rows[INCUMBENT].to_numpy()
        if comparison.task is Task.binary:
            changed, sides = (new >= self.threshold) != (old >= self.threshold), f"change sides at {self.threshold:g}"
        else:
            changed, sides = new.argmax(axis=1) != old.argmax(axis=1), "change their most probable class"
        flipped, moved = float(changed.mean()), float(abs(new - old).mean())
        passed = flipped <= self.maximum
        reason = (
            f"{flipped:.2%} of the rows {sides}, {'within' if passed else 'above'} the limit of "
            f"{self.maximum:.2%}; the mean change of a probability is {moved:.4f}"
        )
        figures = {"flipped": flipped, "mean_change": moved, "maximum": self.maximum}
        return CheckResult(Outcome.passed if passed else Outcome.failed, reason, figures)


class Budget(Check):
    """A figure of the challenger stays within a limit: `latency_one_row_ms`, `latency_1000_rows_ms` or `model_megabytes`.

    Latencies are medians in the training process, with the model in memory.
    """

    def __init__(self, figure: str, maximum: float) -> None:
        self.figure, self.maximum = figure, maximum

    def judge(self, comparison: Comparison) -> CheckResult:
        value = comparison.facts.get(self.figure)
        if value is None:
            known = ", ".join(comparison.facts) or "none"
            raise PromotionError(f"The gate asks for `{self.figure}`, which was not measured. Measured: {known}.")
        passed = value <= self.maximum
        reason = f"{self.figure} is {value:.4g}, {'within' if passed else 'above'} the budget of {self.maximum:g}"
        return CheckResult(
            Outcome.passed if passed else Outcome.failed, reason, {self.figure: value, "maximum": self.maximum}
        )


class ClassCoverage(Check):
    """Every class occurs among the evaluation rows at least `minimum_rows` times, and the challenger knows all that occur."""

    def __init__(self, minimum_rows: int) -> None:
        self.minimum_rows = minimum_rows

    def judge(self, comparison: Comparison) -> CheckResult:
        rows = comparison.rows_judged
        if rows is None:
            raise PromotionError("The comparison holds no rows to count classes in.")
        if comparison.task is Task.regression:
            return CheckResult(Outcome.not_applicable, "numbers have no classes")
        counted = rows[TARGET].value_counts().sort(TARGET).iter_rows()
        found = {comparison.classes[int(code)]: int(count) for code, count in counted}
        unknown = [name for name in comparison.unknown_classes.get(CHALLENGER, ()) if name in found]
        rare = {name: found.get(name, 0) for name in comparison.classes}
        rare = {name: count for name, count in rare.items() if count < self.minimum_rows}
        figures = {f"rows_of_class_{name}": count for name, count in found.items()}
        if unknown:
            return CheckResult(Outcome.failed, f"the challenger does not know class {', '.join(unknown)}", figures)
        if rare:
            few = ", ".join(f"{name} ({count:,} rows)" for name, count in rare.items())
            return CheckResult(
                Outcome.insufficient, f"too few evaluation rows of class {few}; at least {self.minimum_rows:,}", figures
            )
        return CheckResult(
            Outcome.passed, f"all {len(found)} classes occur, each on at least {min(found.values()):,} rows", figures
        )


def _loss_named(metric: str | None) -> str | None:
    """A configured loss. Raises ConfigError when it is not one of single rows."""
    from retrain.modeling.metrics import find_row_loss

    if metric is not None:
        find_row_loss(metric)
    return metric


def _names(by: str) -> list[str]:
    """The columns that a slice needs. Raises ConfigError for an expression that Polars can't read."""
    if by.isidentifier():
        return [by]
    import polars as pl

    try:
        return pl.sql_expr(by).meta.root_names()
    except pl.exceptions.PolarsError as error:
        raise ConfigError(f"`by` holds {by!r}, which is no SQL expression: {str(error).splitlines()[0]}") from error


def _with_losses(rows: pl.DataFrame, metric: str) -> pl.DataFrame:
    """The rows with the incumbent's loss, and by how much the challenger's is larger."""
    import polars as pl

    from retrain.modeling.metrics import find_row_loss
    from retrain.promotion.comparison import to_target

    target, row_loss = to_target(rows), find_row_loss(metric)
    incumbent = row_loss(target, rows[INCUMBENT].to_numpy())
    worsening = row_loss(target, rows[CHALLENGER].to_numpy()) - incumbent
    return rows.with_columns(pl.Series(_REFERENCE, incumbent), pl.Series(_WORSENING, worsening))


def _categories(rows: pl.DataFrame) -> list[str]:
    import polars as pl

    return [name for name, dtype in rows.schema.items() if dtype in (pl.String, pl.Boolean) and name != WINDOW]


def _key(rows: pl.DataFrame, by: str) -> pl.Expr:
    """What tells the slices of `by` apart. Raises PromotionError when the rows lack a column."""
    import polars as pl

    missing = [name for name in _names(by) if name not in rows.columns]
    if missing:
        raise PromotionError(
            f"The gate slices by `{by}`, but the evaluation rows have no column `{missing[0]}`. Mend `by` in conf/gate/."
        )
    if by not in rows.columns:
        return pl.sql_expr(by)
    if rows.schema[by].is_numeric() and rows[by].n_unique() > MOST_LEVELS_OF_A_NUMBER:
        cuts = [cut for cut in (rows[by].quantile(share) for share in (0.25, 0.5, 0.75)) if cut is not None]
        return pl.col(by).cut(sorted(set(cuts)))
    return pl.col(by)


def _grouped(rows: pl.DataFrame, key: pl.Expr) -> pl.DataFrame:
    """Sums and row counts by slice and block."""
    import polars as pl

    return (
        rows.group_by(key.alias(_SLICE), BLOCK).agg(pl.col(_WORSENING, _REFERENCE).sum(), pl.len()).sort(BLOCK, _SLICE)
    )


def _mean(sums: pl.DataFrame) -> Estimate:
    from retrain.modeling.metrics import mean_replicates
    from retrain.promotion.comparison import jackknife

    return jackknife(mean_replicates(sums[_WORSENING].to_numpy(), sums["len"].to_numpy()))


def _holm(p_values: dict[str, float]) -> dict[str, float]:
    """Adjusted p-values, smallest first."""
    adjusted, running = {}, 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        running = max(running, min(1.0, p * (len(p_values) - rank)))
        adjusted[name] = running
    return adjusted


def asked_columns(checks: Sequence[Check]) -> list[str] | None:
    """Feature columns that the checks want to see on the evaluation rows; None for all categories and flags."""
    if any(check.columns is None for check in checks):
        return None
    return list(dict.fromkeys(name for check in checks for name in check.columns))
