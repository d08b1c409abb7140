"""easy-VQA (Zhou 2020, PyPI easy-vqa) as a TFDS data set: ArrayRecord files, no TensorFlow."""

import importlib.util
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from mmjax.data.errors import DataError

PICTURES = {"train": 4_000, "test": 1_000}


def package_data() -> Path:
  """Find the data folder of the installed package.

  Raises:
    DataError: it is not installed; the message says how to get it.
  """
  spec = importlib.util.find_spec("easy_vqa")  # not imported: all it has is two lines that read these files
  if spec is None or not spec.submodule_search_locations:
    raise DataError("--data.source easy_vqa needs the package 'easy-vqa', which is missing: pip install 'mmjax[vqa]'")
  return Path(spec.submodule_search_locations[0]) / "data"


class EasyVqaBuilder(tfds.core.GeneratorBasedBuilder):
  """One shape in one of 8 colours on a 64x64 picture, with about ten questions; 13 answers.

  Splits: the package's own "train" (38,575 questions) and "test" (9,673).
  """

  name = "easy_vqa"
  VERSION = tfds.core.Version("1.0.0")

  advance: Callable[[], None] = staticmethod(lambda: None)
  """Called after each picture; the command line moves its progress bar with it."""

  def _info(self) -> tfds.core.DatasetInfo:
    features = {
      "image": tfds.features.Image(shape=(64, 64, 3), encoding_format="png"),
      "number": tfds.features.Scalar(np.int32, doc="the picture's number in the package"),
      "questions": tfds.features.Sequence(tfds.features.Text()),
      "answers": tfds.features.Sequence(tfds.features.Text()),
    }
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

  def _split_generators(self, dl_manager):
    del dl_manager  # everything is in the installed package
    return {split: self._generate_examples(split) for split in PICTURES}

  def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
    folder = package_data() / split
    asked: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for question, answer, number in json.loads((folder / "questions.json").read_text(encoding="utf-8")):
      asked[number].append((question, answer))
    for number, pairs in sorted(asked.items()):
      questions, answers = zip(*pairs)
      image = str(folder / "images" / f"{number}.png")
      yield number, {"image": image, "number": number, "questions": list(questions), "answers": list(answers)}
      self.advance()
