"""VQAv2 (Goyal et al. 2017) as published: questions about COCO's images, ten annotators' answers to each."""

import dataclasses
import functools
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmjax.data.annotations import Complaints, Images, data_folder, fault, first_of, read_json
from mmjax.data.captions import clean, text_fault
from mmjax.data.errors import DataError, unknown
from mmjax.data.fingerprint import digest, sample
from mmjax.data.records import Record
from mmjax.data.sources.base import QUESTION, Reading, Source

LAYOUT = (
  "v2_OpenEnded_mscoco_train2014_questions.json, v2_mscoco_train2014_annotations.json (and the same of val2014), and "
  "the images in train2014/ and val2014/"
)
_PARTS = {"train": "train2014", "validation": "val2014"}
_QUESTION: Mapping[str, type] = {"question_id": int, "image_id": int, "question": str}
_ANNOTATION: Mapping[str, type] = {"question_id": int, "multiple_choice_answer": str, "answers": list}
log = logging.getLogger(__name__)


class _Question(NamedTuple):
  number: int
  picture: int
  text: str


class _Answers(NamedTuple):
  number: int
  picture: int | None
  main: str
  all: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Vqav2(Source):
  """Questions about COCO images with ten answers each (Goyal et al. 2017), as published.

  Splits: "train", "validation".
  """

  path: str | None = None
  """Directory with the annotation files and the folders of images."""

  @property
  def features(self) -> tuple[str, ...]:
    return QUESTION

  def open(self, split: str, reading: Reading) -> "Vqav2Records":
    return Vqav2Records(self, split, reading)


class Vqav2Records:
  """The questions of "train" or "validation", in the file's order; `answers` are the ten annotators'.

  The two files are read once (train: 44 and 385 MB; 0.8 GB at the peak, 0.25 GB kept); images when asked for.

  Raises:
    DataError: naming file, entry and field: a file or image is missing, an entry is not as published, or a
      question has no annotation.

  Attributes:
    num_skipped: bad entries left out (--data.on-bad-record skip).
  """

  features = QUESTION

  def __init__(self, config: Vqav2, split: str, reading: Reading):
    if split not in _PARTS:
      raise unknown("vqav2 split", split, _PARTS)
    part, folder = _PARTS[split], data_folder("vqav2", config.path, LAYOUT)
    questions = first_of(folder, [f"v2_OpenEnded_mscoco_{part}_questions.json"], LAYOUT)
    annotations = first_of(folder, [f"v2_mscoco_{part}_annotations.json"], LAYOUT)
    self._pictures = Images(first_of(folder, [part, f"images/{part}"], LAYOUT))
    self._name = f"COCO_{part}_{{:012d}}.jpg"
    complaints = Complaints(reading)
    answers = _read_answers(annotations, complaints)
    asked = set[int]()
    items: dict[int, tuple[_Question, _Answers]] = {}
    for place, question in enumerate(read_json(questions, ("questions",), _compact)[0]):
      where = f"{questions}: questions[{place}]"
      if not isinstance(question, _Question):
        complaints.add(fault(question, _QUESTION, where) or f"{where} is not as published.")
        continue
      asked.add(question.number)
      if question.number not in answers:
        complaints.add(f"{where}: question_id {question.number} has no annotation in {annotations}.")
      elif self._name.format(question.picture) not in self._pictures:
        name = self._name.format(question.picture)
        complaints.add(f"{where}: there is no image {name!r} in {self._pictures.folder}.")
      elif (other := answers[question.number].picture) not in (question.picture, None):
        complaints.add(
          f"{where}: it is about the image {question.picture}, its annotation in {annotations} of {other}."
        )
      elif items.setdefault(question.number, (question, answers[question.number]))[0] != question:
        complaints.add(f"{where}: question_id {question.number} is there twice, with other words or another image.")
    self._items, self.num_skipped = list(items.values()), complaints.number
    if not self._items:
      raise DataError(f"{questions} has no question. Fetch it again.")
    if without := answers.keys() - asked:
      text = "%s: %d annotations have no question in %s and are left out, the first is of question_id %d"
      log.warning(text, annotations, len(without), questions, min(without))

  def __len__(self) -> int:
    return len(self._items)

  @property
  def fingerprint(self) -> int:
    """Number that changes with the questions' numbers and their order."""
    return digest(str(question.number) for question, _ in self._items)

  @functools.cached_property
  def sample(self) -> int:
    """Number that changes with the texts of a sample of the questions."""
    return sample(self)

  def without_image(self, index: int) -> Record:
    """The record but for its image."""
    question, answers = self._items[index]
    return Record(
      id=f"vqav2/{question.number}",
      concept=question.picture,
      picture=question.picture,
      question=question.text,
      answer=answers.main,
      answers=list(answers.all),
    )

  def __getitem__(self, index: int) -> Record:
    record = self.without_image(index)
    record["image"] = self._pictures.read(self._name.format(record["picture"]))
    return record


def _read_answers(file: Path, complaints: Complaints) -> dict[int, _Answers]:
  answers: dict[int, _Answers] = {}
  for place, entry in enumerate(read_json(file, ("annotations",), _compact)[0]):
    where = f"{file}: annotations[{place}]"
    if isinstance(entry, _Answers):
      if answers.setdefault(entry.number, entry) != entry:
        complaints.add(f"{where}: question_id {entry.number} is there twice, with other answers.")
      continue
    wrong = "its `answers` must be objects with a text `answer`, and its image_id a whole number"
    complaints.add(fault(entry, _ANNOTATION, where) or f"{where} (question_id {entry['question_id']}): {wrong}.")
  return answers


def _compact(entry: dict) -> Any:
  """Keep the used parts of a valid entry. Others stay, to be reported. Innermost objects come first."""
  answer = entry.get("answer")
  if type(answer) is str and (text := _answer(answer)) is not None:
    return text
  if fault(entry, _QUESTION, "") is None:
    return _Question(entry["question_id"], entry["image_id"], clean(entry["question"]))
  if fault(entry, _ANNOTATION, "") is None and entry["answers"]:
    picture, main = entry.get("image_id"), sys.intern(clean(entry["multiple_choice_answer"]))
    said = [_answer(text) if type(text) is str else None for text in entry["answers"]]
    good = tuple(text for text in said if text is not None)
    if len(good) == len(said) and (picture is None or type(picture) is int):
      return _Answers(entry["question_id"], picture, main, good)
  return entry


@functools.lru_cache(maxsize=10_000)
def _answer(answer: str) -> str | None:
  """Clean an answer. None: it is no text. There are millions of answers, but only thousands of different ones."""
  return sys.intern(clean(answer)) if text_fault(answer) is None else None
