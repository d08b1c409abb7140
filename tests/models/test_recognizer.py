"""A recognizer: masks of its encoder, and settings that do not fit. tests/experiments trains one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.data.columns.sound import PADDED
from mmjax.encoders import SpeechConfig
from mmjax.evaluators import RecognizedTexts
from mmjax.models import SymbolsConfig

AUDIO = SpeechConfig(width=16, depth=1, num_heads=2, mel_bins=8, frames=12, masked=True)


def test_padding_of_a_clip_changes_nothing():
  model = AUDIO.build()
  frames = jax.random.normal(jax.random.key(0), (1, 12, 8))
  params = model.init(jax.random.key(1), frames)
  padded = frames.at[:, 7:].set(PADDED)
  found, alone = model.apply(params, padded), model.apply(params, frames[:, :7])
  assert found.mask.tolist() == [[True] * 4 + [False] * 2]
  np.testing.assert_allclose(found.tokens[:, :4], alone.tokens, atol=1e-5)
  np.testing.assert_allclose(found.pooled, alone.pooled, atol=1e-5)
  assert jnp.isfinite(found.tokens).all()


def test_settings_that_do_not_fit_are_refused():
  with pytest.raises(ValueError, match=r"pad_id=3 must lie in \[0, vocab_size=9\) and be one of special_ids=\(0,\)"):
    SymbolsConfig(vocab_size=9, pad_id=3)
  with pytest.raises(ValueError, match="length_bonus is 1.0: it needs beams"):
    RecognizedTexts(length_bonus=1.0)
