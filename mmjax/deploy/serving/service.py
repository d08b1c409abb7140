"""The work of a service, without HTTP: from bytes and strings to answers."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from mmjax.data.captions import clean, text_fault
from mmjax.deploy.serving.batching import Batcher, Observe, Overloaded
from mmjax.deploy.serving.index import Index
from mmjax.deploy.serving.pictures import opened, thumbnail
from mmjax.deploy.serving.refusals import Refused, busy
from mmjax.deploy.serving.served import (
  ANSWER,
  ATTENTION,
  CAPTION,
  CLASSIFY,
  CLASSIFY_TEXT,
  EMBED_IMAGE,
  EMBED_TEXT,
  REMEDIES,
  Look,
  Pixels,
  Served,
)
from mmjax.deploy.serving.statistics import StatisticsFile
from mmjax.errors import UserError

log = logging.getLogger(__name__)
MODALITIES = {EMBED_IMAGE: "image", EMBED_TEXT: "text"}


class Service:
  """Answers requests, in batches with each other.

  Args:
    served: the model.
    index: images to search. None: there are none.
    statistics: file of summary statistics. None: they are not written.
    max_queue: items that may wait for the model.
    window: longest time in seconds that a decoded image waits for others that are being decoded.
    max_pixels: largest number of pixels of an image.
    observe: called after each batch.

  Attributes:
    served, index: the arguments.
  """

  def __init__(
    self,
    served: Served,
    *,
    index: Index | None = None,
    statistics: StatisticsFile | None = None,
    max_queue: int = 1024,
    window: float = 0.005,
    max_pixels: int = 20_000_000,
    observe: Observe = lambda *_: None,
  ):
    self.served, self.index = served, index
    self._statistics, self._max_pixels = statistics, max_pixels
    self._make_batcher = functools.partial(
      Batcher, served.abilities, max_queue=max_queue, window=window, observe=observe
    )
    self._batcher: Batcher | None = None
    self._decoders = concurrent.futures.ThreadPoolExecutor(2, thread_name_prefix="decoders")

  @property
  def waiting(self) -> int:
    """Number of items that wait for the model."""
    return 0 if self._batcher is None else self._batcher.waiting

  def start(self) -> None:
    """Begin to answer. Call it in the event loop."""
    self._batcher = self._make_batcher()
    self._batcher.start()

  async def stop(self) -> None:
    """Stop, and write the statistics that are left."""
    if self._batcher is not None:
      await self._batcher.stop()
    if self._statistics is not None:
      self._statistics.flush()

  async def embed_images(self, images: Sequence[bytes]) -> Float[np.ndarray, "n dim"]:
    """Unit-norm embeddings of encoded images."""
    return await self._embedded(EMBED_IMAGE, images)

  async def embed_texts(self, texts: Sequence[str]) -> Float[np.ndarray, "n dim"]:
    """Unit-norm embeddings of texts."""
    return await self._embedded(EMBED_TEXT, texts)

  async def classify(self, items: Sequence[Any]) -> Float[np.ndarray, "n classes"]:
    """Probabilities of the classes of a classifier, for encoded images or for texts."""
    if _are_texts(items):
      self._require(CLASSIFY_TEXT)
      return finite(np.stack(await self._ask(CLASSIFY_TEXT, checked_texts(items, "text"))))
    self._require(CLASSIFY)
    return finite(np.stack(await self._ask_images(CLASSIFY, items)))

  async def zero_shot(
    self, items: Sequence[Any], labels: Sequence[str], template: str
  ) -> tuple[Float[np.ndarray, "n labels"], Float[np.ndarray, "n labels"]]:
    """(probabilities, cosines) of labels: the softmax of the model's logit scale times the cosines.

    Args:
      items: encoded images, or texts.
      labels: names of classes.
      template: text around a label, which stands in place of {}.
    """
    self._require(*([] if _are_texts(items) else [EMBED_IMAGE]), EMBED_TEXT)
    embed: Any = self.embed_texts if _are_texts(items) else self.embed_images
    texts = [template.replace("{}", label) for label in labels]
    rows, columns = await asyncio.gather(embed(items), self.embed_texts(texts))
    cosines = rows @ columns.T
    logits = self.served.logit_scale * cosines
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True), cosines

  async def search(self, query: bytes | str, count: int) -> list[tuple[int, float]]:
    """(number of the image, cosine) of the nearest images of the index to an encoded image or a text."""
    index = self._indexed()
    rows = await (self.embed_texts([query]) if isinstance(query, str) else self.embed_images([query]))
    return await self._in_thread(index.nearest, rows[0], count)

  async def thumbnail(self, number: int) -> bytes:
    """A small copy of an image of the index, as WebP. Raises Refused (404) if there is none of this number."""
    index = self._indexed()
    if not 0 <= number < len(index.names):
      raise Refused(404, f"There is no image {number}: the index has {len(index.names)}.")

    def read() -> bytes:
      try:
        data = index.path(number).read_bytes()
      except OSError as error:
        raise Refused(404, f"Image {number} is gone from the folder.") from error
      return thumbnail(data, f"image {number}", self._max_pixels)

    return await self._in_thread(read)

  async def captions(self, images: Sequence[bytes]) -> list[str]:
    """A caption for each image."""
    self._require(CAPTION)
    return await self._ask_images(CAPTION, images)

  async def answers(self, images: Sequence[bytes], questions: Sequence[str]) -> list[str]:
    """The answer to each question about the image beside it; one image may be asked several questions."""
    self._require(ANSWER)
    if len(images) not in (1, len(questions)):
      raise Refused(422, f"{len(questions)} questions and {len(images)} images: send one image, or one each.")
    texts = checked_texts(questions, "question")
    pixels = await self._read(images)
    pairs = zip(pixels * len(texts) if len(pixels) == 1 else pixels, texts, strict=True)
    return await self._ask(ANSWER, list(pairs))

  async def attention(self, image: bytes, text: str) -> Look:
    """Relevance of the patches of an image for the words of a text."""
    self._require(ATTENTION)
    (words,) = checked_texts([text], "text")
    (pixels,) = await self._read([image])
    (look,) = await self._ask(ATTENTION, [(pixels, words)])
    return look

  async def _embedded(self, name: str, items: Sequence[Any]) -> Float[np.ndarray, "n dim"]:
    self._require(name)
    asked = self._ask_images(name, items) if name == EMBED_IMAGE else self._ask(name, checked_texts(items, "text"))
    rows = finite(np.stack(await asked))
    if self._statistics is not None:
      try:
        self._statistics.add(MODALITIES[name], rows)
      except UserError as error:  # a full disk is no reason to answer nobody
        log.error("%s", error)
    return rows

  async def _ask_images(self, name: str, images: Sequence[bytes]) -> list[Any]:
    with self._started().expecting(name, len(images)):
      ready = await self._read(images)
    return await self._ask(name, ready)

  async def _ask(self, name: str, items: Sequence[Any]) -> list[Any]:
    try:
      return await self._started().ask(name, items)
    except Overloaded:
      raise busy() from None

  def _started(self) -> Batcher:
    assert self._batcher is not None, "the service has not been started"
    return self._batcher

  async def _read(self, images: Sequence[bytes]) -> list[Pixels]:
    """Decoded and transformed images. Raises Refused (400), which names the first that is none."""
    transform = self.served.preprocess
    assert transform is not None

    def read(data: bytes, place: int) -> Pixels:
      return transform(opened(data, _named("image", place, len(images)), self._max_pixels))

    return list(await asyncio.gather(*(self._in_thread(read, data, place) for place, data in enumerate(images))))

  async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(self._decoders, function, *arguments)

  def _require(self, *names: str) -> None:
    for name in names:
      if name not in self.served.abilities:
        raise Refused(404, REMEDIES[name])

  def _indexed(self) -> Index:
    if self.index is None:
      raise Refused(404, "This service has no images to search. Start it with --images DIR.")
    return self.index


def finite(rows: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, "n dim"]:
  """The outputs of a model. Raises Refused (500) if a number is not finite, which JSON does not have."""
  if not np.isfinite(rows).all():
    log.error("an output is not finite: float16 may have overflowed")
    raise Refused(500, "The model gave numbers that are not finite. This is a fault of the service.")
  return rows


def _are_texts(items: Sequence[Any]) -> bool:
  return isinstance(items[0], str)


def checked_texts(texts: Sequence[str], what: str) -> list[str]:
  """Texts without spaces around them. Raises Refused (400) for one that is blank or no Unicode text."""
  for place, text in enumerate(texts):
    if fault := text_fault(text):
      raise Refused(400, f"{_named(what, place, len(texts))} {fault}.")
  return [clean(text) for text in texts]


def _named(what: str, place: int, count: int) -> str:
  return f"the {what}" if count == 1 else f"{what} {place + 1} of {count}"
