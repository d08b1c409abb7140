"""Abilities of a model that a service offers: functions of batches, by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

Pixels = Float[np.ndarray, "height width 3"]

EMBED_IMAGE, EMBED_TEXT, CLASSIFY, CLASSIFY_TEXT, CAPTION, ANSWER, ATTENTION = (
  "embed_image",
  "embed_text",
  "classify",
  "classify_text",
  "caption",
  "answer",
  "attention",
)
REMEDIES: Mapping[str, str] = {
  EMBED_IMAGE: "This model has no embeddings of images. Serve a run trained with --objectives contrastive.",
  EMBED_TEXT: "This model has no embeddings of texts. Serve a run trained with --objectives contrastive.",
  CLASSIFY: "This model has no classes of its own for images. Give labels, or serve a run trained with --objectives "
  "classify.",
  CLASSIFY_TEXT: "This model has no classes of its own for texts. Give labels, or serve a run of a text tower trained "
  "with --objectives classify.",
  CAPTION: "This model writes no captions. Serve a run trained with --objectives caption.",
  ANSWER: "This model answers no questions. Serve a run trained with --objectives answer.",
  ATTENTION: "In this model, words do not read image patches. Serve a run whose model fuses image and text.",
}
"""The error of a request for something that the model lacks, by ability."""


@dataclasses.dataclass(frozen=True)
class Ability:
  """A function of batches of a model.

  Attributes:
    ask: function from a list of items to as many results, an array or a list.
    example: an item, to compile with.
    sizes: sizes of batches, ascending. Other sizes are padded, so that nothing is compiled after the start.
  """

  ask: Callable[[list[Any]], Any]
  example: Any
  sizes: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Served:
  """A model as a service sees it.

  Attributes:
    name: name of the model, such as that of its workdir.
    step: number of optimiser steps of the parameters.
    fingerprint: hash of the parameters and of the transform of images. Equal fingerprints give equal embeddings.
    abilities: functions of batches by name (EMBED_IMAGE, ...). Images are results of `preprocess`.
    preprocess: transform of a decoded image. None: the model takes no images.
    classes: names of the classes of a classifier.
    logit_scale: factor of cosines before the softmax of zero-shot classification.
  """

  name: str
  step: int
  fingerprint: str
  abilities: Mapping[str, Ability]
  preprocess: Callable[[Any], Pixels] | None = None
  classes: tuple[str, ...] = ()
  logit_scale: float = 100.0


@dataclasses.dataclass(frozen=True)
class Look:
  """Relevance of image patches for each word of a text.

  Attributes:
    words: the words.
    maps: for each word, relevance from 0 to 1. The largest value of all words is 1.
    seen: the image as the model saw it.
  """

  words: tuple[str, ...]
  maps: Float[np.ndarray, "words rows columns"]
  seen: UInt8[np.ndarray, "height width 3"]


def powers(largest: int) -> tuple[int, ...]:
  """Powers of two up to `largest`, which is one.

  Example:
    >>> powers(8)
    (1, 2, 4, 8)
  """
  return tuple(1 << exponent for exponent in range(largest.bit_length()))
