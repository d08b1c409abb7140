"""Text to image from end to end: a tokenizer run, a run that draws with its codes, `run.generate` and the command."""

import dataclasses
import functools
from unittest import mock

import jax
import numpy as np
import pytest
from PIL import Image

from mmjax.data import AugmentationConfig, DataConfig, Scenes, TokenizerConfig
from mmjax.data import Image as ImageColumn
from mmjax.encoders import ConvGridConfig
from mmjax.errors import ConfigError, UserError
from mmjax.evaluate import evaluate
from mmjax.evaluators import DrawnScenes, EvaluationConfig, ReconstructedImages
from mmjax.evaluators.drawn import kept_codes
from mmjax.experiment import Experiment, RunConfig
from mmjax.generate import main
from mmjax.interop.shapes import flatten
from mmjax.loading import load_run
from mmjax.models import Fsq, ImageCodesConfig, TextToImageConfig
from mmjax.nn import WordsConfig
from mmjax.objectives import DrawCodes, DrawMaskedCodes, Reconstruct
from mmjax.report.page import Section
from mmjax.train import OptimizerConfig, train
from mmjax.train.image_tokenizer import with_image_tokenizer

STILL = AugmentationConfig(crop_scale=(1, 1), rotation=0, brightness=0, contrast=0, saturation=0, hue=0, background=0)
SCENES = Scenes(text="caption", caption_shapes=1, size=20, examples=60)
CODES = Experiment(
  data=DataConfig(source=SCENES, columns={"image": ImageColumn()}, augmentation=STILL),
  model=ImageCodesConfig(ConvGridConfig(image_size=20, width=8), Fsq((3, 3))),
  objectives=(Reconstruct(distance="l2"),),
  optimizer=OptimizerConfig(warmup_steps=1, weight_decay=0.0),
  evaluation=EvaluationConfig(evaluators={"reconstructed": ReconstructedImages()}),
  run=RunConfig(steps=2, batch_size=16, log_every=1, tensorboard=False),
)
DRAWING = dataclasses.replace(
  CODES,
  data=DataConfig(
    source=SCENES,
    augmentation=STILL,
    tokenizer=TokenizerConfig(vocab_size=384, max_length=12, bos_token="<bos>"),
  ),
  model=TextToImageConfig(
    text=WordsConfig(width=16, depth=2, num_heads=2, mlp_dim=16), image=CODES.model, patterns=("row", "column")
  ),
  objectives=(DrawCodes(),),
  optimizer=OptimizerConfig(warmup_steps=1, weight_decay=0.5, ema_decay=0.5),
  evaluation=EvaluationConfig(evaluators={"drawn": DrawnScenes(captions=4, guidance=2.0, other_guidance=(1.0,))}),
)
TEXT = "red circle in the first row"


def placed(experiment, folder, data, **model):
  """An experiment in a folder, with fields of its model replaced."""
  return dataclasses.replace(
    experiment,
    data=dataclasses.replace(experiment.data, dir=str(data)),
    model=dataclasses.replace(experiment.model, **model),
    run=dataclasses.replace(experiment.run, workdir=folder),
  )


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  """(data, run of the tokenizer, run that draws)."""
  root = tmp_path_factory.mktemp("draw")
  with mock.patch("jax.devices", functools.partial(lambda one, *_: one, jax.devices()[:1])):
    train(placed(CODES, root / "codes", root / "data"))
    train(placed(DRAWING, root / "drawing", root / "data", image_from=str(root / "codes")))
  return root / "data", root / "codes", root / "drawing"


@pytest.fixture(scope="module")
def run(folders):
  with mock.patch("jax.devices", functools.partial(lambda one, *_: one, jax.devices()[:1])):
    return load_run(folders[2])


def test_the_tokenizer_of_the_run_is_taken_and_stays(folders, run):
  """Neither gradient nor weight decay moves it, and the transformer moves."""
  own, codes = flatten(run.params["image"]), flatten(load_run(folders[1]).params)
  assert own.keys() == codes.keys() and len(own) > 10
  for name, leaf in own.items():
    np.testing.assert_array_equal(leaf, codes[name], err_msg=name)


def test_the_tokenizer_is_measured_and_shown(folders):
  codes = load_run(folders[1])
  (result,) = evaluate(codes)
  assert set(result["metrics"]) == {"psnr", "ssim", "codes_used", "effective_codes"}
  assert result["floor"]["psnr"] > result["chance"]["psnr"] > 5  # block means, and the mean image
  assert 1 / 9 <= result["metrics"]["codes_used"] <= 1 <= result["metrics"]["effective_codes"] <= 9
  (section,) = ReconstructedImages().sections(codes, shared())
  assert isinstance(section, Section) and section.html.count("<img") == 20


def test_drawings_are_measured_and_shown(run):
  first, second = evaluate(run)
  assert (first["dataset"], second["dataset"]) == ("scenes_drawn", "scenes_drawn_guidance_1")
  assert set(first["metrics"]) == {"all", "shape", "colour", "place", "milliseconds_per_image"}
  (section,) = DrawnScenes().sections(run, shared())
  assert section.html.count("<img") == 8 * 6 and TEXT.split()[2] in section.html


def shared():
  from mmjax.evaluate.evaluator import Shared

  return Shared()


