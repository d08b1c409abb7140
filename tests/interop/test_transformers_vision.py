"""transformers' image encoders and classifiers and ours give the same numbers, both ways, from random weights."""

import dataclasses
import re

import pytest
from safetensors.numpy import load_file

from mmjax import interop
from mmjax.experiment import Experiment, PretrainedConfig
from mmjax.interop import transformers_beit, transformers_swin
from mmjax.interop.agreement import model_differences
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.inspection import beside
from mmjax.interop.source import open_source
from mmjax.interop.supported import CLASSES
from mmjax.models import ClassifierConfig
from mmjax.models.config import towers
from mmjax.train.adopt import adopted
from tests.interop.references import IMAGES, assert_close, assert_same_params, embed, randomize, reference

pytestmark = pytest.mark.references
transformers = reference("transformers")
import torch  # noqa: E402  transformers is here, so this is

SMALL = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8)
VIT = SMALL | dict(intermediate_size=24)
OTHER = dict(num_attention_heads=4, hidden_act="gelu_new", layer_norm_eps=1e-3, patch_size=5)
SWIGLU = OTHER | dict(use_swiglu_ffn=True, hidden_act="gelu", mlp_ratio=3)
REGISTERS = dict(num_register_tokens=3)
ROTARY = dict(num_hidden_layers=2, hidden_act="silu", use_gated_mlp=True, patch_size=4, rope_theta=50.0, key_bias=True)
NAMES = dict(id2label={0: "a cat", 1: "a dog", 2: "neither"})
SIGLIP = dict(vision_config=VIT) | NAMES
SIGLIP_OTHER = dict(vision_config=VIT | OTHER, num_labels=4)
PATCHES = dict(vision_config={name: value for name, value in VIT.items() if name != "image_size"} | dict(num_patches=4))
CONVNEXT = dict(depths=[1, 2, 1, 1], hidden_sizes=[4, 8, 16, 32], image_size=16, patch_size=2)
CONVNEXT_OTHER = dict(hidden_sizes=[2, 4, 8, 16], layer_norm_eps=1e-3, layer_scale_init_value=0.0, patch_size=1)
SWIN = dict(embed_dim=8, depths=[1, 2], num_heads=[2, 4], image_size=16, patch_size=2, window_size=2)
SWIN_OTHER = dict(depths=[2], num_heads=[1], window_size=4, mlp_ratio=2.5, hidden_act="gelu_new")
RESNET = dict(embedding_size=8, depths=[1, 2], hidden_sizes=[16, 32], image_size=16)
RESNET_OTHER = dict(layer_type="basic", hidden_sizes=[8, 12], downsample_in_first_stage=True)
BEIT = VIT | dict(use_relative_position_bias=True, layer_scale_init_value=0.0)
BEIT_OTHER = OTHER | dict(use_shared_relative_position_bias=True, use_absolute_position_embeddings=True)
BEIT_OTHER |= dict(use_mean_pooling=False, num_hidden_layers=2)
# Class, the prefix of its configuration's class, and two configurations that are not the default.
CASES = {
  "ViTForImageClassification": ("ViT", VIT | NAMES, VIT | OTHER | dict(num_labels=4)),
  "ViTMSNModel": ("ViTMSN", VIT, VIT | OTHER),
  "ViTMSNForImageClassification": ("ViTMSN", VIT | NAMES, VIT | OTHER | dict(num_labels=4)),
  "ViTMAEModel": ("ViTMAE", VIT | dict(mask_ratio=0.0), VIT | OTHER | dict(mask_ratio=0.0)),
  "DeiTModel": ("DeiT", VIT, VIT | OTHER),
  "DeiTForImageClassification": ("DeiT", VIT | NAMES, VIT | OTHER | dict(num_labels=4)),
  "BeitModel": ("Beit", BEIT, VIT | BEIT_OTHER),
  "BeitForImageClassification": ("Beit", BEIT | NAMES, VIT | BEIT_OTHER | dict(num_labels=4)),
  "Data2VecVisionModel": ("Data2VecVision", BEIT, VIT | BEIT_OTHER),
  "Data2VecVisionForImageClassification": ("Data2VecVision", BEIT | NAMES, VIT | BEIT_OTHER | dict(num_labels=4)),
  "Dinov2Model": ("Dinov2", SMALL, SMALL | SWIGLU),
  "Dinov2ForImageClassification": ("Dinov2", SMALL | NAMES, SMALL | SWIGLU | dict(num_labels=4)),
  "Dinov2WithRegistersModel": ("Dinov2WithRegisters", SMALL | REGISTERS, SMALL | SWIGLU),
  "Dinov2WithRegistersForImageClassification": (
    "Dinov2WithRegisters",
    SMALL | NAMES,
    SMALL | SWIGLU | NAMES | REGISTERS,
  ),
  "DINOv3ViTModel": ("DINOv3ViT", VIT, VIT | ROTARY | REGISTERS),
  "ConvNextModel": ("ConvNext", CONVNEXT | dict(layer_scale_init_value=0.5), CONVNEXT | CONVNEXT_OTHER),
  "ConvNextV2Model": ("ConvNextV2", CONVNEXT, CONVNEXT | dict(layer_norm_eps=1e-3, patch_size=1)),
  "SwinModel": ("Swin", SWIN, SWIN | SWIN_OTHER),
  "SwinForImageClassification": ("Swin", SWIN | NAMES, SWIN | SWIN_OTHER | dict(num_labels=4)),
  "ConvNextForImageClassification": ("ConvNext", CONVNEXT | NAMES, CONVNEXT | CONVNEXT_OTHER | dict(num_labels=4)),
  "ConvNextV2ForImageClassification": ("ConvNextV2", CONVNEXT | NAMES, CONVNEXT | dict(num_labels=4, patch_size=1)),
  "ResNetModel": ("ResNet", RESNET, RESNET | RESNET_OTHER),
  "ResNetForImageClassification": (
    "ResNet",
    RESNET | NAMES,
    RESNET | dict(downsample_in_bottleneck=True, num_labels=4),
  ),
  "SiglipForImageClassification": ("Siglip", SIGLIP, SIGLIP_OTHER),
  "Siglip2ForImageClassification": ("Siglip2", PATCHES | NAMES, PATCHES | dict(num_labels=4)),
}
UNUSED = ("mask_token", "vision_model.head.", "num_batches_tracked", "relative_position_index")
"""Tensors that no result depends on. They are not kept."""


