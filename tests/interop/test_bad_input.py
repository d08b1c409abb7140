"""Configurations and tensors that do not fit: an error that names tensor or field, and the remedy."""

import json
import shutil

import numpy as np
import pytest

from mmjax import interop
from mmjax.encoders import TextConfig, ViTConfig
from mmjax.interop import InteropError
from mmjax.interop.shapes import flat_shapes, unflatten
from mmjax.models import TwoTowerConfig
from tests.interop.hostile import refused, tensor, write, write_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
  return write_clip(tmp_path_factory.mktemp("clip"))


CONFIGS = {
  "an unknown kind": (dict(model_type="clop"), "model_type is 'clop'", "'clip'"),
  "FLAVA's": (dict(model_type="flava"), "mmjax does not know the field 'vision_config'"),
  "BLIP's": (dict(model_type="blip"), "eos_id=102 must lie in [0, vocab_size="),
  "an unknown activation": (dict(text_config=dict(hidden_act="relu6")), "text_config: hidden_act is 'relu6'"),
  "a width that is no number": (dict(vision_config=dict(hidden_size="8")), "vision_config: hidden_size is '8'"),
  "a huge width": (dict(vision_config=dict(hidden_size=10**12)), "vision_config: hidden_size is 1000000000000"),
  "a wide width": (dict(text_config=dict(hidden_size=2**23)), "'text_model.", "asks for"),
  "layers without end": (dict(vision_config=dict(num_hidden_layers=10**6)), "claims 1000001 layers"),
  "heads that do not divide": (dict(text_config=dict(num_attention_heads=3)), "divisible by num_heads=3"),
  "grey pictures": (dict(vision_config=dict(num_channels=1)), "num_channels is 1"),
  "an oblong picture": (dict(vision_config=dict(image_size=[8, 4])), "image_size is [8, 4]"),
  "another resolution": (dict(vision_config=dict(image_size=16)), "vision_model.embeddings.position_embedding.weight"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_configuration_that_does_not_fit(case, clip, tmp_path):
  changes, *said = CONFIGS[case]
  folder = shutil.copytree(clip, tmp_path / "clip")
  config = json.loads((folder / "config.json").read_text())
  for name, value in changes.items():
    config[name] = config[name] | value if isinstance(value, dict) else value
  (folder / "config.json").write_text(json.dumps(config))
  refused(lambda: interop.load(folder), *said)


def test_missing_surplus_and_misshapen_tensors(clip, tmp_path):
  from safetensors.numpy import load_file, save_file

  weights = load_file(clip / "model.safetensors")
  first = "text_model.final_layer_norm.bias"
  for number, (changed, *said) in enumerate(
    (
      ({n: w for n, w in weights.items() if n != first}, f"has no tensor {first!r}"),
      (weights | {"decoder.x": np.zeros(2, np.float32)}, "'decoder.x', which this architecture", "restore"),
      (weights | {first: np.zeros(9, np.float32)}, first, "has shape [9]", "asks for [8]"),
      (weights | {first: np.zeros(8, np.int32)}, first, "holds int32"),
    )
  ):
    folder = shutil.copytree(clip, tmp_path / str(number))
    save_file(changed, folder / "model.safetensors")
    refused(lambda folder=folder: interop.load(folder), *said)


def test_paths_that_climb_out_and_files_that_are_not_there(clip, tmp_path):
  for name, said in (
    ("../clip/model.safetensors", "leads out of the folder"),
    ("/etc/passwd", "leads out"),
    ("x", "not in"),
  ):
    folder = tmp_path / str(len(name))
    folder.mkdir()
    shutil.copy(clip / "config.json", folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"logit_scale": name}}))
    refused(lambda folder=folder: interop.load(folder), repr(name), said)
  refused(lambda: interop.load(tmp_path / "nowhere"), "does not exist")
  (tmp_path / "empty").mkdir()
  refused(lambda: interop.load(tmp_path / "empty"), "holds no weights")


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth", ".ckpt"])
def test_pickles_are_refused_with_the_way_out(suffix, tmp_path):
  (tmp_path / f"pytorch_model{suffix}").write_bytes(b"\x80\x04")
  (tmp_path / "config.json").write_text('{"model_type": "clip"}')
  for path in (tmp_path, tmp_path / f"pytorch_model{suffix}"):
    refused(lambda path=path: interop.load(path), "is a pickle", "save_file", "weights_only=True")


