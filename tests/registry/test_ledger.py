"""The ledger: who serves is a function of its entries, and of several writers exactly one gets each number."""

from __future__ import annotations

import dataclasses
import json
import os
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from retrain.errors import ModelError, PromotionError, StoreError
from retrain.gate.alpha_spending import Look
from retrain.gate.comparison import Comparison, Verdict
from retrain.registry import transitions, versions
from retrain.registry.entries import (
    Entry,
    current_champion,
    deployment_history,
    find_incumbent,
    pending_approval,
    rolled_back,
    training_of,
)
from retrain.registry.ledger import Ledger
from retrain.registry.store import Store, ensure_experiment
from retrain.registry.transitions import (
    AuditContext,
    Promotion,
    Refused,
    VersionInfo,
    plan_approval,
    plan_choice,
    rollback_target,
)
from retrain.types import ChallengerRecord, CodeRecord, ModelRecord

JANUARY, FEBRUARY, MARCH = "2013-01-22T00:00:00", "2013-02-19T00:00:00", "2013-03-22T00:00:00"
FEBRUARY_ENDS, MARCH_ENDS = "2013-03-01T00:00:00", "2013-04-01T00:00:00"


def look(predictions: str, gate: str) -> Look:
    start, end = "2013-02-20T00:00:00", "2013-03-02T00:00:00"
    return Look(
        predictions,
        gate,
        start,
        end,
        challenger=1,
        incumbent=None,
        snapshot="s",
        newest_batch="2013-02",
    )


def entry(
    seq: int,
    champion: int | None,
    previous: int | None,
    trained_until: str | None,
    challenger: int,
    **more: object,
) -> Entry:
    fields = dict(
        kind="verdict",
        verdict="promote" if champion != previous else "keep",
        reason="because",
        champion=champion,
        previous=previous,
        trained_until=trained_until,
        challenger=challenger,
        challenger_trained_until=FEBRUARY,
        incumbent=previous,
        comparison=f"digest-{seq}",
        snapshot="snapshot",
        newest_batch="2013-02",
        git_commit=None,
        run_id="run",
        seq=seq,
    )
    return Entry(**(fields | more))


def trained(version: int, ledger_length: int, until: str = FEBRUARY) -> ChallengerRecord:
    return ChallengerRecord(
        retrained=True,
        reason="",
        snapshot="snapshot",
        newest_batch="2013-02",
        challenger=ModelRecord(version, "2013-01-01T00:00:00", until),
        run_id="run",
        evaluation_start="2013-02-20T00:00:00",
        evaluation_end="2013-03-01T00:00:00",
        predictions=f"predictions of {version}",
        recipe=f"recipe of {version}",
        ledger_length=ledger_length,
    )


def next_entry(entries: list[Entry], *promotion: object) -> Entry:
    return transitions.next_entry(entries, Promotion(*promotion))


def plan_refusal(entries: list[Entry], *promotion: object, reason: str) -> Entry | None:
    return transitions.plan_refusal(entries, Promotion(*promotion), reason)


def circumstances(comparison: str, approval_required: bool = False) -> AuditContext:
    return AuditContext(comparison, "config", "a" * 40, approval_required)


PROMOTE = Comparison(verdict=Verdict.promote, reason="all passed")
KEEP = Comparison(verdict=Verdict.keep, reason="one failed")
REFIT = ModelRecord(2, "2013-01-01T00:00:00", FEBRUARY_ENDS)


class TestIncumbent:
    def test_nobody_before_the_first_promotion(self) -> None:
        assert find_incumbent([], MARCH) is None
        assert find_incumbent([entry(0, None, None, None, 1)], MARCH) is None

    def test_the_champion_when_its_training_ended_before_the_window(self) -> None:
        assert find_incumbent([entry(0, 2, None, FEBRUARY_ENDS, 1)], MARCH) == 2

    def test_its_unrefitted_twin_when_the_champion_has_seen_the_window(self) -> None:
        assert find_incumbent([entry(0, 2, None, FEBRUARY_ENDS, 1)], FEBRUARY) == 1

    def test_nobody_older_when_both_have_seen_it(self) -> None:
        """A snapshot of the past, or a longer window: the champion must not be replaced by who beats its predecessor."""
        entries = [
            entry(0, 2, None, JANUARY, 1),
            entry(1, 4, 2, MARCH_ENDS, 3, challenger_trained_until=MARCH),
        ]
        with pytest.raises(
            PromotionError,
            match=r"(?s)version 4, was trained on rows of this evaluation window.*data\.as_of",
        ):
            find_incumbent(entries, FEBRUARY)

    def test_kept_challengers_are_never_incumbents(self) -> None:
        entries = [entry(0, 2, None, FEBRUARY_ENDS, 1), entry(1, 2, 2, FEBRUARY_ENDS, 3)]
        assert find_incumbent(entries, MARCH) == 2
        assert current_champion(entries).seq == 0


