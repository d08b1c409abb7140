"""The scenes as records: images with captions, or with questions, answers and relevance masks."""

import dataclasses
from typing import Any, Literal

from mmjax.data.building import built, examples, strings
from mmjax.data.errors import unknown
from mmjax.data.fingerprint import of_records
from mmjax.data.records import Record, concept_number
from mmjax.data.sources.base import BUILT_SPLITS, GROUNDED_QUESTION, IMAGE_TEXT, Reading, Source

MOST_DISTRACTORS = 4


@dataclasses.dataclass(frozen=True)
class Scenes(Source):
  """Generated images of coloured shapes, with questions or captions, see mmjax.data.scenes.

  Splits: "train", "heldout" (or "validation": scenes that are not in "train"), "all".
  """

  text: Literal["question", "caption"] = "question"
  """Text of an image: a question (with its answer and the pixels that it is about), or the caption."""
  size: int = 32
  """Height and width of the images: a multiple of 4, at least 16 (free: 32)."""
  examples: int = 12_000
  """Number of scenes to train on. A sixth as many, all different from these, are held out."""
  questions: tuple[Literal["colour", "row", "column", "shape", "count"], ...] = ("colour", "row")
  """Kinds of question, asked in turn. Rows and columns are true of whole images only: no crop, no rotation."""
  caption_shapes: Literal[1, 2, 3] = 3
  """Number of the three shapes that a caption names."""
  seed: int = 0
  """Seed of the scenes."""
  layout: Literal["grid", "free"] = "grid"
  """grid: shapes of one size in 4 x 4 cells, which do not touch. free: anywhere, in three sizes, over each other; at
  least half of each is visible."""
  distractors: int = 0
  """free: number of further shapes, of two kinds that no question and no caption names. "How many" counts them."""

  def __post_init__(self):
    least = 16 if self.layout == "grid" else 32
    if self.size % 4 or self.size < least:
      raise ValueError(f"data.source.size is {self.size}: it must be a multiple of 4 and at least {least}")
    if not 0 <= self.distractors <= MOST_DISTRACTORS or (self.distractors and self.layout == "grid"):
      raise ValueError(
        f"data.source.distractors is {self.distractors}: it must be 0 with layout grid, and 0 to {MOST_DISTRACTORS} "
        "with layout free"
      )
    if self.examples < 1:
      raise ValueError(f"data.source.examples is {self.examples}: it must be at least 1")
    if not self.questions or len(set(self.questions)) < len(self.questions):
      raise ValueError(f"data.source.questions is {self.questions}: name at least one kind, each once")

  @property
  def features(self) -> tuple[str, ...]:
    return GROUNDED_QUESTION if self.text == "question" else IMAGE_TEXT

  def open(self, split: str, reading: Reading) -> "ScenesRecords":
    return ScenesRecords(self, split, reading)


class ScenesRecords:
  """The scenes of a split in the generator's order, built at first use (seconds).

  Raises:
    DataError: unknown split, or a directory that cannot be written.
  """

  def __init__(self, config: Scenes, split: str, reading: Reading):
    if split not in BUILT_SPLITS:
      raise unknown("scenes split", split, BUILT_SPLITS)
    self.features = config.features
    builder = build(reading.dir, config)
    self.records: list[Record] = []
    for name in BUILT_SPLITS[split]:
      found = [(features["number"].int64_list.value[0], _record(features)) for features in examples(builder, name)]
      for number, record in sorted(found, key=lambda pair: pair[0]):
        record["id"] = f"scenes/{name}/{number}"
        if config.text == "caption":  # which leaves out the columns: scenes may mean the same in words
          record["concept"] = concept_number(repr(sorted(record["captions"]["name"][0].split(", "))))
        self.records.append(record)

  def __len__(self) -> int:
    return len(self.records)

  @property
  def fingerprint(self) -> int:
    """Number that changes with the records and their order."""
    return of_records(self.records)

  def __getitem__(self, index: int) -> Record:
    return self.records[index]


def build(directory: str, config: Scenes) -> Any:
  """The TFDS builder of the scenes a configuration describes, its data built if need be."""
  from mmjax.data.scenes_builder import ScenesBuilder, ScenesBuilderConfig

  names = ("size", "examples", "questions", "caption_shapes", "seed", "layout", "distractors")
  fields = {name: getattr(config, name) for name in names}
  said = f"captions{config.caption_shapes}"
  name = f"{config.size}px_{config.examples}_{'_'.join(config.questions)}_{said}_seed{config.seed}"
  name += f"_free{config.distractors}" if config.layout == "free" else ""
  settings = ScenesBuilderConfig(name, **fields)
  return built(
    lambda place: ScenesBuilder(data_dir=place, config=settings),
    directory,
    name="scenes",
    task=f"Drawing scenes: {config.size} px",
    total=lambda: settings.examples + settings.held_out,
  )


def _record(features: Any) -> Record:
  (caption,), (question,), (answer,) = (strings(features, name) for name in ("caption", "question", "answer"))
  return Record(
    image=features["image"].bytes_list.value[0],
    captions={"name": [caption]},
    question=question,
    answer=answer,
    answers=[answer],
    relevance=features["relevance"].bytes_list.value[0],
    concept=features["concept"].int64_list.value[0],
  )
