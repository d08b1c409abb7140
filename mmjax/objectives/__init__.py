"""Losses: pure functions of model outputs."""

from mmjax.objectives.losses.alignment import transport_plan, word_patch_distance
from mmjax.objectives.losses.answering import (
  answer_class_loss,
  answer_log_likelihood,
  answer_ranking_loss,
  answer_score_loss,
  answer_scores,
)
from mmjax.objectives.losses.balance import piecewise_linear, uncertainty_weighted
from mmjax.objectives.losses.captioning import caption_loss, text_log_likelihood
from mmjax.objectives.losses.codebook import fit_codebook, nearest_code
from mmjax.objectives.losses.contrastive import clip_loss, masked_logits, siglip_loss
from mmjax.objectives.losses.ctc import ctc_loss
from mmjax.objectives.losses.distillation import distillation_loss, feature_distillation_loss
from mmjax.objectives.losses.inputs import image_text
from mmjax.objectives.losses.item_frequency import ItemFrequency
from mmjax.objectives.losses.labelled import supcon_views_loss, unicl_loss
from mmjax.objectives.losses.margin import hinge_loss, semi_hard_triplet_loss, triplet_loss
from mmjax.objectives.losses.margin_softmax import arcface_cosines, cosface_cosines
from mmjax.objectives.losses.masked_images import masked_code_loss, masked_pixel_loss
from mmjax.objectives.losses.masked_words import (
  choose_positions,
  distilled_word_loss,
  mask_tokens,
  masked_word_loss,
  take_positions,
)
from mmjax.objectives.losses.matching import MATCHING_CHANCE, Negatives, global_negatives, hard_negatives, matching_loss
from mmjax.objectives.losses.mixing import cutmix, mixup
from mmjax.objectives.losses.momentum import Queue, enqueue, momentum_update
from mmjax.objectives.losses.momentum_contrast import momentum_contrast_loss
from mmjax.objectives.losses.next_sentence import next_sentence_loss
from mmjax.objectives.losses.patch_masks import block_patches, random_patches
from mmjax.objectives.losses.patches import normalize_patches, patchify
from mmjax.objectives.losses.per_example import ExampleLosses, class_loss, cross_entropy, mean_where, weighted
from mmjax.objectives.losses.regression import regression_loss
from mmjax.objectives.losses.relevance import relevance_loss
from mmjax.objectives.losses.reweighted import dcl_loss, focal_loss, sogclr_loss
from mmjax.objectives.losses.sampled_softmax import sampled_softmax_loss
from mmjax.objectives.losses.smoothed import align_loss
from mmjax.objectives.pairwise.engine import Pairwise, batch_mean, pairwise_loss, pairwise_statistics
from mmjax.objectives.pairwise.similarity import pair_similarity, similarity
from mmjax.objectives.terms.adversarial import Deceive, Discriminate
from mmjax.objectives.terms.answers import Answer, AnswerRanking, AnswerScores, AnswerText, ModalityAnswer, Relevance
from mmjax.objectives.terms.base import BatchTerm, ExampleTerm, Forward, Scores, Term, Whole
from mmjax.objectives.terms.classify import Classify
from mmjax.objectives.terms.contrastive import Contrastive
from mmjax.objectives.terms.ctc import Ctc
from mmjax.objectives.terms.distillation import Distillation, FeatureDistillation
from mmjax.objectives.terms.draw import DrawCodes, DrawMaskedCodes
from mmjax.objectives.terms.interleaved import InterleavedText
from mmjax.objectives.terms.language import Caption, MaskedWords, NextSentence, TargetText
from mmjax.objectives.terms.margin_softmax import ArcFace, CosFace, MarginSoftmax
from mmjax.objectives.terms.matching import Matching, SwappedMatching
from mmjax.objectives.terms.members import ClassifyMembers
from mmjax.objectives.terms.momentum import MomentumContrastive
from mmjax.objectives.terms.pair_losses import (
  Align,
  Dcl,
  Focal,
  Hinge,
  PairLoss,
  SemiHard,
  Sigmoid,
  Softmax,
  Supcon,
  Triplet,
  Unicl,
)
from mmjax.objectives.terms.pair_softmax import PairSoftmax
from mmjax.objectives.terms.patches import MaskedBoth, MaskedPatches
from mmjax.objectives.terms.reconstruct import Reconstruct
from mmjax.objectives.terms.regress import Regress
from mmjax.objectives.terms.sampled_softmax import SampledSoftmax
from mmjax.objectives.terms.sogclr import Sogclr

__all__ = [
  "MATCHING_CHANCE",
  "Align",
  "Answer",
  "AnswerRanking",
  "AnswerScores",
  "AnswerText",
  "ArcFace",
  "BatchTerm",
  "Caption",
  "Classify",
  "ClassifyMembers",
  "Contrastive",
  "CosFace",
  "Ctc",
  "Dcl",
  "Deceive",
  "Discriminate",
  "Distillation",
  "DrawCodes",
  "DrawMaskedCodes",
  "ExampleLosses",
  "ExampleTerm",
  "FeatureDistillation",
  "Focal",
  "Forward",
  "Hinge",
  "InterleavedText",
  "ItemFrequency",
  "MarginSoftmax",
  "MaskedBoth",
  "MaskedPatches",
  "MaskedWords",
  "Matching",
  "ModalityAnswer",
  "MomentumContrastive",
  "Negatives",
  "NextSentence",
  "PairLoss",
  "PairSoftmax",
  "Pairwise",
  "Queue",
  "Reconstruct",
  "Regress",
  "Relevance",
  "SampledSoftmax",
  "Scores",
  "SemiHard",
  "Sigmoid",
  "Softmax",
  "Sogclr",
  "Supcon",
  "SwappedMatching",
  "TargetText",
  "Term",
  "Triplet",
  "Unicl",
  "Whole",
  "align_loss",
  "answer_class_loss",
  "answer_log_likelihood",
  "answer_ranking_loss",
  "answer_score_loss",
  "answer_scores",
  "arcface_cosines",
  "batch_mean",
  "block_patches",
  "caption_loss",
  "choose_positions",
  "class_loss",
  "clip_loss",
  "cosface_cosines",
  "cross_entropy",
  "ctc_loss",
  "cutmix",
  "dcl_loss",
  "distillation_loss",
  "distilled_word_loss",
  "enqueue",
  "feature_distillation_loss",
  "fit_codebook",
  "focal_loss",
  "global_negatives",
  "hard_negatives",
  "hinge_loss",
  "image_text",
  "mask_tokens",
  "masked_code_loss",
  "masked_logits",
  "masked_pixel_loss",
  "masked_word_loss",
  "matching_loss",
  "mean_where",
  "mixup",
  "momentum_contrast_loss",
  "momentum_update",
  "nearest_code",
  "next_sentence_loss",
  "normalize_patches",
  "pair_similarity",
  "pairwise_loss",
  "pairwise_statistics",
  "patchify",
  "piecewise_linear",
  "random_patches",
  "regression_loss",
  "relevance_loss",
  "sampled_softmax_loss",
  "semi_hard_triplet_loss",
  "siglip_loss",
  "similarity",
  "sogclr_loss",
  "supcon_views_loss",
  "take_positions",
  "text_log_likelihood",
  "transport_plan",
  "triplet_loss",
  "uncertainty_weighted",
  "unicl_loss",
  "weighted",
  "word_patch_distance",
]
