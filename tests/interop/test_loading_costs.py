"""Memory, dtype and compilation of a loaded checkpoint."""

import logging
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import interop
from mmjax.encoders import TextConfig, ViTConfig
from mmjax.interop.shapes import flat_shapes, flatten, unflatten
from mmjax.models import TwoTowerConfig

TOWER = dict(depth=3, num_heads=4)
CONFIG = TwoTowerConfig(
  image=ViTConfig(**TOWER, width=256, image_size=32, patch_size=8, pool="cls"),
  text=TextConfig(**TOWER, width=64, vocab_size=300, max_length=8, eos_id=1),
  embed_dim=32,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder, rng = tmp_path_factory.mktemp("model"), np.random.default_rng(0)
  params = {n: 0.05 * rng.standard_normal(s).astype(np.float32) for n, s in flat_shapes(CONFIG).items()}
  interop.save(CONFIG.build(), unflatten(params), folder, format="mmjax")
  return folder


def resident(path) -> int:
  """Bytes of a mapped file that are in this process's memory."""
  total, here = 0, False
  for line in Path("/proc/self/smaps").read_text().splitlines():
    if line[0] in "0123456789abcdef" and "-" in line.split()[0]:
      here = line.endswith(str(path))
    elif here and line.startswith("Rss:"):
      total += int(line.split()[1]) * 1024
  return total


def test_the_file_does_not_stay_in_memory_beside_the_parameters(folder):
  found = interop.load_pretrained(folder)
  weights = folder / "model.safetensors"
  assert found.source.file.path == weights and weights.stat().st_size > 9e6
  assert resident(weights) < 0.2 * weights.stat().st_size
  name = "image/transformer/block_0/mlp/up/kernel"
  again = found.source.file.read(name)
  found.source.file.read("logit_scale")  # which takes the first one out of memory
  np.testing.assert_array_equal(again, flatten(found.params)[name])


def test_half_the_memory_in_bfloat16(folder):
  model, params = interop.load(folder, dtype="bfloat16", image_size=48)
  whole, exact = interop.load(folder, image_size=48)
  assert model.config.image.dtype == model.config.text.dtype == "bfloat16"
  for name, leaf in flatten(params).items():
    assert leaf.dtype == (jnp.bfloat16 if leaf.ndim > 1 else jnp.float32), name
    np.testing.assert_array_equal(leaf, jnp.asarray(flatten(exact)[name]).astype(leaf.dtype))
  images = np.random.default_rng(0).standard_normal((2, 48, 48, 3)).astype(np.float32)
  texts = np.array([[5, 6, 1, 0, 0, 0, 0, 0]], np.int32)
  for method, inputs in (("encode_image", images), ("encode_text", texts)):
    ours = model.apply({"params": params}, inputs, method=method)
    theirs = np.asarray(whole.apply({"params": exact}, inputs, method=method))
    assert ours.dtype == jnp.float32
    assert np.abs(np.asarray(ours) - theirs).max() < 0.03 * np.abs(theirs).max()
  with pytest.raises(interop.InteropError, match="dtype is 'float16', but must be one of 'float32', 'bfloat16'"):
    interop.load(folder, dtype="float16")


def test_a_model_in_bfloat16_is_saved_again(folder, tmp_path):
  model, params = interop.load(folder, dtype="bfloat16")
  interop.save(model, params, tmp_path, format="mmjax")
  again = interop.load(tmp_path)[1]
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a, np.float32), b), params, again)


@pytest.mark.parametrize("method", ["encode_image", "encode_text"])
def test_embeddings_without_jit_are_one_program(method, folder, caplog):
  """Operation by operation, a first image compiles dozens of programs and takes seconds."""
  model, params = interop.load(folder)
  inputs = model.config.example(3)[method.removeprefix("encode_")]
  jax.block_until_ready(jax.tree.leaves(params)[0] * 1)
  with jax.log_compiles(), caplog.at_level(logging.WARNING):
    first = model.apply({"params": params}, inputs, method=method)
    compiled = [record.message for record in caplog.records if record.message.startswith("Compiling ")]
    caplog.clear()
    second = model.apply({"params": params}, inputs, method=method)
    again = [record.message for record in caplog.records if record.message.startswith("Compiling ")]
  assert 1 <= len(compiled) <= 3 and not again, compiled
  np.testing.assert_array_equal(first, second)
