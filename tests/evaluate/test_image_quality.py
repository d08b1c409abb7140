"""PSNR and SSIM by hand-computed values and a slow reference."""

import numpy as np
import pytest

from mmjax.evaluate.image_quality import psnr, ssim


def test_psnr_of_a_known_error():
  image = np.full((2, 12, 12, 3), 0.5, np.float32)
  other = image + np.array([0.1, 0.01], np.float32)[:, None, None, None]
  np.testing.assert_allclose(psnr(image, other), [20, 40], rtol=1e-4)
  assert psnr(image, image).tolist() == [100, 100]


def test_ssim_equals_window_by_window():
  """Wang et al. 2004, equation 13, with an 11x11 Gaussian window of deviation 1.5."""
  rng = np.random.default_rng(0)
  x, y = rng.random((2, 1, 13, 12, 3))
  weights = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
  window = np.outer(weights, weights) / weights.sum() ** 2
  values = []
  for top in range(3):
    for left in range(2):
      for colour in range(3):
        a, b = (image[0, top : top + 11, left : left + 11, colour] for image in (x, y))
        mean_a, mean_b = (window * a).sum(), (window * b).sum()
        var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
        both = (window * (a - mean_a) * (b - mean_b)).sum()
        over = (2 * mean_a * mean_b + 1e-4) * (2 * both + 9e-4)
        values.append(over / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4)))
  np.testing.assert_allclose(ssim(x, y), [np.mean(values)], rtol=1e-9)
  np.testing.assert_allclose(ssim(x, x), [1.0])


def test_small_images_are_refused():
  with pytest.raises(ValueError, match="at least 11x11"):
    ssim(np.zeros((1, 8, 8, 3)), np.zeros((1, 8, 8, 3)))
