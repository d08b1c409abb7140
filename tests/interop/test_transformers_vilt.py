"""transformers' ViLT and ours give the same vectors and scores, both ways, from random weights."""

import numpy as np
import pytest

from mmjax import interop
from mmjax.data.errors import DataError
from mmjax.interop.errors import InteropError
from mmjax.interop.inspection import beside
from mmjax.interop.source import open_source
from tests.interop.references import (
  IMAGES,
  assert_close,
  assert_same_params,
  assert_same_tensors,
  embed,
  randomize,
  reference,
)

pytestmark = pytest.mark.references
transformers = reference("transformers")
import torch  # noqa: E402  transformers is here, so this is

SMALL = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=16)
SMALL |= dict(patch_size=8, vocab_size=40, max_position_embeddings=9)
OTHER = dict(num_hidden_layers=1, num_attention_heads=4, layer_norm_eps=1e-3, patch_size=4, type_vocab_size=3)
GELU = dict(hidden_act="gelu_new")
NAMES = dict(id2label={0: "yes", 1: "no", 2: "two"})
CASES = {
  "ViltModel": (SMALL, SMALL | OTHER | GELU),
  "ViltForQuestionAnswering": (SMALL | NAMES, SMALL | OTHER | GELU | dict(num_labels=4)),
  "ViltForImageAndTextRetrieval": (SMALL, SMALL | OTHER | GELU),
  "ViltForMaskedLM": (SMALL, SMALL | OTHER),
}
IDS = np.random.default_rng(0).integers(1, 40, (3, 9)).astype(np.int32)
IDS[0, 4:], IDS[1, 7:] = 0, 0
BATCH = {"image": IMAGES[:, :16, :16], "text": IDS}


def result(model):
  """Scores, or the pooled vector."""
  ids, pixels = torch.tensor(IDS).long(), torch.tensor(BATCH["image"].transpose(0, 3, 1, 2))
  with torch.no_grad():
    out = model(input_ids=ids, pixel_values=pixels, attention_mask=(ids != 0).long())
  return out.logits if "logits" in out else out.pooler_output


def ours(model, params):
  out = embed(model, params, "__call__", BATCH)[()]
  found = {name: np.asarray(x) for name, x in out.items() if name != "pooled"}
  if not found:
    return np.asarray(out["pooled"])
  (scores,) = found.values()
  return scores[:, 1:] - scores[:, :1] if "match" in found else scores


@pytest.mark.parametrize("second", [False, True], ids=["first", "second"])
@pytest.mark.parametrize("name", CASES)
def test_both_ways(name, second, tmp_path):
  theirs = getattr(transformers, name)(transformers.ViltConfig(**CASES[name][second])).eval()
  randomize(theirs)
  theirs.save_pretrained(tmp_path / "theirs")
  found = interop.load_pretrained(tmp_path / "theirs")
  assert found.source.architecture.name == name
  assert not [use for use in beside(found.source).uses if use.use == "not read" and use.fields]
  if name == "ViltForQuestionAnswering":
    assert found.model.config.answers == tuple(theirs.config.id2label.values())
  assert_close(ours(found.model, found.params), result(theirs))
  interop.save(found.model, found.params, tmp_path / "ours")
  assert_same_tensors(tmp_path / "theirs/model.safetensors", tmp_path / "ours/model.safetensors")
  again, info = getattr(transformers, name).from_pretrained(tmp_path / "ours", output_loading_info=True)
  assert not info["missing_keys"] and not info["unexpected_keys"]
  torch.testing.assert_close(result(again.eval()), result(theirs), rtol=0, atol=2e-6)  # patches in random order
  assert_same_params(interop.load(tmp_path / "ours")[1], found.params)


def test_images_are_prepared_as_by_the_processor_and_other_shapes_are_refused(tmp_path):
  transformers.ViltModel(transformers.ViltConfig(**SMALL)).save_pretrained(tmp_path)
  processor = transformers.ViltImageProcessor(size={"shortest_edge": 16}, size_divisor=8)
  processor.save_pretrained(tmp_path)
  found = interop.load_pretrained(tmp_path)
  picture = np.random.default_rng(3).integers(0, 256, (40, 40, 3)).astype(np.uint8)
  expected = processor(picture, return_tensors="np").pixel_values[0].transpose(1, 2, 0)
  assert (np.abs(found.preprocess(picture) - expected) * np.array(found.preprocess.std)).max() <= 1.001 / 255
  with pytest.raises(DataError, match="square"):
    found.preprocess(picture[:, :23])
  assert not [use for use in beside(found.source).uses if use.use == "not read" and use.fields]
  interop.save(found.model, found.params, tmp_path / "ours", preprocess=found.preprocess)
  assert interop.load_pretrained(tmp_path / "ours").preprocess == found.preprocess


def test_what_mmjax_does_not_have_is_refused(tmp_path):
  theirs = transformers.ViltForImagesAndTextClassification(
    transformers.ViltConfig(**SMALL, modality_type_vocab_size=3, num_images=2)
  )
  theirs.save_pretrained(tmp_path)
  with pytest.raises(InteropError, match="modality_type_vocab_size is 3"):
    interop.load(tmp_path)
  transformers.ViltModel(transformers.ViltConfig(**SMALL)).save_pretrained(tmp_path / "model")
  with pytest.raises(InteropError, match="the image tower of ViltModel has parts"):
    open_source(tmp_path / "model", tower="image")
