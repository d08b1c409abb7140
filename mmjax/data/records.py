"""Records: the examples of a source, each a mapping of fields by name.

A record is a plain `Mapping[str, Any]`, such as a dict. It has `id`, `concept`, and the fields that its source's
`features` need. Sources may add fields of their own. These names are in use:

| field | type | meaning |
|---|---|---|
| `id` | str | the name of the record in errors and reports |
| `concept` | int | records with equal numbers mean the same thing; a non-negative int32, see below |
| `image` | bytes | an encoded image file |
| `sound` | bytes | an encoded sound file, or (samples, rate), see mmjax.data.columns.sound |
| `video` | bytes | an encoded video, or what else mmjax.data.columns.video reads |
| `captions` | {str: [str]} | captions by kind, see mmjax.data.captions; "name" is the main kind, which all have |
| `picture` | int | records with equal numbers have the same image (absent: each record has its own) |
| `question` | str | a question about the image |
| `answer` | str | the main answer |
| `answers` | [str] | the answers of all annotators; `[answer]` where there is one annotator |
| `relevance` | bytes | an encoded image of the same size, white on the pixels that the question is about |
| `first` | str | the first text of a pair |
| `second` | str | the text that follows `first` |
| `others` | [str] | texts that do not follow `first` |
| `label` | str | the name of the class, see mmjax.data.columns.class_label |
| `text` | str | a text of its own, such as a pair in one |
| `images` | [bytes] | images, and videos, of a text with `<image>` where each is (columns.interleaved) |
| `turns` | [(str, str)] | turns of a dialogue: role ("user" or "assistant") and text |
| `prompt`, `choices` | str, [str] | a text that `answer` follows, and the answers to choose among (FewShot) |
| `user`, `item` | str | names of a user and an item, see mmjax.data.leave_one_out |
| `history` | [str] | names of earlier items of the user, the latest first |
| `missing` | [str] | modalities that the record lacks, whose fields hold placeholders, see mmjax.data.columns.table |
| `group` | str | a class of concepts (emoji: "people-and-body"), see `Source.has_group` |
| `codepoint`, `concept_group`, `subgroup`, `vendor`, `skin_tone` | | emoji only, see mmjax.data.emoji_builder |

`concept` says which records are duplicates of each other, so that they are not used as each other's negatives:

| source | records of one concept |
|---|---|
| emoji | images of one code point, by all artists and in all skin tones |
| scenes | scenes that the same words describe; with questions: the questions about one scene |
| easy_vqa, vqav2 | questions about one image |
| coco, flickr30k, folder, shards, tfds | images with the same set of captions, see `captions_concept` |
| texts | equal pairs of texts |
| documents | equal texts, or equal turns |
| table_file | none: each row is a concept of its own |
| interaction_file, movie_lens | interactions with one item; the number is its place in the catalogue |
"""

import dataclasses
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypedDict

PRIMARY = "name"
"""The main kind of caption. Every record with captions has it."""


Media = Literal["image", "sound", "video"]
"""Content of the files of a source. The field of a record with the file has this name."""


class Record(TypedDict, total=False):
  """The fields of the table above, for type checkers. A record need not be made with this class."""

  image: bytes
  sound: bytes
  video: bytes | str
  captions: dict[str, list[str]]
  id: str
  concept: int
  picture: int
  question: str
  answer: str
  answers: list[str]
  relevance: bytes
  first: str
  second: str
  others: list[str]
  text: str
  codepoint: str
  concept_group: str
  label: str
  group: str
  subgroup: str
  vendor: str
  skin_tone: bool


class Records(Protocol):
  """Random access to records. A list of dicts is one.

  An implementation may also have these attributes. Each has a default where it is absent.

  * `features`: entries of a batch that the records fill, see mmjax.data.sources.base; default: image and text.
  * `siblings(index)`: indices of other records that show the same thing; default: none.
  * `parts`: a sequence of `Part`; default: all records as one range.
  * `captions(index)`, `without_image(index)`: the captions, or the record without its image, read without the image.
  * `fingerprint`: a number that changes with the records or their order; a run is resumed with the same one only;
    default: that of a sample of them, see mmjax.data.fingerprint.
  """

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> Any: ...


@dataclasses.dataclass(frozen=True)
class Part:
  """A range of records with a share of its own.

  Attributes:
    start: index of the first record.
    size: number of records.
    repeats: times that each record comes in an epoch.
    weight: frequency of the part's examples, relative to the other parts; None: in proportion to its size.
  """

  start: int
  size: int
  repeats: int = 1
  weight: float | None = None


def siblings(records: Records, index: int) -> Sequence[int]:
  """Indices of other records that show the same thing; none where the records have no method `siblings`."""
  method = getattr(records, "siblings", None)
  return method(index) if method else ()


def text_reader(records: Records) -> Callable[[int], Mapping[str, Any]]:
  """Function from an index to the record, without its image where the records can do without reading it."""
  without, captions = getattr(records, "without_image", None), getattr(records, "captions", None)
  if without is not None:
    return without
  return records.__getitem__ if captions is None else lambda index: {"captions": captions(index)}


def concept_number(meaning: str) -> int:
  """A non-negative int32 for a meaning: the same string gives the same number in every process and version."""
  return zlib.crc32(meaning.encode()) & 0x7FFFFFFF


def captions_concept(captions: Iterable[str]) -> int:
  """Concept of an image that is known by its captions: equal for images with the same set of captions.

  Order, repetitions and case do not matter. Images that share some captions only, such as a boilerplate "photo", are
  different concepts. Images with a class name as their only caption are one concept per class. No image is read, so
  that a source can tell duplicates by its texts alone.
  """
  return concept_number("\0".join(sorted({text.casefold() for text in captions})))
