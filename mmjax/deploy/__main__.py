"""Command line of deployment: `python -m mmjax.deploy serve WORKDIR`, `... report WORKDIR --statistics FILE`."""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape

from mmjax.data.errors import DataError
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


def _serve(options: Any) -> int:
  from mmjax.deploy.serving.command import serve

  return serve(options)


def _report(options: Any) -> int:
  from mmjax.deploy.serving.drift import report

  return report(options)


COMMANDS: tuple[Command, ...] = (
  Command("serve", "answer requests over HTTP, with a page to try the model", add_serve_options, _serve),
  Command("report", "compare embeddings of a service with those of the data of the run", add_report_options, _report),
)


def main(arguments: Sequence[str] | None = None) -> int:
  """Run a command.

  Args:
    arguments: the command line. None: sys.argv[1:].
  Returns: the exit status: 0; 2 for a mistake of the user; 130 after Ctrl-C.
  """
  parser = argparse.ArgumentParser(prog="python -m mmjax.deploy", description="Deploy trained models.")
  commands = parser.add_subparsers(dest="command", required=True)
  for command in COMMANDS:
    own = commands.add_parser(command.name, help=command.help, description=command.help)
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


if __name__ == "__main__":
  sys.exit(main())
