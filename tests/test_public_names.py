"""What `from retrain import ...` gives is there, described, and its examples run."""

from __future__ import annotations

import doctest

import pytest

import retrain


@pytest.mark.parametrize("name", retrain.__all__)
def test_a_public_name_is_described_and_its_examples_run(name: str) -> None:
    thing = getattr(retrain, name)
    assert thing.__doc__
    if not isinstance(thing, type):
        return
    known = {public: getattr(retrain, public) for public in retrain.__all__}
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for examples in doctest.DocTestFinder(recurse=False).find(thing, name, globs=known):
        runner.run(examples)
    assert runner.summarize(verbose=False).failed == 0


def test_each_of_the_five_base_classes_has_an_example() -> None:
    for base in (retrain.Source, retrain.Strategy, retrain.Policy, retrain.Check, retrain.Metric):
        assert ">>>" in (base.__doc__ or ""), base
