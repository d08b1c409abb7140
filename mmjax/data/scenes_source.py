"""The scenes as records: pictures with captions, or with questions, answers and relevance masks."""

from typing import Any

from mmjax.data.building import built, examples, strings
from mmjax.data.config import DataConfig, ScenesConfig
from mmjax.data.errors import unknown
from mmjax.data.features import config_features
from mmjax.data.sources import Record, concept_number

_SPLITS = {
  "train": ("train",),
  "heldout": ("heldout",),
  "validation": ("heldout",),
  "all": ("train", "heldout"),
}


class ScenesSource:
  """The scenes of a split in the generator's order, built at first use (seconds).

  Args:
    config: where the data lives, what is drawn and asked, and whether the text is the question or the caption.
    split: "train", "heldout" (or "validation"), "all".

  Raises:
    DataError: unknown split, or a directory that cannot be written.
  """

  def __init__(self, config: DataConfig, split: str = "all"):
    if split not in _SPLITS:
      raise unknown("scenes split", split, _SPLITS)
    self.features = config_features(config)
    builder = build(config.dir, config.scenes)
    self.records: list[Record] = []
    for name in _SPLITS[split]:
      found = [(features["number"].int64_list.value[0], _record(features)) for features in examples(builder, name)]
      for number, record in sorted(found, key=lambda pair: pair[0]):
        record["id"] = f"scenes/{name}/{number}"
        if config.scenes.text == "caption":  # which leaves out the columns: scenes may mean the same in words
          record["concept"] = concept_number(repr(sorted(record["captions"]["name"][0].split(", "))))
        self.records.append(record)

  def __len__(self) -> int:
    return len(self.records)

  def __getitem__(self, index: int) -> Record:
    return self.records[index]


def build(directory: str, config: ScenesConfig) -> Any:
  """The TFDS builder of the scenes a configuration describes, its data built if need be."""
  from mmjax.data.scenes_builder import ScenesBuilder, ScenesBuilderConfig

  fields = {name: getattr(config, name) for name in ("size", "examples", "questions", "caption_shapes", "seed")}
  said = f"captions{config.caption_shapes}"
  name = f"{config.size}px_{config.examples}_{'_'.join(config.questions)}_{said}_seed{config.seed}"
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
