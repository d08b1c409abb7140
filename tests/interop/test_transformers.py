"""transformers' models and ours give the same embeddings, both ways, from random weights."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from einops import rearrange

from mmjax import interop
from mmjax.data import TokenizerConfig
from mmjax.data.text.tokenizer import Tokenizer, train_vocabulary
from mmjax.interop.fields import read_json
from mmjax.interop.preprocess import to_transformers
from mmjax.interop.pretrained_tokenizer import export_tokenizer, load_tokenizer
from mmjax.interop.processor import from_transformers
from tests.interop.references import (
  AWKWARD,
  IMAGES,
  assert_close,
  assert_same_params,
  assert_same_tensors,
  clip_vocabulary,
  embed,
  randomize,
  reference,
)

pytestmark = pytest.mark.references
transformers = reference("transformers")
import torch  # noqa: E402  transformers is here, so this is

VISION = dict(
  hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8
)
TEXT = dict(hidden_size=12, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2, vocab_size=50)
TEXT |= dict(max_position_embeddings=9, bos_token_id=1, eos_token_id=49, pad_token_id=0)
OTHER = dict(hidden_act="gelu", layer_norm_eps=1e-3)
RNG = np.random.default_rng(0)
IDS = RNG.integers(1, 49, (4, 9)).astype(np.int32)
IDS[0, 4], IDS[1, 2], IDS[2, 3:] = 49, 49, 0  # ends in the middle, pads; the last has no end at all


def clip(text, vision):
  config = transformers.CLIPConfig(text_config=TEXT | text, vision_config=VISION | vision, projection_dim=10)
  return transformers.CLIPModel(config)


def siglip(text, vision):
  width = (VISION | vision)["hidden_size"]
  config = dict(text_config=TEXT | dict(projection_size=width) | text, vision_config=VISION | vision)
  return transformers.SiglipModel(transformers.SiglipConfig(**config))


def siglip2(text, vision):
  vision = VISION | vision
  patches = dict(num_patches=(vision.pop("image_size") // vision["patch_size"]) ** 2)
  config = dict(text_config=TEXT | dict(projection_size=vision["hidden_size"]) | text, vision_config=vision | patches)
  return transformers.Siglip2Model(transformers.Siglip2Config(**config))


TWO_TOWERS = {
  "clip": (clip, {}, {}),
  "clip, ends by the largest id": (clip, dict(eos_token_id=2), dict(num_attention_heads=4, patch_size=4)),
  "clip, gelu and epsilon": (clip, OTHER, OTHER | dict(hidden_size=24, num_hidden_layers=1)),
  "siglip": (siglip, {}, {}),
  "siglip, gelu and epsilon": (siglip, OTHER, OTHER | dict(patch_size=5, num_attention_heads=4)),  # a pixel is over
  "siglip2": (siglip2, {}, {}),
  "siglip2, gelu and epsilon": (siglip2, OTHER, OTHER | dict(patch_size=4)),
}


def image_features(model, images):
  if "Siglip2" not in type(model).__name__:
    return model.get_image_features(torch.tensor(images.transpose(0, 3, 1, 2))).pooler_output
  side = model.config.vision_config.patch_size
  patches = torch.tensor(rearrange(images, "b (y p) (x q) c -> b (y x) (p q c)", p=side, q=side))
  grid, mask = images.shape[1] // side, torch.ones(patches.shape[:2], dtype=torch.long)
  return model.get_image_features(
    patches, pixel_attention_mask=mask, spatial_shapes=torch.tensor([[grid, grid]] * len(images))
  ).pooler_output


@pytest.mark.parametrize("case", TWO_TOWERS)
def test_two_towers(case, tmp_path):
  make, text, vision = TWO_TOWERS[case]
  theirs = make(text, vision).eval()
  randomize(theirs)
  theirs.save_pretrained(tmp_path / "theirs")
  model, params = interop.load(tmp_path / "theirs")
  images = IMAGES[:, :16, :16]
  ours = embed(model, params, "encode_image", images), embed(model, params, "encode_text", IDS)
  expected = image_features(theirs, images), theirs.get_text_features(torch.tensor(IDS).long()).pooler_output
  for mine, yours in zip(ours, expected, strict=True):
    assert_close(mine, yours)

  scale, bias = (np.asarray(model.apply({"params": params}, method=name)) for name in ("logit_scale", "logit_bias"))
  unit = [torch.nn.functional.normalize(e, dim=-1) for e in expected]
  logits = unit[0] @ unit[1].T * theirs.logit_scale.exp() + getattr(theirs, "logit_bias", torch.zeros(()))
  mine = [e / np.linalg.norm(e, axis=-1, keepdims=True) for e in ours]
  assert_close(mine[0] @ mine[1].T * scale + bias, logits)

  interop.save(model, params, tmp_path / "ours", format="siglip2" if make is siglip2 else "transformers")
  assert_same_tensors(tmp_path / "theirs/model.safetensors", tmp_path / "ours/model.safetensors")
  again, info = type(theirs).from_pretrained(tmp_path / "ours", output_loading_info=True)
  assert not info["missing_keys"] and not info["unexpected_keys"]
  torch.testing.assert_close(image_features(again, images), expected[0], rtol=0, atol=1e-6)
  text_again = again.get_text_features(torch.tensor(IDS).long()).pooler_output
  torch.testing.assert_close(text_again, expected[1], rtol=0, atol=1e-6)
  assert_same_params(interop.load(tmp_path / "ours")[1], params)


@pytest.mark.parametrize("pooled", [True, False])
def test_vit(pooled, tmp_path):
  fields = VISION if pooled else VISION | dict(hidden_act="gelu_new", layer_norm_eps=1e-4, patch_size=4)
  theirs = transformers.ViTModel(transformers.ViTConfig(**fields), add_pooling_layer=pooled).eval()
  randomize(theirs)
  theirs.save_pretrained(tmp_path / "theirs")
  model, params = interop.load(tmp_path / "theirs")
  out = theirs(torch.tensor(IMAGES[:, :16, :16].transpose(0, 3, 1, 2)))
  expected = out.pooler_output if pooled else out.last_hidden_state[:, 0]
  assert_close(embed(model, params, "encode_image", IMAGES[:, :16, :16]), expected)
  interop.save(model, params, tmp_path / "ours")
  assert_same_tensors(tmp_path / "theirs/model.safetensors", tmp_path / "ours/model.safetensors")
  again = transformers.ViTModel.from_pretrained(tmp_path / "ours", add_pooling_layer=pooled)
  got = again(torch.tensor(IMAGES[:, :16, :16].transpose(0, 3, 1, 2))).last_hidden_state
  torch.testing.assert_close(got, out.last_hidden_state, rtol=0, atol=1e-6)


@pytest.mark.parametrize("pooled", [True, False])
def test_bert(pooled, tmp_path):
  """With padding, and with tokens of both segments."""
  fields = TEXT if pooled else TEXT | dict(hidden_act="gelu_new", layer_norm_eps=1e-5, type_vocab_size=3)
  theirs = transformers.BertModel(transformers.BertConfig(**fields), add_pooling_layer=pooled).eval()
  randomize(theirs)
  theirs.save_pretrained(tmp_path / "theirs")
  model, params = interop.load(tmp_path / "theirs")
  types = (np.arange(9)[None] > np.array([3, 5, 7, 8])[:, None]).astype(np.int32)
  args = dict(attention_mask=torch.tensor(IDS != 0).long(), token_type_ids=torch.tensor(types).long())
  out = theirs(torch.tensor(IDS).long(), **args)
  expected = out.pooler_output if pooled else out.last_hidden_state[:, 0]
  ours = model.apply({"params": params}, jnp.asarray(IDS), jnp.asarray(types), method="encode_text")
  assert_close(np.asarray(ours), expected)
  interop.save(model, params, tmp_path / "ours")
  assert_same_tensors(tmp_path / "theirs/model.safetensors", tmp_path / "ours/model.safetensors")
  again = transformers.BertModel.from_pretrained(tmp_path / "ours", add_pooling_layer=pooled)
  torch.testing.assert_close(
    again(torch.tensor(IDS).long(), **args).last_hidden_state, out.last_hidden_state, rtol=0, atol=1e-6
  )


@pytest.mark.parametrize(
  ("processor", "fields"),
  [
    ("CLIPImageProcessor", dict(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})),
    ("SiglipImageProcessor", dict(size={"height": 32, "width": 32})),
    ("ViTImageProcessor", dict(size={"height": 32, "width": 32})),
    ("ViTImageProcessor", dict(size={"height": 32, "width": 32}, resample=3, image_std=[0.1, 0.2, 0.3])),
    ("SiglipImageProcessor", dict(size={"height": 32, "width": 32}, resample=2, image_mean=[0.1, 0.2, 0.3])),
    ("DINOv3ViTImageProcessor", dict(size={"height": 32, "width": 32})),  # which resizes numbers that are not rounded
  ],
)
def test_pictures_are_prepared_alike(processor, fields, tmp_path):
  """Within one level of 255, whatever the shape; from the file that their processor writes."""
  theirs = getattr(transformers, processor)(**fields)
  theirs.save_pretrained(tmp_path)
  kind = processor.replace("ImageProcessor", "Model")
  ours = from_transformers(read_json(tmp_path / "preprocessor_config.json"), 32, kind)
  assert from_transformers(interop.fields.Fields(to_transformers(ours, processor), "ours"), 32, kind) == ours
  for height, width in ((48, 80), (33, 57), (20, 31), (64, 64)):
    picture = np.random.default_rng(height).integers(0, 256, (height, width, 3)).astype(np.uint8)
    expected = theirs(picture, return_tensors="np").pixel_values[0].transpose(1, 2, 0)
    levels = np.abs(ours(picture) - expected) * np.array(ours.std)
    assert levels.max() <= 1.001 / 255, (height, width, levels.max() * 255)


def test_token_ids_of_awkward_strings(tmp_path):
  """CLIP's real vocabulary; padding with the end token, as its files say."""
  vocabulary, merges = clip_vocabulary()
  transformers.CLIPTokenizer(vocab=vocabulary, merges=merges).save_pretrained(tmp_path)
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
  expected = theirs(AWKWARD, padding="max_length", truncation=True, max_length=77).input_ids
  for text, mine, yours in zip(AWKWARD, load_tokenizer(tmp_path, 77)(AWKWARD), expected, strict=True):
    assert mine.tolist() == yours, repr(text[:40])


