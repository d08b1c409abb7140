"""Build and read the emoji data: `python -m mmjax.data.emoji` draws every artist's images, once."""

from pathlib import Path
from typing import Any, cast

from mmjax.data.building import built, examples, strings
from mmjax.data.emoji_draw import VENDORS
from mmjax.data.errors import DataError, unknown
from mmjax.data.records import Record

DEFAULT_DIR = "~/.cache/mmjax"


def build(directory: str | Path, vendor: str, *, limit: int | None = None) -> Any:
  """The TFDS builder of one artist's emoji, its data built if need be (seconds; nothing is downloaded).

  Args:
    directory: where the data of all artists lives.
    vendor: one of VENDORS.
    limit: about this many emoji instead of all 3,944, for tests and quick trials.

  Raises:
    DataError: unknown vendor, a missing package, or a directory that cannot be written.
  """
  if vendor not in VENDORS:
    raise unknown("emoji vendor", vendor, VENDORS)
  if limit is not None and limit < 1:
    raise DataError(f"--data.source.limit {limit} leaves no emoji. Give at least 1, or leave it out.")
  from mmjax.data import emoji_builder

  name = vendor if limit is None else f"{vendor}_{limit}"
  config = vendor if limit is None else emoji_builder.EmojiConfig(name, vendor=vendor, limit=limit)
  return built(
    lambda place: emoji_builder.EmojiBuilder(data_dir=place, config=config),
    directory,
    name="emoji",
    task=f"Drawing emoji: {name}",
    total=lambda: sum(len(emoji_builder.selection(held_out, limit)) for held_out in (False, True)),
  )


def read(builder: Any, split: str) -> list[Record]:
  """All records of a split ("train" or "heldout"), images still encoded."""
  return [_record(features) for features in examples(builder, split)]


def _record(features: Any) -> Record:
  record: dict[str, Any] = {"image": features["image"].bytes_list.value[0]}
  for name in ("codepoint", "concept_group", "group", "subgroup", "vendor"):
    (record[name],) = strings(features, name)
  record["concept"] = features["concept"].int64_list.value[0]
  record["skin_tone"] = bool(features["skin_tone"].int64_list.value[0])
  kinds = [name.removeprefix("captions/") for name in features if name.startswith("captions/")]
  record["captions"] = {kind: strings(features, f"captions/{kind}") for kind in sorted(kinds)}
  record["id"] = f"{record['vendor']}/{record['codepoint']}"
  return cast(Record, record)


def main() -> None:
  """Builds the data of every artist and prints what there is."""
  import argparse

  parser = argparse.ArgumentParser(prog="python -m mmjax.data.emoji", description=__doc__)
  parser.add_argument("--dir", default=DEFAULT_DIR, help="where the data goes (default: %(default)s)")
  parser.add_argument("--limit", type=int, default=None, help="about this many emoji instead of all")
  arguments = parser.parse_args()
  try:
    for vendor in VENDORS:
      splits = build(arguments.dir, vendor, limit=arguments.limit).info.splits
      counts = ", ".join(f"{split.num_examples} {name}" for name, split in sorted(splits.items(), reverse=True))
      print(f"{vendor}: {counts} images in {Path(arguments.dir).expanduser()}")
  except DataError as error:
    parser.exit(1, f"{error}\n")


if __name__ == "__main__":
  main()
