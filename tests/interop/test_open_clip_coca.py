"""open_clip's CoCa and ours embed and caption alike, both ways, from random weights."""

import jax
import numpy as np
import pytest

from mmjax import interop
from mmjax.interop.__main__ import main
from mmjax.interop.shapes import with_scan
from tests.interop.open_clip_folders import written
from tests.interop.references import IMAGES, assert_close, assert_same_params, assert_same_tensors, embed, reference

pytestmark = pytest.mark.references
open_clip = reference("open_clip")
import torch  # noqa: E402

VISION = dict(image_size=16, patch_size=8, width=16, layers=2, head_width=8, attentional_pool=True, output_tokens=True)
VISION |= dict(attn_pooler_queries=4, attn_pooler_heads=2)
HALF = dict(context_length=7, vocab_size=30, width=10, heads=2)
TEXT = HALF | dict(layers=2, embed_cls=True, output_tokens=True)
CASES = {
  "a narrower common space": dict(vision_cfg=VISION, text_cfg=TEXT, multimodal_cfg=HALF | dict(layers=1)),
  "quick gelu, the tower's own width": dict(
    vision_cfg=VISION | dict(width=10, head_width=5, patch_size=4, attn_pooler_heads=5, mlp_ratio=1.5),
    text_cfg=TEXT | dict(heads=5, layers=1, pad_id=3),
    multimodal_cfg=HALF | dict(heads=5, layers=2),
    quick_gelu=True,
  ),
}
PLAIN = dict(image_size=16, patch_size=8, width=10, layers=2, head_width=5, output_tokens=True)
CASES |= {  # as coca_base, whose captions read patches
  "no pooler": dict(vision_cfg=PLAIN, text_cfg=TEXT, multimodal_cfg=HALF | dict(layers=1)),
  "no pooler, the mean": dict(
    vision_cfg=PLAIN | dict(pool_type="avg"), text_cfg=TEXT | dict(layers=1), multimodal_cfg=HALF | dict(layers=2)
  ),
}
IDS = np.random.default_rng(0).integers(4, 29, (4, 7)).astype(np.int32)
IDS[0, 4:], IDS[1, 2:], IDS[2, 3], IDS[2, 5] = 0, 3, 0, 3  # padding of either kind: after the words, and among them


def everything(model, batch):
  encoded = model.encode(batch)
  words = model.decode(batch["text"], encoded["image"], text=encoded["text"])
  patches = encoded["image"].tokens
  return {**model.project(encoded), "words": words, "patches": patches, "scale": model.logit_scale()}


@pytest.mark.parametrize("case", CASES)
def test_embeddings_captions_and_back(case, tmp_path, capsys):
  theirs, _ = written(tmp_path / "theirs", CASES[case] | dict(custom_text=True))
  found = interop.load_pretrained(tmp_path / "theirs")
  batch = {"image": IMAGES[:, :16, :16], "text": IDS[:3]}
  ours = jax.jit(lambda p: found.model.apply({"params": p}, batch, method=everything))(found.params)
  pixels, ids = torch.tensor(batch["image"].transpose(0, 3, 1, 2)), torch.tensor(batch["text"]).long()
  with torch.no_grad():
    expected = theirs(pixels, ids)
  for modality in ("image", "text"):
    assert_close(np.asarray(ours[modality]), expected[f"{modality}_features"])
  assert_close(np.asarray(ours["words"])[:, :-1], expected["logits"])
  assert_close(np.asarray(ours["patches"]), theirs._encode_image(pixels)[1])
  similar = expected["logit_scale"] * expected["image_features"] @ expected["text_features"].T
  assert_close(np.asarray(ours["scale"] * ours["image"] @ ours["text"].T), similar)

  interop.save(found.model, found.params, tmp_path / "ours", format="open_clip", preprocess=found.preprocess)
  first, second = (tmp_path / name / "open_clip_model.safetensors" for name in ("theirs", "ours"))
  assert_same_tensors(first, second)
  assert_same_params(interop.load(tmp_path / "ours")[1], found.params)
  again, _, _ = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'ours'}")
  with torch.no_grad():
    torch.testing.assert_close(again.eval()(pixels, ids)["logits"], expected["logits"], rtol=0, atol=1e-6)
  assert main(["inspect", str(tmp_path / "ours")]) == 0
  assert "open_clip's CoCa, format open_clip" in capsys.readouterr().out


def test_positions_are_resampled_as_theirs_are(tmp_path):
  written(tmp_path / "theirs", CASES["a narrower common space"] | dict(custom_text=True))
  theirs, _, _ = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'theirs'}", force_image_size=24)
  model, params = interop.load(tmp_path / "theirs", image_size=24)
  pixels = torch.tensor(IMAGES[:, :24, :24].transpose(0, 3, 1, 2))
  assert_close(embed(model, params, "encode_image", IMAGES[:, :24, :24]), theirs.eval().encode_image(pixels))
  shorter = interop.load(tmp_path / "theirs", max_length=4)[1]
  np.testing.assert_array_equal(shorter["words"]["position_embedding"], params["words"]["position_embedding"][:4])


def test_into_a_stacked_model_it_is_read_layer_by_layer(tmp_path):
  written(tmp_path / "theirs", CASES["quick gelu, the tower's own width"] | dict(custom_text=True))
  model, params = interop.load(tmp_path / "theirs")
  scanned = with_scan(model.config, True).build()
  batch = {"image": IMAGES[:, :16, :16], "text": IDS[:3]}
  shapes = jax.eval_shape(scanned.init, jax.random.key(0), batch)["params"]
  stacked, report = interop.restore(tmp_path / "theirs", shapes)
  assert not report.reinitialised and not report.left
  assert {f"multimodal/blocks/{name}/scale" for name in ("norm_context", "norm_cross_mlp")} <= set(report.taken)
  words = jax.jit(lambda p: scanned.apply({"params": p}, batch, method=everything)["words"])(stacked)
  expected = jax.jit(lambda p: model.apply({"params": p}, batch, method=everything)["words"])(params)
  np.testing.assert_allclose(words, expected, rtol=0, atol=1e-5)
