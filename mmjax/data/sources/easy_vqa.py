"""easy-VQA as records: one per question."""

import dataclasses
from typing import Any

from mmjax.data.building import built, examples, strings
from mmjax.data.errors import unknown
from mmjax.data.fingerprint import of_records
from mmjax.data.records import Record
from mmjax.data.sources.base import QUESTION, Reading, Source

_SPLITS = {"train": ("train",), "test": ("test",), "validation": ("test",), "all": ("train", "test")}


@dataclasses.dataclass(frozen=True)
class EasyVqa(Source):
  """Questions about one shape in one of 8 colours, from the PyPI package easy-vqa; 13 answers.

  Splits: "train", "test" (or "validation"), "all".
  """

  @property
  def features(self) -> tuple[str, ...]:
    return QUESTION

  def open(self, split: str, reading: Reading) -> "EasyVqaRecords":
    return EasyVqaRecords(split, reading)


class EasyVqaRecords:
  """The questions of a split, in the package's order of images; built at first use (seconds).

  Raises:
    DataError: unknown split, missing package, or a directory that cannot be written.
  """

  features = QUESTION

  def __init__(self, split: str, reading: Reading):
    if split not in _SPLITS:
      raise unknown("easy_vqa split", split, _SPLITS)
    builder = build(reading.dir)
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

  @property
  def fingerprint(self) -> int:
    """Number that changes with the records and their order."""
    return of_records(self.records)

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