class TestMoves:
    def test_a_promotion_moves_the_champion_to_the_refit(self) -> None:
        planned = next_entry([], trained(1, 0), PROMOTE, REFIT, circumstances("digest"))
        assert (planned.seq, planned.champion, planned.previous, planned.moved) == (
            0,
            2,
            None,
            True,
        )
        assert (
            planned.trained_until == FEBRUARY_ENDS and planned.challenger_trained_until == FEBRUARY
        )

    def test_anything_else_leaves_it(self) -> None:
        planned = next_entry(
            [entry(0, 9, None, JANUARY, 8)], trained(1, 1), KEEP, REFIT, circumstances("digest")
        )
        assert (planned.champion, planned.moved) == (9, False)

    def test_the_same_verdict_is_written_once(self) -> None:
        first = entry(0, 2, None, FEBRUARY_ENDS, 1, comparison="digest")
        assert next_entry([first], trained(1, 0), PROMOTE, REFIT, circumstances("digest")) is first

    def test_a_refit_that_is_wanted_later_moves_the_champion_on(self) -> None:
        without = entry(0, 1, None, FEBRUARY, 1, comparison="digest")
        planned = next_entry([without], trained(1, 0), PROMOTE, REFIT, circumstances("digest"))
        assert (planned.seq, planned.champion, planned.previous) == (1, 2, 1)

    def test_a_refit_that_is_no_longer_wanted_does_not_move_it_back(self) -> None:
        refitted = entry(0, 2, None, FEBRUARY_ENDS, 1, comparison="digest")
        new_version = trained(1, 0).challenger
        assert (
            next_entry([refitted], trained(1, 0), PROMOTE, new_version, circumstances("digest"))
            is refitted
        )

    def test_a_champion_that_moved_since_the_comparison_stops_the_promotion(self) -> None:
        entries = [entry(0, 9, None, JANUARY, 8), entry(1, 11, 9, JANUARY, 10)]
        with pytest.raises(
            PromotionError, match=r"(?s)has moved to version 11 .* `dvc repro -f -s train`"
        ):
            next_entry(
                entries, trained(1, ledger_length=1), PROMOTE, REFIT, circumstances("digest")
            )

    def test_a_kept_challenger_in_between_does_not(self) -> None:
        entries = [entry(0, 9, None, JANUARY, 8), entry(1, 9, 9, JANUARY, 10)]
        assert (
            next_entry(
                entries, trained(1, ledger_length=1), PROMOTE, REFIT, circumstances("digest")
            ).seq
            == 2
        )

    def test_another_verdict_on_the_same_challenger_is_a_new_entry(self) -> None:
        first = entry(0, 2, None, FEBRUARY_ENDS, 1, comparison="before")
        planned = next_entry([first], trained(1, 0), KEEP, REFIT, circumstances("after"))
        assert (planned.seq, planned.champion, planned.moved) == (1, 2, False)

    def test_others_judged_on_the_same_rows_in_between_stop_it_too(self) -> None:
        other = next_entry([], trained(5, 0), KEEP, REFIT, circumstances("other"))
        with pytest.raises(Refused, match=r"look 1 .* look 2 by now"):
            next_entry([other], trained(1, 0), PROMOTE, REFIT, circumstances("digest"))

    def test_a_refusal_is_written_once_and_moves_nothing(self) -> None:
        entries = [entry(0, 9, None, JANUARY, 8), entry(1, 11, 9, JANUARY, 10)]
        arguments = trained(1, 1), PROMOTE, REFIT, circumstances("digest")
        refusal = plan_refusal(entries, *arguments, reason="the champion has moved")
        assert (refusal.kind, refusal.champion, refusal.moved) == ("refusal", 11, False)
        assert plan_refusal([*entries, refusal], *arguments, reason="") is None


