"""The stem of inverted bottlenecks: its depthwise convolution, and its FLOPs. Values: tests/interop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import ViTConfig
from mmjax.models.counting import traced_flops
from mmjax.nn.mbconv import DepthwiseConv, MBConvStem, mbconv_flops
from tests.tiny import experiment, training_on


@pytest.mark.parametrize("stride", [1, 2])
def test_shifted_images_are_a_grouped_convolution(stride):
  x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 6, 6, 4)), jnp.float32)
  out, variables = DepthwiseConv(stride, "float32").init_with_output(jax.random.key(0), x)
  kernel = variables["params"]["kernel"][:, :, None]
  layout = ("NHWC", "HWIO", "NHWC")
  expected = jax.lax.conv_general_dilated(
    x, kernel, (stride, stride), ((1, 1), (1, 1)), dimension_numbers=layout, feature_group_count=4
  )
  np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


def test_flops_are_those_of_the_traced_stem():
  stem, images = MBConvStem(24, 8, "float32", 1e-6), jnp.zeros((1, 64, 64, 3))
  params = jax.eval_shape(stem.init, jax.random.key(0), images)
  traced = traced_flops(stem.apply, params, images)  # a sum of shifted images is no matrix product
  depthwise = 2 * 9 * (2 * 32 * 16**2 + 4 * 64 * 8**2)
  assert mbconv_flops(24, 8, 64) == traced + depthwise


def test_a_vision_transformer_counts_its_stem():
  fields = dict(image_size=32, patch_size=16, width=24, depth=1, num_heads=2, pool="mean")
  plain, hybrid = ViTConfig(**fields), ViTConfig(**fields, stem="mbconv", stem_width=8)
  assert hybrid.flops() - mbconv_flops(24, 8, 32) == plain.flops() - 2 * 4 * 3 * 16**2 * 24


def test_bfloat16_stays_bfloat16():
  stem, images = MBConvStem(24, 8, "bfloat16", 1e-6), jnp.zeros((1, 32, 32, 3))
  out, variables = jax.eval_shape(stem.init_with_output, jax.random.key(0), images)
  assert out.dtype == jnp.bfloat16
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


def test_eight_devices_have_a_place_for_every_parameter():
  image = ViTConfig(image_size=16, patch_size=16, width=16, depth=1, num_heads=2, stem="mbconv", stem_width=8)
  training = training_on(8, experiment(model=dict(image=image), parallel=dict(fsdp=2, model=2)))
  assert training.shapes.params["image"]["stem"]["stage_2_block_3"]["conv_depthwise"]["kernel"].shape == (3, 3, 64)
