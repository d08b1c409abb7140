"""open_clip's models with text towers of transformers, at reduced size."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from mmjax import interop
from mmjax.experiment import Experiment, PretrainedConfig
from mmjax.interop import open_clip, open_clip_hf
from mmjax.interop.__main__ import main
from mmjax.interop.convert import convert
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.run_tokenizer import load_saved
from mmjax.interop.shapes import flat_shapes
from mmjax.train.adopt import adopted, check_agreement, run_tokenizer
from mmjax.train.loop import fitted
from tests.interop.open_clip_folders import written
from tests.interop.references import (
  AWKWARD,
  IMAGES,
  assert_close,
  assert_same_params,
  assert_same_tensors,
  embed,
  reference,
)
from tests.interop.tokenizer_folders import roberta

pytestmark = pytest.mark.references
theirs_of = reference("open_clip")
transformers = reference("transformers")
import torch  # noqa: E402

ROBERTA = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, vocab_size=400)
ROBERTA |= dict(max_position_embeddings=16, type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1)
MT5 = dict(d_model=16, d_kv=6, d_ff=24, num_layers=1, num_heads=3, vocab_size=50)
NLLB = dict(
  d_model=16, encoder_layers=1, encoder_ffn_dim=24, encoder_attention_heads=2, vocab_size=50, decoder_layers=1
)
NLLB |= dict(decoder_ffn_dim=8, decoder_attention_heads=2, max_position_embeddings=14)
SMALL = {
  "roberta-base": ("Roberta", ROBERTA),
  "xlm-roberta-large": ("XLMRoberta", ROBERTA | dict(num_hidden_layers=2, num_attention_heads=4)),
  "google/mt5-base": ("MT5", MT5),
  "facebook/nllb-200-distilled-600M": ("M2M100", NLLB),
}
VISION = dict(image_size=16, layers=1, width=12, patch_size=8, head_width=6)
CASES = {
  "roberta-ViT-B-32": ("roberta-base", dict(hf_pooler_type="mean_pooler"), 10),  # hf_proj_type is mlp by default
  "roberta, its pooler": ("roberta-base", dict(hf_pooler_type="cls_pooler", hf_proj_type=None), 16),
  "xlm-roberta-large-ViT-H-14": ("xlm-roberta-large", {}, 11),
  "xlm-roberta, its first token": (
    "xlm-roberta-large",
    dict(hf_pooler_type="cls_last_hidden_state_pooler", hf_proj_type="linear"),
    10,
  ),
  "mt5-base-ViT-B-32": ("google/mt5-base", dict(hf_pooler_type="mean_pooler"), 10),
  "mt5, its first token": ("google/mt5-base", dict(hf_pooler_type="cls_pooler", hf_proj_type="linear"), 10),
  "nllb-clip-base": ("facebook/nllb-200-distilled-600M", dict(hf_proj_type="linear", hf_pooler_type="cls_pooler"), 10),
  "nllb-clip, its own pooler": ("facebook/nllb-200-distilled-600M", dict(hf_pooler_type=None), 10),
}


PUBLISHED = {
  "roberta-ViT-B-32": 124.87,
  "xlm-roberta-base-ViT-B-32": 278.27,
  "xlm-roberta-large-ViT-H-14": 560.94,
  "mt5-base-ViT-B-32": 277.86,
  "mt5-xl-ViT-H-14": 1674.68,
  "nllb-clip-base": 414.04,
  "nllb-clip-large": 767.14,
}


def padded(pad: int) -> np.ndarray:
  ids = np.random.default_rng(0).integers(3, 50, (4, 12)).astype(np.int32)
  ids[0, 7:], ids[1, :3], ids[2, 4:6] = pad, pad, pad
  return ids


@pytest.fixture
def reduced(monkeypatch):
  """Small configurations under the published names, in the place of the hub and of our table."""

  published = transformers.AutoConfig.from_pretrained

  def config(name, **more):
    if name not in SMALL:
      return published(name, **more)
    kind, fields = SMALL[name]
    return getattr(transformers, f"{kind}Config")(**fields)

  def model(name, **more):
    return transformers.AutoModel.from_config(config(name), **more)

  monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", config)
  monkeypatch.setattr(transformers.AutoModel, "from_pretrained", model)
  roberta = dict(width=16, mlp_dim=24, depth=1, num_heads=2, vocab_size=400, max_length=14)
  sizes = {
    "roberta-base": roberta,
    "xlm-roberta-large": roberta | dict(depth=2, num_heads=4),
    "google/mt5-base": dict(width=16, mlp_dim=24, depth=1, num_heads=3, head_dim=6, vocab_size=50),
    "facebook/nllb-200-distilled-600M": roberta | dict(vocab_size=50),
  }
  small = {name: dataclasses.replace(open_clip_hf.TOWERS[name], **fields) for name, fields in sizes.items()}
  monkeypatch.setattr(open_clip_hf, "TOWERS", small)


@pytest.mark.parametrize("case", CASES)
def test_embeddings_both_ways(case, reduced, tmp_path):
  name, fields, embed_dim = CASES[case]
  cfg = dict(vision_cfg=VISION, text_cfg=dict(hf_model_name=name, hf_tokenizer_name=name) | fields, quick_gelu=True)
  theirs, _ = written(tmp_path / "theirs", cfg, embed_dim=embed_dim)
  found = interop.load_pretrained(tmp_path / "theirs")
  ids = padded(0 if "mt5" in name else 1)
  pixels = torch.tensor(IMAGES[:, :16, :16].transpose(0, 3, 1, 2))
  with torch.no_grad():
    expected = theirs.encode_image(pixels), theirs.encode_text(torch.tensor(ids).long())
  assert_close(embed(found.model, found.params, "encode_image", IMAGES[:, :16, :16]), expected[0])
  assert_close(embed(found.model, found.params, "encode_text", ids), expected[1])
  interop.save(found.model, found.params, tmp_path / "ours", format="open_clip", preprocess=found.preprocess)
  weights = "open_clip_model.safetensors"
  assert_same_tensors(tmp_path / "theirs" / weights, tmp_path / "ours" / weights)
  again, _, _ = theirs_of.create_model_and_transforms(f"local-dir:{tmp_path / 'ours'}")
  with torch.no_grad():
    torch.testing.assert_close(again.eval().encode_text(torch.tensor(ids).long()), expected[1], rtol=0, atol=1e-6)
  assert_same_params(interop.load(tmp_path / "ours")[1], found.params)


def test_a_run_begins_from_it_with_its_tokenizer(reduced, tmp_path, capsys):
  """Texts have open_clip's length, and the table keeps the positions that the published one has."""
  text = dict(hf_model_name="roberta-base", hf_tokenizer_name="roberta-base", context_length=9)
  written(tmp_path / "model", dict(vision_cfg=VISION, text_cfg=text))
  roberta(tmp_path / "model")
  ids = theirs_of.get_tokenizer(f"local-dir:{tmp_path / 'model'}")(AWKWARD).numpy()
  experiment = adopted(Experiment(pretrained=PretrainedConfig(str(tmp_path / "model"))))
  tokenizer = run_tokenizer(experiment.data, [])
  tokenizer.save(tmp_path / "saved")
  for one in (tokenizer, load_saved(tmp_path / "saved"), interop.load_pretrained(tmp_path / "model").tokenizer):
    np.testing.assert_array_equal(one(AWKWARD), ids)
  assert (tokenizer.begin_id, tokenizer.pad_id, tokenizer.eos_id) == (0, 1, 2)
  run = fitted(experiment, tokenizer, num_records={"": 4})
  check_agreement(run, tokenizer, None)
  assert (run.model.text.max_length, run.model.text.vocab_size, run.model.text_projection) == (14, 400, "mlp")
  assert main(["inspect", str(tmp_path / "model")]) == 0
  said = capsys.readouterr().out
  assert "RobertaTokenizer, 9 tokens, texts cleaned up (whitespace)" in said and "refused" not in said
  for format in ("mmjax", "open_clip"):
    convert(tmp_path / "model", tmp_path / format, format)
    np.testing.assert_array_equal(interop.load_pretrained(tmp_path / format).tokenizer(AWKWARD), ids)


