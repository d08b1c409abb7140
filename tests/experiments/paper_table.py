"""Every value of the papers' own configurations beside its source, in the source's unit.

A row is (our value, where it comes from). `OURS` says of what the sources leave open why it is as it is. The test
compares both with the configurations, and finds fields that stand in neither.
"""

import math
from typing import Any

Rows = dict[str, tuple[Any, str]]

CLIP: Rows = {
  "optimizer.algorithm": ("adam", "AdamW: Adam with decoupled weight decay (2.5)"),
  "optimizer.learning_rate": (5e-4, "5e-4 (table 20)"),
  "optimizer.schedule": ("cosine", "cosine decay (2.5)"),
  "optimizer.warmup_steps": (2000, "2,000 iterations (table 18)"),
  "optimizer.b1": (0.9, "0.9 (table 18)"),
  "optimizer.b2": (0.98, "0.98 for ViT (table 18)"),
  "optimizer.epsilon": (1e-6, "1e-6 for ViT (table 18)"),
  "optimizer.weight_decay": (0.2, "0.2, multiplied by the learning rate as in PyTorch's AdamW (table 18)"),
  "optimizer.weight_decay_rules": (
    (("(kernel|embedding|class_token|class_position)$", 1.0), (".*", 0.0)),
    "all weights that are not gains or biases (2.5)",
  ),
  "optimizer.clip_norm": (0.0, "no gradient clipping is named"),
  "optimizer.ema_decay": (0.0, "no moving average is named"),
  "run.batch_size": (32_768, "32,768 pairs (table 18)"),
  "run.steps": (390_625, "32 epochs of 400 million pairs (table 18, 2.2), in batches"),
  "data.tokenizer.vocab_size": (49_408, "49,408 (table 18)"),
  "data.tokenizer.max_length": (77, "77 with both special tokens (model cards; the text says 76)"),
  "data.tokenizer.lowercase": (True, "lower-cased byte pairs (2.4)"),
  "data.tokenizer.bos_token": ("<bos>", "[SOS] before the text (2.4)"),
  "data.augmentation.crop_ratio": ((1.0, 1.0), "a random square crop (2.4)"),
  "data.augmentation.flip": (0.0, "the crop is the only augmentation (2.4)"),
  "data.augmentation.rotation": (0.0, "the crop is the only augmentation (2.4)"),
  "data.augmentation.brightness": (0.0, "the crop is the only augmentation (2.4)"),
  "data.augmentation.contrast": (0.0, "the crop is the only augmentation (2.4)"),
  "data.augmentation.saturation": (0.0, "the crop is the only augmentation (2.4)"),
  "data.augmentation.hue": (0.0, "the crop is the only augmentation (2.4)"),
  "data.augmentation.greyscale": (0.0, "the crop is the only augmentation (2.4)"),
  "data.mean": ((0.48145466, 0.4578275, 0.40821073), "openai/CLIP, clip.py, _transform"),
  "data.std": ((0.26862954, 0.26130258, 0.27577711), "openai/CLIP, clip.py, _transform"),
  "data.interpolation": ("bicubic", "openai/CLIP, clip.py, _transform: Resize(BICUBIC) of Pillow, which antialiases"),
  "data.square": ("crop", "openai/CLIP, clip.py, _transform: CenterCrop"),
  "model.embed_dim": (512, "512 (table 20)"),
  "model.init_logit_scale": (1 / 0.07, "temperature 0.07 (2.5)"),
  "model.max_logit_scale": (100.0, "maximum temperature 100 (table 18)"),
  "model.init_logit_bias": (None, "no bias"),
  "model.image_projection": ("linear", "linear projection without a bias (2.4; model.py)"),
  "model.text_projection": ("linear", "linear projection without a bias (2.4; model.py)"),
  "model.image.image_size": (224, "224 pixels (table 20)"),
  "model.image.patch_size": (32, "B/32 (table 20)"),
  "model.image.depth": (12, "12 layers (table 20)"),
  "model.image.width": (768, "768 (table 20)"),
  "model.image.num_heads": (12, "12 (table 20)"),
  "model.image.hidden": (3072, "4 times the width (model.py)"),
  "model.image.pool": ("cls", "class token (model.py)"),
  "model.image.class_position": (True, "positional_embedding has a row for the class token (model.py)"),
  "model.image.stem_bias": (False, "conv1 without a bias (model.py)"),
  "model.image.input_norm": (True, "layer norm before the transformer (2.4)"),
  "model.image.norm": ("pre", "model.py"),
  "model.image.activation": ("quick_gelu", "QuickGELU (model.py)"),
  "model.image.norm_epsilon": (1e-5, "PyTorch's layer norm"),
  "model.image.init_scheme": ("clip", "initialize_parameters (model.py), for both towers"),
  "model.text.depth": (12, "12 layers (table 20)"),
  "model.text.width": (512, "512 (table 20)"),
  "model.text.num_heads": (8, "8 (table 20)"),
  "model.text.hidden": (2048, "4 times the width (model.py)"),
  "model.text.causal": (True, "masked self-attention (2.4)"),
  "model.text.pool": ("eos", "activations at [EOS] (2.4)"),
  "model.text.input_norm": (False, "model.py"),
  "model.text.norm": ("pre", "model.py"),
  "model.text.activation": ("quick_gelu", "QuickGELU (model.py)"),
  "model.text.norm_epsilon": (1e-5, "PyTorch's layer norm"),
  "model.text.init_scheme": ("clip", "initialize_parameters (model.py)"),
}

