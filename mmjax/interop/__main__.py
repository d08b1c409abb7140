"""Command line: `python -m mmjax.interop convert IN OUT --to FORMAT`, `... inspect IN`, `... list`, `... package`."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from mmjax.errors import UserError
from mmjax.interop.formats import FORMATS


def main(arguments: Sequence[str] | None = None) -> int:
  """Run the command `convert`, `inspect`, `list` or `package`.

  Args:
    arguments: the command line; `sys.argv` if None.
  Returns: the exit status: 0, or 2 if a UserError was reported.
  """
  options = _parser().parse_args(arguments)
  try:
    if getattr(options, "download", False):
      from mmjax.interop.hub import download

      download(options.source)
    match options.command:
      case "convert":
        return _convert(options)
      case "inspect":
        return _inspect(options.source)
      case "package":
        return _package(options.name, options.target)
    return _list(markdown=options.markdown)
  except UserError as error:
    Console(stderr=True).print(f"[bold red]error:[/] {_escaped(error)}", highlight=False, soft_wrap=True)
    return 2


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m mmjax.interop", description="Convert and inspect checkpoints of other libraries."
  )
  commands = parser.add_subparsers(dest="command", required=True)
  convert = commands.add_parser("convert", help="read a checkpoint and write it in another format")
  names = [form.name for form in FORMATS]
  convert.add_argument("source", metavar="IN", help="checkpoint: a folder, a file, or ORG/NAME in the hub's cache")
  convert.add_argument("target", metavar="OUT", help="folder to write, or a file for the formats openai and big_vision")
  convert.add_argument("--to", required=True, choices=names, metavar="FORMAT", help=", ".join(names))
  convert.add_argument("--image-size", type=int, metavar="N", help="resample position embeddings to N x N pixels")
  convert.add_argument("--max-length", type=int, metavar="N", help="resample position embeddings to N tokens")
  libraries = ["open_clip", "transformers"]
  filters = "library whose filter resamples positions: open_clip antialiases, transformers does not"
  convert.add_argument("--positions", choices=libraries, default=libraries[0], help=filters)
  convert.add_argument("--tower", choices=["image", "audio", "text"], help="write only this tower of a whole model")
  inspect = commands.add_parser(
    "inspect", help="show the architecture, every tensor, and the use of every file and field"
  )
  inspect.add_argument("source", metavar="IN", help="checkpoint: a folder, a file, or ORG/NAME in the hub's cache")
  for command in (convert, inspect):
    command.add_argument("--download", action="store_true", help="download IN, ORG/NAME of the Hugging Face hub, first")
  listed = commands.add_parser("list", help="list the architectures that mmjax reads and writes, by library")
  listed.add_argument("--markdown", action="store_true", help="print the page docs/weights.md")
  package = commands.add_parser(
    "package", help="print the folder of a checkpoint with the weights of an installed Python package"
  )
  package.add_argument("name", metavar="NAME", nargs="?", help="name of the weights; without it, all are listed")
  package.add_argument(
    "target", metavar="OUT", nargs="?", help="folder of the checkpoint; default: ~/.cache/mmjax/weights/NAME"
  )
  return parser


def _package(name: str | None, target: str | None) -> int:
  """Print the folder of the weights, or without a name the list of all."""
  from mmjax.interop.packages import PACKAGES, from_package

  if name is not None:
    print(from_package(name, target))
    return 0
  table = Table("weights", Column("content", overflow="fold"), Column("package", overflow="fold"))
  for known, package in PACKAGES.items():
    table.add_row(known, package.about, package.pip)
  _console().print(table)
  return 0


def _console() -> Console:
  """Console whose lines are not wrapped at 80 characters in a pipe, which has no width."""
  return Console() if sys.stdout.isatty() else Console(width=200)


def _convert(options: Any) -> int:
  from mmjax.interop.convert import convert_with_notes, size_text

  written, notes = convert_with_notes(
    options.source,
    options.target,
    options.to,
    image_size=options.image_size,
    max_length=options.max_length,
    positions=options.positions,
    tower=options.tower or "",
  )
  files = ", ".join(sorted(p.name for p in written.parent.iterdir() if p.is_file()))
  Console().print(
    f"{written} ({size_text(written.stat().st_size)}). Files in the folder: {files}", highlight=False, soft_wrap=True
  )
  for note in notes:
    print(f"Note: {note}")
  return 0


def _list(*, markdown: bool) -> int:
  """Print the table of supported architectures, or the page with it."""
  from mmjax.interop.listing import markdown as page
  from mmjax.interop.supported import supported

  if markdown:
    print(page(), end="")
    return 0
  console = _console()
  table = Table("library", Column("architecture", overflow="fold"), "since", "written by --to")
  for line in supported():
    table.add_row(*map(_escaped, line))
  console.print(table)
  return 0


def _inspect(path: str) -> int:
  """Print the architecture, the configuration and the tensors of a checkpoint.

  A checkpoint that cannot be loaded is printed too, as far as it can be read. The error is raised afterwards.
  """
  from mmjax.interop.convert import rows, size_text, total
  from mmjax.interop.mapping import check
  from mmjax.interop.source import open_source, open_tensors

  console = _console()
  file, problem = open_tensors(path), None
  ours: dict[str, list[str]] = {}
  try:
    source = open_source(path)
    file = source.file
    for name, place in source.table.places.items():
      ours.setdefault(place.theirs, []).append(name)
    console.print(f"{source.architecture.name}, format {source.format}", style="bold", highlight=False)
    console.print(_escaped(source.config), highlight=False, soft_wrap=True)
    if source.path.is_dir():
      _print_beside(console, source)
    check(source.file, source.table, source.architecture.ignored)
  except UserError as error:
    problem = error
  table = Table(Column("tensor", overflow="fold"), "shape", "dtype", "size", Column("mmjax", overflow="fold"))
  for row in rows(file, ours):
    table.add_row(*map(_escaped, row))
  console.print(table)
  count, size = total(file)
  console.print(f"{len(file.entries)} tensors, {count:,} numbers, {size_text(size)}", highlight=False)
  if problem is not None:
    raise problem
  return 0


def _print_beside(console: Console, source: Any) -> None:
  from mmjax.interop.inspection import beside

  found = beside(source)
  table = Table("file", Column("use", overflow="fold"), Column("fields", overflow="fold"))
  for use in found.uses:
    table.add_row(*map(_escaped, use))
  console.print(table)
  for note in found.notes:
    console.print(_escaped(note), highlight=False, soft_wrap=True)


def _escaped(value: object) -> str:
  from rich.markup import escape

  return escape(str(value))


if __name__ == "__main__":
  os.environ.setdefault("JAX_PLATFORMS", "cpu")  # these commands need no accelerator
  sys.exit(main())
