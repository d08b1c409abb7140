"""Fuzz targets by name: each makes its files in a folder of its own."""

from collections.abc import Callable
from pathlib import Path

from fuzz_inputs import Target
from fuzz_records import (
  array_record,
  array_record_file,
  caption_json,
  csv,
  jsonl,
  picture,
  sound,
  sound_captions,
  sound_tar,
  tar,
)
from fuzz_runs import answers, checkpoint, command_line, config, data_position, safetensors, tokenizer, tokenizer_record
from fuzz_tables import interactions_csv, movie_lens, table_csv, table_parquet
from fuzz_videos import video

TARGETS: dict[str, Callable[[Path], Target]] = {
  function.__name__.replace("_", "-"): function
  for function in (
    csv, jsonl, tar, array_record, array_record_file, caption_json, picture, sound, sound_captions, sound_tar,
    tokenizer, tokenizer_record, answers, checkpoint, data_position, safetensors, config,
    command_line, table_csv, table_parquet, interactions_csv, movie_lens, video,
  )
}  # fmt: skip
