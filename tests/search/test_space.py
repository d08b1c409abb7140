"""Ranges of settings: what is drawn from them, and what they refuse."""

import dataclasses
import math

import numpy as np
import pytest

from mmjax.errors import ConfigError
from mmjax.search.space import Choice, Integers, LogUniform, Uniform, changed, check_space, drawn, suggested
from tests.interop.references import reference
from tests.tiny import experiment

SPACE = {
  "optimizer.learning_rate": LogUniform(1e-5, 1e-1),
  "optimizer.warmup_steps": Integers(2, 4),
  "optimizer.weight_decay": Uniform(0.0, 0.5),
  "objectives.0.weight": Choice([0.5, 2.0]),
}


def test_values_are_drawn_over_the_whole_range():
  values = [drawn(SPACE, 0, number) for number in range(400)]
  rates = np.log10([one["optimizer.learning_rate"] for one in values])
  assert -5 <= rates.min() < -4.9 and -1.1 < rates.max() <= -1
  assert np.mean(rates) == pytest.approx(-3, abs=0.2)  # the middle of the logarithms
  assert {one["optimizer.warmup_steps"] for one in values} == {2, 3, 4}
  assert {one["objectives.0.weight"] for one in values} == {0.5, 2.0}
  decays = [one["optimizer.weight_decay"] for one in values]
  assert np.mean(decays) == pytest.approx(0.25, abs=0.03)


def test_values_depend_on_seed_and_number_alone():
  backwards = dict(reversed(SPACE.items()))
  assert drawn(SPACE, 3, 5) == drawn(backwards, 3, 5)
  assert drawn(SPACE, 3, 5) != drawn(SPACE, 3, 6) and drawn(SPACE, 3, 5) != drawn(SPACE, 4, 5)


def test_an_experiment_gets_the_values():
  towers = {"one": experiment().model.text, "two": dataclasses.replace(experiment().model.text, depth=2)}
  space = {**SPACE, "model.text": Choice(towers)}
  values = {"optimizer.warmup_steps": 3, "objectives.0.weight": 2.0, "model.text": "two"}
  found = changed(experiment(), space, values)
  assert found.optimizer.warmup_steps == 3 and found.objectives[0].weight == 2.0 and found.model.text.depth == 2
  check_space(experiment(), space)


def test_places_on_an_axis():
  assert [SPACE["optimizer.learning_rate"].place(value) for value in (1e-5, 1e-3, 1e-1)] == pytest.approx([0, 0.5, 1])
  assert Uniform(2.0, 4.0).place(3.0) == 0.5 and Choice(["a", "b", "c"]).place("b") == 0.5 and Choice([7]).place(7) == 0


@pytest.mark.parametrize(
  ("space", "said"),
  [
    ({}, "the search space is empty"),
    ({"optimizer.learning_rte": LogUniform(1e-4, 1)}, "names the field optimizer.learning_rte, which the experiment"),
    ({"objectives.7.weight": Uniform(0.0, 1.0)}, "names the field objectives.7.weight, which the experiment does not"),
    ({"optimizer.warmup_steps": Integers(-3, 4)}, "the search space has optimizer.warmup_steps=-3, which"),
    ({"model.text.num_heads": Choice([2, 3])}, "the search space has model.text.num_heads=3, which cannot be: "),
  ],
)
def test_a_space_that_the_experiment_cannot_have_is_refused(space, said):
  with pytest.raises(ConfigError, match=said):
    check_space(experiment(), space)


def test_values_that_cannot_be_together_are_named():
  space = {"model.text.width": Choice([16, 24]), "model.text.num_heads": Choice([2, 4, 16])}
  with pytest.raises(ConfigError, match=r"model.text.num_heads=16 beside model.text.width=24, which cannot be: "):
    changed(experiment(), space, {"model.text.width": 24, "model.text.num_heads": 16})


@pytest.mark.parametrize(
  ("make", "said"),
  [
    (lambda: Uniform(1.0, 1.0), "from a number to a larger one, not from 1.0 to 1.0"),
    (lambda: Uniform(0.0, math.inf), "from a number to a larger one"),
    (lambda: Integers(0.5, 3), "has whole ends, not 0.5 and 3"),
    (lambda: LogUniform(0.0, 1.0), "begins above 0"),
    (lambda: Choice([]), "at least one value"),
    (lambda: Choice([(1, 2)]), "give the values of a choice names"),
  ],
)
def test_ranges_that_are_none_are_refused(make, said):
  with pytest.raises(ValueError, match=said):
    make()


@pytest.mark.references
def test_tpe_looks_where_trials_did_well():
  reference("optuna")
  space = {"rate": LogUniform(1e-5, 1.0), "depth": Integers(1, 9), "pool": Choice(["cls", "mean"])}
  score = lambda one: -abs(math.log10(one["rate"]) + 3) - abs(one["depth"] - 7) / 4 + (one["pool"] == "mean")
  found = []
  for number in range(50):
    values = suggested(space, 0, number, found, maximize=True)
    assert 1e-5 <= values["rate"] <= 1 and values["depth"] in range(1, 10) and values["pool"] in ("cls", "mean")
    found.append((values, score(values), number % 3 > 0))
  early, late = (np.mean([score for _, score, _ in part]) for part in (found[:15], found[-15:]))
  assert late > early + 0.5
  assert suggested(space, 0, 49, found[:49], maximize=True) == found[49][0]  # the same history, the same values
  assert suggested(space, 1, 49, found[:49], maximize=True) != found[49][0]
  worse = [suggested(space, 0, n, found, maximize=False) for n in range(60, 75)]
  assert np.mean([score(one) for one in worse]) < late - 0.5