CLIP_L14: Rows = CLIP | {
  "optimizer.learning_rate": (4e-4, "4e-4 (table 20)"),
  "model.embed_dim": (768, "768 (table 20)"),
  "model.image.patch_size": (14, "L/14 (table 20)"),
  "model.image.depth": (24, "24 layers (table 20)"),
  "model.image.width": (1024, "1,024 (table 20)"),
  "model.image.num_heads": (16, "16 (table 20)"),
  "model.image.hidden": (4096, "4 times the width (model.py)"),
  "model.text.width": (768, "768 (table 20)"),
  "model.text.num_heads": (12, "12 (table 20)"),
  "model.text.hidden": (3072, "4 times the width (model.py)"),
}

OPENCLIP_H14: Rows = CLIP_L14 | {
  "optimizer.learning_rate": (5e-4, "5e-4 (Cherti et al., appendix; params.py's default for ViT)"),
  "optimizer.weight_decay_rules": (
    (("(kernel|embedding|class_position)$", 1.0), (".*", 0.0)),
    "legacy_main.py: no decay of parameters with one axis (the class token), norms, biases and the scale",
  ),
  "optimizer.clip_norm": (0.0, "params.py: --grad-clip-norm is off by default"),
  "run.batch_size": (79_872, "79,104 (model card), rounded up to fill tiles"),
  "run.steps": (400_641, "32 billion samples (model card), in batches"),
  "data.augmentation.crop_scale": ((0.9, 1.0), "transform.py"),
  "data.augmentation.crop_ratio": ((0.75, 4 / 3), "transform.py: RandomResizedCrop's default"),
  "model.embed_dim": (1024, "ViT-H-14.json"),
  "model.image.depth": (32, "ViT-H-14.json"),
  "model.image.width": (1280, "ViT-H-14.json"),
  "model.image.num_heads": (16, "ViT-H-14.json: heads of 80"),
  "model.image.hidden": (5120, "ViT-H-14.json"),
  "model.image.activation": ("gelu", "ViT-H-14.json: no quick_gelu"),
  "model.text.depth": (24, "ViT-H-14.json"),
  "model.text.width": (1024, "ViT-H-14.json"),
  "model.text.num_heads": (16, "ViT-H-14.json"),
  "model.text.hidden": (4096, "ViT-H-14.json"),
  "model.text.activation": ("gelu", "ViT-H-14.json: no quick_gelu"),
}

