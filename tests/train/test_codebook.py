"""Codes of patches: what does not fit is refused by name; the command that fits a codebook."""

import contextlib
import dataclasses
import types

import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.cli import main
from mmjax.data import Caption, DataConfig, DataError, PatchCodes, make_loader, make_source
from mmjax.data.batching import Batcher
from mmjax.data.columns.base import Making
from mmjax.data.columns.image import Image
from mmjax.encoders.bert import bert_config
from mmjax.encoders.vit import ViTConfig
from mmjax.errors import ConfigError
from mmjax.models.flava import FlavaConfig
from mmjax.objectives import Forward, MaskedBoth, MaskedPatches, masked_code_loss, patchify
from mmjax.train.codebook import _patches, write_codebook
from mmjax.train.setup import check_model
from mmjax.types import Encoded
from tests.objectives.per_example import keys, normal
from tests.tiny import EXPERIMENT

SIZE = dict(width=16, depth=1, num_heads=2)
MODEL = FlavaConfig(
  image=ViTConfig(**SIZE, image_size=16, patch_size=8, pool="cls"),
  text=bert_config(**SIZE, vocab_size=384, max_length=8, tanh_pool=False),
  fusion_depth=1,
  embed_dim=8,
  num_codes=5,
)
PIXELS = 3 * 8 * 8


def run(term, columns=None, **model):
  data = dataclasses.replace(EXPERIMENT.data, columns=columns or {})
  return dataclasses.replace(EXPERIMENT, data=data, model=dataclasses.replace(MODEL, **model), objectives=(term,))


def codebook(tmp_path, array, name="codes.npy"):
  np.save(tmp_path / name, array, allow_pickle=array.dtype == object)
  return str(tmp_path / name)


@pytest.mark.parametrize("term", [MaskedPatches, MaskedBoth])
@pytest.mark.parametrize(
  ("array", "said"),
  [
    (np.zeros((6, PIXELS)), r"codes.npy has 6 codes of 192 values, and the model predicts 5 codes of patches with 192"),
    (np.zeros((4, PIXELS)), r"codes.npy has 4 codes of 192 values, and the model predicts 5 codes"),
    (
      np.zeros((5, 48)),
      r"codes.npy has 5 codes of 48 values, and .* predicts 5 codes of patches with 192 values",
    ),
    (np.zeros((5, 8, 8, 3)), r"codes.npy must be one array of finite numbers \[codes, pixels\]"),
    (np.full((5, PIXELS), np.nan), r"codes.npy must be one array of finite numbers"),
    (np.full((5, PIXELS), "a"), r"codes.npy must be one array of finite numbers"),
    (np.full((5, PIXELS), None), r"cannot read the codebook .*codes.npy: Object arrays cannot be loaded"),
  ],
)
def test_a_codebook_that_does_not_fit_is_refused_before_the_first_step(tmp_path, term, array, said):
  with pytest.raises(ConfigError, match=said):
    check_model(run(term(codebook=codebook(tmp_path, array))))


def test_a_codebook_that_fits_is_taken_and_a_missing_one_is_named(tmp_path):
  check_model(run(MaskedPatches(codebook=codebook(tmp_path, np.zeros((5, PIXELS), np.float32)))))
  with pytest.raises(ConfigError, match=r"cannot read the codebook .*none.npy: .* fit one with the command `codebook`"):
    check_model(run(MaskedPatches(codebook=str(tmp_path / "none.npy"))))
  np.savez(tmp_path / "many.npz", a=np.zeros((5, PIXELS)))
  with pytest.raises(ConfigError, match=r"many.npz must be one array"):
    check_model(run(MaskedPatches(codebook=str(tmp_path / "many.npz"))))


