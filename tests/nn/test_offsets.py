"""The bias of attention for the offset of two patches. Values: tests/interop."""

import jax
import numpy as np

from mmjax.encoders import ViTConfig
from mmjax.nn.offsets import OffsetBias
from tests.tiny import experiment, training_on


def test_equal_offsets_have_equal_biases_and_the_first_tokens_none():
  bias, _ = OffsetBias(num_heads=2, grid=3, first=1, hidden=4).init_with_output(jax.random.key(0))
  assert bias.shape == (2, 10, 10)
  assert not np.any(bias[:, 0]) and not np.any(bias[:, :, 0])
  patches = np.asarray(bias[:, 1:, 1:])
  y, x = np.divmod(np.arange(9), 3)
  kinds = {}
  for query, key in np.ndindex(9, 9):
    kinds.setdefault((y[query] - y[key], x[query] - x[key]), set()).add(tuple(patches[:, query, key]))
  assert len(kinds) == 25 and all(len(values) == 1 for values in kinds.values())
  assert len(set.union(*kinds.values())) == 25  # and another offset has another bias


def test_eight_devices_have_a_place_for_every_parameter():
  fields = dict(image_size=16, patch_size=8, width=16, depth=1, num_heads=2, positions="offsets", offset_width=4)
  training = training_on(8, experiment(model=dict(image=ViTConfig(**fields)), parallel=dict(fsdp=2, model=2)))
  assert training.shapes.params["image"]["offset_bias_0"]["up"]["kernel"].shape == (2, 4)
