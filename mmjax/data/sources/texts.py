"""Text corpora as pairs of texts, for masked modelling and next-sentence prediction; there are no images."""

import dataclasses
from pathlib import Path
from typing import Literal

from mmjax.data.errors import DataError, unknown
from mmjax.data.fingerprint import of_records
from mmjax.data.records import Record, concept_number
from mmjax.data.sources.base import PAIR, Reading, Source
from mmjax.data.text import corpora
from mmjax.data.text.stories import story_pair

_SPLITS = {"train": (False,), "heldout": (True,), "validation": (True,), "all": (False, True)}


@dataclasses.dataclass(frozen=True)
class Texts(Source):
  """Texts without images, in pairs, see mmjax.data.text.corpora. Pairs need --data.tokenizer.sep-token.

  The column Text() reads both texts of a pair as one (a language model's), Text("first") and Text("second") each alone.

  Splits: "train", "heldout" (or "validation"), "all".
  """

  corpus: Literal["stories", "emoji", "debian", "files"] = "stories"
  """stories: generated; emoji: names and keywords in many languages; debian: the descriptions of the packages that
  dpkg knows; files: *.txt in `path`, a sentence per line and an empty line between documents."""
  path: str | None = None
  """files: a text file, or a directory with text files."""
  examples: int = 8_000
  """stories: number of pairs to train on. A tenth as many, of other stories, are held out."""
  seed: int = 0
  """stories: seed of the stories."""

  def __post_init__(self):
    if self.examples < 1:
      raise ValueError(f"data.source.examples is {self.examples}: it must be at least 1")

  @property
  def features(self) -> tuple[str, ...]:
    return PAIR

  def open(self, split: str, reading: Reading) -> "TextsRecords":
    return TextsRecords(self, split)


class TextsRecords:
  """The pairs of a split: `first`, `second` (which really follows), `others` (which do not), and `text` (the two).

  A batch shows the one or the others, half and half, drawn anew in every epoch; evaluation shows half of the
  pairs as they are, always the same ones, and the first of the others for the rest. All texts are held in memory.

  Raises:
    DataError: unknown split, missing package or file, or a file that is not as documented.
  """

  features = PAIR

  def __init__(self, config: Texts, split: str):
    if split not in _SPLITS:
      raise unknown("texts split", split, _SPLITS)
    self.records = [record for held_out in _SPLITS[split] for record in _records(config, held_out)]
    if not self.records:
      raise DataError(f"The text corpus has no pair in the split {split!r}: add documents.")

  def __len__(self) -> int:
    return len(self.records)

  @property
  def fingerprint(self) -> int:
    """Number that changes with the records and their order."""
    return of_records(self.records)

  def __getitem__(self, index: int) -> Record:
    return self.records[index]


def _records(config: Texts, held_out: bool) -> list[Record]:
  if config.corpus == "stories":
    number = max(1, config.examples // 10) if held_out else config.examples
    stories = (story_pair(index, seed=config.seed, held_out=held_out) for index in range(number))
    name = "heldout" if held_out else "train"
    return [_record(f"stories/{name}/{i}", p.first, p.second, p.others) for i, p in enumerate(stories)]
  pairs = _corpus_pairs(config, held_out)
  return [_record(f"{config.corpus}/{pair.name}", pair.first, pair.second, pair.others) for pair in pairs]


def _corpus_pairs(config: Texts, held_out: bool) -> list[corpora.TextPair]:
  if config.corpus == "emoji":
    return corpora.emoji_pairs(held_out)
  if config.corpus == "debian":
    documents = corpora.debian_documents()
  elif config.path is None:
    raise DataError("--data.source.corpus files needs --data.source.path FILE_OR_DIR: text files, a sentence per line.")
  else:
    documents = corpora.file_documents(Path(config.path).expanduser())
  return corpora.pairs_of_split(corpora.document_pairs(documents), held_out)


def _record(name: str, first: str, second: str, others: tuple[str, ...]) -> Record:
  concept = concept_number(f"{first}\n{second}")
  text = f"{first} {second}"
  return Record(id=name, concept=concept, first=first, second=second, others=list(others), text=text)