@pytest.mark.parametrize(
  ("term", "num_codes", "said"),
  [
    (MaskedPatches(), 5, "masked_patches predicts pixels, and the model has num_codes 5"),
    (MaskedPatches(codebook="x.npy"), 0, "masked_patches predicts codes, and the model has num_codes 0"),
    (MaskedBoth(codes="codes"), 0, "masked_both predicts codes, and the model has num_codes 0"),
  ],
)
def test_codes_without_a_head_for_them_and_the_reverse_are_refused(term, num_codes, said):
  with pytest.raises(ConfigError, match=said):
    check_model(run(term, num_codes=num_codes))


def test_codes_come_from_one_place():
  with pytest.raises(ValueError, match="has targets from a codebook and from codes='codes': set one of them"):
    MaskedPatches(codebook="x.npy", codes="codes")


@pytest.mark.parametrize(("patches", "num_codes"), [(9, 5), (4, 6)])
def test_a_column_of_codes_that_the_model_does_not_predict_is_refused(patches, num_codes):
  columns = {"image": Image(), "codes": PatchCodes(patches=patches, num_codes=num_codes)}
  with pytest.raises(ConfigError, match=f"'codes' has {patches} codes of {num_codes} per image, .* predicts 4 of 5"):
    check_model(run(MaskedPatches(codes="codes"), columns))
  check_model(run(MaskedPatches(codes="codes"), {"image": Image(), "codes": PatchCodes(patches=4, num_codes=5)}))


def still(**augmentation):
  """Settings of data whose augmentation moves no pixel."""
  fields = dict(crop_scale=(1, 1), rotation=0) | augmentation
  return dataclasses.replace(DataConfig().augmentation, **fields)


def codes_of(codes, **augmentation):
  config = DataConfig(columns={"codes": PatchCodes(patches=4, num_codes=5)}, augmentation=still(**augmentation))
  records = [{"id": "a/1", "concept": 0, "codes": codes}]
  prepared = Batcher(config, records, None, 16, seed=0)(np.zeros(1, int), np.zeros(1, int))
  if prepared.error:
    raise DataError(prepared.error)
  return prepared.batch["codes"]


def test_the_augmentation_of_the_image_that_has_the_codes_is_the_one_that_counts():
  """A second, augmented view beside it moves no pixel of the first one."""
  codes, moving, shapes = PatchCodes(patches=4, num_codes=5), DataConfig().augmentation, Making(DataConfig(), 16)
  columns = {"image": Image(augmentation=still()), "view": Image(augmentation=moving), "codes": codes}
  codes.maker("codes", dataclasses.replace(shapes, data=DataConfig(columns=columns)))
  columns["image"] = Image(augmentation=moving)
  settings = DataConfig(columns=columns, augmentation=still())
  with pytest.raises(DataError, match="and data.columns.image.augmentation.crop_scale moves their pixels"):
    codes.maker("codes", dataclasses.replace(shapes, data=settings))


def test_codes_of_any_tokenizer_are_taken_as_they_are():
  got = codes_of([4, 0, 3, 3])
  assert got.dtype == np.int32 and got.tolist() == [[4, 0, 3, 3]]


@pytest.mark.parametrize(
  ("codes", "said"),
  [
    ([4, 0, 3], r"a/1: the field 'codes' must be a list of 4 integers, one per patch, not int64 \[3\]"),
    ([[4, 0], [3, 3]], r"a/1: the field 'codes' must be a list of 4 integers"),
    ([4.0, 0.0, 3.0, 3.0], r"a/1: .* not float64 \[4\]"),
    ([4, 0, 5, 3], r"a/1: the field 'codes' has codes from 0 to 5, and num_codes is 5: codes are 0 to 4"),
    ([4, 0, -1, 3], r"a/1: the field 'codes' has codes from -1 to 4"),
  ],
)
def test_codes_that_are_none_are_refused_with_their_record(codes, said):
  with pytest.raises(DataError, match=said):
    codes_of(codes)


