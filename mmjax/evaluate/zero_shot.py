"""Zero-shot classification by the mean of a class's prompts (Radford et al. 2021, section 3.1.4)."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int

from mmjax.evaluate.metrics import chance_classification, classification
from mmjax.evaluate.results import Metrics

EncodeText = Callable[[Sequence[str]], Float[np.ndarray, "n dim"]]


def class_embeddings(
  encode_text: EncodeText, classes: Sequence[str], templates: Sequence[str]
) -> Float[np.ndarray, "classes dim"]:
  """Every class in every template, averaged in embedding space and brought back to unit norm."""
  prompts = [template.replace("{}", name) for name in classes for template in templates]
  embedded = encode_text(prompts)
  return normalized(embedded.reshape(len(classes), len(templates), -1).mean(axis=1))


def mean_embeddings(
  rows: Float[np.ndarray, "n dim"], labels: Int[np.ndarray, " n"], num_classes: int
) -> Float[np.ndarray, "classes dim"]:
  """The unit-norm mean of every class's rows; zero for a class without rows."""
  sums = np.zeros((num_classes, rows.shape[1]), np.float32)
  np.add.at(sums, labels, rows)
  return normalized(sums)


def zero_shot(
  images: Float[np.ndarray, "n dim"], labels: Int[np.ndarray, " n"], classes: Float[np.ndarray, "classes dim"]
) -> tuple[Metrics, Metrics]:
  """(metrics, chance) of giving every image the class of the nearest class embedding."""
  return classification(images @ classes.T, labels), chance_classification(len(classes))


def normalized(rows: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, "n dim"]:
  return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
