"""easy-VQA as records: one per question."""

from typing import Any

from mmjax.data.building import built, examples, strings
from mmjax.data.config import DataConfig
from mmjax.data.errors import unknown
from mmjax.data.features import config_features
from mmjax.data.sources import Record

_SPLITS = {"train": ("train",), "test": ("test",), "validation": ("test",), "all": ("train", "test")}


class EasyVqaSource:
  """The questions of a split, in the package's order of pictures; built at first use (seconds).

  Raises:
    DataError: unknown split, missing package, or a directory that cannot be written.
  """

  def __init__(self, config: DataConfig, split: str = "all"):
    if split not in _SPLITS:
      raise unknown("easy_vqa split", split, _SPLITS)
    self.features = config_features(config)
    builder = build(config.dir)
    self.records: list[Record] = []
    for name in _SPLITS[split]:
      found = sorted(examples(builder, name), key=lambda features: features["number"].int64_list.value[0])
      for features in found:
        self._add(name, features)

  def _add(self, split: str, features: Any) -> None:
    number = features["number"].int64_list.value[0]
    picture, image = len(self.records), features["image"].bytes_list.value[0]
    for place, (question, answer) in enumerate(zip(strings(features, "questions"), strings(features, "answers"))):
      self.records.append(
        Record(
          image=image,
          picture=picture,
          id=f"easy_vqa/{split}/{number}/{place}",
          concept=picture,
          question=question,
          answer=answer,
          answers=[answer],
        )
      )

  def __len__(self) -> int:
    return len(self.records)

  def __getitem__(self, index: int) -> Record:
    return self.records[index]


def build(directory: str) -> Any:
  """The TFDS builder of easy-VQA, its data built if need be."""
  from mmjax.data.easy_vqa_builder import PICTURES, EasyVqaBuilder

  return built(
    lambda place: EasyVqaBuilder(data_dir=place),
    directory,
    name="easy_vqa",
    task="Reading easy-VQA",
    total=lambda: sum(PICTURES.values()),
  )
