"""Evaluators, one file each, and the configuration that lists those of a run."""

from typing import TYPE_CHECKING

from mmjax.evaluate.evaluator import Evaluator, Shared
from mmjax.evaluators.answers import AnswerAccuracy
from mmjax.evaluators.attention import WordAttention
from mmjax.evaluators.bootstrapped import CapFilt
from mmjax.evaluators.captions import WrittenCaptions
from mmjax.evaluators.classes import ClassAccuracy
from mmjax.evaluators.classified import ClassifiedExamples
from mmjax.evaluators.config import EvaluationConfig, built_in
from mmjax.evaluators.drawn import DrawnScenes
from mmjax.evaluators.emoji import EmojiSuite
from mmjax.evaluators.few_shot import FewShot
from mmjax.evaluators.hidden_patches import HiddenPatches
from mmjax.evaluators.hidden_words import HiddenWords
from mmjax.evaluators.language import LanguageModelling
from mmjax.evaluators.matching import MatchedPairs
from mmjax.evaluators.modalities import SomeModalities
from mmjax.evaluators.next_sentence import NextSentenceAccuracy
from mmjax.evaluators.noise import CaptionNoise
from mmjax.evaluators.numbers import PredictedNumbers
from mmjax.evaluators.pair_retrieval import PairRetrieval
from mmjax.evaluators.pair_score_retrieval import PairScoreRetrieval
from mmjax.evaluators.probe import Probe
from mmjax.evaluators.recognized import RecognizedTexts
from mmjax.evaluators.recommendations import Recommendations
from mmjax.evaluators.reconstructed import ReconstructedImages
from mmjax.evaluators.relevance import RelevantPixels
from mmjax.evaluators.retrieval import ImageTextRetrieval
from mmjax.evaluators.table_columns import TableColumns
from mmjax.evaluators.verification import Verification
from mmjax.evaluators.written_answers import WrittenAnswers
from mmjax.evaluators.written_texts import WrittenTexts
from mmjax.lazy import lazy_names

if TYPE_CHECKING:
  from mmjax.evaluators.capfilt import caption_and_filter
  from mmjax.evaluators.drawn import scene_scores
else:
  __getattr__, __dir__ = lazy_names(__name__, {"capfilt": ["caption_and_filter"], "drawn": ["scene_scores"]})

__all__ = [
  "AnswerAccuracy",
  "CapFilt",
  "CaptionNoise",
  "ClassAccuracy",
  "ClassifiedExamples",
  "DrawnScenes",
  "EmojiSuite",
  "EvaluationConfig",
  "Evaluator",
  "FewShot",
  "HiddenPatches",
  "HiddenWords",
  "ImageTextRetrieval",
  "LanguageModelling",
  "MatchedPairs",
  "NextSentenceAccuracy",
  "PairRetrieval",
  "PairScoreRetrieval",
  "PredictedNumbers",
  "Probe",
  "RecognizedTexts",
  "Recommendations",
  "ReconstructedImages",
  "RelevantPixels",
  "Shared",
  "SomeModalities",
  "TableColumns",
  "Verification",
  "WordAttention",
  "WrittenAnswers",
  "WrittenCaptions",
  "WrittenTexts",
  "built_in",
  "caption_and_filter",
  "scene_scores",
]
