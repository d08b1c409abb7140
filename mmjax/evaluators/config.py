"""Every --evaluation.* setting."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from mmjax.evaluate.evaluator import Evaluator
from mmjax.evaluators.answers import AnswerAccuracy
from mmjax.evaluators.attention import WordAttention
from mmjax.evaluators.bootstrapped import CapFilt
from mmjax.evaluators.captions import WrittenCaptions
from mmjax.evaluators.classes import ClassAccuracy
from mmjax.evaluators.emoji import EmojiSuite
from mmjax.evaluators.hidden_patches import HiddenPatches
from mmjax.evaluators.hidden_words import HiddenWords
from mmjax.evaluators.language import LanguageModelling
from mmjax.evaluators.matching import MatchedPairs
from mmjax.evaluators.modalities import SomeModalities
from mmjax.evaluators.next_sentence import NextSentenceAccuracy
from mmjax.evaluators.noise import CaptionNoise
from mmjax.evaluators.numbers import PredictedNumbers
from mmjax.evaluators.pair_retrieval import PairRetrieval
from mmjax.evaluators.recognized import RecognizedTexts
from mmjax.evaluators.recommendations import Recommendations
from mmjax.evaluators.relevance import RelevantPixels
from mmjax.evaluators.retrieval import ImageTextRetrieval
from mmjax.evaluators.table_columns import TableColumns
from mmjax.evaluators.verification import Verification
from mmjax.evaluators.written_answers import WrittenAnswers
from mmjax.evaluators.written_texts import WrittenTexts


def built_in() -> dict[str, Evaluator]:
  """All evaluators with their default settings, by name, in the order of results."""
  return {
    "emoji": EmojiSuite(),
    "retrieval": ImageTextRetrieval(),
    "pairs": PairRetrieval(),
    "classes": ClassAccuracy(),
    "numbers": PredictedNumbers(),
    "modalities": SomeModalities(),
    "answers": AnswerAccuracy(),
    "written_answers": WrittenAnswers(),
    "relevance": RelevantPixels(),
    "matching": MatchedPairs(),
    "noise": CaptionNoise(),
    "capfilt": CapFilt(),
    "captions": WrittenCaptions(),
    "hidden_words": HiddenWords(),
    "next_sentence": NextSentenceAccuracy(),
    "language": LanguageModelling(),
    "written_texts": WrittenTexts(),
    "recognized": RecognizedTexts(),
    "verification": Verification(),
    "hidden_patches": HiddenPatches(),
    "attention": WordAttention(),
    "table_columns": TableColumns(),
    "recommendations": Recommendations(),
  }


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
  """The evaluators of a run, and how often they measure it."""

  every: int = 0
  """Steps between evaluations while training; 0 evaluates at the end only."""
  average: bool = True
  """Evaluate, load and export the moving average of the parameters, if the run keeps one (optimizer.ema_decay). False:
  the parameters of the last step."""
  batch_size: int = 256
  """Examples encoded at a time, over all devices."""
  best_metric: str | None = None
  """The metric whose best checkpoint is kept: TASK/METRIC, as in the evaluation lines of metrics.jsonl. None: the first
  metric of the first evaluator that applies (retrieval: mean_recall@1)."""
  max_examples: int = 5000
  """At most this many records of the validation split, evenly spread over it. The emoji are always measured whole."""
  counts: Literal["own", "concept"] = "own"
  """Right answers of retrieval. own: an image's own captions, as CLIP_benchmark does; concept: every image and
  caption of the same concept, for captions that are class names. Images of one emoji always count."""
  evaluators: Mapping[str, Evaluator] = dataclasses.field(default_factory=built_in, hash=False)
  """Evaluators by name. A run uses those that apply to it, in this order."""
  patience: int = 0
  """Stop the training after this many evaluations in a row without a better best_metric. 0: train to run.steps."""

  def __post_init__(self):
    for name in ("batch_size", "max_examples"):
      if getattr(self, name) < 1:
        raise ValueError(f"evaluation.{name} is {getattr(self, name)}: it must be at least 1")
    for name in ("every", "patience"):
      if getattr(self, name) < 0:
        raise ValueError(f"evaluation.{name} is {getattr(self, name)}: it must not be negative")
    if self.patience and not self.every:
      raise ValueError("evaluation.patience counts evaluations, and there are none: set evaluation.every")

  def after(self, step: int) -> bool:
    """True if a run evaluates after a step."""
    return self.every > 0 and step > 0 and step % self.every == 0
