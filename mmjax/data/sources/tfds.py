"""Any TFDS data set that is on the disk, read without TensorFlow."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmjax.data.captions import REMEDY, read_captions
from mmjax.data.errors import DataError, unknown
from mmjax.data.records import PRIMARY, Record, captions_concept
from mmjax.data.sources.base import Reading, Source


@dataclasses.dataclass(frozen=True)
class Tfds(Source):
  """A TFDS data set with images that is prepared on this machine.

  Splits: "train" and "validation", for which the fields name splits, and any split in TFDS's notation.
  """

  name: str | None = None
  """Name of the data set, such as "coco_captions/2014"."""
  image_key: str | None = None
  """Image feature; default: the only one."""
  caption_key: str | None = None
  """Text or class label feature, with "/" into nested features ("captions/text"); default: the only one. Several texts
  are several captions of the image. The caption of a label is the name of the class."""
  train_split: str = "train"
  """Split to train on, in TFDS's notation ("train[:90%]")."""
  validation_split: str = "test"
  """Split to evaluate on. It must not share examples with `train_split`, unless it is the same."""

  @property
  def title(self) -> str:
    return self.name or super().title

  def open(self, split: str, reading: Reading) -> "TfdsRecords":
    return TfdsRecords(self, split, reading)


class TfdsRecords:
  """A split of a prepared TFDS data set. Images stay encoded.

  The data directory of the reading is tried before TFDS's own default.

  Raises:
    DataError: unknown or unprepared data set, unknown split or feature, a file format without random access, slices for
      training and validation that share examples.
  """

  def __init__(self, config: Tfds, split: str, reading: Reading):
    if config.name is None:
      raise DataError("--data.source tfds needs --data.source.name NAME, such as coco_captions/2014.")
    import tensorflow_datasets as tfds

    name = config.name
    split = {"train": config.train_split, "validation": config.validation_split}.get(split, split)
    builder = _builder(name, Path(reading.dir).expanduser())
    found = list(_leaves(builder.info.features))
    leaves = {key: feature for key, feature, _ in found}
    repeated = [key for key, feature, within in found if within and isinstance(feature, tfds.features.Image)]
    images = [
      key for key, feature in leaves.items() if isinstance(feature, tfds.features.Image) and key not in repeated
    ]
    if repeated and (not images or config.image_key in repeated):
      raise DataError(
        f"{name}: the feature {repeated[0]!r} is a sequence of images, and an example needs one. Write the data set "
        "with one image for each example, or as shards (python -m mmjax.data shard)."
      )
    texts = [
      key for key, feature in leaves.items() if isinstance(feature, (tfds.features.Text, tfds.features.ClassLabel))
    ]
    self._image_key = _choose(config.image_key, images, f"image feature of {name}", "--data.source.image-key")
    self._caption_key = _choose(
      config.caption_key, texts, f"text or label feature of {name}", "--data.source.caption-key"
    )
    self._label = leaves[self._caption_key]
    self._name, self._split = name, split
    known = list(builder.info.splits)
    if split.partition("[")[0] not in (*known, "all"):
      raise unknown(f"split of {name}", split, known)
    try:
      self._data = builder.as_data_source(split, decoders=_undecoded(self._image_key, tfds))
    except (NotImplementedError, ValueError) as error:
      raise DataError(
        f"{name} in {builder.data_dir} cannot be read at random: {error}. "
        "Prepare it again with download_and_prepare(file_format='array_record')."
      ) from error
    if split in (config.train_split, config.validation_split):
      _check_apart(builder, config)

  def __len__(self) -> int:
    return len(self._data)

  def __getitem__(self, index: int) -> Record:
    example, name = self._data[index], f"{self._name}/{self._split}/{index}"
    image = _get(example, self._image_key)
    if not isinstance(image, bytes):
      raise DataError(
        f"{name}: {self._image_key!r} is not one encoded image. Choose another with --data.source.image-key."
      )
    texts = read_captions(self._texts(_get(example, self._caption_key), name), f"{name}: {self._caption_key!r}")
    return Record(image=image, captions={PRIMARY: texts}, id=name, concept=captions_concept(texts))

  def _texts(self, value: Any, name: str) -> list[Any]:
    """The captions of an example, not checked. Raises DataError for a label without a name, and for bytes not UTF-8."""
    try:
      if hasattr(self._label, "int2str"):
        return [self._class(int(value))]
      values = [value] if isinstance(value, (bytes, str)) else list(value)
      return [text.decode() if isinstance(text, bytes) else text for text in values]
    except (ValueError, TypeError) as error:
      raise DataError(f"{name}: {self._caption_key!r} is {value!r:.60}, no caption ({error}). {REMEDY}") from error

  def _class(self, number: int) -> str:
    """Name of a class in words. Raises ValueError if there is no such class: TFDS would count -1 from the end."""
    count = self._label.num_classes
    if number < 0 or (count is not None and number >= count):
      raise ValueError(f"the classes are 0 to {'...' if count is None else count - 1}; -1 stands for no label")
    return self._label.int2str(number).replace("_", " ")


