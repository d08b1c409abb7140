"""Settings of the augmentation of images."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class AugmentationConfig:
  """Random changes of training images. All of them together are one resampling and one colour matrix."""

  crop_scale: tuple[float, float] = (0.6, 1.0)
  """Share of the image's area that a random crop keeps; 1 1 switches cropping off, above 1 zooms out."""
  crop_ratio: tuple[float, float] = (0.8, 1.25)
  """Width over height of a random crop, before it is resized to a square."""
  rotation: float = 10.0
  """Largest rotation, in degrees, either way."""
  shear: float = 0.0
  """Largest horizontal shear, in degrees, either way."""
  flip: float = 0.0
  """Probability of a horizontal flip; 0 because mirrored letters and arrows mean something else."""
  brightness: float = 0.3
  """Brightness is scaled by a factor in 1 - x .. 1 + x."""
  contrast: float = 0.3
  """Contrast is scaled by a factor in 1 - x .. 1 + x."""
  saturation: float = 0.4
  """Saturation is scaled by a factor in 1 - x .. 1 + x."""
  hue: float = 0.0
  """Largest hue rotation, as a share of the colour circle (0.5 is all of it)."""
  greyscale: float = 0.0
  """Probability that the image loses its colours."""
  background: float = 0.3
  """Probability that transparent parts get a random colour instead of white."""
  cutout: float = 0.0
  """Probability that a square a quarter to a half of the image's side is greyed out."""
