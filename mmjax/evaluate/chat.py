"""Dialogues about images with a trained run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mmjax.data.columns.interleaved import PLACE, Dialogue
from mmjax.errors import UserError
from mmjax.evaluate.forward import text_tokenizer
from mmjax.evaluate.prompts import Prompt, interleaved_column, written
from mmjax.models.next_word import GenerateConfig

if TYPE_CHECKING:
  from mmjax.run import Run


class Chat:
  """A dialogue, which `say` continues by a turn of the user and one of the assistant.

  Args:
    run: a run that was trained on dialogues (column Dialogue).
    config: decoding method, and the largest number of tokens of a turn.
    seed: seed of the samples.

  Attributes:
    turns: the turns so far, as (role, text).
    images: the images of the turns, in the order of `<image>`.
    forgotten: number of turns at the beginning that the model does not read any more, as the dialogue is too long.

  Raises: UserError: the run was not trained on dialogues.
  """

  def __init__(self, run: Run, config: GenerateConfig, *, seed: int = 0):
    column = interleaved_column(run)
    if not isinstance(column, Dialogue):
      raise UserError(f"the run in {run.workdir} was trained on texts, and not on dialogues: use Run.answer")
    self._run, self._column, self._config, self._seed = run, column, config, seed
    self.turns: list[tuple[str, str]] = []
    self.images: list[Any] = []
    self.forgotten = 0

  def say(self, text: str, images: Sequence[Any] = ()) -> str:
    """Say something, and return the assistant's turn.

    Args:
      text: the user's turn. `<image>` stands for an image; without it, the images come before the text.
      images: images of the turn. They are inputs of Run.preprocess.
    Raises:
      UserError: the text has another number of `<image>` than there are images, or does not fit into the model. The
        dialogue is then as before.
    """
    shown = text if PLACE in text else " ".join([*[PLACE] * len(images), text])
    Prompt.of(shown, images)  # refuses another number of images
    turns, every = [*self.turns, ("user", shown)], [*self.images, *images]
    start = self._first(turns, every)
    said = written(self._run, [self._prompt(turns, every, start)], self._config, seed=self._seed + len(turns))[0]
    self.turns, self.images, self.forgotten = [*turns, ("assistant", said)], every, start
    return said

  def _first(self, turns: Sequence[tuple[str, str]], images: Sequence[Any]) -> int:
    """Number of turns that are left out so that the rest fits: pairs of turns, the earliest first."""
    room = getattr(self._run.experiment.model, "text").max_length - self._config.max_new_tokens  # noqa: B009
    tokenizer = text_tokenizer(self._run)
    for start in range(self.forgotten, len(turns), 2):
      prompt = self._prompt(turns, images, start)
      fits = len(self._column.ids(prompt.pieces, tokenizer, end=False)[0]) <= room
      if fits and len(prompt.images) <= self._column.images:
        return start
    return len(turns) - 1  # does not fit even alone, which `written` says

  def _prompt(self, turns: Sequence[tuple[str, str]], images: Sequence[Any], start: int) -> Prompt:
    gone = sum(text.count(PLACE) for _, text in turns[:start])
    return Prompt(tuple(self._column.prompt(turns[start:])), tuple(images[gone:]))
