"""Image tokenizers: how well images come back from their codes, and how many codes are used."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from mmjax.data.places import spread
from mmjax.evaluate.checked import checked_examples
from mmjax.evaluate.evaluator import Evaluator, Shared
from mmjax.evaluate.examples import Examples, batches, shown_examples, shown_name
from mmjax.evaluate.forward import gathered, over_batches
from mmjax.evaluate.image_quality import psnr, ssim
from mmjax.evaluate.results import Result, Table
from mmjax.evaluate.task import make_result
from mmjax.evaluate.traits import entries, terms
from mmjax.models.protocols import Reconstructs

if TYPE_CHECKING:
  from mmjax.experiment import Experiment
  from mmjax.report.page import Section
  from mmjax.run import Run

CODES = Table("codes", "Images from their codes")
_SHOWN = 12


@dataclasses.dataclass(frozen=True)
class ReconstructedImages(Evaluator):
  """PSNR and SSIM of validation images that went through their codes, and use of the codebook.

  Chance is the mean image. The floor is images whose colour is constant in each position of the grid.
  """

  def applies(self, experiment: Experiment) -> bool:
    return "image" in entries(experiment.data) and bool(terms(experiment, Reconstructs))

  def metrics(self, experiment: Experiment) -> Sequence[str]:
    names = ("psnr", "ssim", "codes_used", "effective_codes")
    return [f"{shown_name(experiment.data)}_codes/{name}" for name in names]

  def check(self, run: Run, shared: Shared) -> None:
    checked_examples(run, shared)

  def run(self, run: Run, shared: Shared) -> list[Result]:
    examples = shown_examples(run, shared)
    images, back, codes = _reconstructed(run, examples)
    model: Any = run.experiment.model
    mean = np.broadcast_to(images.mean(0, keepdims=True), images.shape)
    found = _quality(images, back) | code_use(codes, model.num_codes)
    return [
      make_result(
        run,
        f"{examples.name}_codes",
        "reconstruction",
        f"{examples.title}: from {codes.shape[1]} codes of {model.num_codes}",
        examples,
        (found, _quality(images, mean)),
        table=CODES,
        floor=_quality(images, block_means(images, model.image.grid)),
        floor_is="one colour for each position of the grid",
      )
    ]

  def sections(self, run: Run, shared: Shared) -> list[Section]:
    from mmjax.report.page import Section

    examples = shown_examples(run, shared)
    some = [examples.records[place] for place in spread(len(examples), _SHOWN)]
    images, back, _ = _reconstructed(run, dataclasses.replace(examples, records=some))
    lines = [_tiles(pictures) for pictures in (images, back)]
    note = "Above: images spread evenly over the split. Below: the same images from their codes."
    return [Section("reconstructed", "Images from their codes", f'<p class="note">{note}</p>{"".join(lines)}')]


def code_use(codes: np.ndarray, number: int) -> dict[str, float]:
  """Share of the codes that occur, and their effective number, which is the perplexity.

  Args:
    codes: codes of images.
    number: number of codes that there are.
  """
  counts = np.bincount(codes.ravel(), minlength=number)
  shares = counts[counts > 0] / counts.sum()
  return {
    "codes_used": float((counts > 0).mean()),
    "effective_codes": float(np.exp(-(shares * np.log(shares)).sum())),
  }


def block_means(images: Float[np.ndarray, "n side side 3"], grid: int) -> Float[np.ndarray, "n side side 3"]:
  """Replace the colours in each of grid x grid squares by their mean."""
  n, side = images.shape[:2]
  cell = side // grid
  means = images.reshape(n, grid, cell, grid, cell, 3).mean(axis=(2, 4))
  return means.repeat(cell, axis=1).repeat(cell, axis=2)


def colours(run: Run, images: np.ndarray) -> Float[np.ndarray, "n height width 3"]:
  """Colours from 0 to 1 of normalised images of a run."""
  data = run.experiment.data
  return np.clip(images * np.array(data.std, np.float32) + np.array(data.mean, np.float32), 0, 1)


def _quality(images: np.ndarray, others: np.ndarray) -> dict[str, float]:
  return {"psnr": float(psnr(images, others).mean()), "ssim": float(ssim(images, others).mean())}


def _reconstructed(run: Run, examples: Examples) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(colours of the images, of the images from their codes, codes)."""
  found = gathered(part for _, part in over_batches(run, _through_codes, batches(run, examples), ("image",)))
  return colours(run, found[0]), colours(run, found[1]), found[2]


def _through_codes(model: Any, batch: Any) -> Any:
  found = model.reconstruct(batch["image"])
  return batch["image"], found.images, found.codes


def _tiles(pictures: np.ndarray) -> str:
  from mmjax.report.overlay import seen_pixels, tile

  pixels = (seen_pixels(picture, (0.0,) * 3, (1.0,) * 3) for picture in pictures)
  images = "".join(f'<img class="large" src="{tile(each)}" alt="image {n}">' for n, each in enumerate(pixels))
  return f'<div class="query"><div class="tiles large">{images}</div></div>'
