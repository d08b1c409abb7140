"""Losses: pure functions of what the models say."""

from mmjax.objectives.contrastive import clip_loss, siglip_loss

__all__ = ["clip_loss", "siglip_loss"]