def _check_apart(builder: Any, config: Tfds) -> None:
  """Check that no example is in both splits. Training on what is evaluated on purpose names the same split twice."""
  train, validation = config.train_split, config.validation_split
  try:
    places = [builder.info.splits[split].file_instructions for split in (train, validation)]
  except (KeyError, ValueError):  # the other split is not there; it is named when it is opened
    return
  shared = 0
  for one in places[0]:
    for two in (two for two in places[1] if two.filename == one.filename):
      shared += max(0, min(one.skip + one.take, two.skip + two.take) - max(one.skip, two.skip))
  if shared and train != validation:
    raise DataError(
      f"{config.name}: the splits {train!r} and {validation!r} share {shared:,} examples, so evaluation would be on "
      "what was trained on. Choose --data.source.train-split and --data.source.validation-split apart."
    )


def _builder(name: str, directory: Path) -> Any:
  """The builder of a data set that has been prepared; nothing is downloaded."""
  import tensorflow_datasets as tfds

  found = None
  for place in (str(directory), None):
    try:
      found = tfds.builder(name, data_dir=place, try_gcs=False)
    except tfds.core.DatasetNotFoundError:
      continue
    except ValueError as error:  # an unknown configuration of a known data set
      raise DataError(f"TFDS cannot open {name!r}: {error}") from error
    if found.info.splits:
      return found
  if found is not None:
    raise DataError(
      f"The TFDS data set {name!r} is not prepared in {directory}. Prepare it where there is network: "
      f"tfds.builder({name!r}, data_dir={str(directory)!r}).download_and_prepare(file_format='array_record')"
    )
  local = [path.name for path in directory.iterdir() if path.is_dir()]
  raise unknown("TFDS data set", name.partition("/")[0], [*tfds.list_builders(with_community_datasets=False), *local])


def _leaves(features: Any, prefix: str = "", repeated: bool = False):
  """(path, feature, True in a sequence) of every feature; sequences count as what they are sequences of."""
  for key, feature in features.items():
    inner = getattr(feature, "feature", feature)
    within = repeated or inner is not feature
    if hasattr(inner, "items"):
      yield from _leaves(inner, f"{prefix}{key}/", within)
    else:
      yield prefix + key, inner, within


def _choose(given: str | None, candidates: list[str], what: str, option: str) -> str:
  if given is not None:
    if given not in candidates:
      raise unknown(what, given, candidates)
    return given
  if len(candidates) != 1:
    raise DataError(f"There is not one {what} but {len(candidates)}: {', '.join(candidates)}. Name it with {option}.")
  return candidates[0]


def _undecoded(image_key: str, tfds: Any) -> dict:
  decoders: Any = tfds.decode.SkipDecoding()
  for key in reversed(image_key.split("/")):
    decoders = {key: decoders}
  return decoders


def _get(example: Mapping, path: str) -> Any:
  value: Any = example
  for key in path.split("/"):
    value = [item[key] for item in value] if isinstance(value, list) else value[key]
  return value