def test_a_model_that_a_format_cannot_hold_is_refused_field_by_field(tmp_path):
  tower = dict(width=8, depth=1, num_heads=2)
  config = TwoTowerConfig(
    image=ViTConfig(**tower, image_size=8, patch_size=4, stem="conv", pool="flat"),
    text=TextConfig(**tower, vocab_size=20, max_length=6, eos_id=19, pool="mean", causal=False),
    embed_dim=4,
  )
  rng = np.random.default_rng(0)
  params = unflatten({n: rng.standard_normal(s).astype(np.float32) for n, s in flat_shapes(config).items()})
  for format_ in ("transformers", "open_clip", "siglip2", "openai", "big_vision"):
    refused(
      lambda format_=format_: interop.save(config.build(), params, tmp_path, format=format_),
      "cannot hold this model",
      'format="mmjax"',
    )
  with pytest.raises(InteropError, match=r"model.image.stem is 'conv' .*, but CLIPModel has only 'patch'"):
    interop.save(config.build(), params, tmp_path)
  interop.save(config.build(), params, tmp_path, format="mmjax")
  model, again = interop.load(tmp_path)
  assert model.config == config
  np.testing.assert_array_equal(again["image"]["stem"]["conv_0"]["kernel"], params["image"]["stem"]["conv_0"]["kernel"])
  with pytest.raises(InteropError, match="unknown format 'onnx'"):
    interop.save(config.build(), params, tmp_path, format="onnx")


POOLER = dict(attentional_pool=True)
OPEN_CLIP = {
  "a CoCa of two widths": (
    dict(multimodal_cfg={}, vision_cfg=dict(width=8), text_cfg=dict(embed_cls=True)),
    "vision_cfg: width is 8; mmjax supports only 512",
  ),
  "a CoCa without a class token": (dict(multimodal_cfg={}, vision_cfg=POOLER), "text_cfg: embed_cls is False"),
  "a CoCa of unlike halves": (
    dict(multimodal_cfg=dict(width=8), vision_cfg=POOLER, text_cfg=dict(embed_cls=True)),
    "multimodal_cfg: width is 8; mmjax supports only 512",
  ),
  "a CoCa whose first half has other layers": (
    dict(multimodal_cfg={}, vision_cfg=POOLER, text_cfg=dict(embed_cls=True, mlp_ratio=2.0)),
    "text_cfg: mlp_ratio is 2.0",
  ),
  "a tower of timm's": (dict(vision_cfg=dict(timm_model_name="vit_x")), "timm_model_name is 'vit_x'"),
  "a field it has never had": (dict(vision_cfg=dict(lairs=3)), "vision_cfg: unknown field 'lairs'"),
  "two poolers": (dict(vision_cfg=dict(attentional_pool="cascade")), "attentional_pool is 'cascade'"),
  "a pooler and a mean": (dict(vision_cfg=POOLER | dict(pool_type="avg")), "pool_type is 'avg'"),
  "a pooler with two epsilons": (
    dict(vision_cfg=POOLER | dict(norm_kwargs=dict(eps=0.1))),
    "norm_kwargs is {'eps': 0.1}",
  ),
  "no pooling": (dict(vision_cfg=dict(pool_type="none")), "pool_type is 'none'"),
  "a norm of queries": (dict(text_cfg=dict(qk_norm=True)), "text_cfg: qk_norm is True"),
  "another project's text tower": (
    dict(text_cfg=dict(hf_model_name="gpt2")),
    "hf_model_name is 'gpt2'",
  ),
  "a CoCa with another project's text tower": (
    dict(multimodal_cfg={}, text_cfg=dict(hf_model_name="roberta-base", embed_cls=True)),
    "text_cfg: hf_model_name is 'roberta-base'",
  ),
  "stages that are none": (dict(vision_cfg=dict(layers=[1, 2])), "layers is [1, 2]"),
}


@pytest.mark.parametrize("case", OPEN_CLIP)
def test_what_open_clip_has_and_mmjax_has_not(case, tmp_path):
  changes, said = OPEN_CLIP[case]
  config = dict(embed_dim=8, vision_cfg={}, text_cfg={}) | changes
  (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
  write(tmp_path / "open_clip_model.safetensors", {"visual.conv1.weight": tensor()}, bytes(8))
  refused(lambda: interop.load(tmp_path), "open_clip_config.json: model_cfg", said)
