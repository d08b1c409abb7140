"""Draws images from a text with a trained run: `python -m mmjax.generate RUN "a red circle above a blue square"`."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import tyro
from rich.console import Console
from rich.progress import track

from mmjax.cli import run_module
from mmjax.errors import UserError

_SCALE = 4  # pixels of the file for one pixel of an image that is smaller than 128 pixels


@dataclasses.dataclass(frozen=True)
class GenerateOptions:
  """Draw images from a text with a trained run, and save them in one file."""

  run: tyro.conf.Positional[str]
  """Workdir of a text-to-image run."""
  text: tyro.conf.Positional[str]
  """Text to draw."""
  count: int = 9
  """Number of images."""
  guidance: float = 3.0
  """Scale of classifier-free guidance: how closely an image follows the text. 1: no guidance."""
  temperature: float = 1.0
  """Divisor of the logits of the codes. 0: the likeliest code, so that all images are the same."""
  top_k: int = 0
  """Sample among this many likeliest codes; 0: among all."""
  top_p: float = 1.0
  """Sample among the smallest set of likeliest codes with at least this total probability."""
  steps: int = 10
  """Number of steps of a run with masked decoding."""
  seed: int = 0
  """Seed of the images."""
  out: Path = Path("grid.png")
  """File for the images, side by side (PNG, JPEG or WebP, by its name)."""

  def __post_init__(self) -> None:
    if self.count < 1 or self.seed < 0:
      raise ValueError("--count must be at least 1, and --seed must not be negative")
    if self.out.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
      raise ValueError(f"--out {self.out} must end with .png, .jpg or .webp")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
  """Run the command line, and exit with its status.

  Args:
    arguments: the command line. None: sys.argv[1:].
  """
  run_module(GenerateOptions, generate, "mmjax.generate", arguments)


def generate(options: GenerateOptions) -> None:
  """Draw the images, and write the file."""
  from mmjax.evaluators.drawn import drawn
  from mmjax.loading import load_run
  from mmjax.models.drawing import DrawConfig

  names = ("guidance", "temperature", "top_k", "top_p", "steps")
  try:
    config = DrawConfig(**{name: getattr(options, name) for name in names})
  except ValueError as error:
    raise UserError(str(error)) from error
  run = load_run(options.run)
  size = run.batch_size(options.count)
  parts = drawn(run, [options.text] * options.count, np.arange(options.count), config, seed=options.seed)
  console = Console(stderr=True)
  found = list(track(parts, "drawing", math.ceil(options.count / size), console=console, transient=True))
  write_grid(np.concatenate(found), options.out)
  Console().print(f"{options.count} images in {options.out}", highlight=False)


def write_grid(images: np.ndarray, path: Path) -> None:
  """Write images side by side into one file, on white.

  Args:
    images: uint8 [n, height, width, 3].
    path: the file. Its name chooses the format.
  Raises:
    UserError: the file cannot be written.
  """
  from PIL import Image

  scale = 1 if images.shape[1] >= 32 * _SCALE else _SCALE
  images = images.repeat(scale, axis=1).repeat(scale, axis=2)
  height, width = (side + scale for side in images.shape[1:3])
  columns = math.ceil(math.sqrt(len(images)))
  canvas = np.full((math.ceil(len(images) / columns) * height, columns * width, 3), 255, np.uint8)
  for place, image in enumerate(images):
    top, left = place // columns * height, place % columns * width
    canvas[top : top + len(image), left : left + image.shape[1]] = image
  try:
    Image.fromarray(canvas).save(path)
  except OSError as error:
    raise UserError(f"{path} cannot be written: {error}") from error


if __name__ == "__main__":
  main()
