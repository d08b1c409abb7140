"""Every field of transformers' config.json is read, has no effect (shown here against transformers), or is refused."""

import json
import shutil

import numpy as np
import pytest

from mmjax import interop
from mmjax.interop import InteropError, without_effect
from mmjax.interop.source import open_source
from tests.interop.hostile import write_clip
from tests.interop.references import reference

TEXT = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, vocab_size=50)
TEXT |= dict(max_position_embeddings=8, bos_token_id=1, eos_token_id=49, pad_token_id=0)
VISION = dict(
  hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4
)
PATCHES = {name: value for name, value in VISION.items() if name != "image_size"} | dict(num_patches=4)
BLIP = TEXT | dict(is_decoder=True, encoder_hidden_size=8, sep_token_id=3)
KINDS = {
  "CLIP": dict(text_config=TEXT, vision_config=VISION, projection_dim=8),
  "Siglip": dict(text_config=TEXT | dict(projection_size=8), vision_config=VISION),
  "Siglip2": dict(text_config=TEXT | dict(projection_size=8), vision_config=PATCHES),
  "ViT": VISION,
  "Bert": TEXT,
  "Roberta": TEXT | dict(type_vocab_size=1),
  "MPNet": TEXT | dict(pad_token_id=1, max_position_embeddings=12),
  "DistilBert": dict(dim=8, hidden_dim=8, n_layers=1, n_heads=2, vocab_size=50, max_position_embeddings=8),
  "T5": dict(d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, vocab_size=50),
  "Blip": dict(text_config=BLIP, vision_config=VISION, image_text_hidden_size=8),
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request, tmp_path_factory):
  """(name, their class, folder that they wrote)."""
  transformers = reference("transformers")
  name = request.param
  classes = {"Blip": "BlipForImageTextRetrieval", "T5": "T5EncoderModel"}
  cls = getattr(transformers, classes.get(name, f"{name}Model"))
  folder = tmp_path_factory.mktemp(name)
  cls(getattr(transformers, f"{name}Config")(**KINDS[name])).save_pretrained(folder)
  return name, cls, folder


def parts(config):
  """The objects of a configuration that have fields: itself and its towers."""
  return [config, *(config[name] for name in ("text_config", "vision_config") if name in config)]


def outputs(name, cls, folder):
  import torch

  model = cls.from_pretrained(folder, dtype=torch.float32).eval()
  ids, pixels = torch.tensor([[1, 5, 6, 49, 0, 0, 0, 0]]), torch.linspace(-1, 1, 192).reshape(1, 3, 8, 8)
  if name == "Siglip2":
    shape = dict(pixel_attention_mask=torch.ones(1, 4).long(), spatial_shapes=torch.tensor([[2, 2]]))
    pixels = dict(pixel_values=pixels.reshape(1, 4, 48)) | shape
  else:
    pixels = dict(pixel_values=pixels)
  both = name in ("CLIP", "Siglip", "Siglip2", "Blip")
  inputs = pixels if name == "ViT" else dict(input_ids=ids) | (pixels if both else {})
  with torch.no_grad():
    out = model(**inputs, return_dict=True)
  return [value.numpy() for value in out.values() if isinstance(value, torch.Tensor)]


VALUES = {"dtype": "float16", "torch_dtype": "float16", "model_type": None, "transformers_version": "4.1.0"}
VALUES |= {"id2label": {"0": "cat"}, "label2id": {"cat": 0}, "architectures": ["X"], "hidden_act": None}
VALUES |= {"_attn_implementation": "eager", "attn_implementation": "eager", "problem_type": "regression"}
VALUES |= {"task_specific_params": {}, "bad_words_ids": [[3]], "suppress_tokens": [3], "begin_suppress_tokens": [3]}
VALUES |= {
  "num_labels": 1,
  "sinusoidal_pos_embds": True,
  "_name_or_path": "x",
  "_commit_hash": "x",
  "tokenizer_class": "CLIPTokenizer",
  "prefix": "x",
}
VALUES |= {"exponential_decay_length_penalty": [1, 2.0], "chunk_size_feed_forward": 4, "classifier_dropout": 0.5}
NUMBERS = ("dropout", "penalty", "smoothing", "initializer", "temperature", "top_p", "typical_p", "logit_scale")
FLAGS = (
  "use_",
  "return_",
  "output_",
  "is_",
  "do_",
  "tie_",
  "early_",
  "remove_",
  "add_",
  "torchscript",
  "gradient_",
  "tf_",
)


def other(name):
  """A value that is not the default."""
  if name in VALUES:
    return VALUES[name]
  if any(part in name for part in NUMBERS):
    return 0.5
  return True if name.startswith(FLAGS) else 2


def read_fields(folder):
  """The fields that mmjax reads, of each part."""
  source = open_source(folder)
  return [source.fields.used, *(source.fields.parts[name].used for name in sorted(source.fields.parts))]


@pytest.mark.references
def test_fields_without_effect_have_none(kind, tmp_path):
  """All fields of the table at once, in each part that does not read them: the same outputs, and no refusal."""
  name, cls, folder = kind
  expected = outputs(name, cls, folder)
  shutil.copytree(folder, tmp_path / "changed")
  path = tmp_path / "changed/config.json"
  changed = json.loads(path.read_text())
  for part, known in zip(parts(changed), read_fields(folder), strict=True):
    part |= {field: other(field) for field in without_effect.MODEL if field not in known and other(field) is not None}
  path.write_text(json.dumps(changed))
  for mine, yours in zip(outputs(name, cls, tmp_path / "changed"), expected, strict=True):
    np.testing.assert_allclose(mine, yours, atol=1e-5)
  interop.load(tmp_path / "changed")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
  return write_clip(tmp_path_factory.mktemp("clip"))


def changed(folder, target, change):
  """A copy of a checkpoint with another config.json."""
  shutil.copytree(folder, target)
  config = json.loads((target / "config.json").read_text())
  (target / "config.json").write_text(json.dumps(config | change(config)))
  return target


@pytest.mark.parametrize("part", ["", "text_config", "vision_config"])
@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("quantization_config", {"bits": 8}),
    ("auto_map", {"AutoModel": "x.Y"}),
    ("rope_theta", 1e4),
    ("pruned_heads", {"0": [1]}),
  ],
)
def test_an_unknown_field_is_refused_by_name(clip, part, field, value, tmp_path):
  def change(config):
    return {part: config[part] | {field: value}} if part else {field: value}

  with pytest.raises(InteropError, match=rf"config.json.*{part}.*{field}.*Remove it from the file if it does not"):
    interop.load(changed(clip, tmp_path / "x", change))
  interop.load(changed(clip, tmp_path / "null", lambda config: {"rope_theta": None, "pruned_heads": {}}))


def test_text_config_dict_replaces_text_config(clip, tmp_path):
  """Early CLIP files have both. Fields that only text_config has are then the defaults, not its values."""
  whole = changed(clip, tmp_path / "whole", lambda c: {"text_config_dict": c["text_config"], "text_config": {"x": 1}})
  assert interop.load(whole)[0].config == interop.load(clip)[0].config
  partly = changed(clip, tmp_path / "partly", lambda c: {"text_config_dict": {"hidden_size": 8}})
  with pytest.raises(InteropError, match="text_model"):
    interop.load(partly)
