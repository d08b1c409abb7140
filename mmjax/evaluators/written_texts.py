"""Texts that an encoder-decoder writes from other texts, or from speech."""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Int

from mmjax.evaluate.captions import bleu
from mmjax.evaluate.checked import checked_examples
from mmjax.evaluate.edits import error_rate
from mmjax.evaluate.evaluator import Evaluator, Shared
from mmjax.evaluate.examples import Examples, batches, shown_examples, shown_name
from mmjax.evaluate.forward import over_batches, text_tokenizer
from mmjax.evaluate.matching import other_texts
from mmjax.evaluate.questions import until_end
from mmjax.evaluate.results import TEXTS, Metrics, Result
from mmjax.evaluate.task import make_result
from mmjax.evaluate.traits import entries, terms
from mmjax.models.generate import generate
from mmjax.models.next_word import GenerateConfig
from mmjax.models.protocols import Encodes, Writes

if TYPE_CHECKING:
  from mmjax.data.text.tokenizer import Tokenizer
  from mmjax.experiment import Experiment
  from mmjax.run import Run


@dataclasses.dataclass(frozen=True)
class WrittenTexts(Evaluator):
  """Texts written from `text`, against `target`: the share that is equal word for word, and BLEU-4 of the corpus.

  For texts written from another array, such as `audio`, the word error rate and the character error rate as well.
  Words are what spaces separate. Case does not matter where the tokenizer folds it. Chance is the score of the same
  texts, each compared with the target of another record.
  """

  beams: int = 1
  """Number of beams; 1: the likeliest word each time. Vaswani et al. 2017 use 4."""
  length_penalty: float = 0.6
  """With beams, a text's score is log-probability / tokens ** length_penalty."""

  def __post_init__(self) -> None:
    if self.beams < 1:
      raise ValueError(f"WrittenTexts.beams is {self.beams}: it must be at least 1")

  def applies(self, experiment: Experiment) -> bool:
    sources = _sources(experiment)
    return bool(sources) and {sources[0], "target"} <= set(entries(experiment.data))

  def metrics(self, experiment: Experiment) -> Sequence[str]:
    names = ("exact", "bleu4", *(("wer", "cer") if _sources(experiment)[0] != "text" else ()))
    return [f"{shown_name(experiment.data)}_texts/{name}" for name in names]

  def check(self, run: Run, shared: Shared) -> None:
    checked_examples(run, shared)

  def run(self, run: Run, shared: Shared) -> list[Result]:
    examples = shown_examples(run, shared)
    written, targets = self.write(run, examples), target_texts(run, examples)
    other = other_texts(np.array([record["concept"] for record in examples.records]))
    swapped = [targets[place if place >= 0 else own] for own, place in enumerate(other.tolist())]
    task, score = "translation", text_scores
    if _sources(run.experiment)[0] != "text":
      task, score = "transcription", transcript_scores
    found = score(written, targets), score(written, swapped)
    title = f"{examples.title}: texts written"
    return [make_result(run, f"{examples.name}_texts", task, title, examples, found, table=TEXTS)]

  def write(self, run: Run, examples: Examples) -> list[str]:
    """A text for every record, as `folded` spells it."""
    tokenizer, source = text_tokenizer(run), _sources(run.experiment)[0]
    write = self.writer(tokenizer, source)
    ids = [row for _, part in over_batches(run, write, batches(run, examples), (source,)) for row in part]
    said = (tokenizer.decode(row) for row in until_end(np.stack(ids), tokenizer.eos_id))
    return [folded(text, tokenizer.config.lowercase) for text in said]

  def writer(self, tokenizer: Tokenizer, source: str) -> WriteText:
    """The function that writes texts from an array with these settings."""
    penalty = self.length_penalty if self.beams > 1 else 0.0
    room = GenerateConfig(tokenizer.config.max_length - 1, beams=self.beams, length_penalty=penalty)
    return WriteText(int(tokenizer([""])[0, 0]), room, source)


def _sources(experiment: Experiment) -> list[str]:
  """Names of the arrays that targets are written from."""
  writing = [term for term in terms(experiment, Encodes, Writes) if "target" in term.needs]
  return [name for term in writing for name in term.needs if name != "target"]


@dataclasses.dataclass(frozen=True)
class WriteText:
  """(model, batch with the source) -> ids of the text that is written from each.

  Attributes:
    begin: the token that texts begin with.
    config: how they are generated.
    source: name of the array that they are written from.
  """

  begin: int
  config: GenerateConfig
  source: str = "text"

  def __call__(self, model: Any, batch: Any) -> Int[Array, "batch t"]:
    read = model.encode(batch)[self.source]
    module, variables = model.unbind()
    prompt = jnp.full((len(read.mask), 1), self.begin, jnp.int32)
    return generate(module, variables["params"], prompt, read, config=self.config).ids[:, 1:]


def target_texts(run: Run, examples: Examples, name: str = "target") -> list[str]:
  """The whole text of a column for every record, also where the tokenizer would cut it, as `folded` spells it."""
  from mmjax.data.features import run_columns

  column: Any = run_columns(run.experiment.data)[name]
  lowercase = text_tokenizer(run).config.lowercase
  return [folded(column.texts(record)[0], lowercase) for record in examples.records]


def folded(text: str, lowercase: bool) -> str:
  """One space between words; in lower case and compatibility forms if a tokenizer folds these."""
  return " ".join((unicodedata.normalize("NFKC", text).lower() if lowercase else text).split())


def text_scores(written: Sequence[str], targets: Sequence[str]) -> Metrics:
  """The share of texts that equal their target, and BLEU-4 over words between spaces."""
  equal = float(np.mean([text == target for text, target in zip(written, targets, strict=True)]))
  score = bleu([text.split() for text in written], [[target.split()] for target in targets])["bleu4"]
  return {"exact": equal, "bleu4": score}


def transcript_scores(written: Sequence[str], targets: Sequence[str]) -> Metrics:
  """The scores of `text_scores`, and the error rates over words and over characters."""
  words = error_rate([text.split() for text in written], [target.split() for target in targets])
  return text_scores(written, targets) | {"wer": words, "cer": error_rate(written, targets)}
