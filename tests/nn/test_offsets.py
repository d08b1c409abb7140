"""The bias of attention for the offset of two patches. Values: tests/interop."""

import jax
import numpy as np
import pytest

from mmjax.encoders import ViTConfig
from mmjax.nn.offsets import OffsetBias, PatchBias
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


def test_each_offset_has_a_row_and_the_class_token_three():
  model = PatchBias(num_heads=2, grid=3)
  table = np.arange(28 * 2, dtype=np.float32).reshape(28, 2)
  bias = np.asarray(model.apply({"params": {"table": table}}))
  assert bias.shape == (2, 10, 10)
  for query, key in np.ndindex(9, 9):
    (y, x), (v, u) = divmod(query, 3), divmod(key, 3)
    np.testing.assert_array_equal(bias[:, query + 1, key + 1], table[(y - v + 2) * 5 + x - u + 2])
  np.testing.assert_array_equal(bias[:, 0, 1:].T, np.tile(table[25], (9, 1)))  # what the class token reads
  np.testing.assert_array_equal(bias[:, 1:, 0].T, np.tile(table[26], (9, 1)))
  np.testing.assert_array_equal(bias[:, 0, 0], table[27])


@pytest.mark.parametrize(
  "fields",
  [dict(pool="map"), dict(patch_dropout=0.5), dict(registers=1), dict(positions="offsets")],
  ids=lambda fields: next(iter(fields)),
)
def test_a_bias_of_patches_needs_all_patches_and_a_class_token(fields):
  with pytest.raises(ValueError, match='patch_bias="shared" needs'):
    ViTConfig(**dict(pool="cls", patch_bias="shared") | fields)


def test_eight_devices_have_a_place_for_every_parameter():
  fields = dict(image_size=16, patch_size=8, width=16, depth=1, num_heads=2, positions="offsets", offset_width=4)
  training = training_on(8, experiment(model=dict(image=ViTConfig(**fields)), parallel=dict(fsdp=2, model=2)))
  assert training.shapes.params["image"]["offset_bias_0"]["up"]["kernel"].shape == (2, 4)
