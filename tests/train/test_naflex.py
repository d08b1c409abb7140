"""A small SigLIP for images of any shape: trained on a folder, the same on any mesh, evaluated, saved and loaded."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from PIL import Image as Picture

from mmjax import interop
from mmjax.data import DataConfig, Folder, Image, NativeImage, TokenizerConfig, make_source
from mmjax.data.images.native import row_width
from mmjax.deploy import standalone
from mmjax.deploy.standalone import ExportError
from mmjax.encoders import NaFlexConfig
from mmjax.errors import ConfigError
from mmjax.evaluate import evaluate
from mmjax.experiment import Experiment, PretrainedConfig, RunConfig
from mmjax.interop import export_run
from mmjax.interop.fields import Fields
from mmjax.interop.run_image import transform_from_json, transform_to_json
from mmjax.loading import load_run
from mmjax.objectives import Contrastive, Sigmoid
from mmjax.parallel.mesh import put_batch
from mmjax.settings import OptimizerConfig
from mmjax.train.adopt import adopted
from mmjax.train.loop import fitted, make_loaders, streams_tokenizer, train
from tests.tiny import MODEL, training_on

TOWER = NaFlexConfig(image_size=24, patch_size=8, width=16, depth=1, num_heads=2, patches=6)
TEXT = dataclasses.replace(MODEL.text, causal=False, pool="last", mask_padding=False)
SHAPES = ((8, 48), (48, 8), (16, 24), (30, 30))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
  lines = ["image,caption"]
  for number in range(24):
    pixels = rng.integers(0, 256, (*SHAPES[number % 4], 3)).astype(np.uint8)
    Picture.fromarray(pixels).save(root / f"{number}.png")
    lines.append(f"{number}.png,a thing of kind {number % 4} and number {number}")
  (root / "captions.csv").write_text("\n".join(lines))
  return root


def experiment(folder, workdir, lengths=(6,), **fields) -> Experiment:
  column = NativeImage(patch_size=8, lengths=lengths)
  source = Folder(str(folder))
  columns = {**source.columns, "image": column}
  tokens = TokenizerConfig(vocab_size=300, max_length=8)
  data = DataConfig(source=source, columns=columns, dir=str(workdir / "data"), tokenizer=tokens)
  model = dataclasses.replace(
    MODEL,
    text=TEXT,
    image=TOWER,
    embed_dim=16,
    image_projection="none",
    text_projection="affine",
    init_logit_bias=-10.0,
  )
  parts = dict(
    data=data,
    model=model,
    objectives=(Contrastive(Sigmoid()),),
    optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=0),
    run=RunConfig(workdir=workdir, steps=4, seed=4, batch_size=8, log_every=1, tensorboard=False),
  )
  return Experiment(**parts | fields)


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    first = jax.devices()[:1]
    patch.setattr(jax, "devices", lambda *_: first)
    return train(experiment(folder, tmp_path_factory.mktemp("run"), lengths=(2, 6))).run


def test_a_run_trains_with_rows_of_several_lengths(trained):
  lines = [json.loads(line) for line in (trained.workdir / "metrics.jsonl").read_text().splitlines()]
  assert len([line for line in lines if "loss" in line]) == 4 and all(np.isfinite(line["loss"]) for line in lines)
  loader = make_loaders(trained.experiment, {"": make_source(trained.experiment.data, "train")}, trained.tokenizer, {})
  assert {next(loader)["image"].shape[1] for _ in range(4)} == {2, 6}
  loader.close()


def test_two_steps_do_not_depend_on_the_devices(folder, tmp_path):
  made = experiment(folder, tmp_path)
  sources = {"": make_source(made.data, "train")}
  tokenizer = streams_tokenizer(made, sources)
  made = fitted(made, tokenizer, num_records={"": len(sources[""])})
  loader = make_loaders(made, sources, tokenizer, {})
  batches = [next(loader) for _ in range(2)]
  loader.close()
  assert len({tuple(row[:, -2:].max(0).tolist()) for row in batches[0]["image"]}) > 2  # shapes of one batch
  seen = []
  for devices in (1, 8):
    training = training_on(devices, made)
    state = training.initial_state()
    for batch in batches:
      state, metrics = training.step(state, put_batch(batch, training.mesh))
      seen.append({name: float(metrics[name]) for name in ("loss", "grad_norm")})
  assert seen[0] != seen[1]
  for one, eight in zip(seen[:2], seen[2:], strict=True):
    assert eight == pytest.approx(one, rel=2e-5)


def test_a_run_is_evaluated_and_embeds_images_of_any_shape(trained, folder):
  run = load_run(trained.workdir)
  assert [result["task"] for result in evaluate(run)]
  wide, tall = folder / "0.png", folder / "1.png"
  found = run.encode_image([wide, tall])
  assert run.preprocess(wide).shape == (6, row_width(8)) and np.abs(found[0] - found[1]).max() > 1e-3
  np.testing.assert_allclose(run.encode("image", [wide])[0], found[0], atol=1e-6)
  record = transform_to_json(run.transform)
  assert transform_from_json(Fields(record, "preprocess.json"), 24) == run.transform
  with pytest.raises(ExportError, match="makes no rows of patches"):
    standalone.EvalImage(record)
  turned = np.asarray(Picture.open(wide)).transpose(1, 0, 2)
  assert np.abs(run.encode_image([turned])[0] - found[0]).max() > 1e-3


def test_a_run_is_exported_for_transformers_and_begins_another(trained, folder, tmp_path):
  export_run(trained, "transformers", tmp_path / "theirs")
  settings = json.loads((tmp_path / "theirs/preprocessor_config.json").read_text())
  assert settings["image_processor_type"] == "Siglip2ImageProcessor" and settings["max_num_patches"] == 6
  loaded = interop.load_pretrained(tmp_path / "theirs")
  rows = np.stack([loaded.preprocess(folder / f"{n}.png") for n in range(2)])
  found = np.asarray(loaded.model.apply({"params": loaded.params}, rows, method="encode_image"))
  found = found / np.linalg.norm(found, axis=-1, keepdims=True)
  np.testing.assert_allclose(found, trained.encode_image([folder / "0.png", folder / "1.png"]), atol=1e-5)

  pretrained = PretrainedConfig(str(tmp_path / "theirs"), allow=("tokenizer",))
  begun = adopted(Experiment(pretrained=pretrained), say=False)
  assert begun.data.columns["image"] == NativeImage(8, (9,)) and begun.model.image.grid == 3
  assert begun.data.preprocess == str(tmp_path / "theirs")


def test_a_column_that_does_not_fit_the_tower_is_refused(folder, tmp_path):
  made = experiment(folder, tmp_path, lengths=(2, 5))
  with pytest.raises(
    ConfigError, match=r"'image' gives float32 \[5, 194\] a row, and the model's tower takes .*\[6, 194\]"
  ):
    train(made)
  columns = {**made.data.columns, "image": Image()}
  with pytest.raises(ConfigError, match=r"'image' gives float32 \[24, 24, 3\] a row"):
    train(dataclasses.replace(made, data=dataclasses.replace(made.data, columns=columns)))