@pytest.mark.parametrize(
  ("fields", "said"),
  [
    (dict(hf_model_name="gpt2"), "hf_model_name is 'gpt2'; of transformers' text towers, mmjax reads roberta-base"),
    (dict(hf_pooler_type="max_pooler"), "hf_pooler_type is 'max_pooler', but must be one of"),
    (dict(hf_proj_type=None), "roberta-base is 768 wide, and embed_dim is 10"),
    (dict(hf_proj_type="conv"), "hf_proj_type is 'conv'"),
    (dict(other=1), "unknown field 'other'"),
  ],
)
def test_what_is_not_supported_is_refused(fields, said):
  with pytest.raises(InteropError, match=said):
    open_clip_hf.read(Fields(dict(hf_model_name="roberta-base") | fields, "text_cfg"), 10)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_sizes_are_those_of_open_clip(name):
  """Millions of parameters that open_clip publishes of its shipped configurations (docs/model_profile.csv)."""
  path = Path(theirs_of.__file__).parent / f"model_configs/{name}.json"
  shapes = flat_shapes(open_clip.read(Fields(json.loads(path.read_text()), name), {}))
  text = sum(math.prod(shape) for path, shape in shapes.items() if path.startswith("text"))
  assert round(text / 1e6, 2) == PUBLISHED[name]


def test_a_tower_of_no_published_size_is_not_written():
  tower = dataclasses.replace(open_clip_hf.TOWERS["roberta-base"], depth=3)
  with pytest.raises(InteropError, match='none of this size; it knows roberta-base, .*format="mmjax"'):
    open_clip_hf.write(tower, "mlp")
