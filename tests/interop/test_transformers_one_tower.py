"""transformers' single towers of CLIP and SigLIP and ours give the same embeddings, both ways, from random weights."""

import copy
import dataclasses
import re

import numpy as np
import pytest
from safetensors.numpy import load_file

from mmjax import interop
from mmjax.experiment import Experiment, PretrainedConfig
from mmjax.interop.__main__ import main
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import read_json
from mmjax.interop.inspection import beside
from mmjax.interop.processor import from_transformers
from mmjax.interop.restoring import restore
from mmjax.interop.source import open_source
from mmjax.train.adopt import adopted
from tests.interop.references import IMAGES, assert_close, assert_same_params, embed, randomize, reference

pytestmark = pytest.mark.references
transformers = reference("transformers")
import torch  # noqa: E402  transformers is here, so this is

from tests.interop.test_transformers import IDS, OTHER, TEXT, VISION, clip, siglip  # noqa: E402

VISION = VISION | dict(num_hidden_layers=1)
TEXT = TEXT | dict(num_hidden_layers=1)
PATCHES = {name: value for name, value in VISION.items() if name != "image_size"} | dict(num_patches=4)

MASKED = ("Flava", "Aimv2")  # Aimv2TextModel is not causal without a mask of its padding
GATED = dict(rms_norm_eps=1e-3, hidden_act="gelu", qkv_bias=True, mlp_bias=True, num_hidden_layers=2)
# Class, its configuration, fields. Two of each class, neither with the default settings.
CASES = [
  ("CLIPVisionModel", "CLIPVisionConfig", VISION),
  ("CLIPVisionModel", "CLIPVisionConfig", VISION | OTHER | dict(patch_size=5)),  # a pixel is over
  ("CLIPVisionModelWithProjection", "CLIPVisionConfig", VISION | dict(projection_dim=10)),
  ("CLIPVisionModelWithProjection", "CLIPVisionConfig", VISION | OTHER | dict(projection_dim=6, patch_size=4)),
  ("CLIPTextModel", "CLIPTextConfig", TEXT),
  ("CLIPTextModel", "CLIPTextConfig", TEXT | OTHER | dict(eos_token_id=2)),
  ("CLIPTextModelWithProjection", "CLIPTextConfig", TEXT | dict(projection_dim=10)),
  ("CLIPTextModelWithProjection", "CLIPTextConfig", TEXT | OTHER | dict(projection_dim=6, eos_token_id=2)),
  ("SiglipVisionModel", "SiglipVisionConfig", VISION),
  ("SiglipVisionModel", "SiglipVisionConfig", VISION | OTHER | dict(patch_size=5)),
  ("SiglipTextModel", "SiglipTextConfig", TEXT | dict(projection_size=10)),
  ("SiglipTextModel", "SiglipTextConfig", TEXT | OTHER),
  ("Siglip2VisionModel", "Siglip2VisionConfig", PATCHES),
  ("Siglip2VisionModel", "Siglip2VisionConfig", PATCHES | OTHER | dict(patch_size=4, num_patches=16)),
  ("Siglip2TextModel", "Siglip2TextConfig", TEXT | dict(projection_size=10)),
  ("Siglip2TextModel", "Siglip2TextConfig", TEXT | OTHER),
  ("Aimv2VisionModel", "Aimv2VisionConfig", VISION),
  ("Aimv2VisionModel", "Aimv2VisionConfig", VISION | GATED | dict(patch_size=5)),
  ("Aimv2TextModel", "Aimv2TextConfig", TEXT),
  ("Aimv2TextModel", "Aimv2TextConfig", TEXT | GATED),
  ("FlavaTextModel", "FlavaTextConfig", TEXT),
  ("FlavaTextModel", "FlavaTextConfig", TEXT | OTHER | dict(type_vocab_size=3)),
]