def result(model, images):
  """Scores of the classes, or the pooled vector."""
  pixels = torch.tensor(images.transpose(0, 3, 1, 2))
  with torch.no_grad():
    if "Siglip2" in type(model).__name__:
      pixels = pixels.reshape(-1, 3, 2, 8, 2, 8).permute(0, 2, 4, 3, 5, 1).reshape(-1, 4, 192)
      out = model(pixels, torch.ones(len(pixels), 4).long(), torch.tensor([[2, 2]] * len(pixels)))
    else:
      out = model(pixels)
  if "logits" in out:
    return out.logits
  # ViTMSNModel and ViTMAEModel have no pooler. They are written as ViTModel, which makes one at random.
  pooled = out.get("pooler_output") is not None and not type(model).__name__.startswith("ViT")
  return out.pooler_output.flatten(1) if pooled else out.last_hidden_state[:, 0]


def ours(found, images):
  if found.source.architecture.name.endswith("Classification"):
    return embed(found.model, found.params, "__call__", {"image": images})
  return embed(found.model, found.params, "encode_image", images)


def tensors(folder):
  """All tensors that are used. transformers writes only some of those of ViTMSN with the prefix "vit.".

  Data2VecVision is written as BEiT.
  """
  found = load_file(folder / "model.safetensors")
  used = {name: tensor for name, tensor in found.items() if not any(part in name for part in UNUSED)}
  return {re.sub(r"^(vit|beit|data2vec_vision)\.", "", name): tensor.tobytes() for name, tensor in used.items()}


@pytest.mark.parametrize("second", [False, True], ids=["first", "second"])
@pytest.mark.parametrize("name", CASES)
def test_both_ways(name, second, tmp_path):
  prefix, *configs = CASES[name]
  pooler = {"add_pooling_layer": True} if name == "Data2VecVisionModel" else {}
  theirs = getattr(transformers, name)(getattr(transformers, f"{prefix}Config")(**configs[second]), **pooler).eval()
  randomize(theirs)
  theirs.save_pretrained(tmp_path / "theirs")
  found, images = interop.load_pretrained(tmp_path / "theirs"), IMAGES[:, :16, :16]
  expected = result(theirs, images)
  assert found.source.architecture.name == name
  assert not [use for use in beside(found.source).uses if use.use == "not read" and use.fields]
  assert_close(ours(found, images), expected)
  if name.endswith("Classification"):
    assert found.model.config.classes == tuple(theirs.config.id2label.values())

  interop.save(found.model, found.params, tmp_path / "ours", "siglip2" if "Siglip2" in name else "transformers")
  assert tensors(tmp_path / "theirs") == tensors(tmp_path / "ours")
  again = transformers.AutoConfig.from_pretrained(tmp_path / "ours").architectures[0]
  again, info = getattr(transformers, again).from_pretrained(tmp_path / "ours", output_loading_info=True)
  assert (
    not [key for key in info["missing_keys"] if not key.startswith("pooler.") and "num_batches" not in key]
    and not info["unexpected_keys"]
  )
  torch.testing.assert_close(result(again.eval(), images), expected, rtol=0, atol=1e-6)
  assert_same_params(interop.load(tmp_path / "ours")[1], found.params)


