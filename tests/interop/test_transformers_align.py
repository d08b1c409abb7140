"""transformers' AlignModel and ours give the same embeddings, both ways, from random weights."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from mmjax import interop
from mmjax.interop.errors import InteropError
from mmjax.interop.inspection import beside
from tests.interop.references import IMAGES, assert_close, assert_same_params, embed, randomize, reference

pytestmark = pytest.mark.references
transformers = reference("transformers")
import torch  # noqa: E402  transformers is here, so this is

from tests.interop.test_transformers import IDS, OTHER, TEXT  # noqa: E402

IMAGE = dict(image_size=40, width_coefficient=0.5, depth_coefficient=0.1)  # seven blocks
CASES = {
  "even sides": (IMAGE, TEXT | dict(num_hidden_layers=1)),
  "odd sides, and other settings": (IMAGE | dict(image_size=45, depthwise_padding=[2, 5]), TEXT | OTHER),
}


def made(image, text):
  config = transformers.AlignConfig(vision_config=image, text_config=text, projection_dim=160)
  theirs = transformers.AlignModel(config).eval()
  randomize(theirs)
  for name, tensor in theirs.state_dict().items():
    if name.endswith(("bn.weight", "batchnorm.weight", "depthwise_norm.weight")):
      tensor.fill_(1.0)
    elif tensor.ndim == 4:  # so that seven blocks leave something of the image
      tensor.mul_(10 / tensor[0].numel() ** 0.5)
  return theirs


def embeddings(model, images):
  ids, pixels = torch.tensor(IDS).long(), torch.tensor(images.transpose(0, 3, 1, 2))
  with torch.no_grad():
    out = model(input_ids=ids, attention_mask=(ids != 0).long(), pixel_values=pixels)
  return out.image_embeds, out.text_embeds


def unit(rows):
  return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def tensors(folder):
  """All tensors that a result depends on: not counters, and not the pooler of the text, whose vector is not read."""
  found = load_file(folder / "model.safetensors")
  unused = ("num_batches_tracked", "position_ids", "pooler.dense.weight", "pooler.dense.bias")
  return {name: tensor.tobytes() for name, tensor in found.items() if not name.endswith(unused)}


@pytest.mark.parametrize("case", CASES)
def test_both_ways(case, tmp_path):
  theirs = made(*CASES[case])
  theirs.save_pretrained(tmp_path / "theirs")
  found = interop.load_pretrained(tmp_path / "theirs")
  side = CASES[case][0]["image_size"]
  images, expected = IMAGES[:, :side, :side], embeddings(theirs, IMAGES[:, :side, :side])
  assert not [use for use in beside(found.source).uses if use.use == "not read" and use.fields]
  pair = embed(found.model, found.params, "encode_image", images), embed(found.model, found.params, "encode_text", IDS)
  for mine, yours in zip(pair, expected, strict=True):
    assert_close(unit(mine), yours)
  assert np.abs(unit(pair[0])[0] - unit(pair[0])[1]).max() > 1e-3
  scale = found.model.apply({"params": found.params}, method="logit_scale")
  np.testing.assert_allclose(scale, 1 / theirs.temperature.item(), rtol=1e-6)
  interop.save(found.model, found.params, tmp_path / "ours")
  assert tensors(tmp_path / "theirs") == tensors(tmp_path / "ours")
  again, info = transformers.AlignModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
  missing = [name for name in info["missing_keys"] if "pooler" not in name and "num_batches" not in name]
  assert not missing and not info["unexpected_keys"]
  for mine, yours in zip(embeddings(again.eval(), images), expected, strict=True):
    torch.testing.assert_close(mine, yours, rtol=0, atol=1e-6)
  assert_same_params(interop.load(tmp_path / "ours")[1], found.params)


def test_the_image_tower_at_the_size_of_its_processor(tmp_path):
  """Its processor makes images of another size than its configuration has, as that of the published model."""
  theirs = made(*CASES["even sides"])
  theirs.save_pretrained(tmp_path)
  size = dict(size={"height": 48, "width": 48}, crop_size={"height": 33, "width": 33}, do_center_crop=True)
  processor = transformers.EfficientNetImageProcessor(
    **size, resample=2, rescale_factor=1 / 127.5, rescale_offset=True, include_top=False, do_normalize=False
  )
  processor.save_pretrained(tmp_path)
  with pytest.raises(InteropError, match="or load the model with that image_size"):
    _ = interop.load_pretrained(tmp_path).preprocess
  found = interop.load_pretrained(tmp_path, image_size=33, tower="image")
  picture = np.random.default_rng(3).integers(0, 256, (70, 50, 3)).astype(np.uint8)
  pixels = processor(picture, return_tensors="pt").pixel_values
  mine = found.preprocess(picture)
  assert np.abs(mine - pixels[0].numpy().transpose(1, 2, 0)).max() <= 1.001 / 127.5
  with torch.no_grad():
    expected = theirs.vision_model(pixels).pooler_output
  assert_close(embed(found.model, found.params, "encode_image", pixels.numpy().transpose(0, 2, 3, 1)), expected)


def test_what_mmjax_does_not_have_is_refused(tmp_path):
  made(*CASES["even sides"]).save_pretrained(tmp_path)
  path = tmp_path / "config.json"
  record = json.loads(path.read_text())
  for name, value in (
    ("pooling_type", "max"),
    ("hidden_act", "relu"),
    ("strides", [1] * 7),
    ("depth_coefficient", 1e6),
    ("image_size", 2**20),
    ("depthwise_padding", "x"),
    ("width_coefficient", 0.25),  # stages of one width, between which transformers adds nothing
  ):
    path.write_text(json.dumps(record | {"vision_config": record["vision_config"] | {name: value}}))
    with pytest.raises(InteropError, match=name):
      interop.load(tmp_path)
