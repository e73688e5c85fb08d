"""What the newest batch shows, as tables: the same in the terminal and in the HTML report."""

from __future__ import annotations

from retrain.report import formatting
from retrain.report.terminal import plain_console, print_table, printable
from retrain.types import DecisionRecord, Score

MOST_FEATURES = 10
SAID = 3  # the newest scores are sentences in the log
Table = tuple[list[str], list[list[str]]]  # header and rows


def losses(decision: DecisionRecord) -> Table:
    """The champion's loss on labelled batches, and what is expected where labels are late."""
    title = formatting.TITLES.get(decision.loss, decision.loss)
    rows = []
    for score in decision.scores:
        known = score.low is not None and score.high is not None
        spread = f" [{score.low:.4f}, {score.high:.4f}]" if known else ""
        rows.append([score.period, _whose(decision, score), f"{score.value:.4f}{spread}"])
    for score in decision.expected:
        value = f"{score.value:.4f} expected; the labels are late"
        rows.append([score.period, _whose(decision, score), value])
    return ["batch", "version", title], rows


def _whose(decision: DecisionRecord, score: Score) -> str:
    if score.version is None:
        return f"champion {decision.champion_version}"
    return f"{score.version}, the champion before its refit, on rows that it was not trained on"


def drift(decision: DecisionRecord) -> Table:
    """Families first, then the most worrying features."""

    def cell(value: float | None) -> str:
        return "" if value is None else f"{value:.3g}"

    features = list(decision.features.items())[:MOST_FEATURES]
    rows = [
        [
            f"{name} (drift)" if name in decision.alarms and name in decision.families else name,
            cell(change.distance),
            cell(change.usual),
            cell(change.p_value),
            cell(change.importance),
        ]
        for name, change in [*decision.families.items(), *features]
    ]
    return ["", "distance", "usual", "p", "importance"], rows


def to_terminal(decision: DecisionRecord) -> None:
    """What the sentences of the log leave out, on standard output: earlier batches, and drift."""
    console = plain_console(soft_wrap=True)
    header, rows = losses(decision)
    if len(decision.scores) > SAID:
        console.print()
        print_table(header, rows, width=100, gap=3)
    header, rows = drift(decision)
    if rows:
        against = f"{decision.watched_batch} against {decision.reference_batch}"
        console.print()
        console.print(printable(f"Families, then features, batch {against}:"))
        print_table(header, rows, width=100, gap=3)
        console.print(
            "p: how often a batch in which nothing has changed would differ as much.\n"
            "importance: what shuffling the feature costs the champion."
        )
