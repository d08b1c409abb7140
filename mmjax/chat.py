"""Talks about images with a trained run: `python -m mmjax.chat RUN --image a.png`."""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import tyro
from rich.console import Console

from mmjax.cli import run_module
from mmjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class ChatOptions:
  """Talk about images with a run that was trained on dialogues. An empty line ends the dialogue."""

  run: tyro.conf.Positional[str]
  """Workdir of the run."""
  image: tuple[Path, ...] = ()
  """Images of the first turn."""
  say: tuple[str, ...] = ()
  """Turns of the user. Without any, they are read from the terminal, line by line."""
  max_new_tokens: int = 32
  """Maximal number of tokens of an answer."""
  temperature: float = 0.0
  """Divisor of the log-probabilities before a word is sampled; 0: the likeliest word."""
  seed: int = 0
  """Seed of the samples."""

  def __post_init__(self) -> None:
    if self.max_new_tokens < 1 or self.temperature < 0 or self.seed < 0:
      raise ValueError("--max-new-tokens must be at least 1, and --temperature and --seed must not be negative")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
  """Run the command line, and exit with its status.

  Args:
    arguments: the command line. None: sys.argv[1:].
  """
  run_module(ChatOptions, chat, "mmjax.chat", arguments)


def chat(options: ChatOptions) -> None:
  """Hold the dialogue. Answers go to standard output."""
  from mmjax.evaluate.chat import Chat
  from mmjax.loading import load_run
  from mmjax.models.next_word import GenerateConfig

  missing = [path for path in options.image if not path.is_file()]
  if missing:
    raise UserError(f"there is no image {missing[0]}: check --image")
  config = GenerateConfig(max_new_tokens=options.max_new_tokens, temperature=options.temperature)
  dialogue, images, console = Chat(load_run(options.run), config, seed=options.seed), options.image, Console()
  for text in options.say or _lines():
    console.print(dialogue.say(text, images), highlight=False, markup=False)
    if dialogue.forgotten:
      print(f"({dialogue.forgotten} earlier turns are forgotten: they do not fit into the model)", file=sys.stderr)
    images = ()


def _lines() -> Iterator[str]:
  """Lines of standard input, until an empty one or the end."""
  while True:
    if sys.stdin.isatty():
      print("> ", end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline().strip()
    if not line:
      return
    yield line


if __name__ == "__main__":
  main()