@pytest.mark.parametrize("moved", [dict(flip=0.5), dict(rotation=5.0), dict(crop_scale=(0.5, 1.0)), dict(shear=1.0)])
def test_codes_of_whole_images_beside_images_that_are_moved_are_refused(moved):
  with pytest.raises(DataError, match=f"data.augmentation.{next(iter(moved))} moves their pixels"):
    codes_of([0, 0, 0, 0], **moved)


class Model:
  config = types.SimpleNamespace(image=types.SimpleNamespace(patch_size=2, grid=2))

  def encode_patches(self, images, hidden, *, rng):
    return Encoded(normal(3, 4, 5), jnp.ones((3, 4), bool), jnp.zeros((3, 5)))

  def patch_logits(self, tokens, *, fused):
    return tokens


def forward(codes):
  batch = {"image": normal(3, 4, 4, 3), "codes": jnp.asarray(codes, jnp.int32)}
  return Forward(Model(), batch, keys(3), jnp.int32(0), (), training=False)


def test_the_loss_is_that_of_the_tokenizers_codes():
  codes = np.random.default_rng(0).integers(0, 5, (3, 4))
  given = forward(codes)
  term = MaskedPatches(codes="codes", rate=0.5, blocks=False)
  found = term.over_rows(given, None)["loss"]
  hidden = np.asarray(given.once(("hidden patches", 0.5, False), None)[1])
  assert hidden.sum(1).tolist() == [2, 2, 2] and term.needs == ("image", "codes")
  want = masked_code_loss(normal(3, 4, 5), jnp.asarray(codes), jnp.asarray(hidden))
  np.testing.assert_array_equal(found.losses, want.losses)
  with pytest.raises(ConfigError, match=r"the array 'codes' has \(9,\) codes per image, and the model 4 patches"):
    term.over_rows(forward(np.zeros((3, 9))), None)


def test_the_command_fits_a_codebook_to_the_training_images(tmp_path, monkeypatch):
  monkeypatch.setattr("mmjax.cli.started", contextlib.nullcontext)
  path = tmp_path / "made" / "codes.npy"
  columns = {"image": Image(), "text": Caption()}
  experiment = run(MaskedPatches(codebook=str(path)), columns)
  with pytest.raises(SystemExit) as end:
    main(experiment, arguments=["codebook", "--data.dir", experiment.data.dir])
  assert end.value.code == 0
  check_model(experiment)  # it fits
  made = np.load(path)
  assert made.shape == (5, PIXELS) and made.dtype == np.float32 and len(np.unique(made, axis=0)) == 5
  write_codebook(experiment)
  np.testing.assert_array_equal(np.load(path), made)
  assert write_codebook(dataclasses.replace(experiment, run=dataclasses.replace(experiment.run, seed=1))) == path
  assert not np.array_equal(np.load(path), made), "another seed begins with other patches"


def test_what_is_fitted_are_patches_of_training_images():
  experiment = run(MaskedPatches(codebook="x.npy"), {"image": Image()})
  data, source = experiment.data, make_source(experiment.data, "train")
  loader = make_loader(data, source, None, image_size=16, batch_size=16, seed=experiment.run.seed)
  shown = np.concatenate([next(loader)["image"] for _ in range(3)])
  loader.close()
  known = {row.tobytes() for row in np.asarray(patchify(jnp.asarray(shown), 8)).reshape(-1, PIXELS)}
  fitted = _patches(experiment, 100)
  assert fitted.shape == (100, PIXELS) and all(row.tobytes() in known for row in fitted)
  assert len({row.tobytes() for row in fitted}) > 50


def test_the_command_says_what_it_needs():
  with pytest.raises(ConfigError, match="no objective has a codebook: set --objectives.N.codebook"):
    write_codebook(run(MaskedPatches()))
  with pytest.raises(ConfigError, match="the model predicts no codes: set --model.num-codes"):
    write_codebook(run(MaskedPatches(codebook="x.npy"), num_codes=0))
