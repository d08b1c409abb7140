"""Text corpora of documents: from the emoji packages, from Debian's package list, and from files of the user."""

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmjax.data.captions import clean, is_blank, text_fault
from mmjax.data.errors import DataError
from mmjax.data.splits import has_skin_tone, is_held_out

DPKG_STATUS = Path("/var/lib/dpkg/status")
OTHERS = 8
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z'\"(])")


@dataclass(frozen=True)
class Document:
  """Sentences in order. Sentences that do not follow them are taken from other documents of the same topic."""

  name: str
  topic: str
  sentences: tuple[str, ...]


@dataclass(frozen=True)
class TextPair:
  """Two sentences that follow each other, and `others`, which do not follow the first."""

  name: str
  document: str
  first: str
  second: str
  others: tuple[str, ...]


def document_pairs(documents: Sequence[Document]) -> list[TextPair]:
  """Make all pairs of neighbouring sentences, each pair of texts once.

  Sentences that do not follow are drawn from other documents of the topic. If there are none, they are drawn from all
  other documents.

  Raises:
    DataError: there is no pair, or there are no sentences that do not follow (for example with only one document).
  """
  by_topic: dict[str, list[tuple[str, str]]] = defaultdict(list)
  follows: dict[str, set[str]] = defaultdict(set)
  for document in documents:
    by_topic[document.topic] += [(document.name, sentence) for sentence in document.sentences[1:]]
    for first, second in zip(document.sentences, document.sentences[1:]):
      follows[first].add(second)
  everything = [entry for entries in by_topic.values() for entry in entries]
  pairs, seen = [], set()
  for document in documents:
    for place, (first, second) in enumerate(zip(document.sentences, document.sentences[1:])):
      if (first, second) not in seen:
        seen.add((first, second))
        known = follows[first] | {first}
        others = _others(by_topic[document.topic], document.name, known) or _others(everything, document.name, known)
        if not others:
          raise DataError("A text corpus needs two documents with two sentences each: add texts.")
        pairs.append(TextPair(f"{document.name}/{place}", document.name, first, second, others))
  if not pairs:
    raise DataError("No document of the text corpus has two sentences: write one sentence per line.")
  return pairs


def _others(candidates: Sequence[tuple[str, str]], name: str, known: set[str]) -> tuple[str, ...]:
  """Up to OTHERS sentences of other documents that are not `known`. The choice depends on the arguments alone."""
  few = len(candidates) <= 4 * OTHERS
  tries = [] if few else [random.Random(f"{name} {min(known)}").choices(candidates, k=4 * OTHERS)]
  for sample in [*tries, candidates]:
    good = dict.fromkeys(sentence for document, sentence in sample if document != name and sentence not in known)
    if good:
      return tuple(good)[:OTHERS]
  return ()


def emoji_pairs(held_out: bool) -> list[TextPair]:
  """Make pairs of an emoji's English name and its keywords or its name in another language.

  Texts that do not follow are those of other emoji of the subgroup. The split is by concept group, as for the images.
  """
  from mmjax.data.emoji_text import LANGUAGES, catalogue

  emoji = [item for item in catalogue() if not has_skin_tone(item.key) and is_held_out(item.concept_group) == held_out]
  pairs = []
  for kind in ("keywords", *LANGUAGES):
    said = [(item, ", ".join(item.captions.get(kind, []))) for item in emoji]
    by_subgroup: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for item, text in said:
      by_subgroup[item.subgroup] += [(item.key, text)] if text else []
    everything = [entry for entries in by_subgroup.values() for entry in entries]
    for item, text in said:
      if text:
        others = _others(by_subgroup[item.subgroup], item.key, {text}) or _others(everything, item.key, {text})
        pairs.append(TextPair(f"{item.key}/{kind}", item.key, item.captions["name"][0], text, others))
  return pairs


def debian_documents(status: Path = DPKG_STATUS) -> list[Document]:
  """Read the descriptions of all packages in dpkg's list. The topic is the section. Lists and tables are left out.

  Raises:
    DataError: the file cannot be read, for example because the system is not Debian.
  """
  try:
    text = status.read_text(encoding="utf-8")
  except (OSError, UnicodeDecodeError) as error:
    raise DataError(
      f"Cannot read {status}: {error}. The corpus debian needs a Debian or Ubuntu system; "
      "use --data.source.corpus stories, emoji or files."
    ) from error
  return [document for entry in text.split("\n\n") for document in _described(entry)]


def _described(entry: str) -> Iterator[Document]:
  fields = dict(re.findall(r"^(Package|Section): (.+)$", entry, re.MULTILINE))
  match = re.search(r"^Description: .*\n((?: .*\n?)*)", entry, re.MULTILINE)
  if match is None or "Package" not in fields:
    return
  lines = match[1].splitlines()
  prose = " ".join("\n" if line == " ." else line.strip() for line in lines if not line.startswith("  "))
  sentences = [part for paragraph in prose.split("\n") for part in _SENTENCE_END.split(paragraph.strip()) if part]
  yield Document(fields["Package"], fields.get("Section", ""), tuple(sentences))


def file_documents(path: Path) -> list[Document]:
  """Read a text file, or all *.txt in a folder and its subfolders.

  A file has one sentence per line, and an empty line between documents. All texts are held in memory, which takes about
  twice the size of the files.

  Raises:
    DataError: a file is missing, cannot be read or is not UTF-8. The message names it.
  """
  files = sorted(found for found in path.rglob("*") if found.suffix.lower() == ".txt") if path.is_dir() else [path]
  if not files:
    raise DataError(f"{path} has no *.txt. Put text files there: a sentence per line, an empty line between documents.")
  names = [file.name if file == path else str(file.relative_to(path)) for file in files]
  return [document for file, name in zip(files, names) for document in _paragraphs(file, name)]


def _paragraphs(file: Path, name: str) -> Iterator[Document]:
  try:
    text = file.read_text(encoding="utf-8-sig")
  except (OSError, UnicodeDecodeError) as error:
    raise DataError(f"Cannot read {file}: {error}. It must be a text file in UTF-8.") from error
  if "\0" in text:
    raise DataError(f"{file} {text_fault(text)}.")
  for place, paragraph in enumerate(re.split(r"\n\s*\n", text)):
    lines = paragraph.split("\n")  # splitlines() also splits at characters inside of sentences
    sentences = tuple(clean(line) for line in lines if not is_blank(line))
    if sentences:
      yield Document(f"{name}/{place}", name, sentences)


def pairs_of_split(pairs: Iterable[TextPair], held_out: bool) -> list[TextPair]:
  """Select the pairs of a split. A hash of the document's name holds out about 1/7 for validation."""
  return [pair for pair in pairs if is_held_out(f"text {pair.document}") == held_out]
