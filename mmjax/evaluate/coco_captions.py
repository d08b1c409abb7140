"""METEOR and SPICE by the COCO evaluation's own Java programs (pip install 'mmjax[captions]')."""

import importlib.util
import shutil
from collections.abc import Sequence
from pathlib import Path

from mmjax.evaluate.results import Metrics

# SPICE parses sentences with models of Stanford's that pycocoevalcap would download when it is first used.
_MODELS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")


def java_scores(captions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[Metrics, dict[str, str]]:
  """(meteor and spice, as far as they can be computed here; why the others cannot, by name)."""
  reason = _unavailable()
  if reason:
    return {}, {"meteor": reason, "spice": reason}
  from pycocoevalcap.meteor.meteor import Meteor

  truth, written = tokenized(captions, references)
  scores: Metrics = {"meteor": float(Meteor().compute_score(truth, written)[0])}
  folder, absent = _absent()
  if absent:
    return scores, {"spice": f"{' and '.join(absent)} of Stanford CoreNLP 3.6.0 must be put into {folder}"}
  from pycocoevalcap.spice.spice import Spice

  return scores | {"spice": float(Spice().compute_score(truth, written)[0])}, {}


def java_metrics() -> tuple[str, ...]:
  """The names of the metrics that `java_scores` can compute here."""
  if _unavailable():
    return ()
  return ("meteor",) if _absent()[1] else ("meteor", "spice")


def tokenized(
  captions: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
  """(references, captions) by image, in Stanford's words: what pycocoevalcap's scorers take."""
  from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

  tokenize = PTBTokenizer().tokenize
  truth = {n: [{"caption": text} for text in many] for n, many in enumerate(references)}
  return tokenize(truth), tokenize({n: [{"caption": text}] for n, text in enumerate(captions)})


def _absent() -> tuple[Path, list[str]]:
  """The folder of SPICE's models, and those that are not there."""
  folder = Path(str(importlib.util.find_spec("pycocoevalcap.spice.spice").origin)).parent / "lib"  # type: ignore[union-attr]
  return folder, [name for name in _MODELS if not (folder / name).exists()]


def _unavailable() -> str | None:
  if importlib.util.find_spec("pycocoevalcap") is None:
    return "pycocoevalcap is not installed (pip install 'mmjax[captions]')"
  return None if shutil.which("java") else "there is no java here, which METEOR and SPICE are written in"
