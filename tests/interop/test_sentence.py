"""Files of sentence-transformers beside a BERT: their pooling, modules and lengths, or a refusal by name."""

import json

import pytest

from mmjax.encoders import bert_config
from mmjax.interop import InteropError
from mmjax.interop.pretrained_tokenizer import _sentence_length
from mmjax.interop.sentence import read_pooling, write_pooling

BERT = bert_config(width=8, depth=1, num_heads=2, vocab_size=20, max_length=16)


@pytest.fixture
def folder(tmp_path):
  write_pooling(BERT, tmp_path)
  return tmp_path


def edited(path, **changes):
  path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def module(kind, path=""):
  return {"idx": 0, "name": "0", "path": path, "type": f"sentence_transformers.models.{kind}"}


def test_pooling_is_read(folder):
  edited(folder / "1_Pooling/config.json", pooling_mode_lasttoken=False, include_prompt=True)
  assert read_pooling(BERT, folder).pool == "mean"
  edited(folder / "1_Pooling/config.json", pooling_mode_mean_tokens=False, pooling_mode_cls_token=True)
  assert read_pooling(BERT, folder).pool == "first"
  (folder / "1_Pooling").rename(folder / "pooling")
  modules = [module("Transformer"), module("Pooling", "pooling"), module("Normalize", "2_Normalize")]
  (folder / "modules.json").write_text(json.dumps(modules))
  assert read_pooling(BERT, folder).pool == "first"


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    (dict(pooling_mode_mean_tokens=False), "exactly one of"),
    (dict(pooling_mode_cls_token=True), "exactly one of"),
    (dict(pooling_mode_max_tokens=True), "pooling_mode_max_tokens"),
    (dict(pooling_mode_lasttoken=True), "pooling_mode_lasttoken"),
    (dict(word_embedding_dimension=9), "word_embedding_dimension"),
  ],
)
def test_another_pooling_is_refused(folder, changes, said):
  edited(folder / "1_Pooling/config.json", **changes)
  with pytest.raises(InteropError, match=f"1_Pooling/config.json.*{said}"):
    read_pooling(BERT, folder)


@pytest.mark.parametrize("kinds", [["Transformer", "Pooling", "Dense"], ["Transformer"], ["CLIPModel"]])
def test_other_modules_are_refused(folder, kinds):
  (folder / "modules.json").write_text(json.dumps([module(kind) for kind in kinds]))
  with pytest.raises(InteropError, match=f"modules.json lists the modules {', '.join(kinds)}"):
    read_pooling(BERT, folder)


def test_length_and_case(folder):
  path = folder / "sentence_bert_config.json"
  edited(path, max_seq_length=9)
  assert _sentence_length(folder) == 9
  for changes, said in ((dict(do_lower_case=True), "do_lower_case"), (dict(model_args={"x": 1}), "model_args")):
    path.write_text(json.dumps({"max_seq_length": 9} | changes))
    with pytest.raises(InteropError, match=f"sentence_bert_config.json.*{said}"):
      _sentence_length(folder)


def test_a_prompt_before_every_text_is_refused(folder):
  path = folder / "config_sentence_transformers.json"
  path.write_text(json.dumps({"prompts": {"query": "query: ", "none": ""}, "default_prompt_name": "query"}))
  with pytest.raises(
    InteropError, match="config_sentence_transformers.json: default_prompt_name is 'query'.*'query: '"
  ):
    read_pooling(BERT, folder)
  edited(path, default_prompt_name="missing")
  with pytest.raises(InteropError, match="default_prompt_name is 'missing'"):
    read_pooling(BERT, folder)
  for name in (None, "none"):  # prompts that are used by name only, or that are empty
    edited(path, default_prompt_name=name)
    assert read_pooling(BERT, folder).pool == "mean"