def outputs(model, images):
  """The pooled vectors that a class gives, projected where it has a projection."""
  name = type(model).__name__
  with torch.no_grad():
    if "Text" in name:
      ids = torch.tensor(IDS).long()
      out = model(ids, attention_mask=(ids != 0).long()) if name.startswith(MASKED) else model(ids)
    elif "Siglip2" in name:
      side = model.config.patch_size
      grid, pixels = images.shape[1] // side, torch.tensor(patches_of(images, side))
      shape = torch.tensor([[grid, grid]] * len(images))
      out = model(pixels, torch.ones(pixels.shape[:2], dtype=torch.long), shape)
    else:
      out = model(torch.tensor(images.transpose(0, 3, 1, 2)))
  return next(out[name] for name in ("image_embeds", "text_embeds", "pooler_output") if name in out)


def patches_of(images, side):
  from einops import rearrange

  return rearrange(images, "b (y p) (x q) c -> b (y x) (p q c)", p=side, q=side)


def tensors(folder):
  """All tensors, under the names of transformers 4."""
  found = load_file(folder / "model.safetensors")
  return {re.sub(r"^(vision|text)_model\.", "", name): tensor.tobytes() for name, tensor in found.items()}


@pytest.mark.parametrize(("name", "config", "fields"), CASES, ids=[case[0] for case in CASES])
def test_both_ways(name, config, fields, tmp_path):
  theirs = getattr(transformers, name)(getattr(transformers, config)(**fields)).eval()
  randomize(theirs)
  theirs.save_pretrained(tmp_path / "theirs")
  found = interop.load_pretrained(tmp_path / "theirs")
  method, inputs = ("encode_text", IDS) if "Text" in name else ("encode_image", IMAGES[:, :16, :16])
  expected = outputs(theirs, IMAGES[:, :16, :16])
  assert_close(embed(found.model, found.params, method, inputs), expected)
  assert found.source.architecture.name == name
  assert not [use for use in beside(found.source).uses if use.use == "not read" and use.fields]

  form = "siglip2" if "Siglip2" in name else "transformers"
  interop.save(found.model, found.params, tmp_path / "ours", form)
  assert tensors(tmp_path / "theirs") == tensors(tmp_path / "ours")
  again, info = type(theirs).from_pretrained(tmp_path / "ours", output_loading_info=True)
  assert not info["missing_keys"] and not info["unexpected_keys"]
  torch.testing.assert_close(outputs(again, IMAGES[:, :16, :16]), expected, rtol=0, atol=1e-6)
  assert_same_params(interop.load(tmp_path / "ours")[1], found.params)


@pytest.fixture(scope="module", params=[clip, siglip], ids=["clip", "siglip"])
def whole(request, tmp_path_factory):
  """A whole model, and its folder."""
  theirs, folder = request.param({}, {}).eval(), tmp_path_factory.mktemp("whole")
  randomize(theirs)
  theirs.save_pretrained(folder)
  return theirs, folder


def test_one_tower_of_a_whole_model(whole, tmp_path):
  theirs, folder = whole
  found = interop.load_pretrained(folder, tower="image")
  images = IMAGES[:, :16, :16]
  assert_close(embed(found.model, found.params, "encode_image", images), outputs(theirs.vision_model, images))
  assert main(["convert", str(folder), str(tmp_path), "--to", "transformers", "--tower", "image"]) == 0
  assert_same_params(interop.load(tmp_path)[1], found.params)
  assert found.preprocess == interop.load_pretrained(folder).preprocess
  model = interop.load(folder)[0].config
  fresh = interop.load(folder)[1]
  params, report = restore(folder, fresh, into="text")
  assert {path.split("/")[0] for path in report.taken} == {"text"} and params.keys() == fresh.keys()
  assert open_source(folder, tower="text").config == model.text


SEGMENTS = dict(extract_layers=[0], reduce_dim=8, decoder_num_attention_heads=2, decoder_intermediate_size=8)
LLAMA = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, vocab_size=40)
LLAMA |= dict(model_type="llama")
WHOLES = {  # class, tower: configuration, fields, where the tower is
  ("CLIPForImageClassification", "image"): ("CLIPConfig", dict(num_labels=3), "vision_model"),
  ("CLIPSegForImageSegmentation", "image"): ("CLIPSegConfig", SEGMENTS, "clip.vision_model"),
  ("CLIPSegForImageSegmentation", "text"): ("CLIPSegConfig", SEGMENTS, "clip.text_model"),
  ("OwlViTForObjectDetection", "image"): ("OwlViTConfig", {}, "owlvit.vision_model"),
  ("OwlViTForObjectDetection", "text"): ("OwlViTConfig", {}, "owlvit.text_model"),
  ("Owlv2ForObjectDetection", "image"): ("Owlv2Config", {}, "owlv2.vision_model"),
  ("Owlv2ForObjectDetection", "text"): ("Owlv2Config", {}, "owlv2.text_model"),
  ("LlavaForConditionalGeneration", "image"): ("LlavaConfig", dict(text_config=LLAMA), "model.vision_tower"),
}