SIGLIP: Rows = {
  "optimizer.algorithm": ("adam", "scale_by_adam"),
  "optimizer.learning_rate": (1e-3, "0.001"),
  "optimizer.b1": (0.9, "optax's default"),
  "optimizer.b2": (0.95, "0.95 (4.6)"),
  "optimizer.epsilon": (1e-8, "optax's default"),
  "optimizer.weight_decay": (
    0.1,
    "0.0001, added after the multiplication by the learning rate 0.001 and then scaled by the schedule (big_vision, "
    "optax.py): here 0.0001 / 0.001",
  ),
  "optimizer.weight_decay_rules": ((("kernel$", 1.0), (".*", 0.0)), "kernels alone (big_vision, optax.py, wd_mults)"),
  "optimizer.clip_norm": (1.0, "grad_clip_norm 1.0 (big_vision, siglip_lit_coco.py)"),
  "optimizer.ema_decay": (0.0, "no moving average"),
  "run.batch_size": (32_768, "32,768 (4)"),
  "run.steps": (274_658, "9 billion examples, in batches"),
  "data.tokenizer.vocab_size": (32_000, "32,000 (big_vision, text_transformer.py)"),
  "data.tokenizer.max_length": (64, "64 (big_vision, SigLIP_demo.ipynb)"),
  "data.tokenizer.bos_token": (None, "no token before the text (SigLIP_demo.ipynb)"),
  "data.augmentation.crop_scale": ((1.0, 1.0), "resize alone (SigLIP_demo.ipynb)"),
  "data.augmentation.flip": (0.0, "resize alone (SigLIP_demo.ipynb)"),
  "data.augmentation.rotation": (0.0, "resize alone (SigLIP_demo.ipynb)"),
  "data.augmentation.brightness": (0.0, "resize alone (SigLIP_demo.ipynb)"),
  "data.augmentation.contrast": (0.0, "resize alone (SigLIP_demo.ipynb)"),
  "data.augmentation.saturation": (0.0, "resize alone (SigLIP_demo.ipynb)"),
  "data.augmentation.hue": (0.0, "resize alone (SigLIP_demo.ipynb)"),
  "data.augmentation.greyscale": (0.0, "resize alone (SigLIP_demo.ipynb)"),
  "data.mean": ((0.5, 0.5, 0.5), "value_range(-1, 1)"),
  "data.std": ((0.5, 0.5, 0.5), "value_range(-1, 1)"),
  "data.interpolation": ("bilinear", "big_vision, ops_image.py (there without antialiasing)"),
  "data.square": ("squash", "resize(224) to both sides (big_vision, ops_image.py)"),
  "model.embed_dim": (768, "768 (SigLIP_demo.ipynb)"),
  "model.init_logit_scale": (10.0, "temperature_init 10 (3.2)"),
  "model.max_logit_scale": (math.inf, "not clamped (two_towers.py, siglip.py)"),
  "model.init_logit_bias": (-10.0, "bias_init -10 (3.2)"),
  "model.max_logit_bias": (math.inf, "not clamped (two_towers.py, siglip.py)"),
  "model.image_projection": ("none", "out_dim (None, 768) (SigLIP_demo.ipynb)"),
  "model.text_projection": ("affine", "a Dense head (text_transformer.py)"),
  "model.image.image_size": (224, "224 pixels"),
  "model.image.patch_size": (16, "B/16"),
  "model.image.depth": (12, "B (vit.py)"),
  "model.image.width": (768, "B (vit.py)"),
  "model.image.num_heads": (12, "B (vit.py)"),
  "model.image.hidden": (3072, "B (vit.py)"),
  "model.image.pool": ("map", "pool_type map (SigLIP_demo.ipynb)"),
  "model.image.stem_bias": (True, "flax's Conv (vit.py)"),
  "model.image.input_norm": (False, "vit.py"),
  "model.image.norm": ("pre", "vit.py"),
  "model.image.positions": ("learned", "posemb learn (vit.py)"),
  "model.image.activation": ("gelu_tanh", "flax's gelu (vit.py)"),
  "model.image.norm_epsilon": (1e-6, "flax's LayerNorm"),
  "model.image.init_scheme": (
    "xavier",
    "xavier_uniform (vit.py); biases of the MLP are 0 here, of deviation 1e-6 there",
  ),
  "model.text.depth": (12, "B (vit.py)"),
  "model.text.width": (768, "B (vit.py)"),
  "model.text.num_heads": (12, "B (vit.py)"),
  "model.text.hidden": (3072, "B (vit.py)"),
  "model.text.causal": (False, "text_transformer.py: no mask"),
  "model.text.mask_padding": (False, "text_transformer.py: no mask"),
  "model.text.pool": ("last", "pool_type last (text_transformer.py)"),
  "model.text.input_norm": (False, "text_transformer.py"),
  "model.text.norm": ("pre", "vit.py"),
  "model.text.activation": ("gelu_tanh", "flax's gelu (vit.py)"),
  "model.text.norm_epsilon": (1e-6, "flax's LayerNorm"),
  "model.text.init_scheme": ("xavier", "xavier_uniform (vit.py)"),
}

_SO400M: Rows = {
  f"model.{tower}.{field}": (value, "So400m (vit.py)")
  for tower in ("image", "text")
  for field, value in (("width", 1152), ("depth", 27), ("num_heads", 16), ("hidden", 4304))
}

