"""Weights in int8, bfloat16 and float16, against arithmetic by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.deploy import DeployError, export, load
from mmjax.deploy.packing import LINEAR, pack, unpack
from tests.deploy import runs


def test_int8_has_a_scale_for_each_output():
  kernel = np.zeros((8, 3), np.float32)
  kernel[:, 0], kernel[0, 1] = np.linspace(-2.54, 1.27, 8), 1.0
  packed = pack({"mlp": {"kernel": kernel, "bias": np.ones(3, np.float32)}}, "int8")
  assert set(packed) == {"mlp/kernel", "mlp/kernel:scale", "mlp/bias"}
  np.testing.assert_allclose(packed["mlp/kernel:scale"], [[0.02, 1 / 127, 1.0]], rtol=1e-6)  # 1 for a column of zeros
  assert packed["mlp/kernel"].dtype == np.int8 and packed["mlp/kernel"][:, 0].tolist() == [
    -127, -100, -73, -45, -18, 9, 36, 64,
  ]  # fmt: skip
  assert packed["mlp/bias"].dtype == np.float32


def test_rounding_is_half_a_step_at_most_and_per_tensor_scales_are_worse():
  rng = np.random.default_rng(0)
  kernel = (rng.standard_normal((64, 32)) * np.logspace(-2, 0, 32)).astype(np.float32)
  packed = pack({"kernel": kernel}, "int8")
  error = np.abs(np.asarray(unpack(packed)["kernel"]) - kernel)
  assert (error <= packed["kernel:scale"] * 0.5001).all()
  step = np.abs(kernel).max() / 127
  per_tensor = np.abs(np.rint(kernel / step) * step - kernel)
  assert np.mean(error**2) < np.mean(per_tensor**2) / 4


def test_embeddings_have_a_scale_for_each_row_and_stacked_layers_their_own():
  rng = np.random.default_rng(0)
  table, stack = rng.standard_normal((50, 16)), rng.standard_normal((2, 32, 8))
  params = {"token_embedding": table, "transformer": {"blocks": {"mlp": {"kernel": stack}}}}
  packed = pack(jax.tree.map(np.float32, params), "int8")
  assert packed["token_embedding:scale"].shape == (50, 1)
  assert packed["transformer/blocks/mlp/kernel:scale"].shape == (2, 1, 8)


def test_few_weights_stay_as_they_are():
  """A scale for each would cost more than int8 saves."""
  assert set(pack({"kernel": np.ones((1, 8), np.float32)}, "int8")) == {"kernel"}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_keeps_vectors(dtype):
  params = {"kernel": np.full((4, 4), 1 / 3, np.float32), "bias": np.full(4, 1 / 3, np.float32)}
  packed = pack(params, dtype)
  assert packed["kernel"].dtype == jnp.dtype(dtype) and packed["bias"].dtype == np.float32
  assert unpack(packed)["kernel"].dtype == jnp.float32


def test_weights_that_do_not_fit_are_named():
  with pytest.raises(DeployError, match="mlp/kernel is larger than 65504, the largest float16"):
    pack({"mlp": {"kernel": np.full((4, 4), 7e4, np.float32)}}, "float16")
  with pytest.raises(DeployError, match="weight kernel has values that are not finite"):
    pack({"kernel": np.full((4, 4), np.nan, np.float32)}, "int8")


def test_linear_layers_multiply_integers(tmp_path):
  runs.needs_stablehlo()
  run = runs.two_towers(tmp_path / "run")
  model = load(export(run, "stablehlo", dtype="int8-dynamic"))
  exact, found = run.encode_image(runs.images()), model.encode_image(runs.images())
  assert 0.99 < (exact * found).sum(1).min() < 1 - 1e-6
  checked = model.manifest["parts"]["text"]["checked"]
  assert 0.99 < checked["least_cosine_to_float32"] < 1 and checked["max_difference"] <= 1e-5
  program = jax.export.deserialize(bytearray((model.folder / "text.stablehlo").read_bytes())).mlir_module()
  assert "xi8>) -> tensor<?x" in program and "xi32>" in program
  weight = f"image/transformer/block_0/mlp/up/kernel{LINEAR}"
  assert weight in np.load(model.folder / "weights.npz").files


@pytest.mark.parametrize(("dtype", "cosine"), [("int8", 0.999), ("bfloat16", 0.9999), ("float16", 0.999999)])
def test_exports_hold_packed_weights(tmp_path, dtype, cosine):
  runs.needs_stablehlo()
  run = runs.two_towers(tmp_path / "run")
  model = load(export(run, "stablehlo", dtype=dtype))
  exact, found = run.encode_image(runs.images()), model.encode_image(runs.images())
  assert cosine < (exact * found).sum(1).min() < 1 - 1e-9
  checked = model.manifest["parts"]["image"]["checked"]
  assert cosine < checked["least_cosine_to_float32"] < 1 and checked["max_difference"] <= 1e-5
  kinds = {str(array.dtype) for array in np.load(model.folder / "weights.npz").values()}
  assert kinds == {"float32", "uint16" if dtype == "bfloat16" else dtype}
