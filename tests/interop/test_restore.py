"""Loading in part, at another size, into shards; the command line."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mmjax import interop
from mmjax.encoders import TextConfig, ViTConfig
from mmjax.interop.__main__ import main
from mmjax.interop.mapping import Rule, Table
from mmjax.interop.resample import resample_positions
from mmjax.interop.shapes import flat_shapes, flatten, unflatten, with_scan
from mmjax.models import TwoTowerConfig
from tests.interop.references import IMAGES

TOWER = dict(width=16, depth=2, num_heads=2, activation="gelu_tanh", mlp_dim=24)
SIGLIP = TwoTowerConfig(
  image=ViTConfig(**TOWER, image_size=16, patch_size=4),
  text=TextConfig(**TOWER, vocab_size=20, max_length=6, causal=False, pool="last", mask_padding=False, eos_id=19),
  embed_dim=16,
  image_projection="none",
  text_projection="affine",
  init_logit_scale=10.0,
  init_logit_bias=-10.0,
)
IDS = np.random.default_rng(0).integers(0, 20, (3, 6)).astype(np.int32)


def random_params(config, seed=0):
  rng = np.random.default_rng(seed)
  return unflatten({n: 0.2 * rng.standard_normal(s).astype(np.float32) for n, s in flat_shapes(config).items()})


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
  folder = tmp_path_factory.mktemp("siglip")
  params = random_params(SIGLIP)
  interop.save(SIGLIP.build(), params, folder)
  return folder, params


def test_a_rule_serves_both_directions():
  rules = (
    Rule(r"^a/(\d)/kernel$", r"x.\1.w", "o i -> i o", part=0),
    Rule(r"^b/(\d)/kernel$", r"x.\1.w", "o i -> i o", part=1),
  )
  ours = {"a/0/kernel": np.arange(6).reshape(2, 3), "b/0/kernel": np.arange(2).reshape(2, 1)}
  table = Table(rules, {name: array.shape for name, array in ours.items()})
  theirs = table.to_theirs(ours, np.asarray)
  np.testing.assert_array_equal(theirs["x.0.w"], [[0, 3], [1, 4], [2, 5], [0, 1]])
  assert table.their_shapes == {"x.0.w": (4, 2)}
  assert (table.places["b/0/kernel"].start, table.places["b/0/kernel"].stop) == (3, 4)


def test_part_of_a_checkpoint_into_shards(siglip):
  """Only the text tower's blocks, onto eight devices, stacked over layers; the rest keeps what it had."""
  folder, params = siglip
  config = with_scan(SIGLIP, True)
  batch = {"image": IMAGES[:, :16, :16], "text": IDS}
  fresh = jax.jit(config.build().init)(jax.random.key(1), batch)["params"]
  mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))

  def place(leaf):
    last = leaf.shape and leaf.shape[-1] % 8 == 0
    return NamedSharding(mesh, PartitionSpec(*[None] * (leaf.ndim - 1), "fsdp") if last else PartitionSpec())

  shardings = jax.tree.map(place, fresh)
  loaded, report = interop.restore(folder, fresh, shardings=shardings, take=("^text/transformer/blocks/",))
  got, had = flatten(loaded), flatten(fresh)
  assert set(report.taken) == {name for name in had if name.startswith("text/transformer/blocks/")}
  assert set(report.reinitialised) == set(had) - set(report.taken) and not report.resampled
  assert "logit_scale" in report.left and "text_model.encoder.layers.1.mlp.fc1.weight" not in report.left
  assert "re-initialised: " in str(report)
  for name in report.reinitialised:
    assert got[name] is had[name]
  kernel = got["text/transformer/blocks/mlp/up/kernel"]
  assert {shard.data.shape for shard in kernel.addressable_shards} == {(2, 16, 3)}
  for layer in range(2):
    np.testing.assert_array_equal(kernel[layer], params["text"]["transformer"][f"block_{layer}"]["mlp"]["up"]["kernel"])


