"""Two steps of every system are those of the day on which the golden values were written; its terms are weighed."""

import functools

import jax
import numpy as np
import pytest

from mmjax.parallel.mesh import put_batch
from tests.golden import values
from tests.train.systems import ROWS, SYSTEMS, batch, beginning, experiment, prepared, two_steps

pytestmark = pytest.mark.usefixtures("quick_compilations")


def test_the_queue_holds_what_the_moving_average_said():
  training = prepared(experiment("albef"), 1)
  state = jax.device_put(beginning(experiment("albef")), training.shardings, may_alias=False)
  teacher = beginning(experiment("albef")).ema
  state, _ = training.step(state, put_batch(batch(), training.mesh))
  images, texts = state.memory["momentum_image_text"]
  assert int(images.filled) == ROWS and int(images.pointer) == ROWS
  said = jax.jit(functools.partial(training.model.apply, method=lambda m, b: m.project(m.encode(b))))
  embeddings = said({"params": teacher}, batch())
  np.testing.assert_allclose(images.features[:ROWS], embeddings["image"], rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(texts.features[:ROWS], embeddings["text"], rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(texts.concept[:ROWS], batch()["concept"])


@pytest.mark.parametrize(("system", "balance"), [*((name, "fixed") for name in SYSTEMS), ("bert", "uncertainty")])
def test_two_steps_are_the_golden_ones(system, balance):
  fields = {} if balance == "fixed" else {"balance": balance}
  # The second step repeats the rounding of the first: processors differ by up to 2.3e-6 in a norm of its gradient.
  for step, metrics in enumerate(two_steps(experiment(system, **fields))):
    values.check("steps", f"{system}, {balance}, step {step}", metrics, rel=(1e-6, 5e-6)[step])


def test_a_schedule_weighs_a_term_step_by_step():
  seen = two_steps(experiment("coca"))
  for step, metrics in enumerate(seen):
    weight = 2.0 * (0.5 + step / 8)
    assert metrics["loss"] == pytest.approx(metrics["softmax_image_text"] + weight * metrics["caption"], rel=1e-6)


def test_uncertainty_weighs_terms_by_learned_variances():
  seen = two_steps(experiment("bert", balance="uncertainty"))
  plain = sum(seen[0][name] for name in ("masked_words_text", "next_sentence"))
  assert seen[0]["loss"] == pytest.approx(plain, rel=1e-6)  # variances begin at 1
  later = sum(seen[1][name] for name in ("masked_words_text", "next_sentence"))
  assert seen[1]["loss"] != pytest.approx(later, rel=1e-6)
