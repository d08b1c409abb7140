"""Initial weights of each scheme: the deviations of the paper's code, with and without a scan over layers."""

import jax
import numpy as np
import pytest

from mmjax.encoders import TextConfig, ViTConfig, bert_config
from mmjax.interop.shapes import per_layer
from mmjax.models.bert import BertConfig
from mmjax.nn.words import WordsConfig

WIDTH, DEPTH = 48, 2
SIZE = dict(width=WIDTH, depth=DEPTH, num_heads=2)
TEXT = TextConfig(**SIZE, vocab_size=200, max_length=40, eos_id=1, pool="map", tanh_pool=True, token_types=2)
IMAGE = ViTConfig(**SIZE, image_size=32, patch_size=8, pool="map", scan=True)


def initial(config, scheme: str) -> dict[str, np.ndarray]:
  module = type(config)(**{**vars(config), "init_scheme": scheme}).build()
  return per_layer(jax.jit(module.init)(jax.random.key(0), config.example(1))["params"])


@pytest.mark.parametrize("config", [TEXT, IMAGE], ids=["text", "image"])
@pytest.mark.parametrize("scheme", ["clip", "xavier", "bert"])
def test_kernels_and_embeddings_have_the_deviations_of_their_scheme(config, scheme):
  seen = 0
  for path, value in initial(config, scheme).items():
    if path.startswith("stem") or not path.endswith(("kernel", "embedding")):
      continue
    seen += 1
    deviation, largest = expected(scheme, path, value.shape)
    tolerance = 0.5 if value.size < 100 else 0.15  # few values are a rough sample
    assert value.std() == pytest.approx(deviation, rel=tolerance), path
    assert np.abs(value).max() <= largest * 1.001, path
  assert seen >= 6 * DEPTH + 6


def expected(scheme: str, path: str, shape: tuple[int, ...]) -> tuple[float, float]:
  """(standard deviation, largest size) of a parameter."""
  if scheme == "bert":
    return 0.02 * 0.8796, 0.04
  if path.endswith("kernel") and scheme == "xavier":
    bound = (6 / sum(shape)) ** 0.5
    return bound / 3**0.5, bound
  if path.endswith("kernel"):
    scale = (2 * DEPTH) ** -0.5 if "block" in path else 1.0
    last = path.split("/")[-2]
    return {"up": (2 * WIDTH) ** -0.5, "out": WIDTH**-0.5 * scale, "down": WIDTH**-0.5 * scale}.get(
      last, WIDTH**-0.5
    ), np.inf
  if scheme == "xavier" or "patch" in path or shape[0] == 16:  # CLIP's positions of patches
    return WIDTH**-0.5, np.inf
  return (0.01 if "position" in path else 0.02), np.inf


def test_bert_has_its_paper_s_and_a_run_s_own_stays_as_it_was():
  assert BertConfig().text.init_scheme == "bert"
  assert bert_config().init_scheme == TextConfig().init_scheme == "clip"


def test_scaled_embeddings_refuse_another_scheme():
  with pytest.raises(ValueError, match="scale_embedding has its own"):
    WordsConfig(scale_embedding=True, init_scheme="bert")
