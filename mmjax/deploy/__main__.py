"""Command line: `python -m mmjax.deploy export WORKDIR --to FORMAT`, `... compare WORKDIR`, `... benchmark DIR`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmjax.data.errors import DataError
from mmjax.deploy.formats import DTYPES, FORMATS
from mmjax.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
  """Run a command.

  Args:
    arguments: the command line. None: sys.argv[1:].
  Returns: the exit status: 0, 2 after a mistake of the user, which is printed, or 130 after Ctrl-C.
  """
  options = _parser().parse_args(arguments)
  try:
    return options.run(options)
  except (UserError, DataError, FileNotFoundError) as error:
    Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
    return 2
  except KeyboardInterrupt:
    Console(stderr=True).print("interrupted")
    return 130


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m mmjax.deploy", description="Export trained models, and measure the exports."
  )
  commands = parser.add_subparsers(dest="command", required=True)
  export = commands.add_parser("export", help="write what a run's model computes, to run without the model's code")
  export.add_argument("workdir", metavar="WORKDIR", type=Path, help="workdir of a run")
  export.add_argument("--to", required=True, choices=FORMATS, help="stablehlo for JAX, onnx for ONNX Runtime")
  export.add_argument("--out", metavar="DIR", type=Path, help="folder to write; default: WORKDIR/export/TO-DTYPE")
  export.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help="of the stored weights; default: %(default)s")
  export.set_defaults(run=_export)
  compare = commands.add_parser("compare", help="size, latency and quality of a run's export in every dtype")
  compare.add_argument("workdir", metavar="WORKDIR", type=Path, help="workdir of a run, with its data")
  compare.add_argument("--to", choices=FORMATS, default=FORMATS[0], help="default: %(default)s")
  compare.add_argument("--json", metavar="FILE", type=Path, help="also write the numbers to a file")
  compare.set_defaults(run=_compare)
  benchmark = commands.add_parser("benchmark", help="latency and throughput of an export, by batch size")
  benchmark.add_argument("folder", metavar="DIR", type=Path, help="folder of an export")
  benchmark.add_argument("--batches", metavar="N", type=int, nargs="+", default=[1, 8, 64], help="default: 1 8 64")
  benchmark.add_argument("--calls", metavar="N", type=int, default=200, help="timed calls; default: %(default)s")
  benchmark.add_argument("--warm-up", metavar="N", type=int, default=10, help="calls before; default: %(default)s")
  benchmark.add_argument("--json", metavar="FILE", type=Path, help="also write the numbers to a file")
  benchmark.add_argument("--plot", metavar="FILE", type=Path, help="also draw latency and throughput (.svg or .png)")
  benchmark.set_defaults(run=_benchmark)
  return parser


def _export(options: Any) -> int:
  from mmjax.deploy.writing import export
  from mmjax.loading import load_run

  folder = export(load_run(options.workdir), options.to, options.out, dtype=options.dtype)
  _print(f"exported: {folder}")
  return 0


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
