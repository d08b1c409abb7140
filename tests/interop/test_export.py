"""A run of ours, exported on the command line, opens in other projects and embeds alike; its card says what ran."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from mmjax import load_run
from mmjax.cli import main
from mmjax.encoders import TextConfig, ViTConfig
from mmjax.models import TwoTowerConfig
from tests import tiny
from tests.interop.references import reference

TOWER = dict(width=16, depth=1, num_heads=2, norm_epsilon=1e-5)
CLIP = TwoTowerConfig(
  image=ViTConfig(
    **TOWER, image_size=16, patch_size=8, pool="cls", input_norm=True, class_position=True, stem_bias=False
  ),
  text=TextConfig(**TOWER, vocab_size=64, max_length=8, eos_id=63),
  embed_dim=8,
)
STRINGS = ["a cat", "", "two hearts 💕 and a very long sentence that is cut", "<eos> 東京"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """Two steps of an ordinary run whose model other projects can hold."""
  folder = tmp_path_factory.mktemp("runs")
  data = dataclasses.replace(tiny.EXPERIMENT.data, dir=str(folder / "data"))
  settings = dataclasses.replace(tiny.EXPERIMENT.run, workdir=folder / "run", steps=2)
  experiment = dataclasses.replace(tiny.EXPERIMENT, model=CLIP, data=data, run=settings)
  assert call(experiment, "train") == 0
  return experiment, load_run(folder / "run")


def call(experiment, *arguments) -> int:
  with pytest.raises(SystemExit) as stop:
    main(experiment, arguments=list(arguments))
  return stop.value.code


def assert_alike(ours, theirs):
  theirs = theirs / np.linalg.norm(theirs, axis=-1, keepdims=True)
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5)


PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8))


def test_transformers_opens_what_export_writes(run, capsys):
  experiment, ours = run
  assert call(experiment, "export", "--to", "transformers") == 0
  folder = ours.workdir / "export" / "transformers"
  assert f"exported: {folder}" in capsys.readouterr().out
  card = (folder / "README.md").read_text()
  assert "library_name: transformers" in card and '"embed_dim": 8' in card and "jax " in card
  results = json.loads((ours.workdir / "results.json").read_text())
  assert all(f"| {result['title']} |" in card for result in results)

  transformers = reference("transformers")
  import torch

  model = transformers.CLIPModel.from_pretrained(folder)
  tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
  ids = tokenizer(STRINGS, padding="max_length", truncation=True, return_tensors="pt").input_ids
  np.testing.assert_array_equal(ours.tokenizer(STRINGS), ids)
  processor = transformers.CLIPImageProcessor.from_pretrained(folder)
  pixels = processor(PICTURE, return_tensors="pt").pixel_values
  assert np.abs(pixels[0].numpy().transpose(1, 2, 0) - ours.preprocess(PICTURE)).max() * 0.5 <= 1.01 / 255
  exact = torch.tensor(ours.preprocess(PICTURE).transpose(2, 0, 1))[None]
  with torch.no_grad():
    assert_alike(ours.encode_text(STRINGS), model.get_text_features(ids).pooler_output.numpy())
    assert_alike(ours.encode_image([PICTURE]), model.get_image_features(exact).pooler_output.numpy())


def test_open_clip_opens_what_export_writes(run):
  experiment, ours = run
  folder = ours.workdir / "elsewhere"
  assert call(experiment, "export", "--to", "open_clip", "--out", str(folder)) == 0
  assert f"create_model_and_transforms('local-dir:{folder}')" in (folder / "README.md").read_text()
  open_clip = reference("open_clip")
  import torch

  model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
  tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
  np.testing.assert_array_equal(ours.tokenizer(STRINGS), tokenizer(STRINGS))
  with torch.no_grad():
    assert_alike(ours.encode_text(STRINGS), model.eval().encode_text(tokenizer(STRINGS)).numpy())
    picture = PICTURE.resize((16, 16))  # nothing to resample: the same pixels on both sides
    assert_alike(ours.encode_image([picture]), model.encode_image(preprocess(picture)[None]).numpy())


def test_what_cannot_be_exported_is_said(run, capsys):
  experiment, _ = run
  assert call(experiment, "export", "--to", "big_vision") == 2
  assert "model.image.input_norm is True, and big_vision has only False" in " ".join(capsys.readouterr().err.split())
  assert call(experiment, "export", "--to", "onnx") == 2
  assert "unknown format 'onnx'; formats are transformers" in " ".join(capsys.readouterr().err.split())
