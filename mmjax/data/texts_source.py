"""Text corpora as pairs of texts, for masked modelling and next-sentence prediction; there are no pictures."""

from pathlib import Path

from mmjax.data import corpora
from mmjax.data.config import DataConfig
from mmjax.data.errors import DataError, unknown
from mmjax.data.features import config_features
from mmjax.data.sources import Record, concept_number
from mmjax.data.stories import story_pair

_SPLITS = {"train": (False,), "heldout": (True,), "validation": (True,), "all": (False, True)}


class TextsSource:
  """The pairs of a split: `first`, `second` (which really follows) and `others` (which do not).

  A batch shows the one or the others, half and half, drawn anew in every epoch; evaluation shows half of the
  pairs as they are, always the same ones, and the first of the others for the rest. All texts are held in memory.

  Raises:
    DataError: unknown split, missing package or file, or a file that is not as documented.
  """

  def __init__(self, config: DataConfig, split: str = "all"):
    if split not in _SPLITS:
      raise unknown("texts split", split, _SPLITS)
    self.features = config_features(config)
    self.records = [record for held_out in _SPLITS[split] for record in _records(config, held_out)]
    if not self.records:
      raise DataError(f"The text corpus has no pair in the split {split!r}: add documents.")

  def __len__(self) -> int:
    return len(self.records)

  def __getitem__(self, index: int) -> Record:
    return self.records[index]


def _records(config: DataConfig, held_out: bool) -> list[Record]:
  texts = config.texts
  if texts.corpus == "stories":
    number = max(1, texts.examples // 10) if held_out else texts.examples
    stories = (story_pair(index, seed=texts.seed, held_out=held_out) for index in range(number))
    name = "heldout" if held_out else "train"
    return [_record(f"stories/{name}/{i}", p.first, p.second, p.others) for i, p in enumerate(stories)]
  pairs = _corpus_pairs(config, held_out)
  return [_record(f"{texts.corpus}/{pair.name}", pair.first, pair.second, pair.others) for pair in pairs]


def _corpus_pairs(config: DataConfig, held_out: bool) -> list[corpora.TextPair]:
  if config.texts.corpus == "emoji":
    return corpora.emoji_pairs(held_out)
  if config.texts.corpus == "debian":
    documents = corpora.debian_documents()
  elif config.path is None:
    raise DataError("--data.texts.corpus files needs --data.path FILE_OR_DIR: text files, a sentence per line.")
  else:
    documents = corpora.file_documents(Path(config.path).expanduser())
  return corpora.pairs_of_split(corpora.document_pairs(documents), held_out)


def _record(name: str, first: str, second: str, others: tuple[str, ...]) -> Record:
  concept = concept_number(f"{first}\n{second}")
  return Record(id=name, concept=concept, first=first, second=second, others=list(others))
