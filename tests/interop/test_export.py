"""A run of ours, exported on the command line, opens in other projects and embeds alike; its card says what ran."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from PIL import Image

from mmjax import interop
from mmjax.cli import main
from mmjax.data import Sound, Text, TokenizerConfig, WhisperMel
from mmjax.data.text.tokenizer import Tokenizer, train_vocabulary
from mmjax.encoders import SpeechConfig, TextConfig, ViTConfig
from mmjax.errors import ConfigError
from mmjax.interop.convert import convert
from mmjax.interop.export import export_run, notes
from mmjax.interop.formats import find_format
from mmjax.interop.preprocess import Preprocess
from mmjax.interop.shapes import flat_shapes, unflatten
from mmjax.models import TwoTowerConfig, WhisperConfig
from mmjax.models.coca_open_clip import OpenClipCocaConfig
from mmjax.models.flava import FlavaConfig
from mmjax.models.gpt import GptConfig
from mmjax.models.seq2seq import Seq2SeqConfig
from mmjax.nn.words import WordsConfig
from mmjax.objectives import TargetText
from mmjax.parallel.mesh import make_mesh
from mmjax.run import Run
from mmjax.train.loop import fitted
from mmjax.train.provenance import write_config
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
  """A run as `load_run` gives it, of a model that other projects can hold, without the training."""
  workdir = tmp_path_factory.mktemp("runs") / "tiny"
  workdir.mkdir()
  config = TokenizerConfig(vocab_size=300, max_length=8)
  tokenizer = Tokenizer(train_vocabulary(STRINGS, config), config)
  settings = dataclasses.replace(tiny.EXPERIMENT.run, workdir=workdir)
  experiment = fitted(dataclasses.replace(tiny.EXPERIMENT, model=CLIP, run=settings), tokenizer, num_records={"": 1})
  rng = np.random.default_rng(0)
  shapes = flat_shapes(experiment.model)
  params = unflatten({n: 0.3 * rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()})
  mesh = make_mesh(experiment.parallel, jax.devices()[:1])
  write_config(experiment, workdir / "config.json")
  result = dict(title="Noto to name", n=40, metrics={"R@1": 0.25}, chance={"R@1": 0.025})
  (workdir / "results.json").write_text(json.dumps([result]))
  return experiment, Run(experiment, workdir, experiment.model.build(), params, tokenizer, mesh, step=2)


@pytest.fixture(autouse=True)
def loaded(run, monkeypatch):
  monkeypatch.setattr("mmjax.loading.load_run", lambda workdir, *, kinds: run[1])


def call(experiment, *arguments) -> int:
  with pytest.raises(SystemExit) as stop:
    main(experiment, arguments=list(arguments))
  return stop.value.code


def assert_alike(ours, theirs):
  theirs = theirs / np.linalg.norm(theirs, axis=-1, keepdims=True)
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5)


PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8))


@pytest.mark.references
def test_transformers_opens_what_export_writes(run, capsys):
  experiment, ours = run
  assert call(experiment, "export", "--to", "transformers") == 0
  folder = ours.workdir / "export" / "transformers"
  assert f"exported: {folder}" in capsys.readouterr().out
  card = (folder / "README.md").read_text()
  assert "library_name: transformers" in card and '"embed_dim": 8' in card and "jax " in card
  assert "| Noto to name | 40 | R@1 | 0.25 | 0.025 |" in card

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


def test_we_open_what_export_writes(run, tmp_path):
  """In the format that holds everything; text and pictures are prepared as in the run."""
  experiment, ours = run
  assert call(experiment, "export", "--out", str(tmp_path)) == 0
  found = interop.load_pretrained(tmp_path)
  assert found.model.config == experiment.model
  np.testing.assert_array_equal(found.tokenizer(STRINGS), ours.tokenizer(STRINGS))
  assert np.abs(found.preprocess(PICTURE) - ours.preprocess(PICTURE)).max() * 0.5 <= 1.01 / 255
  assert jax.tree.all(jax.tree.map(np.array_equal, found.params, ours.params))


@pytest.mark.references
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


def test_all_of_the_preprocessing_travels(run, tmp_path):
  """White under transparency, margins cut off: bit for bit, also through a copy; other formats say what is lost."""
  _, ours = run
  data = dataclasses.replace(ours.experiment.data, trim=True, mean=(0.1, 0.2, 0.3))
  trimmed = dataclasses.replace(ours, experiment=dataclasses.replace(ours.experiment, data=data))
  first = export_run(trimmed, "mmjax", tmp_path / "first")
  convert(first, tmp_path / "second", "mmjax")
  pixels = np.random.default_rng(1).integers(0, 256, (30, 44, 4)).astype(np.uint8)
  pixels[:6, :, 3] = 0  # an empty margin
  for folder in (first, tmp_path / "second"):
    np.testing.assert_array_equal(interop.load_pretrained(folder).preprocess(pixels), trimmed.preprocess(pixels))
  assert interop.load_pretrained(first, image_size=24).preprocess(pixels).shape == (24, 24, 3)
  assert not notes(trimmed, find_format("mmjax"), first)
  for name, words in (("transformers", "--data.preprocess"), ("openai", "no file for preprocessing")):
    said = " ".join(notes(trimmed, find_format(name), tmp_path))
    assert "on white" in said and "middle square" in said and "--data.no-trim" in said and words in said


def test_preprocessing_of_other_libraries_travels(tmp_path):
  """Every field of Preprocess, through mmjax's own format."""
  shapes = flat_shapes(CLIP)
  params = unflatten({name: np.zeros(shape, np.float32) for name, shape in shapes.items()})
  theirs = Preprocess(16, "longest", "lanczos", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), fill=7, odd="down")
  interop.save(CLIP.build(), params, tmp_path, format="mmjax", preprocess=theirs)
  assert interop.load_pretrained(tmp_path).preprocess == theirs
  config = json.loads((tmp_path / "config.json").read_text())
  config["preprocess"]["fil"] = config["preprocess"].pop("fill")
  (tmp_path / "config.json").write_text(json.dumps(config))
  with pytest.raises(interop.InteropError, match="preprocess.*fil"):
    _ = interop.load_pretrained(tmp_path).preprocess