def test_a_tokenizer_that_is_more_than_its_file_is_refused(tmp_path):
  (tmp_path / "tokenizer.json").write_text(train_vocabulary(AWKWARD, TokenizerConfig(vocab_size=300)).to_str())
  (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "SiglipTokenizer"}))
  with pytest.raises(interop.InteropError, match="tokenizer_class is 'SiglipTokenizer'"):  # and no spiece.model
    load_tokenizer(tmp_path, 8)


@pytest.mark.parametrize("special", [{"bos_token": "<bos>"}, {}, {"cls_token": "<cls>", "sep_token": "<sep>"}])
def test_a_trained_tokenizer_gives_transformers_the_same_ids(tmp_path, special):
  config = TokenizerConfig(vocab_size=300, max_length=12, mask_token="<mask>", **special)
  ours = Tokenizer(train_vocabulary(AWKWARD[2:6], config), config)
  export_tokenizer(ours, tmp_path)
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
  ids = theirs(AWKWARD, padding="max_length", truncation=True, max_length=12, return_tensors="np").input_ids
  np.testing.assert_array_equal(ours(AWKWARD), ids)
  assert theirs.mask_token_id == ours.mask_id
  if ours.sep_id is not None:
    both = theirs("ab", "cd", padding="max_length", max_length=12, return_tensors="np", return_token_type_ids=True)
    text, segment = ours.pairs(["ab"], ["cd"])
    np.testing.assert_array_equal(both.input_ids, text)
    np.testing.assert_array_equal(both.token_type_ids, segment)
