"""Distances between images: peak signal-to-noise ratio and structural similarity."""

import numpy as np
from jaxtyping import Float

_RADIUS, _SIGMA = 5, 1.5  # of the Gaussian window of 11x11 pixels


def psnr(
  images: Float[np.ndarray, "n height width 3"], others: Float[np.ndarray, "n height width 3"]
) -> Float[np.ndarray, " n"]:
  """Peak signal-to-noise ratio of each pair of images in decibels: 10 log10(1 / mean squared difference).

  Args:
    images, others: colours from 0 to 1.
  Returns: one number per pair. Equal images have 100, which stands for infinity.
  """
  error = np.square(images.astype(np.float64) - others).mean(axis=(1, 2, 3))
  return -10 * np.log10(np.maximum(error, 1e-10))


def ssim(
  images: Float[np.ndarray, "n height width 3"], others: Float[np.ndarray, "n height width 3"]
) -> Float[np.ndarray, " n"]:
  """Structural similarity of each pair of images (Wang et al. 2004), the mean over pixels and colours.

  The window is a Gaussian of 11x11 pixels with a standard deviation of 1.5. Only whole windows count.

  Args:
    images, others: colours from 0 to 1, at least 11x11 pixels.
  Raises:
    ValueError: the images are smaller than the window.
  """
  if min(images.shape[1:3]) <= 2 * _RADIUS:
    raise ValueError(f"images are {images.shape[1]}x{images.shape[2]}, and SSIM needs at least {2 * _RADIUS + 1}x11")
  x, y = images.astype(np.float64), others.astype(np.float64)
  mean_x, mean_y = _blurred(x), _blurred(y)
  var_x, var_y = _blurred(x * x) - mean_x**2, _blurred(y * y) - mean_y**2
  covariance = _blurred(x * y) - mean_x * mean_y
  c1, c2 = 0.01**2, 0.03**2
  structure = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
  return (structure / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean(axis=(1, 2, 3))


def _blurred(images: Float[np.ndarray, "n height width 3"]) -> Float[np.ndarray, "n rows columns 3"]:
  weights = np.exp(-0.5 * (np.arange(-_RADIUS, _RADIUS + 1) / _SIGMA) ** 2)
  weights /= weights.sum()
  for axis in (1, 2):
    size = images.shape[axis] - 2 * _RADIUS
    images = sum(w * images.take(range(start, start + size), axis) for start, w in enumerate(weights))
  return images
