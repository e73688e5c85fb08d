"""Total costs of the policies over a range of costs of a retraining, beside the best sequence:
python tests/benchmarks/costs.py

Run it in a project whose snapshot is there (`dvc repro snapshot`). Strategy `full`, no gate, so
that policies alone differ. Models are those of `retrain backtest`; what is missing is trained
first.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from retrain.backtest.history_view import HistoryView
from retrain.backtest.outcome import Plan
from retrain.backtest.regret import best_sequence, loss_matrix
from retrain.backtest.replay import ALWAYS_PROMOTE, Replay, simulate
from retrain.commands.backtest import read_history
from retrain.config import Config, compose
from retrain.data.snapshot import SnapshotStore
from retrain.workspace import SNAPSHOT

CONF = Path("conf")
POLICIES = ("always", "every", "on_drift", "on_decay", "any_of", "cost_aware", "never")
COSTS = (0.0, 0.001, 0.003, 0.01, 0.02, 0.05, 0.1)


def main() -> None:
    config = compose(CONF, ["strategy=full"])
    policies = {name: dict(compose(CONF, [f"policy={name}"]).policy) for name in POLICIES}
    history = read_history(config, SnapshotStore(SNAPSHOT), [])
    plan = Plan(
        ("always", "full", ALWAYS_PROMOTE),
        dataclasses.replace(config, policy=policies["always"]),
        None,
    )
    matrix = loss_matrix(history, Replay(history, plan))
    print("loss and cost of retraining a batch, and retrainings")
    print("cost    " + "".join(f"{name:>13}" for name in POLICIES) + "   best  cost_aware to best")
    for cost in COSTS:
        policies["cost_aware"]["retraining_cost"] = cost
        found = {name: replay(history, config, name, policy) for name, policy in policies.items()}
        best, _ = best_sequence([matrix], history.served, cost)
        cells = "".join(
            f"{outcome.cost(cost):9.4f}{outcome.retrainings:>4}" for outcome in found.values()
        )
        print(f"{cost:<8}{cells}  {best:.4f}  {found['cost_aware'].cost(cost) / best - 1:+.1%}")


def replay(history: HistoryView, config: Config, name: str, policy: dict):
    plan = Plan((name, "full", ALWAYS_PROMOTE), dataclasses.replace(config, policy=policy), None)
    return simulate(history, [plan])[0]


if __name__ == "__main__":
    main()
