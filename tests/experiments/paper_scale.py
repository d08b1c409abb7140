"""The experiments that are too large to train here: millions of parameters as published, and the global batch."""

PAPER_SCALE = {
  "clip_b32": (151.3, 32_768),  # Radford et al. 2021's released weights
  "clip_b16": (149.6, 32_768),
  "clip_l14": (427.6, 32_768),
  "clip_l14_1m": (427.6, 2**20),
  "openclip_h14": (986.1, 79_872),  # laion/CLIP-ViT-H-14-laion2B-s32B-b79K
  "siglip_b16": (203.2, 32_768),  # google/siglip-base-patch16-224
  "siglip_so400m14": (877.0, 32_768),  # google/siglip-so400m-patch14-224
}
