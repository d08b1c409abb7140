"""The base of columns: what is made of one field of a record, in training and in evaluation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mmjax.kinds import Kind

if TYPE_CHECKING:  # nothing that only reads a configuration needs them
  from mmjax.data.config import DataConfig
  from mmjax.data.tokenizer import Tokenizer
  from mmjax.data.transforms import EvalImage

Shapes = dict[str, tuple[tuple[int, ...], Any]]
"""Shape and dtype of one row of an array, by the array's name."""


@dataclass(frozen=True)
class Example:
  """One training example.

  Attributes:
    index: number of the record in its source.
    record: the record.
    rng: the example's random numbers. Columns draw from it one after another, in the order of the configuration.
    siblings: numbers of other records that show the same thing.
    read: the record of a number.
  """

  index: int
  record: Mapping[str, Any]
  rng: np.random.Generator
  siblings: Callable[[], Sequence[int]]
  read: Callable[[int], Mapping[str, Any]]


@dataclass(frozen=True)
class Making:
  """What columns may use to make rows for training.

  Attributes:
    data: settings that columns share (augmentation, normalisation, weights of captions, tokenizer).
    image_size: height and width of the images that the model takes; 0 for none.
    tokenizer: made from the text columns; None where there is none.
    fitted: what `Column.fit` gave, by the name of the column.
    memory: decoded images and tokenized texts, shared by all columns of a worker.
  """

  data: "DataConfig"
  image_size: int = 0
  tokenizer: "Tokenizer | None" = None
  fitted: Mapping[str, Any] = field(default_factory=dict)
  memory: Any = None


@dataclass(frozen=True)
class Evaluating:
  """What columns may use to make rows for evaluation.

  Attributes:
    image: the fixed transform of images.
    tokenizer: None for data without text.
    caption: chooses one of a record's captions.
    fitted: what `Column.fit` gave, by the name of the column.
    first: number of the batch's first record.
  """

  image: "EvalImage | None"
  tokenizer: "Tokenizer | None"
  caption: Callable[[Mapping[str, Any]], str]
  fitted: Mapping[str, Any] = field(default_factory=dict)
  first: int = 0


class Maker:
  """Makes the arrays of one column for a training batch, row by row."""

  def begin(self, rows: int) -> Any:
    """Returns a buffer for a batch of this many rows."""
    raise NotImplementedError

  def fill(self, buffer: Any, row: int, example: Example) -> None:
    """Puts an example into a row. Raises DataError for a bad record, which names it."""
    raise NotImplementedError

  def end(self, buffer: Any) -> dict[str, np.ndarray]:
    """The arrays of the batch, by name."""
    raise NotImplementedError


class Column(Kind):
  """Configuration of a column. `data.columns` maps names to columns: `{"image": Picture(), "text": Caption()}`.

  A column of a script's own is a frozen dataclass that defines `arrays` and `row`. It overrides the rest where one
  array per record, made from the record alone, is not enough.
  """

  def arrays(self, name: str, making: Making) -> Shapes:
    """Shape and dtype of one row of every array that the column puts into a batch."""
    raise NotImplementedError

  def row(self, record: Mapping[str, Any], rng: np.random.Generator | None, fitted: Any) -> np.ndarray:
    """The row of one record.

    Args:
      record: from the source.
      rng: random numbers for augmentation; None in evaluation, where nothing is random.
      fitted: what `fit` gave.
    Raises: DataError for a bad record, which names it.
    """
    raise NotImplementedError

  def fit(self, records: Sequence[Mapping[str, Any]]) -> Any:
    """Anything the column must know of the training data (means, classes), as JSON values; None: nothing.

    It is saved with the run and given to `row`.
    """
    return None

  @property
  def fits(self) -> bool:
    """True if `fit` needs the training records."""
    return type(self).fit is not Column.fit

  @property
  def tokenizes(self) -> bool:
    """True for a column of text, which the run's tokenizer turns into ids."""
    return False

  def check(self, record: Mapping[str, Any]) -> None:
    """Raises DataError where a record lacks what the column reads. Called once per record."""

  def maker(self, name: str, making: Making) -> Maker:
    """What makes the column's arrays for training; it is sent to worker processes."""
    return _RowByRow(self, name, self.arrays(name, making)[name], making.fitted.get(name))

  def evaluated(
    self, name: str, records: Sequence[Mapping[str, Any]], places: np.ndarray, evaluating: Evaluating
  ) -> dict[str, Any]:
    """The column's arrays for evaluation.

    Args:
      name: of the column.
      records: the records of a batch.
      places: for every row of the batch, the place of its record in `records`.
      evaluating: transforms and tokenizer.
    Returns: arrays, or LazyRows that are made when they are read.
    """
    rows = np.stack([self.row(record, None, evaluating.fitted.get(name)) for record in records])
    return {name: rows[places]}

  def record(self, item: Any) -> Mapping[str, Any]:
    """A record that holds nothing but this item, for `Run.encode`."""
    raise NotImplementedError(f"{type(self).__name__} does not say what a record of a single item is")

  def show(self, record: Mapping[str, Any]) -> str:
    """The record's field as HTML, for a report."""
    return ""


@dataclass(frozen=True)
class _RowByRow(Maker):
  """One array, one row of it per record."""

  column: Column
  name: str
  shape: tuple[tuple[int, ...], Any]
  fitted: Any

  def begin(self, rows: int) -> np.ndarray:
    shape, dtype = self.shape
    return np.empty((rows, *shape), dtype)

  def fill(self, buffer: np.ndarray, row: int, example: Example) -> None:
    buffer[row] = self.column.row(example.record, example.rng, self.fitted)

  def end(self, buffer: np.ndarray) -> dict[str, np.ndarray]:
    return {self.name: buffer}
