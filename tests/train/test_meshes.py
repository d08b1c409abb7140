"""Two steps of every kind of system are the same on any mesh, in any number of microbatches."""

import math

import pytest

from mmjax.parallel.mesh import ParallelConfig
from tests.golden import values
from tests.train.systems import experiment, two_steps

pytestmark = pytest.mark.usefixtures("quick_compilations")


# Every kind of term, every axis of the mesh and microbatches; tests/models has each model by itself on eight devices,
# and tests/models/test_captioners_train.py CoCa.
@pytest.mark.parametrize(
  ("system", "parallel"),
  [
    ("albef", dict(fsdp=2)),
    ("blip", dict(fsdp=2, model=2, microbatches=2)),
    ("classifier", dict(fsdp=2)),
    ("vqa_soft", dict(microbatches=2)),
    ("vilt_paper", dict(fsdp=2)),
    ("recommender", dict(fsdp=2, microbatches=2)),
  ],
)
def test_two_steps_do_not_depend_on_the_mesh(system, parallel):
  golden = [values.read("steps")[f"{system}, fixed, step {step}"] for step in range(2)]  # of one device
  assert all(math.isfinite(value) for step in golden for value in step.values())
  found = two_steps(experiment(system, parallel=ParallelConfig(**parallel)), 8)
  for left, right in zip(found, golden, strict=True):
    assert left == pytest.approx(right, rel=2e-5, abs=2e-6)
