"""A run that begins from a checkpoint takes its model, tokenizer and preprocessing; a difference is refused by name."""

import dataclasses
import importlib.util
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from mmjax import interop, load_run
from mmjax.cli import main
from mmjax.data import DataConfig, DataError, Folder, TokenizerConfig
from mmjax.data.text.tokenizer import Tokenizer, train_vocabulary
from mmjax.encoders import TextConfig, ViTConfig
from mmjax.errors import ConfigError
from mmjax.experiment import Experiment, PretrainedConfig
from mmjax.interop.agreement import model_differences, refuse
from mmjax.interop.export import export_run, notes
from mmjax.interop.formats import find_format
from mmjax.interop.preprocess import Preprocess
from mmjax.interop.pretrained_tokenizer import export_tokenizer
from mmjax.interop.run_tokenizer import load_saved
from mmjax.interop.shapes import flat_shapes, unflatten
from mmjax.interop.source import open_source
from mmjax.models import TwoTowerConfig
from mmjax.objectives import Caption
from mmjax.train.adopt import adopted, check_agreement, run_image, run_tokenizer, with_checkpoint
from mmjax.train.setup import check_needs
from tests import tiny

SCRIPT = Path(__file__).parents[2] / "experiments" / "clip_b32.py"
TOWER = dict(width=16, depth=1, num_heads=4, norm_epsilon=1e-5, activation="quick_gelu")
TEXT = TextConfig(**TOWER, vocab_size=300, max_length=8, pool="eos_or_first", mask_padding=False, eos_id=1)
IMAGE = ViTConfig(
  **TOWER, image_size=16, patch_size=8, pool="cls", input_norm=True, class_position=True, stem_bias=False
)
CLIP = TwoTowerConfig(image=IMAGE, text=TEXT, embed_dim=8)
STRINGS = ["a cat", "", "two hearts and a very long sentence that is cut", "A PHOTO of 3 dogs"]
PREPROCESS = Preprocess(16, "shortest", "bicubic", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), odd="down")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
  """A small CLIPModel in transformers' files, with a tokenizer and an image processor."""
  folder = tmp_path_factory.mktemp("published")
  config = TokenizerConfig(vocab_size=300, max_length=8)
  tokenizer = Tokenizer(train_vocabulary(STRINGS, config), config)
  model = dataclasses.replace(CLIP, text=dataclasses.replace(TEXT, vocab_size=tokenizer.vocab_size))
  rng = np.random.default_rng(0)
  params = {n: 0.3 * rng.standard_normal(s).astype(np.float32) for n, s in flat_shapes(model).items()}
  params["logit_scale"] = np.float32(np.log(90))
  interop.save(model.build(), unflatten(params), folder, preprocess=PREPROCESS)
  export_tokenizer(tokenizer, folder)
  return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
  folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
  for number in range(64):
    Image.fromarray(rng.integers(0, 256, (30, 20 + number % 24, 3)).astype(np.uint8)).save(folder / f"{number}.png")
  rows = [f"{number}.png,a photo of number {number}" for number in range(64)]
  (folder / "captions.csv").write_text("\n".join(["image,caption", *rows]))
  return folder


def begun(published, model=None, **pretrained):
  experiment = dataclasses.replace(
    tiny.EXPERIMENT,
    data=DataConfig(source=Folder()),
    pretrained=PretrainedConfig(str(published), **pretrained),
    model=TwoTowerConfig(image=ViTConfig(dtype="bfloat16"), text=TextConfig(remat="full")) if model is None else model,
  )
  return adopted(experiment)


def test_model_tokenizer_and_preprocessing_are_the_checkpoints(published, capsys):
  experiment = begun(published)
  found = interop.load_pretrained(published)
  assert "model.image.num_heads 4 (was 12)" in capsys.readouterr().out
  image, text = experiment.model.image, experiment.model.text
  assert image == dataclasses.replace(found.model.config.image, dtype="bfloat16")  # what only training uses stays
  assert text == dataclasses.replace(found.model.config.text, remat="full")
  assert experiment.model.max_logit_scale == 100
  tokenizer, picture = run_tokenizer(experiment.data, []), run_image(experiment.data, 16)
  np.testing.assert_array_equal(tokenizer(STRINGS), found.tokenizer(STRINGS))
  assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.bos_id) == (0, 1, None)
  assert tokenizer.decode(tokenizer(["a cat"])[0]).strip() == "a cat"
  pixels = np.random.default_rng(0).integers(0, 256, (40, 31, 3)).astype(np.uint8)
  np.testing.assert_array_equal(picture(pixels), PREPROCESS(pixels))
  assert (experiment.data.mean, experiment.data.std) == (PREPROCESS.mean, PREPROCESS.std)
  check_agreement(experiment, tokenizer, picture)


