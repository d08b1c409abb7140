"""The negatives of matching do not depend on devices and microbatches where they come from the whole batch."""

import dataclasses

import pytest

from mmjax.objectives import Matching
from mmjax.parallel.mesh import ParallelConfig
from mmjax.settings import OptimizerConfig
from tests.train.systems import CONSTANT, ROWS, experiment, two_steps

pytestmark = pytest.mark.usefixtures("quick_compilations")


@pytest.mark.parametrize(
  ("among", "devices", "parallel"),
  [("global", 4, dict(fsdp=2, microbatches=2)), ("device", 1, dict(microbatches=2))],
)
def test_negatives_from_the_whole_batch_do_not_depend_on_devices_and_microbatches(among, devices, parallel):
  of = lambda term, **fields: dataclasses.replace(
    experiment("albef", **fields), objectives=(term,), optimizer=OptimizerConfig(**CONSTANT)
  )
  one = two_steps(of(Matching(group=ROWS)))  # one group on one device: the same candidates and draws
  other = two_steps(of(Matching(among=among), parallel=ParallelConfig(**parallel)), devices)
  for left, right in zip(one, other, strict=True):
    assert left == {name: pytest.approx(right[name], rel=2e-5, abs=2e-6) for name in left}
