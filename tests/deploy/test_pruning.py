"""Heads and MLP units that are removed: the right ones, and the rest computes what it did."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from mmjax.data import make_tokenizer
from mmjax.deploy import DeployError, retraining
from mmjax.deploy.__main__ import main
from mmjax.deploy.pruning import prune, pruned_config
from mmjax.encoders import SwinConfig, TextConfig, ViTConfig
from mmjax.interop import load, save
from mmjax.interop.shapes import flat_shapes, flatten, per_layer, unflatten, with_scan
from mmjax.loading import load_run
from mmjax.models import ClassifierConfig, TwoTowerConfig
from mmjax.run import CHECKPOINTS, CONFIG
from mmjax.train.loop import fitted
from mmjax.train.provenance import write_config
from tests import tiny
from tests.deploy import runs

TOWER = dict(width=16, depth=2, num_heads=4, mlp_dim=12)
MODEL = TwoTowerConfig(
  image=ViTConfig(**TOWER, image_size=8, patch_size=4, pool="map", mlp_gated=True, mlp_norm=True, qk_norm=True),
  text=TextConfig(**TOWER, vocab_size=32, max_length=4, eos_id=31),
  embed_dim=8,
)


def with_dead_parts(config):
  """Random parameters; in each block two heads and six units, others in each, write nothing."""
  rng = np.random.default_rng(0)
  flat = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in flat_shapes(config).items()}
  for number, name in enumerate(name for name in flat if "block_" in name):
    if name.endswith("attention/out/kernel"):
      heads = flat[name].reshape(4, 4, -1)
      heads[np.random.default_rng(number).permutation(4)[:2]] *= 1e-9
    if name.endswith("mlp/down/kernel"):
      flat[name][np.random.default_rng(number).permutation(12)[:6]] *= 1e-9
  return unflatten(flat)


def outputs(config, params):
  batch = {"image": np.random.default_rng(1).standard_normal((2, 8, 8, 3)).astype(np.float32)}
  batch["text"] = np.asarray([[3, 4, 31, 0], [5, 31, 0, 0]], np.int32)
  return config.build().apply({"params": params}, batch)


@pytest.mark.parametrize("scan", [False, True])
def test_what_writes_nothing_goes_and_the_outputs_stay(scan):
  plain = dataclasses.replace(MODEL, image=dataclasses.replace(MODEL.image, mlp_norm=False))
  params = with_dead_parts(plain)
  given = plain
  if scan:
    given = with_scan(plain, True)
    stack = lambda tower: {
      **{name: part for name, part in tower.items() if not name.startswith("block_")},
      "blocks": jax.tree.map(lambda *layers: np.stack(layers), tower["block_0"], tower["block_1"]),
    }
    params = params | {
      name: params[name] | {"transformer": stack(params[name]["transformer"])} for name in ("image", "text")
    }
  config, small = prune(given, params, heads=0.5, units=0.5)
  assert (config.image.num_heads, config.image.head_dim, config.image.mlp_dim) == (2, 4, 6)
  shapes = {name: array.shape for name, array in flatten(small).items()}
  assert shapes["text/transformer/block_1/attention/query/kernel"] == (16, 8)
  assert shapes["image/transformer/block_0/mlp/gate/kernel"] == (16, 6)
  assert shapes["image/pool/attention/out/kernel"] == (16, 16) and shapes["image/pool/mlp/up/kernel"] == (16, 12)
  whole = outputs(plain, with_dead_parts(plain))
  for name, found in outputs(with_scan(config, False), small).items():
    np.testing.assert_allclose(found, whole[name], rtol=0, atol=2e-6)


def test_biases_and_norms_go_with_their_units():
  params = with_dead_parts(MODEL)
  _, small = prune(MODEL, params, units=0.5)
  old, new = per_layer(params), per_layer(small)
  kept = [
    list(old["image/transformer/block_0/mlp/up/bias"]).index(x) for x in new["image/transformer/block_0/mlp/up/bias"]
  ]
  for name in ("up/kernel", "gate/kernel", "norm/scale", "norm/bias"):
    name = f"image/transformer/block_0/mlp/{name}"
    np.testing.assert_array_equal(new[name], old[name][..., kept])
  name = "image/transformer/block_0/mlp/down/kernel"
  np.testing.assert_array_equal(new[name], old[name][kept])
  assert kept == sorted(kept) and np.abs(new[name]).max(1).min() > 1e-6


def test_nothing_is_removed_where_nothing_is_asked_for():
  assert pruned_config(MODEL) == dataclasses.replace(MODEL, image=pruned_config(MODEL.image))
  assert pruned_config(MODEL.text) == MODEL.text and pruned_config(MODEL.text, heads=0.5).mlp_dim == 12
  assert pruned_config(MODEL, heads=0.99, units=0.99).text.num_heads == 1  # one stays


@pytest.mark.parametrize(
  ("config", "shares", "match"),
  [
    (MODEL, dict(heads=1.0), r"heads to remove is 1.0: it must lie in \[0, 1\)"),
    (ClassifierConfig(towers={"image": SwinConfig()}), dict(heads=0.5), "ClassifierConfig has no ViT"),
    (ViTConfig(pool="probe"), dict(heads=0.5), 'pool="probe" has as many heads'),
    (TextConfig(key_heads=4), dict(heads=0.5), "key_heads"),
  ],
)
def test_what_cannot_be_pruned_is_named(config, shares, match):
  with pytest.raises(DeployError, match=match):
    pruned_config(config, **shares)


def test_a_bias_of_heads_that_blocks_share_is_named():
  config = TextConfig(**TOWER, vocab_size=32, max_length=4, eos_id=31, relative_buckets=8)
  with pytest.raises(DeployError, match="relative_bias/table depends on the number of heads"):
    prune(config, with_dead_parts(config), heads=0.5)


def test_published_weights_are_written_again(tmp_path, capsys):
  config, out = MODEL.text, str(tmp_path / "small")
  save(config.build(), with_dead_parts(config), tmp_path / "text", "mmjax")
  assert main(["prune", str(tmp_path / "text"), "--units", "0.5", "--out", out]) == 0
  model, params = load(out)
  assert model.config.mlp_dim == 6 and params["transformer"]["block_0"]["mlp"]["up"]["kernel"].shape == (16, 6)
  for wrong, said in (
    (["--out", out], "nothing to remove"),
    (["--sparsity", "0.5", "--out", out], "training needs data"),
    (["--units", "2", "--out", out], "must lie in [0, 1)"),
  ):
    capsys.readouterr()
    assert main(["prune", str(tmp_path / "text"), *wrong]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
  assert main(["quantize", str(tmp_path / "text"), "--out", out]) == 2
  assert "is not the workdir of a run" in capsys.readouterr().err


def test_a_run_is_pruned_and_trained_on(tmp_path, monkeypatch, capsys):
  made, out = tiny.experiment(run=dict(workdir=tmp_path / "run", steps=2)), tmp_path / "small"
  tokenizer = make_tokenizer(made.data)  # the run is not trained, and otherwise as a run is
  whole = runs.made(fitted(made, tokenizer, num_records={"": 1}), tmp_path / "run", tokenizer)
  whole.workdir.mkdir()
  write_config(whole.experiment, whole.workdir / CONFIG)
  (whole.workdir / CHECKPOINTS).mkdir()
  read = lambda folder: whole if Path(folder) == whole.workdir else load_run(folder)
  first, found = jax.devices()[:1], [{"title": "a task", "dataset": "a", "metrics": {"score": 0.5}}]
  monkeypatch.setattr(jax, "devices", lambda *_: first)
  monkeypatch.setattr("mmjax.deploy.compressing._run", read)
  for name in ("mmjax.evaluate.measure", "mmjax.evaluate.evaluate"):
    monkeypatch.setattr(name, lambda run: found)
  monkeypatch.setattr("mmjax.report.write_report", lambda workdir, run: workdir)
  monkeypatch.setattr("mmjax.deploy.compressing.latency", lambda run: {"image": 0.001})
  options = ["--heads", "0.5", "--units", "0.5", "--steps", "2", "--out"]
  assert main(["prune", str(whole.workdir), *options, str(out)]) == 0
  shown = capsys.readouterr().out
  run = load_run(out)
  assert run.step == 2 and run.experiment.model.image.num_heads == 1
  assert run.params["image"]["transformer"]["block_0"]["mlp"]["up"]["kernel"].shape == (16, 32)
  assert "a task, score" in shown and "not zero" in shown
  config = json.loads((out / "config.json").read_text())["experiment"]
  assert config["pretrained"]["path"] == str(out / retraining.PRUNED)
  assert main(["prune", str(whole.workdir), *options, str(whole.workdir)]) == 2
  assert "give another --out" in capsys.readouterr().err


def test_the_commands_say_how_the_run_is_trained_on(tmp_path, monkeypatch):
  whole, seen = runs.two_towers(tmp_path / "run"), []
  monkeypatch.setattr("mmjax.deploy.compressing._is_run", lambda path: True)
  monkeypatch.setattr("mmjax.deploy.compressing._run", lambda path: whole)
  monkeypatch.setattr("mmjax.deploy.retraining.write_weights", lambda run, config, params, folder: folder)
  train = lambda experiment: (9 if seen.append(experiment) is None else 0, [])
  monkeypatch.setattr("mmjax.deploy.retraining.train_and_measure", train)
  out = ["run", "--out", str(tmp_path / "out")]
  assert main(["prune", *out, "--sparsity", "0.8", "--steps", "7", "--learning-rate", "0.1"]) == 9
  assert main(["quantize", *out]) == main(["quantize", *out, "--weights-only"]) == 9
  assert [one.compression.quantize for one in seen] == ["none", "all", "weights"]
  assert (seen[0].compression.sparsity, seen[0].run.steps, seen[0].optimizer.learning_rate) == (0.8, 7, 0.1)
  assert seen[1].run.steps == 5 and seen[1].optimizer.learning_rate == whole.experiment.optimizer.learning_rate / 2
  assert main(["prune", *out, "--sparsity", "1"]) == main(["prune", *out, "--units", "0.5", "--steps", "0"]) == 2