def test_the_plan_is_that_of_the_checkpoints_model(published, monkeypatch):
  planned = []

  def plan(experiment, *_, **__):
    planned.append(experiment.model)
    raise SystemExit(0)

  monkeypatch.setattr("mmjax.plan.command.plan", plan)
  line = f"--topology cpu:1 --pretrained.path {published} --model.text.depth 3"
  with pytest.raises(SystemExit):
    main(tiny.EXPERIMENT, arguments=["plan", *line.split()])
  assert (planned[0].text.num_heads, planned[0].text.depth) == (4, 3)


def test_only_defaults_are_replaced_in_python(published):
  named = dataclasses.replace(
    Experiment(pretrained=PretrainedConfig(str(published))), data=DataConfig(mean=(0.0, 0.0, 0.0))
  )
  taken = with_checkpoint(named)
  assert taken.model.text.num_heads == 4 and taken.data.tokenizer.path == str(published)
  assert taken.data.mean == (0.0, 0.0, 0.0) and taken.data.preprocess is None
  with pytest.raises(ConfigError, match="preprocess is EvalImage.*the checkpoint's is Preprocess"):
    check_agreement(taken, None, run_image(taken.data, 16))
  assert with_checkpoint(Experiment()) == Experiment()


CHANGES = {
  "model.image.num_heads": dict(num_heads=2),
  "model.image.activation": dict(activation="gelu"),
  "model.image.norm_epsilon": dict(norm_epsilon=1e-6),
  "model.image.image_size": dict(image_size=24),
  "model.image.pool": dict(pool="cls_mean"),
  "model.text.num_heads": dict(num_heads=2),
  "model.text.causal": dict(causal=False),
  "model.text.pool": dict(pool="argmax"),
  "model.text.mask_padding": dict(mask_padding=True),
  "model.text.eos_id": dict(eos_id=2),
  "model.text.max_length": dict(max_length=12),
  "model.text_projection": dict(text_projection="affine"),
  "model.init_logit_bias": dict(init_logit_bias=-10.0),
  "model.max_logit_scale": dict(max_logit_scale=50.0),
}


@pytest.mark.parametrize("path", CHANGES)
def test_a_field_that_changes_numbers_is_refused_by_name(path, published):
  source = open_source(published)
  model, tower = source.config, path.split(".")[1]
  changed = CHANGES[path]
  if tower in ("image", "text"):
    changed = {tower: dataclasses.replace(getattr(model, tower), **changed)}
  model = dataclasses.replace(model, **changed)
  taken = [*flat_shapes(model)]
  with pytest.raises(ConfigError, match=rf"{path} is .*the checkpoint's is .*--pretrained.allow {path}$"):
    refuse("x", list(model_differences(model, source, "", taken)), ())
  refuse("x", list(model_differences(model, source, "", taken)), (path,))
  refuse("x", list(model_differences(model, source, "", ["token"])), ())  # what is not read does not matter


def test_what_only_training_uses_may_differ(published):
  source = open_source(published)
  image = dataclasses.replace(IMAGE, dtype="bfloat16", remat="full", patch_dropout=0.5, drop_path=0.1, scan=True)
  text = dataclasses.replace(source.config.text, max_length=6, mask_id=3, special_ids=(1, 2))
  model = dataclasses.replace(source.config, image=image, text=text, init_logit_scale=2.0, max_logit_scale=100.0)
  assert not list(model_differences(model, source, "", [*flat_shapes(model)]))


def test_a_scale_above_the_limit_raises_the_limit(published, tmp_path):
  model, params = interop.load(published)
  interop.save(model, params | {"logit_scale": np.float32(np.log(117))}, tmp_path)
  config = PretrainedConfig(str(tmp_path), allow=("tokenizer",))
  experiment = adopted(dataclasses.replace(tiny.EXPERIMENT, model=TwoTowerConfig(), pretrained=config))
  assert experiment.model.max_logit_scale == pytest.approx(117)


def test_another_tokenizer_is_refused(published):
  experiment = begun(published)
  config = TokenizerConfig(vocab_size=290, max_length=8)
  other = Tokenizer(train_vocabulary(["qq qq"], config), config)
  with pytest.raises(
    ConfigError, match=r"tokenizer is {'a photo.*': .*the checkpoint's is {'a photo.*--pretrained.allow tokenizer"
  ):
    check_agreement(experiment, other, None)
  allowed = dataclasses.replace(experiment, pretrained=PretrainedConfig(str(published), allow=("tokenizer",)))
  check_agreement(allowed, other, None)


def test_one_tower_brings_its_own_part(published, tmp_path):
  """A text tower brings model and tokenizer; images stay as they were. Without `into`, the remedy is named."""
  model, params = interop.load(published)
  interop.save(model.config.text.build(), params["text"], tmp_path, format="mmjax")
  for name in ("tokenizer.json", "tokenizer_config.json"):
    (tmp_path / name).write_bytes((published / name).read_bytes())
  experiment = begun(tmp_path, into="text")
  assert (experiment.model.text.num_heads, experiment.model.image.num_heads) == (4, 12)
  assert experiment.data.tokenizer.path == str(tmp_path) and experiment.data.preprocess is None
  with pytest.raises(interop.InteropError, match="single tower.*--pretrained.into image or text"):
    begun(tmp_path)


