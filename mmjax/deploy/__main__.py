"""Command line of deployment: `python -m mmjax.deploy --help` lists the commands."""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmjax.data.errors import DataError
from mmjax.deploy.compressing import add_prune_options, add_quantize_options
from mmjax.deploy.formats import DTYPES, FORMATS
from mmjax.deploy.serving.options import add_report_options, add_serve_options
from mmjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Command:
  """A command: the first word of the command line.

  Attributes:
    name: the word.
    help: description for --help.
    options: function that adds the options of the command to a parser.
    run: function that runs the command and returns the exit status.
  """

  name: str
  help: str
  options: Callable[[argparse.ArgumentParser], None]
  run: Callable[[Any], int]


def commands() -> tuple[Command, ...]:
  """The commands, in the order of --help."""
  return (
    Command("export", "write what a run's model computes, to run without the model's code", _export_options, _export),
    Command("prune", "remove heads, MLP units or single weights, and fine-tune", add_prune_options, _prune),
    Command("quantize", "fine-tune a run for weights and activations in int8", add_quantize_options, _quantize),
    Command("compare", "size, latency and quality of a run's export in every dtype", _compare_options, _compare),
    Command("benchmark", "latency and throughput of an export, by batch size", _benchmark_options, _benchmark),
    Command("serve", "answer requests over HTTP, with a page to try the model", add_serve_options, _serve),
    Command("report", "compare embeddings of a service with those of the run's data", add_report_options, _report),
  )


def main(arguments: Sequence[str] | None = None) -> int:
  """Run a command.

  Args:
    arguments: the command line. None: sys.argv[1:].
  Returns: the exit status: 0, 2 after a mistake of the user, which is printed, or 130 after Ctrl-C.
  """
  parser = argparse.ArgumentParser(prog="python -m mmjax.deploy", description="Export, measure and serve models.")
  parsers = parser.add_subparsers(dest="command", required=True)
  for command in commands():
    own = parsers.add_parser(command.name, help=command.help, description=command.help)
    command.options(own)
    own.set_defaults(run=command.run)
  options = parser.parse_args(arguments)
  try:
    return options.run(options)
  except (UserError, DataError, FileNotFoundError) as error:
    Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
    return 2
  except KeyboardInterrupt:
    Console(stderr=True).print("interrupted")
    return 130


def _export_options(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("workdir", metavar="WORKDIR", type=Path, help="workdir of a run")
  parser.add_argument("--to", required=True, choices=FORMATS, help="stablehlo for JAX, onnx for ONNX Runtime")
  parser.add_argument("--out", metavar="DIR", type=Path, help="folder to write; default: WORKDIR/export/TO-DTYPE")
  parser.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help="of the stored weights; default: %(default)s")


def _compare_options(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("workdir", metavar="WORKDIR", type=Path, help="workdir of a run, with its data")
  parser.add_argument("--to", choices=FORMATS, default=FORMATS[0], help="default: %(default)s")
  parser.add_argument("--json", metavar="FILE", type=Path, help="also write the numbers to a file")


def _benchmark_options(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("folder", metavar="DIR", type=Path, help="folder of an export")
  parser.add_argument("--batches", metavar="N", type=int, nargs="+", default=[1, 8, 64], help="default: 1 8 64")
  parser.add_argument("--calls", metavar="N", type=int, default=200, help="timed calls; default: %(default)s")
  parser.add_argument("--warm-up", metavar="N", type=int, default=10, help="calls before; default: %(default)s")
  parser.add_argument("--json", metavar="FILE", type=Path, help="also write the numbers to a file")
  parser.add_argument("--plot", metavar="FILE", type=Path, help="also draw latency and throughput (.svg or .png)")


def _export(options: Any) -> int:
  from mmjax.deploy.writing import export
  from mmjax.loading import load_run

  folder = export(load_run(options.workdir), options.to, options.out, dtype=options.dtype)
  _print(f"exported: {folder}")
  return 0


def _prune(options: Any) -> int:
  from mmjax.deploy.compressing import prune

  return prune(options)


def _quantize(options: Any) -> int:
  from mmjax.deploy.compressing import quantize

  return quantize(options)


def _compare(options: Any) -> int:
  from mmjax.deploy.comparing import compare, table
  from mmjax.loading import load_run

  rows = compare(load_run(options.workdir), options.to)
  _write_json(options.json, rows)
  _print(table(rows))
  return 0


def _benchmark(options: Any) -> int:
  from mmjax.deploy.timing import benchmark, draw, table

  rows = benchmark(options.folder, options.batches, calls=options.calls, warm_up=options.warm_up)
  _write_json(options.json, rows)
  if options.plot is not None:
    draw(rows, options.plot)
  _print(table(rows))
  return 0


def _serve(options: Any) -> int:
  from mmjax.deploy.serving.command import serve

  return serve(options)


def _report(options: Any) -> int:
  from mmjax.deploy.serving.drift import report

  return report(options)


def _write_json(path: Path | None, rows: Any) -> None:
  if path is not None:
    import json

    from mmjax.files import write_atomically

    write_atomically(path, json.dumps(rows, indent=2) + "\n")


def _print(content: str | Table) -> None:
  """Print a line or a table, whose lines are not wrapped at 80 characters in a pipe, which has no width."""
  console = Console() if sys.stdout.isatty() else Console(width=160)
  console.print(content, highlight=False, soft_wrap=isinstance(content, str), markup=False)


if __name__ == "__main__":
  sys.exit(main())
