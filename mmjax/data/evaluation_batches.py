"""Records in order, once, in batches of one size: the input of evaluation."""

from collections.abc import Callable, Iterator

import numpy as np

from mmjax.data.sources import Source
from mmjax.data.tokenizer import Tokenizer
from mmjax.data.transforms import PRIMARY, EvalImage, check_captions


def evaluation_batches(
  source: Source,
  transform: EvalImage,
  tokenizer: Tokenizer,
  *,
  batch_size: int,
  caption: Callable[[dict], str] | None = None,
) -> Iterator[dict[str, np.ndarray]]:
  """Batches of "image", "text", "index", "concept" and "valid".

  The last batch is filled up by repeating its last record; `valid` (bool) is False for the repetitions.

  Args:
    source: the records.
    transform: mmjax.data.eval_transform(...).
    tokenizer: makes the captions ids.
    batch_size: rows of every batch.
    caption: chooses a record's caption; by default its first main caption.

  Raises:
    DataError: a record without caption, or an unreadable picture, by name.
  """
  choose = caption or (lambda record: record["captions"][PRIMARY][0])
  for start in range(0, len(source), batch_size):
    indices = np.arange(start, start + batch_size)
    valid = indices < len(source)
    indices = np.minimum(indices, len(source) - 1).astype(np.int32)
    records = [source[index] for index in indices[valid].tolist()]
    for record in records:
      check_captions(record["captions"], record["id"])
    last = (0, batch_size - len(records))
    images = np.stack([transform(record["image"], record=record["id"]) for record in records])
    text = tokenizer([choose(record) for record in records])
    concepts = np.array([record["concept"] for record in records], np.int32)
    yield {
      "image": np.pad(images, (last, (0, 0), (0, 0), (0, 0)), mode="edge"),
      "text": np.pad(text, (last, (0, 0)), mode="edge"),
      "index": indices,
      "concept": np.pad(concepts, last, mode="edge"),
      "valid": valid,
    }