def origin(version: int, unrefitted: int | None = None, recipe: str = "recipe") -> VersionInfo:
    model = ModelRecord(
        version,
        "2013-01-01T00:00:00",
        MARCH_ENDS,
        ["2013-03"],
        sha256=f"{version}" * 64,
        recipe=recipe,
    )
    unrefitted = (
        ModelRecord(unrefitted, "2013-01-01T00:00:00", MARCH, sha256=f"{unrefitted}" * 64)
        if unrefitted
        else model
    )
    return VersionInfo(model, unrefitted, "run", None)


class TestPeople:
    THREE = (
        entry(0, 2, None, JANUARY, 1),
        entry(1, 4, 2, FEBRUARY, 3),
        entry(2, 6, 4, MARCH, 5, recipe="bad"),
    )

    def roll_back(self, entries: list[Entry], version: int) -> list[Entry]:
        return [
            *entries,
            plan_choice(
                entries, "rollback", origin(version, version - 1, f"recipe of {version}"), "why"
            ),
        ]

    def test_a_rollback_goes_to_who_last_served_and_the_next_one_further_back(self) -> None:
        assert rollback_target(self.THREE) == 4
        once = self.roll_back(list(self.THREE), 4)
        assert current_champion(once).champion == 4 and rollback_target(once) == 2
        twice = self.roll_back(once, 2)
        with pytest.raises(PromotionError, match="No version served before"):
            rollback_target(twice)

    def test_after_a_rollback_to_one_that_never_served_the_way_back_leaves_out_the_bad_one(
        self,
    ) -> None:
        entries = self.roll_back(list(self.THREE), 5)
        assert [one.champion for one in deployment_history(entries)] == [2, 4, 5]
        assert rollback_target(entries) == 4

    def test_a_rollback_to_a_version_that_served_twice_leaves_what_served_before_it_reachable(
        self,
    ) -> None:
        entries = [
            *self.THREE[:2],
            entry(2, 2, 4, JANUARY, 1, kind="override"),
            entry(3, 6, 2, MARCH, 5),
        ]
        assert rollback_target(entries) == 2
        once = self.roll_back(entries, 2)
        assert [one.champion for one in deployment_history(once)] == [2, 4, 2]
        assert rollback_target(once) == 4

    def test_the_incumbent_after_a_rollback_is_the_restored_version_or_its_twin(self) -> None:
        entries = self.roll_back(list(self.THREE), 4)
        assert find_incumbent(entries, MARCH_ENDS) == 4
        assert find_incumbent(entries, MARCH) == 3

    def test_a_rolled_back_recipe_is_known_until_a_person_brings_it_back(self) -> None:
        assert rolled_back(self.THREE, "bad") is None
        entries = self.roll_back(list(self.THREE), 4)
        assert rolled_back(entries, "bad").seq == 3
        assert rolled_back(entries, "other") is None
        again = [*entries, plan_choice(entries, "override", origin(6, 5, "bad"), "why")]
        assert rolled_back(again, "bad") is None

    def test_a_rolled_back_recipe_is_not_promoted_whatever_the_gate_says(self) -> None:
        entries = self.roll_back(list(self.THREE), 4)
        challenger = trained(7, len(entries))
        challenger = dataclasses.replace(challenger, recipe="bad")
        with pytest.raises(Refused, match="was rolled back on this snapshot"):
            next_entry(entries, challenger, PROMOTE, REFIT, circumstances("digest"))

    def test_the_champion_can_not_be_chosen_again(self) -> None:
        with pytest.raises(PromotionError, match="is champion already"):
            plan_choice(self.THREE, "override", origin(6), "why")

    def test_a_verdict_that_needs_approval_moves_nothing_and_waits(self) -> None:
        first = entry(0, 9, None, JANUARY, 8)
        pending = next_entry(
            [first], trained(1, 1), PROMOTE, REFIT, circumstances("digest", approval_required=True)
        )
        assert (pending.moved, pending.champion, pending.candidate) == (False, 9, 2)
        entries = [first, pending]
        assert (
            next_entry(entries, trained(1, 1), PROMOTE, REFIT, circumstances("digest", True))
            is pending
        )
        assert pending_approval(entries) is pending
        with pytest.raises(PromotionError, match="version 2 does"):
            plan_approval(entries, 7, FEBRUARY_ENDS, "fine")
        approval = plan_approval(entries, 2, FEBRUARY_ENDS, "fine")
        assert (approval.kind, approval.champion, approval.previous, approval.reason) == (
            "approval",
            2,
            9,
            "fine",
        )
        assert pending_approval([*entries, approval]) is None
        assert (
            next_entry(
                [*entries, approval], trained(1, 1), PROMOTE, REFIT, circumstances("digest", True)
            )
            is approval
        )

    def test_another_verdict_or_a_move_takes_the_candidate_s_place_and_a_refusal_does_not(
        self,
    ) -> None:
        pending = next_entry(
            [], trained(1, 0), PROMOTE, REFIT, circumstances("digest", approval_required=True)
        )
        assert pending_approval([pending, entry(1, None, None, None, 3, kind="refusal")]) is pending
        assert pending_approval([pending, entry(1, None, None, None, 3)]) is None
        with pytest.raises(PromotionError, match="No version waits"):
            plan_approval([pending, entry(1, 5, None, MARCH, 5)], None, FEBRUARY_ENDS, "fine")

    def test_without_the_need_for_approval_a_waiting_version_is_promoted_by_the_next_run(
        self,
    ) -> None:
        pending = next_entry(
            [], trained(1, 0), PROMOTE, REFIT, circumstances("digest", approval_required=True)
        )
        planned = next_entry([pending], trained(1, 0), PROMOTE, REFIT, circumstances("digest"))
        assert (planned.seq, planned.champion, planned.candidate) == (1, 2, None)


