"""Base class of columns, which convert a field of a record into arrays for training and for evaluation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from dataclasses import field as dataclass_field
from typing import TYPE_CHECKING, Any

import numpy as np

from mmjax.data.errors import DataError
from mmjax.errors import did_you_mean
from mmjax.kinds import Kind, undefined

if TYPE_CHECKING:  # not imported at run time, so that reading a configuration stays fast
  from mmjax.data.config import DataConfig
  from mmjax.data.text.tokenizer import Tokenizer
  from mmjax.data.transforms import EvalImage

Shapes = dict[str, tuple[tuple[int, ...], Any]]
"""Shape and dtype of one row of each array, by name."""


@dataclass(frozen=True)
class Example:
  """One training example.

  Attributes:
    index: index of the record in its source.
    record: the record.
    rng: random numbers of the example. The columns draw from it in the order of the configuration.
    siblings: function that returns the indices of other records of the same thing.
    read: function that returns the record at an index.
  """

  index: int
  record: Mapping[str, Any]
  rng: np.random.Generator
  siblings: Callable[[], Sequence[int]]
  read: Callable[[int], Mapping[str, Any]]


@dataclass(frozen=True)
class Making:
  """Inputs of columns for training rows.

  Attributes:
    data: settings that columns share (augmentation, normalisation, weights of captions, tokenizer).
    image_size: height and width of the images that the model takes. 0 for a model without images.
    tokenizer: tokenizer of the run. None for a run without text columns.
    fitted: results of `Column.fit`, by column name.
    memory: cache of decoded images and tokenized texts, shared by all columns of a worker.
    seed: seed of the run's data, for what a column draws for each batch.
  """

  data: "DataConfig"
  image_size: int = 0
  tokenizer: "Tokenizer | None" = None
  fitted: Mapping[str, Any] = dataclass_field(default_factory=dict)
  memory: Any = None
  seed: int = 0


@dataclass(frozen=True)
class Evaluating:
  """Inputs of columns for evaluation rows.

  Attributes:
    image: transform of images, without randomness.
    tokenizer: tokenizer of the run. None for data without text.
    caption: function that chooses one of the captions of a record.
    fitted: results of `Column.fit`, by column name.
    first: index of the first record of the batch.
  """

  image: "EvalImage | None"
  tokenizer: "Tokenizer | None"
  caption: Callable[[Mapping[str, Any]], str]
  fitted: Mapping[str, Any] = dataclass_field(default_factory=dict)
  first: int = 0


class Maker:
  """Makes the arrays of one column for a training batch, row by row."""

  def begin(self, rows: int) -> Any:
    """Make a buffer for a batch of this many rows."""
    raise NotImplementedError

  def begin_step(self, rows: int, step: int) -> Any:
    """Make a buffer for the batch of a training step. Its shape may depend on the step, but not on the process."""
    del step
    return self.begin(rows)

  def fill(self, buffer: Any, row: int, example: Example) -> None:
    """Write an example to a row of the buffer. Raises DataError, which names the record, if the record is bad."""
    raise NotImplementedError

  def end(self, buffer: Any) -> dict[str, np.ndarray]:
    """Return the arrays of the batch, by name."""
    raise NotImplementedError


class Column(Kind):
  """Configuration of a column. `data.columns` maps names to columns: `{"image": Image(), "text": Caption()}`.

  A script can define its own: a frozen dataclass with the methods `arrays` and `row`. It overrides the other methods if
  one array, made row by row from one record each, is not enough.

  Example:
    >>> import dataclasses
    >>> import numpy as np
    >>> from mmjax.data import Column
    >>> @dataclasses.dataclass(frozen=True)
    ... class Rate(Column):
    ...   field: str = "rate"
    ...
    ...   def arrays(self, name, making):
    ...     return {name: ((), np.float32)}
    ...
    ...   def row(self, record, rng, fitted):
    ...     return np.asarray(record[self.field], np.float32)
    >>> Rate().row({"id": "beat/0", "rate": 60}, None, None)
    array(60., dtype=float32)
  """

  def arrays(self, name: str, making: Making) -> Shapes:
    """Return shape and dtype of one row of every array that the column adds to a batch."""
    raise undefined(self, "arrays")

  def row(self, record: Mapping[str, Any], rng: np.random.Generator | None, fitted: Any) -> np.ndarray:
    """Make the row of one record.

    Args:
      record: record of the source.
      rng: random numbers for augmentation. None in evaluation, which has no randomness.
      fitted: result of `fit`.
    Raises: DataError: the record is bad. The message names it.
    """
    raise undefined(self, "row")

  def fit(self, records: Sequence[Mapping[str, Any]]) -> Any:
    """Compute values from the training data that the column needs, such as means or classes. They must be JSON values.

    They are saved with the run, and passed to `row`. None: the column needs no values.
    """
    return None

  @property
  def fits(self) -> bool:
    """True if `fit` needs the training records."""
    return type(self).fit is not Column.fit

  @property
  def tokenizes(self) -> bool:
    """True for a text column, which uses the tokenizer of the run."""
    return False

  @property
  def native_patches(self) -> tuple[int, int] | None:
    """Side of a patch and longest row, of a column of images at their own shape. None: another column."""
    return None

  @property
  def fields(self) -> tuple[str, ...]:
    """Names of the fields of a record that the column reads: by default its setting `field`, if it has one.

    The first record is checked before the training, and every record when it is read.
    """
    field = getattr(self, "field", "")
    return (field,) if field and isinstance(field, str) else ()

  @property
  def optional(self) -> bool:
    """True if records may lack the fields. At least one training record must have them."""
    return False

  def check(self, record: Mapping[str, Any]) -> None:
    """Raise DataError if a field of a record has a wrong value. Called once per record, which has the fields."""

  @property
  def decodes(self) -> bool:
    """True if the column decodes a file, which `decode` can try before training."""
    return type(self).decode is not Column.decode

  def decode(self, record: Mapping[str, Any], data: "DataConfig") -> None:
    """Raise DataError if the file of a record cannot be decoded. Called in threads, for the records of evaluation."""

  def maker(self, name: str, making: Making) -> Maker:
    """Return the Maker of the arrays for training. It is sent to worker processes."""
    return _RowByRow(self, name, self.arrays(name, making)[name], making.fitted.get(name))

  def evaluated(
    self, name: str, records: Sequence[Mapping[str, Any]], places: np.ndarray, evaluating: Evaluating
  ) -> dict[str, Any]:
    """Make the arrays for evaluation.

    Args:
      name: name of the column.
      records: the records of a batch.
      places: for every row of the batch, the index of its record in `records`.
      evaluating: transforms and tokenizer.
    Returns: arrays, or LazyRows, whose rows are made when they are read.
    """
    rows = [np.asarray(make_row(name, self, record, None, evaluating.fitted.get(name))) for record in records]
    for record, row in zip(records, rows, strict=True):
      if row.shape != rows[0].shape:
        raise DataError(
          f"{record['id']}: `row` of the column {name!r} ({type(self).__name__}) gives the shape {list(row.shape)}, "
          f"and {list(rows[0].shape)} for {records[0]['id']}. Rows must be alike."
        )
    return {name: np.stack(rows)[places]}

  def record(self, item: Any) -> Mapping[str, Any]:
    """Make a record with one item, for `Run.encode`."""
    raise NotImplementedError(f"{type(self).__name__} has no method `record`, which makes a record of one item")

  def show(self, record: Mapping[str, Any]) -> str:
    """Format the field of a record as HTML, for a report."""
    return ""


def make_row(
  name: str, column: Column, record: Mapping[str, Any], rng: np.random.Generator | None, fitted: Any
) -> np.ndarray:
  """Call `Column.row`. A missing field of the record is a DataError.

  Args:
    name: name of the column.
    column: the column.
    record, rng, fitted: arguments of `row`.
  """
  try:
    return column.row(record, rng, fitted)
  except KeyError as error:
    raise lacking(name, column, record, error) from error


def check_record(name: str, column: Column, record: Mapping[str, Any]) -> None:
  """Raise DataError if a record lacks a field that a column reads, or `Column.check` refuses it."""
  for field in () if column.optional else column.fields:
    if field not in record:
      raise lacks_field(name, column, record, field)
  column.check(record)


def lacking(name: str, column: Column, record: Mapping[str, Any], error: KeyError) -> Exception:
  """The error of `lacks_field` if a KeyError is the access to a field that a record lacks. Otherwise the KeyError.

  Args:
    name, column, record: arguments of `lacks_field`.
    error: the error of `fit` or `row`.
  """
  field = error.args[0] if error.args else None
  return lacks_field(name, column, record, field) if isinstance(field, str) and field not in record else error


def lacks_field(
  name: str, column: Column, record: Mapping[str, Any], field: str, *, option: str = "--data.columns"
) -> DataError:
  """The error for a record without a field that a column reads.

  Args:
    name: name of the column.
    column: the column.
    record: the record.
    field: the field.
    option: the option of the columns.
  """
  settings: Any = fields(column) if is_dataclass(column) else ()
  naming = [each.name for each in settings if _names(getattr(column, each.name), field)]
  remedy = (
    f"Set {option}.{name}.{naming[0]}." if naming else f"Name other columns with {option}, or another --data.source."
  )
  there = "has" if not column.optional else "and all others lack it; it has"
  return DataError(
    f"the column {name!r} ({type(column).__name__}) reads the field {field!r}; the record {record.get('id', '?')!r} "
    f"{there} {', '.join(sorted(record))}.{did_you_mean(field, record)} {remedy}"
  )


def _names(setting: Any, field: str) -> bool:
  return setting == field or (isinstance(setting, tuple) and field in setting)


@dataclass(frozen=True)
class _RowByRow(Maker):
  """Maker of one array, with one row per record."""

  column: Column
  name: str
  shape: tuple[tuple[int, ...], Any]
  fitted: Any

  def begin(self, rows: int) -> np.ndarray:
    shape, dtype = self.shape
    return np.empty((rows, *shape), dtype)

  def fill(self, buffer: np.ndarray, row: int, example: Example) -> None:
    made = np.asarray(make_row(self.name, self.column, example.record, example.rng, self.fitted))
    shape, dtype = self.shape
    if made.shape != tuple(shape) or not np.can_cast(made.dtype, dtype, "same_kind"):
      raise DataError(
        f"{example.record['id']}: `row` of the column {self.name!r} ({type(self.column).__name__}) gives {made.dtype} "
        f"{list(made.shape)}, and its `arrays` says {np.dtype(dtype)} {list(shape)}. Make the two equal, or correct "
        "the record."
      )
    buffer[row] = made

  def end(self, buffer: np.ndarray) -> dict[str, np.ndarray]:
    return {self.name: buffer}
