"""Names and shapes of every system's parameters: checkpoints hold them, and rules of placement and decay match them."""

import jax
import pytest

from mmjax.interop.shapes import flatten
from mmjax.models.config import init_params
from tests.golden.values import check
from tests.interop.test_native import CONFIGS
from tests.train.systems import SYSTEMS

_SYSTEMS = [model for name, (model, _) in SYSTEMS.items() if name != "vilt_paper"]  # it has one more than ViLT
MODELS = {type(model).__name__: model for model in (*CONFIGS, *_SYSTEMS)}


@pytest.mark.parametrize("name", MODELS)
def test_golden_parameters(name):
  check("parameters", name, parameters(MODELS[name]))


def parameters(config) -> dict[str, str]:
  shapes = jax.eval_shape(lambda: init_params(config.build(), jax.random.key(0)))
  return {path: f"{leaf.dtype.name}{list(leaf.shape)}" for path, leaf in sorted(flatten(shapes).items())}