def test_a_checkpoint_without_a_tokenizer_names_the_way_out(published, tmp_path):
  interop.save(*interop.load(published), tmp_path)
  with pytest.raises(interop.InteropError, match=r"no tokenizer.json.*--pretrained.allow tokenizer"):
    begun(tmp_path)
  assert begun(tmp_path, allow=("tokenizer",)).data.tokenizer == TokenizerConfig()


def test_settings_that_the_tokenizer_would_pass_over_are_refused(published):
  data = begun(published).data
  for change, said in (
    (dict(bos_token="<eos>"), "--data.tokenizer.bos-token is '<eos>', but the tokenizer of .* has None"),
    (dict(lowercase=True), "--data.tokenizer.no-lowercase"),
  ):
    with pytest.raises(DataError, match=said):
      run_tokenizer(dataclasses.replace(data, tokenizer=dataclasses.replace(data.tokenizer, **change)), [])
  with pytest.raises(DataError, match="captions only"):
    run_tokenizer(data, []).answer_text(["a"])
  with pytest.raises(ConfigError, match=r"data.mean is .* but the preprocessing of"):
    run_image(dataclasses.replace(data, mean=(0.5, 0.5, 0.5)), 16)


def test_the_saved_tokenizer_is_checked(published, tmp_path):
  tokenizer = run_tokenizer(begun(published).data, [])
  tokenizer.save(tmp_path)
  again = load_saved(tmp_path)
  np.testing.assert_array_equal(again(STRINGS), tokenizer(STRINGS))
  assert again.same_ids(tokenizer) and again.vocab_size == tokenizer.vocab_size
  tokenizer.check_saved(tmp_path)
  (tmp_path / "tokenizer_config.json").write_text("{}")
  with pytest.raises(DataError, match="are not those that checkpoint_tokenizer.json was saved with"):
    load_saved(tmp_path)


def test_padding_with_the_end_token_needs_a_model_that_tells_them_apart(published):
  data = begun(published).data
  tokenizer = run_tokenizer(data, [])
  tokenizer.pad_id = tokenizer.eos_id
  experiment = begun(published)
  check_needs(experiment, None, tokenizer)
  text = dataclasses.replace(experiment.model.text, mask_padding=True)
  hiding = dataclasses.replace(experiment, model=dataclasses.replace(experiment.model, text=text))
  with pytest.raises(ConfigError, match="also the end token.*--model.text.mask-padding is on"):
    check_needs(hiding, None, tokenizer)
  tokenizer.begin_id = 2
  captions = dataclasses.replace(experiment, objectives=(Caption(image=False),))
  with pytest.raises(ConfigError, match="also the end token.*tells padding"):
    check_needs(captions, None, tokenizer)


def test_the_papers_script_begins_from_a_checkpoint_by_its_path_alone(published, photos, tmp_path, monkeypatch, capsys):
  """No other flag says anything of model, tokens or images; the run embeds as the checkpoint does."""
  spec = importlib.util.spec_from_file_location("clip_b32", SCRIPT)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  line = f"--data.source folder --data.source.path {photos} --pretrained.path {published}"
  more = f"--run.steps 1 --optimizer.learning-rate 0 --run.workdir {tmp_path} --data.workers 0 --run.no-tensorboard"
  more += " --optimizer.algorithm momentum"  # compiles sooner than Adam
  more += " --model.image.dtype float32 --model.text.dtype float32"
  with pytest.raises(SystemExit) as stop:
    module.main(module.EXPERIMENT, arguments=[*line.split(), *more.split()])
  said = capsys.readouterr()
  assert stop.value.code == 0, said.err
  assert "parallel.fsdp 8 (was 16)" in said.out
  batch = int(re.search(r"run.batch_size (\d+) \(was 32768\)", said.out)[1])
  assert batch % 8 == 0 and 32 <= batch < 64
  run, found = load_run(tmp_path), interop.load_pretrained(published)
  path = photos / "7.png"
  np.testing.assert_array_equal(run.tokenizer(STRINGS), found.tokenizer(STRINGS))
  np.testing.assert_array_equal(run.preprocess(path), found.preprocess(path))
  for ours, method, inputs in (
    (run.encode_image([path]), "encode_image", found.preprocess(path)[None]),
    (run.encode_text(STRINGS), "encode_text", found.tokenizer(STRINGS)),
  ):
    theirs = np.asarray(
      jax.jit(found.model.apply, static_argnames="method")({"params": found.params}, inputs, method=method)
    )
    np.testing.assert_allclose(ours, theirs / np.linalg.norm(theirs, axis=-1, keepdims=True), atol=1e-5)
  for format_ in ("mmjax", "transformers"):  # and so does what is exported
    again = interop.load_pretrained(export_run(run, format_))
    np.testing.assert_array_equal(again.tokenizer(STRINGS), found.tokenizer(STRINGS))
    np.testing.assert_array_equal(again.preprocess(path), found.preprocess(path))
    assert not notes(run, find_format(format_), tmp_path)