TABLE: dict[str, Rows] = {
  "clip_b32": CLIP,
  "clip_b16": CLIP | {"model.image.patch_size": (16, "B/16 (table 20)")},
  "clip_l14": CLIP_L14,
  "clip_l14_1m": CLIP_L14
  | {
    "run.batch_size": (2**20, "the largest of Zhai et al. 2023, section 4.1"),
    "run.steps": (12_207, "as many examples as clip_l14.py"),
  },
  "openclip_h14": OPENCLIP_H14,
  "siglip_b16": SIGLIP,
  "siglip_so400m14": SIGLIP
  | _SO400M
  | {
    "data.tokenizer.max_length": (16, "16 (SigLIP_demo.ipynb, So400m/14 at 224)"),
    "model.embed_dim": (1152, "1,152 (SigLIP_demo.ipynb)"),
    "model.image.patch_size": (14, "So400m/14"),
  },
}

OURS = {
  "optimizer.schedule": "cosine: the source of SigLIP names none",
  "optimizer.warmup_steps": "20,000: the source of SigLIP names none",
  "optimizer.cooldown_steps": "not used by a cosine",
  "optimizer.learning_rate_rules": "one learning rate for all",
  "optimizer.frozen": "nothing is frozen",
  "optimizer.cycles": "one cosine",
  "optimizer.layer_decay": "one learning rate for all blocks",
  "optimizer.top_layers": "all blocks are trained",
  "data.augmentation.crop_scale": "CLIP's paper gives no share of the image: open_clip's 0.9 to 1",
  "data.augmentation.crop_ratio": "of no effect where there is no random crop",
  "data.augmentation.shear": "0: no source has it",
  "data.augmentation.cutout": "0: no source has it",
  "data.augmentation.background": "transparent images: on white",
  "data.tokenizer.lowercase": "SigLIP's SentencePiece model is not public as a recipe",
  "model.max_logit_bias": "no bias",
  **{
    f"model.{tower}.{field}": "speed and memory, or off as in the sources"
    for tower in ("image", "text")
    for field in ("dtype", "attention", "scan", "remat", "qk_norm", "drop_path", "tanh_pool", "mlp_dim")
  },
  **{
    f"model.image.{field}": "off as in the sources, or of no effect"
    for field in (
      *("drop_remainder", "pool_queries", "pool_width", "pool_heads", "positions", "stem", "patch_dropout"),
      *("class_position", "norm_after_pool"),
    )
  },
  **{
    f"model.text.{field}": "the tokenizer's, or off as in the sources"
    for field in (
      *("vocab_size", "max_length", "pad_id", "eos_id", "mask_id", "special_ids"),
      *("token_types", "mask_padding"),
    )
  },
}

LATER = {
  *("head_dim", "key_heads", "linear_bias", "attention_bias", "attention_norm", "scaled_attention", "rms_norm"),
  *("mlp_gated", "mlp_norm", "mlp_input_norm", "layer_scale", "relative_buckets", "relative_distance", "offset_width"),
  *("rotary", "rotary_temperature", "rotary_grid", "rotary_start", "rotary_axes", "registers", "register_position"),
  *("map_heads", "map_mlp_dim", "stem_width", "stem_norm", "dropout", "attention_dropout", "patch_bias", "patch_norm"),
  *("positions", "count_positions", "scale_embedding", "pooled_dim", "norm_bias"),
}
"""Options of the towers for architectures that none of the papers has. They must have their defaults."""

DEFAULTS: Rows = {
  "MomentumContrastive.queue_size": (65_536, "65,536 (Li et al. 2021, ALBEF, 3.5)"),
  "MomentumContrastive.alpha": (((0, 0.4),), "0.4 (ALBEF, 3.5), without its ramp over the first epoch"),
  "MaskedWords.rate": (0.15, "15% (Devlin et al. 2019, 3.1; ALBEF, 3.2)"),
  "NextSentence.rate": (0.15, "15% (Devlin et al. 2019, 3.1)"),
  "MaskedPatches.rate": (0.4, "40% (Singh et al. 2022, FLAVA; Bao et al. 2022, BEiT)"),
  "AlbefConfig.init_logit_scale": (1 / 0.07, "temperature 0.07 (ALBEF, 3.2)"),
  "AlbefConfig.embed_dim": (256, "256 (ALBEF, 3.2)"),
  "AlbefConfig.fusion_depth": (6, "the last 6 layers of BERT-base (ALBEF, 3.1)"),
  "BertConfig.text.width": (768, "BERT-base (Devlin et al. 2019, 3)"),
  "BertConfig.text.depth": (12, "BERT-base (Devlin et al. 2019, 3)"),
  "BertConfig.text.norm_epsilon": (1e-12, "google-research/bert, modeling.py"),
  "BertConfig.text.init_scheme": ("bert", "truncated normal of deviation 0.02 (google-research/bert, modeling.py)"),
}
"""Defaults of terms and models that are a paper's."""