def test_drawings_follow_the_seed_and_the_text_alone(run):
  images = run.generate([TEXT, "blue square in the third row"], count=2, guidance=2.0)
  assert images.shape == (2, 2, 20, 20, 3) and images.dtype == np.uint8
  np.testing.assert_array_equal(run.generate([TEXT], count=4, guidance=2.0)[0, :2], images[0])
  other = run.generate([TEXT, "blue square in the third row"], count=2, guidance=2.0, seed=1)
  assert (other != images).any()
  assert run.generate([]).shape == (0, 1, 20, 20, 3)


def test_drawings_do_not_depend_on_the_number_of_devices(folders, run):
  many = load_run(folders[2])
  assert many.mesh.size == 8 and run.mesh.size == 1
  one, eight = (each.generate([TEXT], count=4, guidance=2.0) for each in (run, many))
  np.testing.assert_allclose(eight.astype(int), one.astype(int), atol=1)  # rounding of the last bit of a colour


def test_only_a_region_of_an_image_is_drawn(run):
  pixels = np.random.default_rng(0).integers(0, 255, (20, 20, 3), np.uint8)
  region = (5, 0, 20, 20)  # in the second of five rows of codes
  known, inside = kept_codes(run, pixels, region)
  codes = np.asarray(run.model.apply({"params": run.params}, run.preprocess(pixels)[None], method="image_codes"))[0]
  np.testing.assert_array_equal(known, [*codes[:5], *[-1] * 20])
  one, two = (run.generate([TEXT], count=4, image=pixels, region=region, guidance=2.0)[0, number] for number in (0, 1))
  np.testing.assert_array_equal(one[~inside], pixels[~inside])
  assert (one[inside] != pixels[inside]).mean() > 0.9 and (one[inside] != two[inside]).any()
  with pytest.raises(ValueError, match=r"region=\(0, 0, 21, 3\) must be"):
    run.generate([TEXT], image=pixels, region=(0, 0, 21, 3))
  with pytest.raises(ValueError, match="give both"):
    run.generate([TEXT], image=pixels)


@pytest.mark.parametrize(
  ("change", "said"),
  [
    (dict(image_from=""), "it is empty"),
    (dict(image_from="/no/such/run"), "'/no/such/run' is no workdir"),
    (dict(image=ImageCodesConfig(ConvGridConfig(image_size=20, width=8), Fsq((3, 4)))), "make them equal"),
  ],
)
def test_a_tokenizer_that_does_not_fit_is_refused(change, said, folders, tmp_path):
  experiment = placed(DRAWING, tmp_path, folders[0], **{"image_from": str(folders[1]), **change})
  with pytest.raises(ConfigError, match=said):
    with_image_tokenizer(experiment, None, None)


def test_other_colours_are_refused(folders, tmp_path):
  experiment = placed(DRAWING, tmp_path, folders[0], image_from=str(folders[1]))
  experiment = dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, mean=(0.4, 0.5, 0.5)))
  with pytest.raises(ConfigError, match="codes would be of other colours"):
    with_image_tokenizer(experiment, None, None)


def test_the_objective_of_the_other_decoding_is_refused(folders, tmp_path):
  experiment = placed(DRAWING, tmp_path, folders[0], image_from=str(folders[1]))
  with pytest.raises(ConfigError, match="trains decoding 'masked', and the model has 'autoregressive'"):
    train(dataclasses.replace(experiment, objectives=(DrawMaskedCodes(),)))


def called(*arguments):
  with pytest.raises(SystemExit) as stop:
    main([str(argument) for argument in arguments])
  return stop.value.code


def test_the_command_writes_a_grid(folders, run, tmp_path, capsys):
  out = tmp_path / "grid.png"
  assert called(folders[2], TEXT, "--count", 3, "--guidance", 2, "--out", out) == 0
  pixels = np.asarray(Image.open(out))
  assert pixels.shape == (2 * 84, 2 * 84, 3) and "3 images in" in capsys.readouterr().out
  first = pixels[:80:4, :80:4].astype(int)
  np.testing.assert_allclose(first, run.generate([TEXT], count=4, guidance=2.0)[0, 0].astype(int), atol=1)
  assert (pixels[84:, 84:] == 255).all()  # there is no fourth image


@pytest.mark.parametrize(
  ("arguments", "said"),
  [
    (["--count", "0"], "--count must be at least 1"),
    (["--countt", "2"], "--count"),
    (["--out", "grid.txt"], "must end with .png"),
    (["--top-p", "0"], "top_p=0.0 must lie in"),
    (["--count", "3", "--guidance", "2", "--out", "/no/such/folder/grid.png"], "cannot be written"),
  ],
)
def test_mistakes_are_answered_in_a_sentence(arguments, said, folders, capsys):
  assert called(folders[2], TEXT, *arguments) == 2
  assert said in " ".join(capsys.readouterr().err.split())


def test_a_text_that_is_too_long_is_refused(run):
  with pytest.raises(UserError, match="more than the 12 tokens that the model reads"):
    run.generate([TEXT, " ".join([TEXT] * 3)])
  with pytest.raises(TypeError, match="list of strings"):
    run.generate(TEXT)


def test_a_run_that_does_not_draw_is_refused(folders, capsys):
  assert called(folders[1], TEXT) == 2
  assert "does not draw images" in " ".join(capsys.readouterr().err.split())
