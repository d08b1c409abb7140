"""What a format cannot hold of a preprocessing is said when a checkpoint is converted or exported."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from mmjax import interop
from mmjax.data import TokenizerConfig
from mmjax.data.text.tokenizer import Tokenizer, train_vocabulary
from mmjax.encoders import TextConfig, ViTConfig
from mmjax.interop import InteropError
from mmjax.interop.__main__ import main
from mmjax.interop.convert import convert
from mmjax.interop.formats import find_format
from mmjax.interop.kept import image_notes, lost, text_notes
from mmjax.interop.preprocess import HALF, Preprocess
from mmjax.interop.pretrained_tokenizer import export_tokenizer
from mmjax.interop.run_image import CheckpointImage
from mmjax.interop.shapes import flat_shapes, unflatten
from mmjax.models import TwoTowerConfig

TOWER = dict(width=64, depth=1, num_heads=1, norm_epsilon=1e-5)
CLIP = TwoTowerConfig(
  image=ViTConfig(
    **TOWER, image_size=16, patch_size=8, pool="cls", input_norm=True, class_position=True, stem_bias=False
  ),
  text=TextConfig(**TOWER, vocab_size=64, max_length=8, eos_id=63),
  embed_dim=8,
)
CLEAR = Image.new("RGBA", (20, 20), (200, 0, 0, 0))


def saved(folder, form: str, **preprocess):
  shapes = flat_shapes(CLIP)
  params = unflatten({name: np.zeros(shape, np.float32) for name, shape in shapes.items()})
  interop.save(CLIP.build(), params, folder, form, preprocess=Preprocess(16, **preprocess))
  return folder


@pytest.mark.parametrize("form", ["transformers", "open_clip", "openai"])
@pytest.mark.parametrize("colors", ["drop", "white", "late", "none"])
def test_colours_are_held_or_named(form, colors):
  own = {"transformers": ("drop", "white", "none"), "open_clip": ("late",), "openai": ("late",)}[form]
  odd = "down" if form == "transformers" else "even"
  said = lost(Preprocess(16, colors=colors, odd=odd), find_format(form))
  assert bool(said) == (colors not in own)
  assert all("not opaque RGB" in note and "Convert such images to opaque RGB first" in note for note in said)


@pytest.mark.parametrize(
  ("form", "changes", "words"),
  [
    ("openai", dict(mean=HALF), "openai does not hold mean of the preprocessing: it is (0.5, 0.5, 0.5)"),
    ("openai", dict(interpolation="bilinear"), "interpolation"),
    ("openai", dict(resize="squash", odd="down"), "resize"),
    ("big_vision", dict(mean=(0.1, 0.2, 0.3)), "mean"),
    ("open_clip", dict(odd="down"), "crops an image one pixel aside"),
    ("transformers", dict(fill=9, odd="down"), "fill"),
  ],
)
def test_every_field_that_is_not_held_is_named(form, changes, words):
  p = Preprocess(16, **{"colors": "late" if form.startswith("open") else "drop"} | changes)
  assert any(words in note for note in lost(p, find_format(form)))
  exported = image_notes(CheckpointImage(p), find_format(form), "folder")  # a run that began from this checkpoint
  assert any(words in note for note in exported)


def test_the_version_that_drops_transparency_is_written(tmp_path):
  folder = saved(tmp_path, "transformers", colors="drop", odd="down")
  assert json.loads((folder / "config.json").read_text())["transformers_version"] == "4.57.0"
  back = interop.load_pretrained(folder).preprocess
  np.testing.assert_array_equal(back(CLEAR), Preprocess(16, colors="drop", odd="down")(CLEAR))
  other = saved(tmp_path / "white", "transformers", colors="white", odd="down")
  assert not np.allclose(interop.load_pretrained(other).preprocess(CLEAR), back(CLEAR))


def test_convert_says_what_is_lost(tmp_path, capsys, caplog):
  source = saved(tmp_path / "a", "mmjax", mean=HALF, colors="white", odd="down")
  assert main(["convert", str(source), str(tmp_path / "b"), "--to", "open_clip"]) == 0
  said = capsys.readouterr().out
  assert "Note: Images that are not opaque RGB get other pixels" in said and "one pixel aside" in said
  assert main(["convert", str(source), str(tmp_path / "c"), "--to", "transformers"]) == 0
  assert "Note" not in capsys.readouterr().out
  convert(source, tmp_path / "d", "open_clip")
  assert "Images that are not opaque RGB get other pixels" in caplog.text


def test_other_ids_are_named():
  ids = lambda texts: np.array([[1, 9 if "&" in text else 8, 2, 0] if text else [1, 2, 0, 0] for text in texts])
  cleaned = lambda texts: np.array([[1, 8, 2, 2] if text else [1, 2, 2, 2] for text in texts])
  assert not text_notes(ids, lambda: ids)
  (said,) = text_notes(ids, lambda: cleaned)  # padded with the token that ends a text, which is no difference
  assert "1 of 8 texts get other ids, such as 'a &amp;amp; b'." in said

  def missing():
    raise InteropError("x has no tokenizer.json")

  assert text_notes(ids, missing) == ["The folder has no tokenizer that can be read: x has no tokenizer.json."]


def test_a_token_that_the_model_does_not_have_is_refused(tmp_path):
  texts = ["two hearts and a long sentence", "a cat"]
  config = TokenizerConfig(vocab_size=300, max_length=8)
  folder = saved(tmp_path, "transformers", odd="down")
  export_tokenizer(Tokenizer(train_vocabulary(texts, config), config), folder)
  tokenizer = interop.load_pretrained(folder).tokenizer
  with pytest.raises(InteropError, match="and the model has 64 tokens: the tokenizer was extended after the model"):
    tokenizer(texts)  # the embedding of a missing row would be NaN
  assert dataclasses.replace(tokenizer, rows=300)(texts).max() >= 64
