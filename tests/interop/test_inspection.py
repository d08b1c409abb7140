"""`python -m mmjax.interop inspect FOLDER` says the use of every file and of every field."""

import json

import pytest

from mmjax.data import TokenizerConfig
from mmjax.data.text.tokenizer import Tokenizer, train_vocabulary
from mmjax.interop.__main__ import main
from mmjax.interop.inspection import beside
from mmjax.interop.pretrained_tokenizer import export_tokenizer
from mmjax.interop.source import open_source
from tests.interop.hostile import write_clip

PROCESSOR = dict(feature_extractor_type="CLIPFeatureExtractor", size=10, crop_size=8, do_pad=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = write_clip(tmp_path_factory.mktemp("clip"))
  config = json.loads((folder / "config.json").read_text())
  (folder / "config.json").write_text(json.dumps(config | {"torch_dtype": "float16"}))
  (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR | {"processor_class": "CLIPProcessor"}))
  words = TokenizerConfig(vocab_size=300, max_length=6)
  export_tokenizer(Tokenizer(train_vocabulary(["a cat"], words), words), folder)
  for name in ("README.md", "pytorch_model.bin", "vocab.json", "generation_config.json", "other.safetensors", "x.txt"):
    (folder / name).write_text("")
  return folder


def test_every_field_and_file_has_its_use(folder):
  found = beside(open_source(folder))
  uses = {(use.place, use.use): use.fields for use in found.uses}
  assert "size = 10, crop_size = 8" in uses["preprocessor_config.json", "used"]
  reason = "without effect: names the class of a processor, not of its images"
  assert uses["preprocessor_config.json", reason] == "processor_class = 'CLIPProcessor'"
  assert "torch_dtype = 'float16'" in uses["config.json", "without effect: mmjax computes in float32"]
  assert "hidden_size = 8" in uses["config.json: vision_config", "used"]
  assert "model_max_length = 6" in uses["tokenizer_config.json", "used"]
  files = {place: use for (place, use), fields in uses.items() if not fields}
  assert files == {
    "model.safetensors": "used",
    "tokenizer.json": "used",
    "README.md": "not read: a page for people",
    "pytorch_model.bin": "not read: a pickle; the .safetensors file is read",
    "vocab.json": "not read: the tokenizer is made from other files",
    "generation_config.json": "not read: settings of text generation",
    "other.safetensors": "not read: other weights",
    "x.txt": "not read",
  }
  fields = {name for use in found.uses for name in use.fields.split(", ")}
  for name in ("config.json", "preprocessor_config.json", "tokenizer_config.json"):
    for field in json.loads((folder / name).read_text()):
      assert any(one.split(" = ")[0] == field for one in fields), (name, field)
  assert "resize_to=10" in found.notes[0] and found.notes[1] == "texts: PreTrainedTokenizerFast, 6 tokens"


def test_the_command_prints_it_and_names_what_is_refused(folder, capsys):
  (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR | {"do_flip_channel_order": True}))
  assert main(["inspect", str(folder)]) == 0
  shown = capsys.readouterr().out
  (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
  assert "images: refused: " in shown and "does not know the field 'do_flip_channel_order'" in shown
  for words in (
    "text_config",
    "without effect: mmjax computes in float32",
    "not read: a page for people",
    "texts: Pre",
  ):
    assert words in shown, words


@pytest.mark.parametrize("form", ["open_clip", "mmjax"])
def test_other_formats(folder, form, tmp_path, capsys):
  if form == "open_clip":  # which cannot resize to 10 and cut out 8
    assert main(["convert", str(folder), str(tmp_path / "x"), "--to", form]) == 2
    assert 'before the crop that is not the model\'s. Use the format "mmjax"' in capsys.readouterr().err
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR | {"size": 8}))
  assert main(["convert", str(folder), str(tmp_path), "--to", form]) == 0
  assert main(["inspect", str(tmp_path)]) == 0
  capsys.readouterr()
  found = beside(open_source(tmp_path))
  assert not [use for use in found.uses if use.use == "not read" and use.fields]
  config = {"open_clip": "open_clip_config.json", "mmjax": "config.json"}[form]
  assert (config, "used") in {use[:2] for use in found.uses}
  assert [note.split(": ")[0] for note in found.notes] == ["images", "texts"]