def test_a_device_reads_only_its_piece(siglip):
  """What is read for a shard is that shard: nothing is held whole, let alone twice."""
  from mmjax.interop.restoring import make_array, plan_restore
  from mmjax.interop.source import open_source

  name = "text/token_embedding"
  read = plan_restore(open_source(siglip[0]), {name: (20, 16)}).readers[name]
  sizes = []
  mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))

  def counting(index):
    piece = read(index)
    sizes.append(piece.shape)
    return piece

  array = make_array(counting, (20, 16), NamedSharding(mesh, PartitionSpec(None, "x")))
  assert set(sizes) == {(20, 2)}
  np.testing.assert_array_equal(array, siglip[1]["text"]["token_embedding"])


def test_another_resolution_and_length(siglip):
  folder, params = siglip
  model, larger = interop.load(folder, image_size=24, max_length=9)
  assert (model.config.image.image_size, model.config.text.max_length) == (24, 9)
  assert larger["image"]["position_embedding"].shape == (36, 16)
  model, shorter = interop.load(folder, max_length=4)
  np.testing.assert_array_equal(shorter["text"]["position_embedding"], params["text"]["position_embedding"][:4])
  with pytest.raises(interop.InteropError, match="image_size=18 must be divisible by patch_size=4"):
    interop.load(folder, image_size=18)


def test_resampling_keeps_what_it_should():
  rows = np.concatenate([np.full((1, 2), 9.0), np.ones((16, 2))]).astype(np.float32)
  out = resample_positions(rows, 1 + 36, text=False, name="p")
  np.testing.assert_allclose(out[0], 9.0)  # the class token's row
  np.testing.assert_allclose(out[1:], 1.0, rtol=1e-6)  # a constant stays one
  line = np.arange(4, dtype=np.float32)[:, None]
  np.testing.assert_allclose(resample_positions(line, 8, text=True, name="p")[1:7, 0], np.arange(6) * 0.5 + 0.25)
  with pytest.raises(interop.InteropError, match="only one of them has a row for a class token"):
    resample_positions(rows, 36, text=False, name="p")


def test_convert_inspect_and_mistakes(siglip, tmp_path, capsys):
  folder, _ = siglip
  assert main(["convert", str(folder), str(tmp_path / "bv"), "--to", "big_vision"]) == 0
  assert main(["convert", str(tmp_path / "bv"), str(tmp_path / "back"), "--to", "transformers"]) == 0
  assert "model.safetensors" in capsys.readouterr().out
  first, second = (path.read_bytes() for path in (folder / "model.safetensors", tmp_path / "back/model.safetensors"))
  assert first == second  # through another project's layout and back, bit for bit
  assert main(["inspect", str(folder)]) == 0
  shown = capsys.readouterr().out
  for words in ("SiglipModel", "vision_model.head.attention.in_proj_weight", "48 x 16", "float32", "image/pool/probe"):
    assert words in shown, words
  assert main(["convert", str(folder), str(folder), "--to", "mmjax"]) == 2
  assert "is both the source and the target" in capsys.readouterr().err
  assert main(["convert", str(folder), str(tmp_path / "x"), "--to", "open_clip"]) == 2
  assert "takes this kind of image tower from timm, which has none of this size" in capsys.readouterr().err
  with pytest.raises(SystemExit):
    main(["convert", str(folder), str(tmp_path / "x"), "--to", "open_clop"])
  assert "choose from" in capsys.readouterr().err
  config = json.loads((folder / "config.json").read_text())
  (tmp_path / "back/config.json").write_text(json.dumps(config | {"model_type": "clop"}))
  assert main(["inspect", str(tmp_path / "back")]) == 2
  shown = capsys.readouterr()
  assert "text_model.head.weight" in shown.out and "model_type is 'clop'" in shown.err


def test_a_scale_or_bias_at_its_limit_is_written_as_it_acts(tmp_path):
  """Ours are clipped where they are used; other projects take what is in the file."""
  params = random_params(SIGLIP) | {"logit_scale": np.float32(9.0), "logit_bias": np.float32(-120.0)}
  interop.save(SIGLIP.build(), params, tmp_path)
  assert interop.load(tmp_path)[1]["logit_scale"] == pytest.approx(np.log(100.0))
  assert interop.load(tmp_path)[1]["logit_bias"] == -100.0
  free = dataclasses.replace(SIGLIP, max_logit_scale=np.inf, max_logit_bias=np.inf)
  interop.save(free.build(), params, tmp_path)
  assert interop.load(tmp_path)[1]["logit_scale"] == 9.0
  assert interop.load(tmp_path)[1]["logit_bias"] == -120.0
