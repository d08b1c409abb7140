"""The first batches of every source, to the bit: records, order, random numbers, tokenizer and transforms in one.

An image's last bits depend on the float32 products of numpy, of OpenCV and of the processor. Where the products are
others, weighted sums of the pixels are compared instead: a
change of one pixel by one of 256 levels moves them by about 0.008, and their tolerance is 0.0001.
"""

import functools
import itertools
from typing import Any

import cv2
import numpy as np
import pytest

from mmjax.catalogue import KINDS
from mmjax.data import DataConfig, Source, eval_transform, evaluation_batches, make_loader, make_source, make_tokenizer
from mmjax.data.columns.fitting import fit_columns
from mmjax.data.features import run_columns
from mmjax.kinds import of_base, option_name
from tests.golden.sources import CASES, config_of
from tests.golden.values import check, digest, read

ROWS, SIDE = 8, 24


def batches(config: DataConfig) -> dict[str, Any]:
  """What stands for the entries of three training batches and of the first evaluation batch."""
  source, held_out = (make_source(config, split) for split in ("train", "validation"))
  tokenizer = make_tokenizer(config, source)
  fitted = fit_columns(run_columns(config, source), source)
  loader = make_loader(config, source, tokenizer, image_size=SIDE, batch_size=ROWS, seed=5, fitted=fitted)
  training = list(itertools.islice(loader, 3))
  loader.close()
  evaluation = next(evaluation_batches(held_out, eval_transform(config, SIDE), tokenizer, batch_size=ROWS))
  entries = lambda batch: {name: entry(np.asarray(batch[name])) for name in sorted(batch)}
  return {"training": [entries(batch) for batch in training], "evaluation": entries(evaluation)}


def entry(array: np.ndarray) -> Any:
  """A digest; of float32, with three weighted sums beside it."""
  if array.dtype != np.float32:
    return digest(array)
  weights = np.random.default_rng(0).standard_normal((3, *array.shape))
  return {"bits": digest(array), "sums": (weights * array).sum(axis=tuple(range(1, weights.ndim))).tolist()}


@functools.cache
def products() -> str:
  """A digest of what numpy and OpenCV make of products like those of the images on this machine."""
  rng = np.random.default_rng(0)
  left, right = (rng.random(shape, np.float32) for shape in ((SIDE * SIDE, 4), (4, 3)))
  pixels, matrix = rng.integers(0, 256, (SIDE, SIDE, 4), np.uint8), rng.random((2, 3))
  colors = cv2.transform(pixels.astype(np.float32), rng.random((4, 5)))
  opaque = cv2.transform(pixels[..., :3].astype(np.float32), rng.random((3, 4)).astype(np.float32))
  small = functools.reduce(np.matmul, rng.random((8, 2, 4, 4)))  # matrices of colours and places, float64
  warped = cv2.warpAffine(pixels, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
  shrunk = cv2.resize(pixels, (SIDE // 3, SIDE // 2 - 1), interpolation=cv2.INTER_AREA)
  parts = left @ right, colors, opaque, small, warped, shrunk
  return digest(np.concatenate([np.ravel(part).astype(np.float64) for part in parts]))


@pytest.mark.parametrize("case", CASES)
def test_golden_batches(case, tmp_path, emoji):
  found = batches(config_of(case, tmp_path, emoji)) | {"products": products()}
  same = read("batches").get(case, {}).get("products") == products()
  check("batches", case, found, abs=1e-4, skip=() if same else ("bits", "products"))


def test_golden_batches_are_of_every_source():
  sources = {option_name(kind) for kind in of_base(Source, KINDS)}
  sources -= {"spoken_digits", "instruments", "movie_lens"}  # their records have no images
  sources.remove("documents")  # tests/data/test_interleaved.py compares its rows
  sources.remove("weighted")  # the records of another source, with a number
  assert {case.partition(",")[0] for case in CASES} == sources
  assert CASES.keys() == read("batches").keys()
