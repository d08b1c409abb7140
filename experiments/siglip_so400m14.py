"""SigLIP So400m/14 at 224 pixels: the shape-optimised ViT of Alabdulmohsin et al. 2023 in siglip_b16.py's
recipe.

Released by the authors of Zhai et al. 2023 after the paper; both towers have width 1,152, depth 27, 16 heads
of 72 and an MLP of 4,304, 877 million parameters together, and the text tower reads 16 tokens at this
resolution. Everything else is as in siglip_b16.py, also what cannot be run here.
"""

import dataclasses
from pathlib import Path

from siglip_b16 import EXPERIMENT as B16

from mmjax.cli import main
from mmjax.encoders import vit_size

EXPERIMENT = dataclasses.replace(
  B16,
  data=dataclasses.replace(B16.data, tokenizer=dataclasses.replace(B16.data.tokenizer, max_length=16)),
  model=dataclasses.replace(
    B16.model,
    image=dataclasses.replace(B16.model.image, **vit_size("So400m"), patch_size=14, scan=True, remat="attention"),
    text=dataclasses.replace(B16.model.text, **vit_size("So400m"), max_length=16, scan=True, remat="attention"),
    embed_dim=1152,
  ),
  run=dataclasses.replace(B16.run, workdir=Path("runs/siglip_so400m14")),
)

if __name__ == "__main__":
  main(EXPERIMENT, description=__doc__)