def test_every_class_of_images_is_tried():
  """A row of the table needs a case here, or in the test of its own family."""
  elsewhere = (
    "CLIP",
    "ChineseCLIP",
    "Flava",
    "OwlViT",
    "VisionTextDualEncoder",
    "AltCLIP",
    "SiglipVision",
    "SiglipModel",
    "Siglip2Vision",
    "Siglip2Model",
    "Blip",
    "Vilt",
    "Aimv2",
    "Align",
    "ViTModel",
    "BridgeTower",
    "InstructBlip",
    "XCLIP",
  )
  images = [row.architecture.name for row in CLASSES if row.processor]
  assert {name for name in images if not name.startswith(elsewhere)} == set(CASES)


def test_of_a_deit_with_two_classifiers_the_encoder_is_read(tmp_path):
  theirs = transformers.DeiTForImageClassificationWithTeacher(transformers.DeiTConfig(**VIT)).eval()
  theirs.save_pretrained(tmp_path)
  found, images = interop.load_pretrained(tmp_path), IMAGES[:, :16, :16]
  assert_close(ours(found, images), result(theirs.deit, images))


def test_of_a_beit_that_guesses_patches_the_encoder_is_read(tmp_path):
  """It has no pooler, whatever its configuration says, and its last norm is outside of the encoder."""
  theirs = transformers.BeitForMaskedImageModeling(transformers.BeitConfig(**BEIT, use_mask_token=True)).eval()
  randomize(theirs)
  theirs.save_pretrained(tmp_path)
  found, images = interop.load_pretrained(tmp_path), IMAGES[:, :16, :16]
  with torch.no_grad():
    expected = theirs.layernorm(theirs.beit(torch.tensor(images.transpose(0, 3, 1, 2))).last_hidden_state)[:, 0]
  assert_close(ours(found, images), expected)


def saved(name, fields, folder):
  """A folder that transformers wrote, with the size of the images that its processor makes."""
  prefix = CASES[name][0]
  getattr(transformers, name)(getattr(transformers, f"{prefix}Config")(**fields)).save_pretrained(folder)
  transformers.BitImageProcessor(size=16, crop_size=16).save_pretrained(folder)
  return folder


def test_a_run_begins_from_an_image_tower(tmp_path):
  """With the tower of a classifier too, and with the preprocessing; not with the classes of other data."""
  folder = saved("Dinov2ForImageClassification", SMALL | NAMES, tmp_path)
  config = interop.load(folder)[0].config
  for model in (Experiment().model, ClassifierConfig()):
    experiment = Experiment(model=model, pretrained=PretrainedConfig(str(folder), into="image"))
    begun = adopted(experiment, say=False)
    assert towers(begun.model)["image"] == config.towers["image"]
    assert begun.data.preprocess == str(folder)
  source = open_source(folder)
  taken = ["image/class_token", "class_projection/kernel"]
  (found,) = model_differences(dataclasses.replace(config, classes=()), source, "", taken)
  assert found == ("model.classes", "those of the data", ("a cat", "a dog", "neither"))


def test_dinov2_at_the_size_of_its_processor(tmp_path):
  """Its positions are for another size than its processor makes. transformers resamples them for every image."""
  folder = saved("Dinov2Model", SMALL | dict(image_size=40), tmp_path)
  with pytest.raises(InteropError, match="or load the model with that image_size"):
    _ = interop.load_pretrained(folder).preprocess
  found, images = interop.load_pretrained(folder, image_size=16, positions="transformers"), IMAGES[:, :16, :16]
  assert found.preprocess.size == 16
  theirs = transformers.Dinov2Model.from_pretrained(folder).eval()
  assert_close(ours(found, images), result(theirs, images))


@pytest.mark.parametrize(
  ("name", "value"),
  [
    ("use_absolute_embeddings", True),
    ("qkv_bias", False),
    ("layer_norm_eps", 1e-6),
    ("depths", []),
    ("window_size", 2**20),  # its mask would fill memory
  ],
)
def test_a_setting_of_swin_that_mmjax_does_not_have_is_refused(name, value):
  fields = dict(num_heads=[2], depths=[1], image_size=28) | {name: value}
  with pytest.raises(InteropError, match=name):
    transformers_swin.read(Fields(fields, "config.json"), {})


@pytest.mark.parametrize(
  ("name", "value"),
  [
    ("image_size", 2**14),  # its table of offsets would fill memory
    ("use_shared_relative_position_bias", True),
    ("num_channels", 1),
    ("layer_scale_init_value", "a"),
  ],
)
def test_a_setting_of_beit_that_mmjax_does_not_have_is_refused(name, value):
  fields = dict(use_relative_position_bias=True) | {name: value}
  with pytest.raises(InteropError, match=name):
    transformers_beit.read(Fields(fields, "config.json"), {})
