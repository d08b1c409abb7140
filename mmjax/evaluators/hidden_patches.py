"""Masked image modelling: hidden patches of images, guessed from the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mmjax.evaluate.checked import checked_examples
from mmjax.evaluate.evaluator import Evaluator, Shared
from mmjax.evaluate.examples import batches, shown_examples, shown_name
from mmjax.evaluate.forward import over_batches
from mmjax.evaluate.results import PATCHES, Metrics, Result
from mmjax.evaluate.task import make_result
from mmjax.evaluate.traits import entries, terms
from mmjax.evaluators.language import entropy
from mmjax.models.protocols import Fuses, GuessesPatches
from mmjax.objectives.losses.per_example import cross_entropy
from mmjax.objectives.terms.base import Forward
from mmjax.objectives.terms.patches import MaskedPatches, hide_patches

if TYPE_CHECKING:
  from mmjax.experiment import Experiment
  from mmjax.run import Run


@dataclasses.dataclass(frozen=True)
class HiddenPatches(Evaluator):
  """Loss of the hidden patches of validation images, hidden as in training but the same ones every time.

  Pixels: the mean squared error; chance is that of guessing the mean hidden patch. Codes: cross-entropy and accuracy;
  chance is the entropy of the hidden patches' codes, and the share of the commonest one.
  """

  def applies(self, experiment: Experiment) -> bool:
    return "image" in entries(experiment.data) and self._term(experiment) is not None

  def metrics(self, experiment: Experiment) -> Sequence[str]:
    term, name = self._term(experiment), shown_name(experiment.data)
    names = ("patch_loss", "code_accuracy") if term is not None and term.discrete else ("patch_loss",)
    return [f"{name}_patches/{metric}" for metric in names]

  def check(self, run: Run, shared: Shared) -> None:
    checked_examples(run, shared)

  def run(self, run: Run, shared: Shared) -> list[Result]:
    examples, term = shown_examples(run, shared), self._term(run.experiment)
    if term is None:
      return []
    names = (*term.needs, "index")
    answers = (found for _, found in over_batches(run, Guess(term), batches(run, examples), names))
    found = code_scores(answers) if term.discrete else pixel_scores(answers)
    title = f"{examples.title}: hidden patches"
    return [make_result(run, f"{examples.name}_patches", "hidden_patches", title, examples, found, table=PATCHES)]

  def _term(self, experiment: Experiment) -> MaskedPatches | None:
    """The first term that guesses patches from the image alone."""
    found = terms(experiment, GuessesPatches, without=(Fuses,))
    return next((term for term in found if isinstance(term, MaskedPatches)), None)


@dataclasses.dataclass(frozen=True)
class Guess:
  """(model, batch with "image" and "index") -> losses and truth of each image's hidden patches.

  Attributes:
    term: the term that hides patches and makes their targets.
  """

  term: MaskedPatches

  def __call__(self, model: Any, batch: Any) -> dict[str, Array]:
    """A dictionary of arrays [batch, ...]. "hidden" [batch, patches] says which places count.

    Codes: "loss", "right" and "code", [batch, patches]. Pixels: "loss" [batch, patches], and over the hidden patches of
    an image "sum" [batch, pixels] and "squares" [batch, pixels] of the truth.
    """
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(0), batch["index"])
    forward = Forward(model, batch, keys, jnp.zeros((), jnp.int32), (), training=False)
    image, hidden = hide_patches(forward, self.term.rate, self.term.blocks)
    said = model.patch_logits(image.tokens[:, -hidden.shape[1] :], fused=False)
    truth = self.term.truth(forward)
    if self.term.discrete:
      right = jnp.argmax(said, -1) == truth
      return {"hidden": hidden, "loss": cross_entropy(said, truth), "right": right, "code": truth}
    truth = truth.astype(jnp.float32)
    loss = jnp.square(said.astype(jnp.float32) - truth).mean(-1)
    kept = jnp.where(hidden[..., None], truth, 0.0)
    return {"hidden": hidden, "loss": loss, "sum": kept.sum(1), "squares": jnp.square(kept).sum(1)}


def pixel_scores(answers: Iterable[dict[str, np.ndarray]]) -> tuple[Metrics, Metrics]:
  """(metrics, chance) of guessed pixels."""
  totals = [_totals(found) for found in answers]  # of batches, as the truth of all images would fill the memory
  count, loss, values, squares = (sum(column) for column in zip(*totals, strict=True))
  variance = squares / count - np.square(values / count)
  return {"patch_loss": float(loss / count)}, {"patch_loss": float(np.mean(variance))}


def _totals(found: dict[str, np.ndarray]) -> tuple[Any, Any, Any, Any]:
  """The number of hidden patches of a batch, and the sums of their loss, truth and squared truth."""
  hidden, total = found["hidden"], lambda rows: rows.sum(0, dtype=np.float64)
  return hidden.sum(), total(found["loss"][hidden]), total(found["sum"]), total(found["squares"])


def code_scores(answers: Iterable[dict[str, np.ndarray]]) -> tuple[Metrics, Metrics]:
  """(metrics, chance) of guessed codes."""
  parts = [[found[name][found["hidden"]] for name in ("loss", "right", "code")] for found in answers]
  loss, right, code = (np.concatenate(column) for column in zip(*parts, strict=True))
  metrics = {"patch_loss": float(loss.mean(dtype=np.float64)), "code_accuracy": float(right.mean())}
  commonest = np.max(np.unique(code, return_counts=True)[1]) / len(code)
  return metrics, {"patch_loss": entropy(code), "code_accuracy": float(commonest)}