def add_versions(store: Store, count: int) -> None:
    store.client.create_registered_model(store.registered_model)
    for _ in range(count):
        store.client.create_model_version(
            store.registered_model, str(store.local_root / "mlruns"), run_id=None
        )


def alias(store: Store, name: str) -> int:
    return int(store.client.get_model_version_by_alias(store.registered_model, name).version)


def test_a_number_is_given_once(store: Store) -> None:
    ledger = Ledger.open(store)
    assert ledger.append(entry(0, 1, None, FEBRUARY, 1), 0)
    assert not ledger.append(entry(0, 2, None, FEBRUARY, 2), 0)
    (only,) = Ledger.open(store).entries()
    assert only.champion == 1 and only.who and only.time and only.seq == 0


@pytest.mark.parametrize(
    "reason", ["x" * 4000, "ж" * 4000, "\U0001f600 \x00 \ud800 \n" * 9000], ids=len
)
def test_an_entry_of_any_length_is_read_as_it_was_written(store: Store, reason: str) -> None:
    ledger = Ledger.open(store)
    assert ledger.append(entry(0, 1, None, FEBRUARY, 1), 0)
    assert ledger.append(entry(1, 2, 1, FEBRUARY, 2, reason=reason), 1)
    assert not ledger.append(entry(1, 3, 1, FEBRUARY, 3, reason=reason), 1), "the loser of a race"
    first, second = Ledger.open(store).entries()
    assert (first.reason, second.champion) == ("because", 2)
    assert second.reason == reason.replace("\ud800", "?"), "half a character is none"
    params = store.client.get_run(ledger.run_id).data.params
    assert max(map(len, params.values())) <= 5000, "MLflow's limit is 6,000"


@pytest.mark.parametrize("cuts", ["true", "false"])
def test_a_store_with_a_smaller_limit_gets_smaller_pieces(
    store: Store, monkeypatch: pytest.MonkeyPatch, cuts: str
) -> None:
    from mlflow.utils import validation

    monkeypatch.setattr(validation, "MAX_PARAM_VAL_LENGTH", 500)
    monkeypatch.setenv("MLFLOW_TRUNCATE_LONG_VALUES", cuts)
    ledger = Ledger.open(store)
    ledger.append(entry(0, 2, 1, FEBRUARY, 2, reason="x" * 9000), 0)
    assert ledger.entries()[0].reason == "x" * 9000
    assert not ledger.append(entry(0, 3, 1, FEBRUARY, 3, reason="y" * 9000), 0), (
        "the loser of a race"
    )


def test_a_part_that_is_missing_or_changed_is_noticed(store: Store) -> None:
    ledger = Ledger.open(store)
    ledger.append(entry(0, 1, None, FEBRUARY, 1, reason="x" * 9000), 0)
    with sqlite3.connect(store.local_root / "mlflow.db") as database:
        database.execute(
            "update params set value = replace(value, 'xxx', 'xyx') where key like 'part-%-0001'"
        )
    with pytest.raises(StoreError, match=r"parts of ledger entry `seq-000000` were changed"):
        ledger.entries()
    with sqlite3.connect(store.local_root / "mlflow.db") as database:
        database.execute("delete from params where key like 'part-%-0001'")
    with pytest.raises(StoreError, match=r"`seq-000000` lacks a part"):
        ledger.entries()


