"""The scenes as a TFDS data set: ArrayRecord files, no TensorFlow."""

import dataclasses
import io
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow_datasets as tfds

from mmjax.data import scenes
from mmjax.data.free_scenes import free_layout


@dataclasses.dataclass
class ScenesBuilderConfig(tfds.core.BuilderConfig):
  """Images of `size` pixels, `examples` to train on and a sixth as many held out, asked `questions` in turn."""

  size: int = 32
  examples: int = 12_000
  questions: tuple[str, ...] = ("colour", "row")
  caption_shapes: int = 3
  seed: int = 0
  layout: str = "grid"
  distractors: int = 0

  @property
  def held_out(self) -> int:
    return max(1, self.examples // 6)


class ScenesBuilder(tfds.core.GeneratorBasedBuilder):
  """Coloured shapes with captions, questions, answers and relevance masks (mmjax.data.scenes).

  Splits: "train", and "heldout", which has no scene that "train" has.
  """

  name = "scenes"
  VERSION = tfds.core.Version("1.0.0")  # raise it when scenes, questions or the drawing change

  advance: Callable[[], None] = staticmethod(lambda: None)
  """Called after each image; the command line moves its progress bar with it."""

  def _info(self) -> tfds.core.DatasetInfo:
    size = self.builder_config.size
    features = {
      "image": tfds.features.Image(shape=(size, size, 3), encoding_format="png"),
      "relevance": tfds.features.Image(
        shape=(size, size, 1), encoding_format="png", doc="255 on the pixels the question is about"
      ),
      "caption": tfds.features.Text(),
      "question": tfds.features.Text(),
      "answer": tfds.features.Text(),
      "concept": tfds.features.Scalar(np.int32, doc="same number = same scene"),
      "number": tfds.features.Scalar(np.int32, doc="place in the generator's order"),
    }
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

  def _split_generators(self, dl_manager):
    del dl_manager  # drawn here
    return {"train": self._generate_examples(False), "heldout": self._generate_examples(True)}

  def _generate_examples(self, held_out: bool) -> Iterator[tuple[int, dict]]:
    config = self.builder_config
    for number in range(config.held_out if held_out else config.examples):
      yield number, _example(number, held_out, config)
      self.advance()


def _example(number: int, held_out: bool, config: ScenesBuilderConfig) -> dict:
  layout = free_layout(config.distractors) if config.layout == "free" else scenes.GRID_LAYOUT
  scene, question, caption = scenes.example(
    number,
    seed=config.seed,
    held_out=held_out,
    questions=config.questions,
    caption_shapes=config.caption_shapes,
    layout=layout,
  )
  relevance = layout.mask(scene, question.about, config.size).astype(np.uint8) * 255
  return {
    "image": io.BytesIO(scenes.png(layout.draw(scene, config.size))),
    "relevance": io.BytesIO(scenes.png(relevance)),
    "caption": caption,
    "question": question.text,
    "answer": question.answer,
    "concept": scenes.concept(scene),
    "number": number,
  }
