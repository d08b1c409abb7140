"""Wide images at their own shape, and squashed into squares: rows of three handwritten digits, 24 x 8 pixels.

Tschannen et al. 2025 (SigLIP 2, section 2.4.2): NaFlex keeps the shape of an image, which helps most where it matters,
as in documents. Here the caption says the digits from left to right ("three seven one"), and both variants get the
same number of patches of 2 x 2 pixels: 4 x 12 patches at the image's own shape, or 7 x 7 of the squashed image, of
which each digit then has less than five columns of pixels. The digits are those of scikit-learn; those of the 400
validation images, whose captions all differ, are not in training.

    python experiments/naflex_digits.py train

Measured so far on 2026-12-01, seed 0 alone, and only 250 steps of 64 with 25 steps of warm-up, so that both are far
from trained (44 s and 41 s of processor time; chance .0025, standard error about .015):

                             image to text R@1    text to image R@1    R@10 of the two
    own shape                     .085                .108             .493  .508
    squashed                      .080                .080             .458  .480

The own shape is ahead in all four, by no more than two standard errors. This does not show the claim. The study as it
stands here, three seeds of 600 steps of 128, has not been run.
"""

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Picture

from mmjax.data import (
  AugmentationConfig,
  Caption,
  DataConfig,
  Image,
  NativeImage,
  Source,
  TokenizerConfig,
  concept_number,
)
from mmjax.encoders import NaFlexConfig, TextConfig, ViTConfig
from mmjax.experiment import Experiment, RunConfig
from mmjax.models import TwoTowerConfig
from mmjax.objectives import Contrastive
from mmjax.settings import OptimizerConfig
from mmjax.study import Study, Variant, main

WORDS = "zero one two three four five six seven eight nine".split()
HELD_OUT = 500
"""Digits whose images are only in validation."""


@dataclasses.dataclass(frozen=True)
class DigitRows(Source):
  """Rows of three digits of scikit-learn, as images of 24 x 8 pixels. Splits: train, validation."""

  examples: int = 6000
  """Number of training images."""
  validation: int = 400
  """Number of validation images, at most 1000. No two have the same caption."""

  @property
  def columns(self):
    return {"image": Image(), "text": Caption()}

  def open(self, split, reading):
    from sklearn.datasets import load_digits

    digits, rng = load_digits(), np.random.default_rng(split == "validation")
    order = np.random.default_rng(0).permutation(len(digits.target))
    places = order[:HELD_OUT] if split == "validation" else order[HELD_OUT:]
    of = [places[digits.target[places] == n] for n in range(10)]
    numbers = (
      rng.permutation(1000)[: self.validation] if split == "validation" else rng.integers(0, 1000, self.examples)
    )
    return [_record(n, split, number, digits.images, of, rng) for n, number in enumerate(numbers.tolist())]


def _record(index, split, number, images, of, rng):
  """Record of an image of the three digits of a number."""
  row = [number // 100, number // 10 % 10, number % 10]
  pixels = np.concatenate([images[rng.choice(of[digit])] for digit in row], axis=1)
  said, png = " ".join(WORDS[digit] for digit in row), io.BytesIO()
  Picture.fromarray((pixels * 15).astype(np.uint8)).save(png, "PNG")
  names = {"captions": {"name": [said]}, "concept": concept_number(said)}
  return {"id": f"{split}/{index}", "image": png.getvalue(), **names}


SIZE: dict[str, Any] = dict(patch_size=2, width=64, depth=2, num_heads=4)
NATIVE = NaFlexConfig(image_size=14, patches=48, **SIZE)
STILL = AugmentationConfig(crop_scale=(1, 1), rotation=0, brightness=0, contrast=0, saturation=0)
EXPERIMENT = Experiment(
  data=DataConfig(
    source=DigitRows(),
    square="squash",
    columns={"image": NativeImage(patch_size=2, lengths=(48,)), "text": Caption()},
    tokenizer=TokenizerConfig(vocab_size=300, max_length=24),
    augmentation=STILL,
  ),
  model=TwoTowerConfig(image=NATIVE, text=TextConfig(max_length=24, width=64, depth=1, num_heads=4), embed_dim=64),
  objectives=(Contrastive(mask_same_concept=True),),
  optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=50),
  run=RunConfig(
    workdir=Path("runs/naflex_digits"), steps=600, batch_size=128, log_every=100, save_every=1000, tensorboard=False
  ),
)


def squashed(experiment: Experiment) -> Experiment:
  """The control: a ViT on squares, with the same parameters."""
  columns, model = {**experiment.data.columns, "image": Image()}, experiment.model
  assert isinstance(model, TwoTowerConfig)
  fields = {field.name: getattr(model.image, field.name) for field in dataclasses.fields(ViTConfig)}
  model = dataclasses.replace(model, image=ViTConfig(**fields))
  return dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, columns=columns), model=model)


STUDY = Study(
  variants=(Variant("own shape, 4 x 12 patches", lambda e: e), Variant("squashed, 7 x 7 patches", squashed)),
  metrics={
    "image to text, R@1": "digit_rows/text_retrieval_recall@1",
    "text to image, R@1": "digit_rows/image_retrieval_recall@1",
  },
  seeds=3,
  kinds=(DigitRows,),
  reports=False,
)

if __name__ == "__main__":
  main(STUDY, EXPERIMENT, description=__doc__)