@pytest.mark.parametrize("what", ["run", "experiment"])
def test_a_deleted_ledger_is_noticed_with_the_way_to_restore_it(store: Store, what: str) -> None:
    ledger = Ledger.open(store)
    ledger.append(entry(0, 1, None, FEBRUARY, 1), 0)
    experiment = store.client.get_run(ledger.run_id).info.experiment_id
    if what == "run":
        store.client.delete_run(ledger.run_id)
    else:
        store.client.delete_experiment(experiment)
    number = ledger.run_id if what == "run" else experiment
    with pytest.raises(StoreError, match=rf"mlflow {what}s restore --{what}-id {number}"):
        Ledger.open(store)
    for use in (ledger.entries, lambda: ledger.append(entry(1, 2, 1, FEBRUARY, 2), 1)):
        with pytest.raises(StoreError, match=f"mlflow runs restore --run-id {ledger.run_id}"):
            use()
    with pytest.raises(StoreError, match="was deleted"):
        ledger.extend(lambda entries: entry(len(entries), 2, 1, FEBRUARY, 2))
    restore = store.client.restore_run if what == "run" else store.client.restore_experiment
    restore(number)
    assert len(Ledger.open(store).entries()) == 1


def test_a_registry_with_a_champion_and_no_ledger_is_no_fresh_start(store: Store) -> None:
    """Deleted for good by `mlflow gc`: the next challenger would have nobody to beat."""
    add_versions(store, 1)
    store.client.set_registered_model_alias("flights", "champion", "1")
    with pytest.raises(
        StoreError, match="Version 1 of `flights` has the alias `champion`, but there is no ledger"
    ):
        Ledger.open(store)
    store.client.delete_registered_model_alias("flights", "champion")
    assert Ledger.open(store).entries() == []


