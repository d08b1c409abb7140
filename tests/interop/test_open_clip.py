"""open_clip's models and ours give the same embeddings, both ways, from random weights."""

import jax
import numpy as np
import pytest
from PIL import Image

from mmjax import interop
from mmjax.interop.fields import Fields
from mmjax.interop.pretrained_tokenizer import load_tokenizer
from mmjax.interop.processor import from_open_clip
from tests.interop.open_clip_folders import written
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
open_clip = reference("open_clip")
import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

VISION = dict(image_size=16, patch_size=8, width=16, layers=2, head_width=8, mlp_ratio=1.5)
POOLER = dict(attentional_pool=True, attn_pooler_queries=3, attn_pooler_heads=5)
TEXT = dict(context_length=9, vocab_size=50, width=12, heads=2, layers=2)
TANH = dict(act_kwargs={"approximate": "tanh"}, norm_kwargs={"eps": 1e-6})
CASES = {
  "vit": dict(vision_cfg=VISION, text_cfg=TEXT),
  "vit, quick gelu, layer scale": dict(
    vision_cfg=VISION | dict(patch_size=4, ls_init_value=0.1),
    text_cfg=TEXT | dict(heads=3, ls_init_value=1e-4),
    quick_gelu=True,
  ),
  "vit, no pre-norm, tanh, both ways, last place, bias": dict(
    vision_cfg=VISION | TANH | dict(no_ln_pre=True),
    text_cfg=TEXT | TANH | dict(no_causal_mask=True, pool_type="last", proj_bias=True),
    init_logit_bias=-10.0,
    custom_text=True,
  ),
  "vit, settings without effect": dict(
    vision_cfg=VISION
    | dict(timm_model_pretrained=True, timm_pool="x", timm_proj="mlp", timm_proj_bias=True, timm_drop=0.5)
    | dict(timm_drop_path=0.5, patch_dropout=0.5, attn_pooler_queries=3, attn_pooler_heads=7),
    text_cfg=TEXT | dict(hf_model_pretrained=False, hf_proj_type="x", hf_pooler_type="x"),
  ),
  "mean over patches": dict(vision_cfg=VISION | dict(pool_type="avg"), text_cfg=TEXT),
  "mean over patches, no pre-norm, quick gelu": dict(
    vision_cfg=VISION | dict(pool_type="avg", no_ln_pre=True, norm_kwargs={"eps": 1e-3}),
    text_cfg=TEXT | dict(pool_type="last"),
    quick_gelu=True,
  ),
  "mean over patches, normalised after it": dict(
    vision_cfg=VISION | dict(pool_type="avg", no_ln_pre=True, final_ln_after_pool=True), text_cfg=TEXT
  ),
  "pooler": dict(vision_cfg=VISION | POOLER, text_cfg=TEXT),
  "pooler, the tower's own width, tanh": dict(
    vision_cfg=VISION | POOLER | dict(width=10, head_width=5, attn_pooler_heads=2, act_kwargs={"approximate": "tanh"}),
    text_cfg=TEXT | dict(act_kwargs={"approximate": "tanh"}),
  ),
  "resnet": dict(vision_cfg=dict(image_size=64, layers=[2, 1, 1, 1], width=4, head_width=32), text_cfg=TEXT),
  "resnet, end token": dict(
    vision_cfg=dict(image_size=32, layers=[1, 2, 1, 1], width=8, head_width=64),
    text_cfg=TEXT | dict(pool_type="eos", eos_id=49),
    quick_gelu=True,
  ),
}
IDS = np.random.default_rng(0).integers(1, 49, (4, 9)).astype(np.int32)
IDS[0, 4:], IDS[1, 2] = [49, 0, 0, 0, 0], 49


