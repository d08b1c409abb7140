"""Videos in models that are not made for them: captions by a decoder, answers by a fusion with the question."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import TextConfig, VideoConfig, ViTConfig
from mmjax.fusion import FusionConfig
from mmjax.models import ClassifierConfig, WriterConfig
from mmjax.nn import WordsConfig
from mmjax.objectives import Classify, Forward, TargetText
from tests.models.test_clip4clip import TURNED, clips, made, texts

TINY = dict(width=8, depth=1, num_heads=2)
VIDEO = VideoConfig(
  frame=ViTConfig(image_size=8, patch_size=4, pool="mean", **TINY), frames=4, temporal="transformer", temporal_heads=2,
  temporal_depth=1, output="patches",
)  # fmt: skip


def losses(config, term, rows):
  model, params = made(config)

  @jax.jit
  def of(rows):
    def ask(module):
      keys = jax.random.split(jax.random.key(0), 3)
      return term.over_rows(Forward(module, rows, keys, jnp.int32(0), term.reads, training=False), None)["loss"][0]

    return model.apply({"params": params}, method=ask)

  return lambda **changed: np.asarray(of(rows | changed))


CASES = {
  "captions": (
    WriterConfig(towers={"video": VIDEO}, text=WordsConfig(vocab_size=64, max_length=4, **TINY)),
    TargetText(source="video"),
    {"video": clips(real=3), "target": texts()},
  ),
  "answers": (
    ClassifierConfig(
      towers={"video": VIDEO, "text": TextConfig(max_length=4, **TINY)},
      fusion=FusionConfig(kind="merged_attention", **TINY),
      num_classes=3,
    ),
    Classify(inputs=("video", "text")),
    {"video": clips(real=3), "text": texts(), "label": np.array([0, 1, 2], np.int32)},
  ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_text_depends_on_the_frames_and_their_order_and_on_no_padding(case):
  config, term, rows = CASES[case]
  loss, frames = losses(config, term, rows), rows["video"]
  found = loss()
  assert np.isfinite(found).all() and np.abs(loss(video=frames[:, TURNED]) - found).min() > 1e-5
  other = np.concatenate([frames[:1, :2], frames[1:2, 2:3], frames[:1, 3:]], axis=1)  # the last frame is another one
  assert abs(loss(video=np.concatenate([other, frames[1:]]))[0] - found[0]) > 1e-5
  padded = frames.copy()
  padded[:, 3, 1:] = 7.0  # only the first pixel says that a frame is padding
  np.testing.assert_allclose(loss(video=padded), found, atol=1e-6)


def test_a_writer_needs_a_tower():
  with pytest.raises(ValueError, match="towers are none"):
    WriterConfig(towers={})
