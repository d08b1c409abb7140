"""Images drawn from texts: agreement of drawn scenes with their captions, and a section of drawn images."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax import Array
from jaxtyping import Bool, Int, UInt8

from mmjax.data.places import spread
from mmjax.data.records import PRIMARY
from mmjax.data.scenes_reading import agreement, read_scene
from mmjax.data.sources.scenes import Scenes
from mmjax.errors import UserError
from mmjax.evaluate.checked import checked_examples
from mmjax.evaluate.evaluator import Evaluator, Shared
from mmjax.evaluate.examples import shown_examples, shown_name
from mmjax.evaluate.forward import over_rows, text_tokenizer
from mmjax.evaluate.results import Result, Table
from mmjax.evaluate.task import make_result
from mmjax.evaluate.traits import terms
from mmjax.models.drawing import DrawConfig, draw
from mmjax.models.protocols import Draws

if TYPE_CHECKING:
  from mmjax.experiment import Experiment
  from mmjax.report.page import Section
  from mmjax.run import Run

Region = tuple[int, int, int, int]

DRAWN = Table("drawn", "Images drawn from texts")
_PROMPTS, _EACH = 8, 6
_SCORES = ("all", "shape", "colour", "place")


@dataclasses.dataclass(frozen=True)
class DrawnScenes(Evaluator):
  """Share of the shapes of a caption that images drawn from it show right, read from the pixels (layout "grid").

  Chance is the agreement of the same images with captions of other scenes.
  """

  guidance: float = 3.0
  """Scale of classifier-free guidance."""
  other_guidance: tuple[float, ...] = ()
  """Further scales that are measured."""
  temperature: float = 1.0
  """Temperature of the codes."""
  steps: int = 10
  """Number of steps of masked decoding."""
  captions: int = 200
  """Number of captions of the validation split, evenly spread over it."""
  seed: int = 0
  """Seed of the samples."""

  def applies(self, experiment: Experiment) -> bool:
    source = experiment.data.source
    scenes = isinstance(source, Scenes) and (source.text, source.layout) == ("caption", "grid")
    return scenes and bool(terms(experiment, Draws))

  def metrics(self, experiment: Experiment) -> Sequence[str]:
    return [f"{shown_name(experiment.data)}_drawn/{name}" for name in _SCORES]

  def check(self, run: Run, shared: Shared) -> None:
    checked_examples(run, shared)

  def run(self, run: Run, shared: Shared) -> list[Result]:
    examples = shown_examples(run, shared)
    captions = [examples.records[place]["captions"][PRIMARY][0] for place in spread(len(examples), self.captions)]
    name = f"{examples.name}_drawn"
    names = {self.guidance: name} | {scale: f"{name}_guidance_{scale:g}" for scale in self.other_guidance}
    results = []
    for guidance, dataset in names.items():
      config = DrawConfig(guidance=guidance, temperature=self.temperature, steps=self.steps)
      images, milliseconds = timed(run, captions, config, self.seed)
      found = scene_scores(captions, images) | {"milliseconds_per_image": milliseconds}
      chance = scene_scores([*captions[1:], captions[0]], images)
      title = f"{examples.title}: drawn from captions, guidance {guidance:g}"
      results.append(make_result(run, dataset, "text_to_image", title, captions, (found, chance), table=DRAWN))
    return results

  def sections(self, run: Run, shared: Shared) -> list[Section]:
    from mmjax.report.overlay import tile
    from mmjax.report.page import Section

    examples = shown_examples(run, shared)
    captions = [examples.records[place]["captions"][PRIMARY][0] for place in spread(len(examples), _PROMPTS)]
    config = DrawConfig(guidance=self.guidance, temperature=self.temperature, steps=self.steps)
    texts, numbers = [each for each in captions for _ in range(_EACH)], np.tile(np.arange(_EACH), len(captions))
    images = np.concatenate(list(drawn(run, texts, numbers, config, seed=self.seed)))
    lines = [
      f'<div class="query"><div class="what">{escape(caption)}</div><div class="tiles large">'
      + "".join(f'<img class="large" src="{tile(each)}" alt="{escape(caption, quote=True)}">' for each in row)
      + "</div></div>"
      for caption, row in zip(captions, images.reshape(-1, _EACH, *images.shape[1:]), strict=True)
    ]
    note = f"Captions spread evenly over the split. Columns: seeds 0 to {_EACH - 1}. Guidance {self.guidance:g}."
    return [Section("drawn", "Images drawn from texts", f'<p class="note">{note}</p>{"".join(lines)}')]


def timed(
  run: Run, captions: Sequence[str], config: DrawConfig, seed: int
) -> tuple[UInt8[np.ndarray, "n height width 3"], float]:
  """Draw an image for each caption, and one more batch to measure the time without compilation.

  Args:
    run: a run of a text-to-image model.
    captions: the captions.
    config: how codes are sampled.
    seed: seed of the samples.
  Returns: (images, milliseconds per image).
  """
  numbers = np.arange(len(captions))
  images = np.concatenate(list(drawn(run, captions, numbers, config, seed=seed)))
  size = run.batch_size(len(captions))
  some = [captions[place % len(captions)] for place in range(size)]
  start = time.perf_counter()
  for _ in drawn(run, some, np.arange(size), config, seed=seed):
    pass
  return images, 1000 * (time.perf_counter() - start) / size


def scene_scores(captions: Sequence[str], images: UInt8[np.ndarray, "n size size 3"]) -> dict[str, float]:
  """Mean agreement of images with captions of scenes over all shapes that are said, by `agreement`."""
  each = [agreement(caption, read_scene(image)) for caption, image in zip(captions, images, strict=True)]
  return {name: float(np.concatenate([one[name] for one in each]).mean()) for name in _SCORES}


def drawn(
  run: Run,
  texts: Sequence[str],
  numbers: Int[np.ndarray, " n"],
  config: DrawConfig,
  *,
  seed: int = 0,
  known: Int[np.ndarray, " positions"] | None = None,
) -> Iterator[UInt8[np.ndarray, "batch height width 3"]]:
  """Draw an image for each text, batch by batch.

  Args:
    run: a run of a text-to-image model.
    texts: the texts.
    numbers: one per text. An image depends on its text, its number, the seed and the settings alone.
    config: how codes are sampled.
    seed: seed of the samples.
    known: codes that all images keep, -1 for those to draw. None: all are drawn.
  Raises:
    UserError: the model does not draw, or a text is longer than the model reads.
  """
  from mmjax.report.overlay import seen_pixels

  if not callable(getattr(run.model, "draw_logits", None)):
    raise UserError(f"the run in {run.workdir} does not draw images: train one with --objectives draw_codes")
  tokenizer = text_tokenizer(run)
  if tokenizer.share_cut(list(texts)):
    long = next(text for text in texts if tokenizer.share_cut([text]))
    raise UserError(f"the text {long!r} has more than the {tokenizer.config.max_length} tokens that the model reads")
  ids = tokenizer(list(texts))
  model: Any = run.experiment.model
  kept = np.full(model.image.positions, -1) if known is None else known
  rows = {"text": ids, "number": numbers.astype(np.int32), "known": np.tile(kept.astype(np.int32), (len(ids), 1))}
  take = lambda places: {name: each[places] for name, each in rows.items()}
  data = run.experiment.data
  for images in over_rows(run, DrawImages(config, seed), len(ids), take):
    yield np.stack([seen_pixels(image, data.mean, data.std) for image in images])


def kept_codes(run: Run, image: Any, region: Region) -> tuple[Int[np.ndarray, " positions"], Bool[np.ndarray, "h w"]]:
  """The codes of an image outside a region, for `drawn`, and the pixels of the region.

  Args:
    run: a run of a text-to-image model.
    image: an input of Run.preprocess.
    region: (top, left, bottom, right) in pixels of the preprocessed image. Codes that touch it are drawn again.
  Returns: (codes, -1 for those to draw; True inside the region).
  Raises:
    ValueError: the region is empty or not inside the image.
  """
  model: Any = run.experiment.model
  side, cell = model.image.image_size, model.image.image_size // model.image.image.grid
  top, left, bottom, right = region
  if not (0 <= top < bottom <= side and 0 <= left < right <= side):
    raise ValueError(f"region={region} must be (top, left, bottom, right) inside an image of {side}x{side} pixels")
  inside = np.zeros((side, side), bool)
  inside[top:bottom, left:right] = True
  take = lambda places: {"image": np.stack([run.preprocess(image) for _ in places])}
  (codes,) = over_rows(run, _codes, 1, take)
  drawn_again = inside.reshape(-1, cell, side // cell, cell).any(axis=(1, 3)).ravel()
  return np.where(drawn_again, -1, codes[0]), inside


def _codes(model: Any, batch: Any) -> Array:
  return model.image_codes(batch["image"])


@dataclasses.dataclass(frozen=True)
class DrawImages:
  """(model, batch with "text", "number" and "known") -> normalised images. Equal instances share a compilation."""

  config: DrawConfig
  seed: int

  def __call__(self, model: Any, batch: Any) -> Array:
    module, variables = model.unbind()
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(self.seed), batch["number"])
    codes = draw(module, variables["params"], batch["text"], keys, batch["known"], config=self.config)
    return model.pixels(codes)
