"""Opening the source of a configuration."""

from mmjax.data.config import DataConfig
from mmjax.data.corruption import CorruptedRecords
from mmjax.data.recaption import RecaptionedRecords
from mmjax.data.records import Records


def make_source(config: DataConfig, split: str) -> Records:
  """Opens the source of a configuration.

  "train" has the captions that --data.corrupt-captions and --data.captions-from say.

  Args:
    config: the source and the settings that all sources share.
    split: "train" or "validation", or another name that the source knows (see its class).

  Returns: the records of the split.

  Raises:
    DataError: there is no such split, or the data cannot be read; the message says what to change.
  """
  records = config.source.open(split, config.reading)
  if split == "train" and config.corrupt_captions:
    records = CorruptedRecords(records, config.corrupt_captions)
  if split == "train" and config.captions_from is not None:
    records = RecaptionedRecords(records, config.captions_from)
  return records