@pytest.mark.parametrize("case", CASES)
def test_embeddings_logits_and_pictures(case, tmp_path):
  theirs, transform = written(tmp_path / "theirs", CASES[case])
  found = interop.load_pretrained(tmp_path / "theirs")
  model, params = found.model, found.params
  side = CASES[case]["vision_cfg"]["image_size"]
  images, pixels = IMAGES[:, :side, :side], torch.tensor(IMAGES[:, :side, :side].transpose(0, 3, 1, 2))
  ids = torch.tensor(IDS).long()
  with torch.no_grad():
    expected = theirs.encode_image(pixels), theirs.encode_text(ids)
    logits = theirs.get_logits(pixels, ids)[0]
  ours = embed(model, params, "encode_image", images), embed(model, params, "encode_text", IDS)
  for mine, yours in zip(ours, expected, strict=True):
    assert_close(mine, yours)
  mine = [e / np.linalg.norm(e, axis=-1, keepdims=True) for e in ours]
  scale, bias = (np.asarray(model.apply({"params": params}, method=name)) for name in ("logit_scale", "logit_bias"))
  assert_close(mine[0] @ mine[1].T * scale + bias, logits)

  interop.save(model, params, tmp_path / "ours", format="open_clip", preprocess=found.preprocess)
  again, _, transform_again = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'ours'}")
  with torch.no_grad():
    torch.testing.assert_close(again.eval().encode_image(pixels), expected[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(again.encode_text(ids), expected[1], rtol=0, atol=1e-6)
  if "custom_text" not in CASES[case]:  # theirs is written as the plain class, whose names have no "text." in front
    first, second = tmp_path / "theirs/open_clip_model.safetensors", tmp_path / "ours/open_clip_model.safetensors"
    assert_same_tensors(first, second, but=("num_batches_tracked",))
  assert_same_params(interop.load(tmp_path / "ours")[1], params)
  picture = Image.fromarray(np.random.default_rng(3).integers(0, 256, (70, 45, 3)).astype(np.uint8))
  for t in (transform, transform_again):
    np.testing.assert_allclose(found.preprocess(picture), t(picture).numpy().transpose(1, 2, 0), atol=1e-5)


@pytest.mark.parametrize("resize", ["shortest", "squash", "longest"])
def test_every_way_to_resize(resize):
  cfg = dict(size=24, resize_mode=resize, interpolation="bicubic", fill_color=7)
  ours = from_open_clip(Fields(cfg, "cfg"), 24)
  theirs = open_clip.transform.image_transform_v2(open_clip.transform.PreprocessCfg(**cfg), is_train=False)
  for size in ((70, 45), (33, 57), (24, 24), (10, 18)):
    picture = Image.fromarray(np.random.default_rng(3).integers(0, 256, (*size, 3)).astype(np.uint8))
    np.testing.assert_allclose(ours(picture), theirs(picture).numpy().transpose(1, 2, 0), atol=1e-5, err_msg=str(size))


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    (dict(interpolation="random"), ""),
    (dict(mean=0.25, std=0.5), ""),
    (dict(mean=None, interpolation=None, fill_color=None, size=99), ""),
    (dict(mode="L"), "mode is 'L'"),
    (dict(resize_mode="crop"), "resize_mode is 'crop'"),
    (dict(interpolation="nearest"), "interpolation is 'nearest'"),
    (dict(std=[1, 0, 1]), "std"),
    (dict(crop_pct=0.9), "crop_pct"),
  ],
)
def test_every_setting_of_images(changes, said):
  if said:
    with pytest.raises(interop.InteropError, match=f"cfg.*{said}"):
      from_open_clip(Fields(changes, "cfg"), 24)
    return
  transform = open_clip.transform
  cfg = transform.merge_preprocess_dict(transform.PreprocessCfg(), changes | dict(size=24))  # the model's size decides
  theirs = transform.image_transform_v2(transform.PreprocessCfg(**cfg), is_train=False)
  picture = Image.fromarray(np.random.default_rng(3).integers(0, 256, (70, 45, 3)).astype(np.uint8))
  ours = from_open_clip(Fields(changes, "cfg"), 24)
  np.testing.assert_allclose(ours(picture), theirs(picture).numpy().transpose(1, 2, 0), atol=1e-5)


