from __future__ import annotations

from retrain.monitoring.policies import Always, Evidence, Never

EVIDENCE = Evidence("2013-03", 1000, 0.2, 0.25, champion_version=4, champion_score=0.5)


def test_always_says_yes_without_looking_at_the_champion() -> None:
    decision = Always().decide(EVIDENCE)
    assert decision.retrain and "2013-03" in decision.reason
    assert not Always.needs_champion


def test_never_says_no_and_names_whom_it_keeps() -> None:
    decision = Never().decide(EVIDENCE)
    assert not decision.retrain and "version 4" in decision.reason
    assert Never.needs_champion