def test_what_chooses_a_tokenizer_travels(run, tmp_path):
  """transformers chooses the class by config.json, where tokenizer_config.json names none."""
  _, ours = run
  first = export_run(ours, "transformers", tmp_path / "first")
  config = json.loads((first / "config.json").read_text())
  (first / "config.json").write_text(json.dumps(config | {"transformers_version": "4.57.0"}))
  convert(convert(first, tmp_path / "second", "mmjax").parent, tmp_path / "third", "mmjax")
  native = json.loads((tmp_path / "third" / "config.json").read_text())
  assert (native["model_type"], native["transformers_version"]) == ("clip", "4.57.0") and native["mmjax_model"]
  before, after = (interop.load_pretrained(tmp_path / name).tokenizer for name in ("first", "third"))
  np.testing.assert_array_equal(after(STRINGS), before(STRINGS))


@pytest.mark.references
def test_a_tokenizer_of_open_clip_travels(run, tmp_path):
  """Its clean-up is in open_clip's configuration, which mmjax's own format keeps.

  Without a name there, open_clip takes CLIP's vocabulary, whatever is in the folder. Another one is refused.
  """
  reference("ftfy")
  _, ours = run
  first = export_run(ours, "open_clip", tmp_path / "first")
  config = json.loads((first / "open_clip_config.json").read_text())
  config["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"clean": "canonicalize"}
  (first / "open_clip_config.json").write_text(json.dumps(config))
  convert(first, tmp_path / "second", "mmjax")
  before, after = (interop.load_pretrained(tmp_path / name).tokenizer for name in ("first", "second"))
  texts = ["A cat &amp; a dog!", "x"]
  np.testing.assert_array_equal(after(texts), before(texts))
  assert after.clean == "canonicalize"
  del config["model_cfg"]["text_cfg"]["hf_tokenizer_name"]
  (first / "open_clip_config.json").write_text(json.dumps(config))
  with pytest.raises(interop.InteropError, match="its vocabulary is not CLIP's"):
    _ = interop.load_pretrained(first).tokenizer


def exported(run, model, format_, folder):
  """The folder with another model of the same run's in it, and its parameters."""
  rng, shapes = np.random.default_rng(0), flat_shapes(model)
  params = unflatten({n: 0.3 * rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()})
  experiment = dataclasses.replace(run.experiment, model=model)
  weighed = params | {"balance": {"caption": np.float32(0.0)}}
  other = dataclasses.replace(run, experiment=experiment, model=model.build(), params=weighed)
  return export_run(other, format_, folder), params


def test_a_model_without_pictures_is_exported(run, tmp_path):
  text = WordsConfig(**TOWER, vocab_size=run[1].tokenizer.vocab_size, max_length=8)
  folder, params = exported(run[1], GptConfig(text=text), "mmjax", tmp_path)
  assert jax.tree.all(jax.tree.map(np.array_equal, interop.load(folder)[1], params))
  assert "## Notes" not in (folder / "README.md").read_text()  # which is about pictures


def test_a_model_that_writes_names_the_token_with_which_it_begins(run, tmp_path):
  text = WordsConfig(**TOWER, vocab_size=run[1].tokenizer.vocab_size, max_length=8)
  model = Seq2SeqConfig(text=text, encoder_depth=1)
  with pytest.raises(ConfigError, match="no token that begins a text: set --data.tokenizer.bos-token"):
    exported(run[1], model, "mmjax", tmp_path / "none")
  named = dataclasses.replace(run[1].tokenizer.config, bos_token="<bos>")
  tokenizer = Tokenizer(train_vocabulary(STRINGS, named), named)
  folder, _ = exported(dataclasses.replace(run[1], tokenizer=tokenizer), model, "mmjax", tmp_path / "one")
  assert interop.load(folder)[0].config.begin_id == tokenizer.begin_id != 0


def heard(run, **audio):
  """A run of a tiny Whisper on the texts of the other one."""
  config = dataclasses.replace(run.tokenizer.config, bos_token="<bos>")
  tokenizer = Tokenizer(train_vocabulary(STRINGS, config), config)
  sizes = dict(width=16, depth=1, num_heads=2, norm_epsilon=1e-5, attention_bias="query_value")
  words = WordsConfig(**sizes, vocab_size=tokenizer.vocab_size, max_length=9, pad_id=0, eos_id=1)
  model = WhisperConfig(SpeechConfig(**sizes, mel_bins=5, frames=12), words)
  columns = {"audio": Sound(**{"features": WhisperMel(16_000, 5), "seconds": 0.12, **audio}), "target": Text()}
  data = dataclasses.replace(run.experiment.data, columns=columns)
  terms = (TargetText(source="audio"),)
  experiment = dataclasses.replace(run.experiment, data=data, model=model, objectives=terms)
  experiment = fitted(experiment, tokenizer, num_records={"": 1})
  rng, shapes = np.random.default_rng(0), flat_shapes(experiment.model)
  params = unflatten({n: 0.5 * rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()})
  return dataclasses.replace(
    run, experiment=experiment, model=experiment.model.build(), params=params, tokenizer=tokenizer
  )


def test_a_whisper_that_was_trained_here_writes_the_same_after_export(run, tmp_path):
  whisper = heard(run[1])
  folder = export_run(whisper, "transformers", tmp_path)
  written = json.loads((folder / "generation_config.json").read_text())
  assert written["decoder_start_token_id"] == whisper.tokenizer.begin_id and written["max_length"] == 8
  sounds = [(np.sin(np.arange(1900) * step).astype(np.float32), 16_000) for step in (0.1, 0.7)]
  ours = whisper.transcribe(sounds)
  theirs = interop.load_pretrained(folder).transcribe(sounds)
  assert [" ".join(text.split()) for text in theirs] == ours and any(ours)


def test_other_features_than_whispers_are_not_exported_as_them(run, tmp_path):
  with pytest.raises(interop.InteropError, match="makes other features than Whisper's feature extractor"):
    export_run(heard(run[1], loudness=-26.0), "transformers", tmp_path)


def test_flava_is_not_exported_as_if_it_were_its_two_towers(run, tmp_path):
  reader = TextConfig(**TOWER, vocab_size=64, max_length=8, eos_id=63, causal=False, pool="first")
  model = FlavaConfig(image=CLIP.image, text=reader, embed_dim=8, fusion_depth=1)
  for format_, theirs in (("transformers", "CLIPModel"), ("open_clip", "open_clip's CLIP")):
    with pytest.raises(interop.InteropError, match=f"'FlavaConfig', but {theirs} has only 'TwoTowerConfig'"):
      exported(run[1], model, format_, tmp_path)


@pytest.mark.references
def test_open_clip_opens_a_coca_that_export_writes(run, tmp_path):
  words = WordsConfig(**TOWER, vocab_size=run[1].tokenizer.vocab_size, max_length=8)
  image = dataclasses.replace(CLIP.image, pool="queries", pool_queries=3, pool_width=16, pool_heads=2)
  model = OpenClipCocaConfig(image=image, text=words, embed_dim=16, multimodal_depth=1)
  folder, params = exported(run[1], model, "open_clip", tmp_path)
  open_clip = reference("open_clip")
  theirs, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
  ids = run[1].tokenizer(STRINGS)
  ours = model.build().apply({"params": params}, ids, method="encode_text")
  import torch

  with torch.no_grad():
    embedded = theirs.eval().encode_text(torch.tensor(ids).long())
  np.testing.assert_allclose(ours, embedded.numpy(), rtol=0, atol=2e-5)


def test_what_cannot_be_exported_is_said(run, capsys):
  experiment, _ = run
  assert call(experiment, "export", "--to", "big_vision") == 2
  said = " ".join(capsys.readouterr().err.split())
  assert "model.image.input_norm is True (pre_layrnorm, ln_pre), but big_vision has only False" in said
  assert call(experiment, "export", "--to", "onxx") == 2
  assert "unknown format 'onxx'; formats are transformers" in " ".join(capsys.readouterr().err.split())
