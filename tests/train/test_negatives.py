"""The negatives of matching do not depend on devices and microbatches where they come from the whole batch."""

import dataclasses

import optax
import pytest

from mmjax.objectives import Matching
from mmjax.parallel.mesh import ParallelConfig
from mmjax.settings import OptimizerConfig
from tests.train.systems import ROWS, experiment, two_steps

SGD = optax.sgd(0.1)  # keeps nothing, and so compiles sooner than Adam

pytestmark = pytest.mark.usefixtures("quick_compilations")


@pytest.mark.parametrize(
  ("among", "devices", "parallel"),
  [("global", 4, dict(fsdp=2, microbatches=2)), ("device", 1, dict(microbatches=2))],
)
def test_negatives_from_the_whole_batch_do_not_depend_on_devices_and_microbatches(among, devices, parallel):
  without_average = OptimizerConfig(warmup_steps=0, schedule="constant")
  with_term = lambda term, **fields: dataclasses.replace(
    experiment("albef", **fields), objectives=(term,), optimizer=without_average
  )
  one = two_steps(with_term(Matching(group=ROWS)), core=SGD)  # one group on one device: the same candidates and draws
  other = two_steps(with_term(Matching(among=among), parallel=ParallelConfig(**parallel)), devices, SGD)
  for left, right in zip(one, other, strict=True):
    assert left == {name: pytest.approx(right[name], rel=2e-5, abs=2e-6) for name in left}
