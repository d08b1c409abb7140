"""Losses: pure functions of what the models say."""

from mmjax.objectives.contrastive import clip_loss, masked_logits, siglip_loss
from mmjax.objectives.distillation import distillation_loss
from mmjax.objectives.features import image_text
from mmjax.objectives.labelled import supcon_loss, supcon_views_loss, unicl_loss
from mmjax.objectives.margin import hinge_loss, triplet_loss
from mmjax.objectives.pairwise import Pairwise, batch_mean, pairwise_loss, pairwise_statistics
from mmjax.objectives.similarity import pair_similarity, similarity
from mmjax.objectives.variants import dcl_loss, focal_loss, sogclr_loss

__all__ = [
  "Pairwise",
  "batch_mean",
  "clip_loss",
  "dcl_loss",
  "distillation_loss",
  "focal_loss",
  "hinge_loss",
  "image_text",
  "masked_logits",
  "pair_similarity",
  "pairwise_loss",
  "pairwise_statistics",
  "siglip_loss",
  "similarity",
  "sogclr_loss",
  "supcon_loss",
  "supcon_views_loss",
  "triplet_loss",
  "unicl_loss",
]