def test_openai_names(tmp_path):
  """OpenAI's files have no configuration, heads of 64, quick GELU; theirs are read by open_clip's own reader."""
  vision = dict(image_size=16, patch_size=8, width=64, layers=2, head_width=64)
  for number, cfg in enumerate((vision, dict(image_size=32, layers=[1, 1, 2, 1], width=8, head_width=64))):
    text = dict(context_length=9, vocab_size=50, width=64, heads=1, layers=1 + number)
    theirs = open_clip.CLIP(12, cfg, text, quick_gelu=True).eval()
    randomize(theirs)
    path = tmp_path / f"{number}.safetensors"
    side = cfg["image_size"]
    weights = {k: v.contiguous() for k, v in theirs.state_dict().items() if "attn_mask" not in k}
    save_file(weights, path)
    with pytest.raises(interop.InteropError, match="not its buffers .*It may be of open_clip, with another activation"):
      interop.load(path)
    buffers = dict(input_resolution=torch.tensor(side), context_length=torch.tensor(9), vocab_size=torch.tensor(50))
    save_file(weights | buffers, path)
    model, params = interop.load(path)
    pixels = torch.tensor(IMAGES[:, :side, :side].transpose(0, 3, 1, 2))
    assert_close(embed(model, params, "encode_image", IMAGES[:, :side, :side]), theirs.encode_image(pixels))
    assert_close(embed(model, params, "encode_text", IDS), theirs.encode_text(torch.tensor(IDS).long()))
    interop.save(model, params, tmp_path / f"ours{number}.safetensors", format="openai")
    assert_same_tensors(path, tmp_path / f"ours{number}.safetensors", but=("num_batches_tracked",))


def test_positions_are_resampled_as_theirs_are(tmp_path):
  written(tmp_path / "theirs", CASES["vit"])
  theirs, _, _ = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'theirs'}", force_image_size=40)
  model, params = interop.load(tmp_path / "theirs", image_size=40)
  pixels = torch.tensor(IMAGES[:, :40, :40].transpose(0, 3, 1, 2))
  assert_close(embed(model, params, "encode_image", IMAGES[:, :40, :40]), theirs.eval().encode_image(pixels))


def clip_tokenizer():
  """The tokenizer.json of OpenAI's CLIP, from the merges that open_clip ships."""
  import tokenizers
  from tokenizers import normalizers, pre_tokenizers

  ids, merges = clip_vocabulary()
  model = dict(end_of_word_suffix="</w>", continuing_subword_prefix="", unk_token="<|endoftext|>")
  engine = tokenizers.Tokenizer(tokenizers.models.BPE(ids, merges, **model))
  whitespace = normalizers.Replace(tokenizers.Regex(r"\s+"), " ")
  engine.normalizer = normalizers.Sequence([normalizers.NFC(), whitespace, normalizers.Lowercase()])
  pattern = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
  split = pre_tokenizers.Split(tokenizers.Regex(pattern), behavior="removed", invert=True)
  engine.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
  ends = [("<|startoftext|>", 49406), ("<|endoftext|>", 49407)]
  engine.post_processor = tokenizers.processors.TemplateProcessing(
    single="<|startoftext|> $A <|endoftext|>", special_tokens=ends
  )
  return engine


def test_token_ids_of_awkward_strings(tmp_path):
  clip_tokenizer().save(str(tmp_path / "tokenizer.json"))
  ours = load_tokenizer(tmp_path, 77, open_clip=Fields({}, "text_cfg"))
  theirs = open_clip.tokenizer.SimpleTokenizer()
  expected = theirs(AWKWARD).numpy()
  for text, mine, yours in zip(AWKWARD, ours(AWKWARD), expected, strict=True):
    assert mine.tolist() == yours.tolist(), repr(text[:40])


def test_a_scanned_model_is_written_layer_by_layer(tmp_path):
  theirs, _ = written(tmp_path / "theirs", CASES["vit"])
  model, params = interop.load(tmp_path / "theirs")
  from mmjax.interop.shapes import with_scan

  scanned = with_scan(model.config, True).build()
  shapes = jax.eval_shape(
    scanned.init, jax.random.key(0), {"image": np.zeros((1, 16, 16, 3), np.float32), "text": np.zeros((1, 9), np.int32)}
  )["params"]
  stacked, report = interop.restore(tmp_path / "theirs", shapes)
  assert not report.reinitialised and not report.left
  pixels = torch.tensor(IMAGES[:, :16, :16].transpose(0, 3, 1, 2))
  assert_close(embed(scanned, stacked, "encode_image", IMAGES[:, :16, :16]), theirs.encode_image(pixels))
  interop.save(scanned, stacked, tmp_path / "ours", format="open_clip")
  assert_same_params(interop.load(tmp_path / "ours")[1], params)
