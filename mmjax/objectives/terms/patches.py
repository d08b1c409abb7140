"""Loss terms for masked image modelling and masked multimodal modelling."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from mmjax.data.columns.codes import PatchCodes
from mmjax.errors import ConfigError
from mmjax.models.protocols import Fuses, GuessesPatches, GuessesWords
from mmjax.nn.stochastic import fold_in
from mmjax.objectives.losses.codebook import nearest_code
from mmjax.objectives.losses.masked_images import masked_code_loss, masked_pixel_loss
from mmjax.objectives.losses.masked_words import masked_word_loss, take_positions
from mmjax.objectives.losses.patch_masks import block_patches, random_patches
from mmjax.objectives.losses.patches import normalize_patches, patchify
from mmjax.objectives.losses.per_example import ExampleLosses
from mmjax.objectives.terms.base import ExampleTerm, Forward, Scores
from mmjax.objectives.terms.language import hide_words, share
from mmjax.types import Encoded


@dataclasses.dataclass(frozen=True)
class MaskedPatches(ExampleTerm):
  """Masked image modelling: masked patches are predicted from the others (SimMIM, BEiT, FLAVA's MIM)."""

  rate: float = 0.4
  """Share of masked patches (FLAVA: .4; SimMIM: .6)."""
  blocks: bool = True
  """Mask rectangles of patches (BEiT, FLAVA). False: single patches (MAE, SimMIM)."""
  target: Literal["normalized", "pixels"] = "normalized"
  """Target of a model without visual codes: pixels, normalised per patch (MAE) or unchanged."""
  codebook: str = ""
  """An .npy file of codes [num_codes, patch^2 * 3], for a model with num_codes. The target of a patch is then its
  nearest code. The command `codebook` of a script fits the file to the training images, by k-means."""
  codes: str = ""
  """Array of the batch with the codes of any image tokenizer, int32 [batch, patches], such as that of a column
  `PatchCodes`, for a model with num_codes. They are then the targets."""

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.codebook and self.codes:
      raise ValueError(f"{self.name} has targets from a codebook and from codes={self.codes!r}: set one of them")

  @property
  def discrete(self) -> bool:
    """True if the targets are codes. False: pixels."""
    return bool(self.codebook or self.codes)

  def check(self, model: Any, columns: Mapping[str, Any]) -> None:
    number = getattr(model, "num_codes", 0)
    if self.discrete != bool(number):
      raise ConfigError(
        f"the objective {self.name} predicts {'codes' if self.discrete else 'pixels'}, and the model has num_codes "
        f"{number}: set --model.num-codes to the size of the codebook (0: pixels), and for codes `codebook` or `codes` "
        "of the objective"
      )
    if self.codebook:
      read_codebook(self.codebook, pixels=3 * model.image.patch_size**2, codes=number)
    column = columns.get(self.codes)
    if isinstance(column, PatchCodes) and (column.patches, column.num_codes) != (model.image.grid**2, number):
      raise ConfigError(
        f"the column {self.codes!r} has {column.patches} codes of {column.num_codes} per image, and the model predicts "
        f"{model.image.grid**2} of {number}: make the settings of --data.columns.{self.codes} and of the model equal"
      )

  @property
  def name(self) -> str:
    return "masked_patches"

  @property
  def needs(self) -> tuple[str, ...]:
    return ("image", self.codes) if self.codes else ("image",)

  @property
  def reads(self) -> tuple[str, ...]:
    return ()

  @property
  def asks(self) -> tuple[type, ...]:
    return (GuessesPatches,)

  def over_rows(self, forward: Forward, taught: Any) -> Scores:
    image, hidden = hide_patches(forward, self.rate, self.blocks)
    return {"loss": self.guess(forward, image, hidden, fused=False)}

  def guess(self, forward: Forward, image: Encoded, hidden: Bool[Array, "batch p"], *, fused: bool) -> ExampleLosses:
    """Compute the loss of the predictions of masked patches.

    Args:
      forward: outputs of the model.
      image: encoding of the masked images. Its last tokens are those of the patches.
      hidden: True for masked patches.
      fused: True if the tokens went through the fusion.
    """
    said = forward.model.patch_logits(image.tokens[:, -hidden.shape[1] :], fused=fused)
    truth = self.truth(forward)
    return masked_code_loss(said, truth, hidden) if self.discrete else masked_pixel_loss(said, truth, hidden)

  def truth(self, forward: Forward) -> Int[Array, "batch patches"] | Float[Array, "batch patches pixels"]:
    """Make the targets of all patches: codes if there is a codebook or a tokenizer, else pixels."""
    patches = patchify(forward.batch["image"], forward.model.config.image.patch_size)
    if self.codes:
      codes = forward.batch[self.codes]
      if codes.shape != patches.shape[:2]:
        raise ConfigError(
          f"the array {self.codes!r} has {codes.shape[1:]} codes per image, and the model {patches.shape[1]} patches: "
          "use the tokenizer at the model's grid of patches"
        )
      return codes
    if self.codebook:
      return nearest_code(patches, read_codebook(self.codebook, pixels=patches.shape[2]))
    return normalize_patches(patches) if self.target == "normalized" else patches


@dataclasses.dataclass(frozen=True)
class MaskedBoth(MaskedPatches):
  """Masked multimodal modelling: masked words and patches are predicted from image and text (FLAVA, section 3.1).

  The loss is the sum of the losses of words and patches, which are logged as well.
  """

  word_rate: float = 0.15
  """Share of masked words."""

  @property
  def name(self) -> str:
    return "masked_both"

  @property
  def needs(self) -> tuple[str, ...]:
    return (*super().needs, "text")

  @property
  def asks(self) -> tuple[type, ...]:
    return (GuessesPatches, GuessesWords, Fuses)

  @property
  def special_tokens(self) -> tuple[str, ...]:
    return ("mask",)

  def over_rows(self, forward: Forward, taught: Any) -> Scores:
    image, hidden = hide_patches(forward, self.rate, self.blocks)
    words = hide_words(forward, self.word_rate, segments=False)
    fused = forward.model.fuse({"image": image, "text": words.text}, rng=fold_in(forward.rng, 998))
    said = forward.model.word_logits(take_positions(fused["text"].tokens, words.positions))
    text = masked_word_loss(said, words.ids, words.chosen)
    patches = self.guess(forward, fused["image"], hidden, fused=True)
    right = share(jnp.argmax(said, -1) == words.ids, words.chosen)
    both = text.losses + patches.losses
    return {"loss": (both, jnp.ones_like(both)), "words": text, "patches": patches, "words_accuracy": right}


def hide_patches(forward: Forward, rate: float, blocks: bool) -> tuple[Encoded, Bool[Array, "batch patches"]]:
  """Encode the images with masked patches. Terms with the same settings share the result.

  Args:
    forward: outputs of the model.
    rate: share of masked patches.
    blocks: mask rectangles of patches.
  Returns: (encoding, True for masked patches).
  """

  def compute() -> tuple[Encoded, Bool[Array, "batch patches"]]:
    grid, keys = forward.model.config.image.grid, forward.keys("hidden patches")
    hidden = block_patches(keys, (grid, grid), rate=rate) if blocks else random_patches(keys, grid**2, rate=rate)
    return forward.model.encode_patches(forward.batch["image"], hidden, rng=forward.rng), hidden

  return forward.once(("hidden patches", rate, blocks), compute)


def read_codebook(path: str, *, pixels: int, codes: int | None = None) -> Float[Array, "codes pixels"]:
  """Read the codes of an .npy file.

  Args:
    path: the file.
    pixels: number of values per patch.
    codes: number of codes that the model predicts. None: any number.
  Raises:
    ConfigError: the file cannot be read (pickled objects are not), or does not fit. The message names it.
  """
  try:
    found = np.load(Path(path).expanduser(), allow_pickle=False)
  except (OSError, ValueError, EOFError) as error:
    raise ConfigError(
      f"cannot read the codebook {path}: {error}; fit one with the command `codebook` of the script"
    ) from error
  numbers = isinstance(found, np.ndarray) and found.dtype.kind in "fiu"
  if not numbers or found.ndim != 2 or not np.isfinite(found).all():
    raise ConfigError(f"the codebook {path} must be one array of finite numbers [codes, pixels]")
  if found.shape != (len(found) if codes is None else codes, pixels) or not len(found):
    raise ConfigError(
      f"the codebook {path} has {found.shape[0]} codes of {found.shape[1]} values, and the model predicts "
      f"{'codes' if codes is None else f'{codes} codes'} of patches with {pixels} values (patch_size^2 * 3): set "
      "--model.num-codes and the patch size to those of the codebook, or fit another with the command `codebook`"
    )
  return jnp.asarray(found, jnp.float32)
