"""HTS-AT: how a spectrogram is folded and stretched. Values: tests/interop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import Htsat, HtsatConfig, SwinConfig
from mmjax.encoders.htsat import stretching

SWIN = SwinConfig(image_size=16, patch_size=2, width=8, layers=(1, 1), num_heads=(2, 4), window_size=4)
CONFIG = HtsatConfig(bands=8, swin=SWIN, norm="frozen")
FEATURES = np.random.default_rng(0).standard_normal((2, 32, 8)).astype(np.float32)


def test_halves_of_a_clip_lie_on_top_of_each_other():
  """A change of the last frames moves patches of the lower half of the square only, before blocks mix them."""
  seen = []
  model = Htsat(CONFIG)
  params = model.init(jax.random.key(0), FEATURES)["params"]
  kept = lambda module, _: module.name == "stem_norm"
  for features in (FEATURES, np.concatenate([FEATURES[:, :24], -FEATURES[:, 24:]], axis=1)):
    _, state = model.apply({"params": params}, features, capture_intermediates=kept, mutable=["intermediates"])
    seen.append(np.asarray(state["intermediates"]["stem_norm"]["__call__"][0]))
  changed = np.abs(seen[0] - seen[1]).max((0, 3)) > 1e-6  # [rows, columns] of patches
  assert changed.shape == (8, 8) and changed[4:, 4:].all() and not changed[:4].any() and not changed[:, :4].any()


def test_stretching_keeps_ends_lines_and_the_same_length():
  weights = stretching(7, 13)
  np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-6)
  line = weights @ np.arange(7, dtype=np.float32)
  np.testing.assert_allclose(line[[0, -1]], [0, 6], atol=1e-6)
  np.testing.assert_allclose(line[2:-2], np.linspace(0, 6, 13)[2:-2], atol=1e-5)
  np.testing.assert_allclose(stretching(5, 5), np.eye(5), atol=1e-7)


def test_what_does_not_fit_is_refused():
  with pytest.raises(ValueError, match="bands=7 must divide"):
    HtsatConfig(bands=7, swin=SWIN)
  with pytest.raises(ValueError, match="33 frames x 8, but at most 32 frames x bands=8"):
    jax.eval_shape(Htsat(CONFIG).init, jax.random.key(0), jnp.zeros((1, 33, 8)))