def test_a_deleted_experiment_of_runs_is_restored_and_it_is_said(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    found = store.client.get_experiment_by_name("flights")
    store.client.delete_experiment(found.experiment_id)
    assert ensure_experiment(store, "flights") == (found.experiment_id, False)
    assert "`flights` was deleted" in caplog.text
    assert store.client.get_experiment(found.experiment_id).lifecycle_stage == "active"


def test_a_missing_entry_is_noticed(store: Store) -> None:
    """Counting the entries that are left would give a number that is taken: every attempt would be lost."""
    ledger = Ledger.open(store)
    for number in range(3):
        ledger.append(entry(number, number + 1, number or None, FEBRUARY, 1), number)
    with sqlite3.connect(store.local_root / "mlflow.db") as database:
        database.execute("delete from params where key = 'seq-000001'")
    with pytest.raises(StoreError, match="Ledger entry 1 is missing"):
        ledger.extend(lambda entries: entry(len(entries), 2, 1, FEBRUARY, 2))


def test_a_read_only_database_is_named(store: Store) -> None:
    from mlflow import MlflowClient

    ledger = Ledger.open(store)
    client = MlflowClient(f"sqlite:///file:{store.local_root / 'mlflow.db'}?mode=ro&uri=true")
    reader = Ledger(dataclasses.replace(store, client=client), ledger.run_id)
    assert reader.entries() == []
    with pytest.raises(StoreError, match=r"(?s)readonly database.* mend the permissions"):
        reader.append(entry(0, 1, None, FEBRUARY, 1), 0)


def test_a_write_whose_answer_was_lost_counts(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.exceptions import MlflowException

    ledger = Ledger.open(store)
    write = store.client.log_param

    def lose_the_answer(*arguments: object) -> None:
        write(*arguments)
        raise MlflowException("connection reset by peer")

    monkeypatch.setattr(store.client, "log_param", lose_the_answer)
    assert ledger.append(entry(0, 1, None, FEBRUARY, 1), 0)
    assert not ledger.append(entry(0, 2, None, FEBRUARY, 2), 0)


def test_a_plan_is_made_again_on_what_another_writer_has_added(store: Store) -> None:
    ledger, seen = Ledger.open(store), []

    def plan(entries: list[Entry]) -> Entry:
        seen.append(len(entries))
        if len(entries) < 2:  # another writer is quicker
            ledger.append(entry(len(entries), 7, None, FEBRUARY, 7), len(entries))
        return entry(len(entries), 9, 7, FEBRUARY, 9)

    assert ledger.extend(plan).seq == 2 and seen == [0, 1, 2]


def test_aliases_follow_the_ledger_and_are_mended_after_a_crash(store: Store) -> None:
    add_versions(store, 3)
    ledger = Ledger.open(store)
    assert versions.follow_ledger(store, ledger) is None
    ledger.append(entry(0, 1, None, FEBRUARY, 1), 0)
    ledger.append(entry(1, 2, 1, FEBRUARY, 2), 1)  # a process died here, before it set the alias
    assert versions.follow_ledger(store, ledger) == 2
    assert (alias(store, "champion"), alias(store, "previous")) == (2, 1)
    store.client.set_registered_model_alias(
        "flights", "champion", "3"
    )  # somebody clicked in the UI
    versions.follow_ledger(store, ledger)
    assert alias(store, "champion") == 2


RACE = """
import sys, time
from pathlib import Path
from retrain.config import compose
from retrain.registry.ledger import Entry, Ledger
from retrain.registry.store import open_store

number, conf, barrier = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
config = compose(conf)
barrier.joinpath(str(number)).touch()
while len(list(barrier.iterdir())) < 4:
    time.sleep(0.01)
store = open_store(config)  # the database does not exist yet
ledger = Ledger.open(store)
entry = Entry("verdict", "promote", "race", number, None, None, number, "2013-01-01", None, f"c{number}", "s", "2013-01", None, "r")
print(int(ledger.append(entry, 0)), ledger.run_id)
"""


def test_of_four_processes_that_start_on_an_empty_store_exactly_one_writes_the_first_entry(
    tmp_path: Path,
) -> None:
    conf = Path(__file__).parents[2] / "conf"
    (tmp_path / "barrier").mkdir()
    command = [sys.executable, "-c", RACE]

    environment = os.environ | {"DVC_ROOT": str(tmp_path)}
    racers = [
        subprocess.Popen(
            [*command, str(number), str(conf), str(tmp_path / "barrier")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for number in range(4)
    ]
    results = [racer.communicate(timeout=120) for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * 4, [error for _, error in results]
    won, ledgers = zip(*(output.split() for output, _ in results), strict=True)
    assert sorted(won) == ["0", "0", "0", "1"]
    assert len(set(ledgers)) == 1, "there must be one ledger"


def test_a_tidied_up_previous_version_is_no_obstacle_and_a_missing_champion_is_named(
    store: Store,
) -> None:
    add_versions(store, 3)
    ledger = Ledger.open(store)
    ledger.append(entry(0, 1, None, FEBRUARY, 1), 0)
    ledger.append(entry(1, 2, 1, FEBRUARY, 2), 1)
    store.client.delete_model_version("flights", "1")
    assert versions.follow_ledger(store, ledger) == 2
    store.client.delete_model_version("flights", "2")
    with pytest.raises(
        StoreError,
        match=r"(?s)no version 2.*`retrain rollback --reason .*`retrain rollback --to VERSION`.*There are 3\.",
    ):
        versions.follow_ledger(store, ledger)
    store.client.delete_registered_model("flights")
    with pytest.raises(StoreError, match="the model was deleted in MLflow"):
        versions.follow_ledger(store, ledger)


def test_a_model_that_took_the_place_of_a_deleted_one_does_not_pass_for_the_champion(
    store: Store,
) -> None:
    add_versions(store, 1)
    store.client.set_model_version_tag("flights", "1", "model_sha256", "a" * 64)
    ledger = Ledger.open(store)
    ledger.append(entry(0, 1, None, FEBRUARY, 1, models={"1": "a" * 64}), 0)
    assert versions.follow_ledger(store, ledger) == 1
    store.client.delete_registered_model("flights")
    add_versions(store, 1)
    with pytest.raises(
        StoreError, match="Version 1 of `flights` is not the one that the ledger names"
    ):
        versions.follow_ledger(store, ledger)


def test_a_model_deleted_before_the_first_champion_is_named(store: Store) -> None:
    ledger = Ledger.open(store)
    ledger.append(entry(0, None, None, None, 1), 0)
    with pytest.raises(StoreError, match="has no model `flights`"):
        versions.follow_ledger(store, ledger)


class TestModelFiles:
    """The ledger says what a version's file must be: tags can be changed by whoever can write to the store."""

    ENTRIES = (
        entry(0, 1, None, FEBRUARY, 1, models={"1": "a" * 64}),
        entry(1, 2, 1, FEBRUARY, 2, models={"1": "b" * 64}),
    )

    def version(self, store: Store, number: int, sha256: str | None):
        if number == 1:
            add_versions(store, 2)
        if sha256:
            store.client.set_model_version_tag("flights", str(number), "model_sha256", sha256)
        return versions.get_version(store, number)

    def test_the_first_entry_about_a_version_counts(self, store: Store) -> None:
        assert versions.recorded_digest(self.version(store, 1, "a" * 64), self.ENTRIES) == "a" * 64

    @pytest.mark.parametrize("tag", ["b" * 64, None])
    def test_a_changed_or_deleted_tag_is_refused(self, store: Store, tag: str | None) -> None:
        version = self.version(store, 1, tag)
        with pytest.raises(ModelError, match=f"the ledger says {'a' * 64}(?s:.*)set the tag back"):
            versions.recorded_digest(version, self.ENTRIES)
        with pytest.raises(ModelError, match="Set the tag back"):
            versions.load_version(store, 1, [], self.ENTRIES)

    def test_a_changed_tag_can_not_hide_which_rows_a_version_has_seen(self, store: Store) -> None:
        add_versions(store, 3)
        for number in (1, 2, 3):
            store.client.set_model_version_tag("flights", str(number), "trained_until", MARCH)
        entries = [entry(0, 2, None, FEBRUARY_ENDS, 1, challenger_trained_until=MARCH)]
        assert (
            versions.checked_record(versions.get_version(store, 1), entries).trained_until == MARCH
        )
        assert (
            versions.checked_record(versions.get_version(store, 3), entries).trained_until == MARCH
        ), "not known"
        with pytest.raises(
            PromotionError,
            match=f"(?s)until {MARCH}, the ledger {FEBRUARY_ENDS}.*Set the tag back",
        ):
            versions.checked_record(versions.get_version(store, 2), entries)

    def test_without_the_ledger_the_tag_counts_and_without_either_nothing_is_loaded(
        self, store: Store
    ) -> None:
        add_versions(store, 2)
        with pytest.raises(ModelError, match="Neither the ledger nor a tag"):
            versions.recorded_digest(versions.get_version(store, 2), self.ENTRIES)
        assert versions.recorded_digest(self.version(store, 2, "c" * 64), self.ENTRIES) == "c" * 64

    def test_a_verdict_and_a_choice_record_them(self) -> None:
        challenger = trained(1, 0)
        challenger = dataclasses.replace(
            challenger,
            challenger=dataclasses.replace(challenger.challenger, sha256="a" * 64),
            code=CodeRecord("d" * 40, "e" * 64, "f" * 64),
        )
        refit = dataclasses.replace(REFIT, sha256="b" * 64)
        planned = next_entry([], challenger, PROMOTE, refit, circumstances("digest"))
        assert planned.models == {"1": "a" * 64, "2": "b" * 64}
        assert (planned.trained_commit, planned.run_config, planned.run_patch) == (
            "d" * 40,
            "e" * 64,
            "f" * 64,
        )
        assert (
            training_of([planned], "run") is planned and training_of([planned], "another") is None
        )
        chosen = plan_choice([planned], "override", origin(7, 6), "why")
        assert chosen.models == {"7": "7" * 64, "6": "6" * 64}


def test_an_entry_of_an_earlier_version_of_the_project_is_read(store: Store) -> None:
    content = dataclasses.asdict(entry(0, 1, None, FEBRUARY, 1))
    for name in ("seq", "trained_commit", "run_config", "run_patch", "models", "before"):
        del content[name]
    ledger = Ledger.open(store)
    store.client.log_param(ledger.run_id, "seq-000000", json.dumps(content, ensure_ascii=False))
    (only,) = ledger.entries()
    assert only.champion == 1 and only.models == {} and training_of([only], "run") is None


def test_the_pages_of_both_versions_say_who_rolled_back_and_why(store: Store) -> None:
    add_versions(store, 2)
    store.client.update_model_version("flights", "2", "Promoted: better by far.")
    ledger = Ledger.open(store)
    ledger.append(entry(0, 1, None, FEBRUARY, 1), 0)
    ledger.append(entry(1, 2, 1, FEBRUARY, 2), 1)
    versions.follow_ledger(store, ledger)
    assert versions.get_version(store, 1).description in (None, ""), (
        "nothing to say about a verdict"
    )
    written = ledger.extend(
        lambda seen: entry(2, 1, 2, FEBRUARY, 1, kind="rollback", reason="complaints\nby phone")
    )
    for _ in range(2):  # once, however often it is looked at
        versions.follow_ledger(store, ledger)
    bad, good = versions.get_version(store, 2), versions.get_version(store, 1)
    first, _, rest = bad.description.partition("\n\n")
    why = "complaints by phone (ledger entry 2)"
    assert (
        first
        == f"Rolled back on {written.time[:10]} by {written.who}, version 1 serves instead: {why}"
    )
    assert rest == "Promoted: better by far."
    assert why in bad.tags["rolled_back"] and why in good.tags["decision"]
    assert (
        good.description.strip()
        == f"Serves again since {written.time[:10]}: {written.who} rolled version 2 back: {why}"
    )

    ledger.extend(lambda seen: entry(3, 2, 1, FEBRUARY, 2, kind="override", reason="x" * 6000))
    versions.follow_ledger(store, ledger)
    again = versions.get_version(store, 2)
    assert "rolled_back" not in again.tags and again.description.startswith("Serves since")
    assert len(again.description) < 5000, "Postgres takes no more"


def test_a_page_that_can_not_be_written_stops_no_rollback(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from mlflow.exceptions import MlflowException

    def refuse(*_: object) -> None:
        raise MlflowException("too long")

    add_versions(store, 2)
    ledger = Ledger.open(store)
    ledger.append(entry(0, 1, None, FEBRUARY, 1), 0)
    ledger.append(entry(1, 2, 1, FEBRUARY, 2), 1)
    ledger.append(entry(2, 1, 2, FEBRUARY, 1, kind="rollback"), 2)
    monkeypatch.setattr(store.client, "update_model_version", refuse)
    assert versions.follow_ledger(store, ledger) == 1 and alias(store, "champion") == 1
    assert "don't say yet" in caplog.text


def test_a_reason_in_any_script_is_stored_whole(store: Store) -> None:
    ledger = Ledger.open(store)
    planned = next_entry(
        [],
        trained(1, 0),
        Comparison(verdict=Verdict.keep, reason="\u0416" * 1500),
        REFIT,
        circumstances("digest"),
    )
    assert ledger.append(planned, 0)
    assert ledger.entries()[0].reason == "\u0416" * 1500


def test_an_entry_fits_into_a_param(store: Store) -> None:
    ledger = Ledger.open(store)
    long = Comparison(verdict=Verdict.keep, reason="x" * 10_000)
    planned = next_entry([], trained(1, 0), long, REFIT, circumstances("digest"))
    assert ledger.append(planned, 0)
    (stored,) = ledger.entries()
    assert stored.reason == "x" * 1500
    assert len(json.dumps(vars(stored))) < 6000


def test_a_look_is_written_once_and_before_its_verdict_is_known(store: Store) -> None:
    ledger, told = Ledger.open(store), []

    def verdict(planned: Look) -> str:
        told.append((planned.look, len(ledger.looks())))
        return "keep"

    first = ledger.record_look(look("a", "g"), verdict)
    assert (first.look, first.verdict) == (1, "keep") and first.who and ledger.looks() == [first]
    assert ledger.record_look(look("a", "g"), verdict) == first and told == [(1, 0)]
    assert (
        ledger.record_look(look("a", "h")).look == 2
        and ledger.record_look(look("b", "g")).look == 3
    )
    assert ledger.entries() == [], "looks have numbers of their own"


def test_looks_at_the_same_time_get_a_number_each(store: Store) -> None:
    ledger = Ledger.open(store)
    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(lambda gate: ledger.record_look(look("a", gate)), "ghgkgl"))
    assert sorted({(one.gate, one.look) for one in taken}) == sorted(
        (one.gate, one.look) for one in ledger.looks()
    )
    assert sorted(one.look for one in ledger.looks()) == [1, 2, 3, 4]


def test_a_look_that_was_taken_out_is_noticed(store: Store) -> None:
    """Fewer looks would let more through."""
    ledger = Ledger.open(store)
    for gate in "ghk":
        ledger.record_look(look("a", gate))
    with sqlite3.connect(store.local_root / "mlflow.db") as database:
        database.execute("delete from params where key = 'look-000001'")
    with pytest.raises(StoreError, match="Look 1 is missing"):
        ledger.record_look(look("b", "g"))