@pytest.mark.parametrize(("name", "tower"), WHOLES)
def test_a_tower_of_a_class_without_a_model(name, tower, tmp_path):
  config, fields, where = WHOLES[name, tower]
  vision = VISION | (dict(model_type="clip_vision_model") if "Llava" in name else {})
  config = getattr(transformers, config)(**dict(vision_config=vision, text_config=TEXT) | fields)
  theirs = getattr(transformers, name)(config).eval()
  randomize(theirs)
  theirs.save_pretrained(tmp_path)
  with pytest.raises(InteropError, match=f"{name}, which mmjax has no model for.*tower=.(image|text)"):
    interop.load(tmp_path)
  found = interop.load_pretrained(tmp_path, tower=tower)
  images = IMAGES[:, :16, :16]
  method, inputs = ("encode_image", images) if tower == "image" else ("encode_text", IDS)
  part = theirs.get_submodule(where)
  ids = torch.tensor(IDS).long()
  with torch.no_grad():
    expected = outputs(part, images) if tower == "image" else part(ids, attention_mask=(ids != 0).long()).pooler_output
  assert_close(embed(found.model, found.params, method, inputs), expected)


def test_a_tower_that_is_not_there_is_refused(whole, tmp_path):
  theirs, folder = copy.deepcopy(whole[0]), whole[1]
  with pytest.raises(InteropError, match="which has 'image' and 'text', not 'sound'"):
    open_source(folder, tower="sound")
  theirs.vision_model.encoder.layers[0].register_parameter("extra", torch.nn.Parameter(torch.ones(2)))
  theirs.save_pretrained(tmp_path)
  with pytest.raises(InteropError, match=r"layers\.0\.extra"):
    interop.load(tmp_path, tower="image")


def test_a_run_begins_from_a_tower(whole, tmp_path, monkeypatch):
  """With its projection, where it has one; and from one tower of a whole model."""
  _, folder = whole
  asked = []
  monkeypatch.setattr("mmjax.train.adopt.download", asked.append)
  begun = adopted(Experiment(pretrained=PretrainedConfig(str(folder), into="image", download=True)), say=False)
  assert asked == [str(folder)]
  assert begun.model.image == interop.load(folder)[0].config.image
  assert begun.model.text == Experiment().model.text
  alone = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**VISION, projection_dim=10))
  alone.save_pretrained(tmp_path)
  begun = adopted(Experiment(pretrained=PretrainedConfig(str(tmp_path))), say=False)
  config = interop.load(tmp_path)[0].config
  assert begun.model == dataclasses.replace(Experiment().model, image=config.towers["image"], embed_dim=10)
  assert begun.data.preprocess == str(tmp_path)


@pytest.mark.parametrize("name", ["OwlViT", "Flava"])
def test_pictures_for_these_towers_are_prepared_as_by_their_processors(name, tmp_path):
  size = {"height": 16, "width": 16}
  theirs = getattr(transformers, f"{name}ImageProcessor")(size=size, crop_size=size)
  theirs.save_pretrained(tmp_path)
  kind = f"{name}VisionModel" if name == "OwlViT" else "FlavaImageModel"
  ours = from_transformers(read_json(tmp_path / "preprocessor_config.json"), 16, kind)
  picture = np.random.default_rng(3).integers(0, 256, (40, 23, 3)).astype(np.uint8)
  expected = theirs(picture, return_tensors="np").pixel_values[0].transpose(1, 2, 0)
  assert (np.abs(ours(picture) - expected) * np.array(ours.std)).max() <= 1.001 / 255
