"""A model without a network, for tests of the service: an image is its mean colour, a text its letters."""

import io

import numpy as np
from PIL import Image

from mmjax.deploy.serving.served import (
  ANSWER,
  ATTENTION,
  CAPTION,
  CLASSIFY,
  CLASSIFY_TEXT,
  EMBED_IMAGE,
  EMBED_TEXT,
  Ability,
  Look,
  Served,
  powers,
)

COLORS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def png(color, size=(6, 4)) -> bytes:
  data = io.BytesIO()
  Image.new("RGB", size, color).save(data, "PNG")
  return data.getvalue()


def preprocess(image) -> np.ndarray:
  return np.asarray(image.convert("RGB").resize((2, 2)), np.float32) / 255


def embed_images(items):
  rows = np.stack(items).mean((1, 2)) + 1e-6
  return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def embed_texts(items):
  """A color by its name; other texts by a hash, so that each has an embedding of its own."""

  def row(text):
    if text in COLORS:
      return np.array(COLORS[text], np.float32) / 255
    return np.random.default_rng(list(text.encode())).standard_normal(3).astype(np.float32)

  rows = np.stack([row(text) for text in items])
  return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def named(items):
  return [list(COLORS)[int(row.argmax())] for row in embed_images(items)]


def classify(items):
  rows = np.stack(items).mean((1, 2))
  return (rows + 1e-9) / (rows + 1e-9).sum(1, keepdims=True)  # black, too, has probabilities


def look(item):
  """Each word reads one patch of the image."""
  words = tuple(item[1].split())
  seen = np.round(item[0] * 255).astype(np.uint8)
  return Look(words, np.eye(4, dtype=np.float32)[: len(words)].reshape(-1, 2, 2), seen)


def fake(names=(EMBED_IMAGE, EMBED_TEXT), *, fingerprint="abc", largest=4, **replaced) -> Served:
  """A model with some abilities. `replaced`: other functions for some of them."""
  blank = np.zeros((2, 2, 3), np.float32)
  functions = {
    EMBED_IMAGE: (embed_images, blank),
    EMBED_TEXT: (embed_texts, "a"),
    CLASSIFY: (classify, blank),
    CLASSIFY_TEXT: (lambda items: np.abs(embed_texts(items)) / np.abs(embed_texts(items)).sum(1, keepdims=True), "a"),
    ATTENTION: (lambda items: [look(item) for item in items], (blank, "a")),
    CAPTION: (lambda items: [f"it is {name}" for name in named(items)], blank),
    ANSWER: (
      lambda items: [f"{text} {name}" for (_, text), name in zip(items, named([i for i, _ in items]))],
      (blank, "a"),
    ),
  }
  abilities = {}
  for name in names:
    function, example = functions[name]
    abilities[name] = Ability(replaced.get(name, function), example, powers(largest))
  return Served("fake", 7, fingerprint, abilities, preprocess, tuple(COLORS), 10.0)
