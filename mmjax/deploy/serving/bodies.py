"""Reading of request bodies: JSON with images in base64, or the bytes of one image."""

import dataclasses
from typing import Any, TypeVar

from fastapi import Request
from pydantic import ValidationError

from mmjax.deploy.serving.pictures import from_base64
from mmjax.deploy.serving.refusals import Refused
from mmjax.deploy.serving.schemas import Body

Model = TypeVar("Model", bound=Body)


@dataclasses.dataclass(frozen=True)
class Sent:
  """A request's fields (None: it is the bytes of an image), and its images."""

  fields: Any
  images: list[bytes]


async def parsed(request: Request, model: type[Model]) -> Model:
  """The JSON body of a request. Raises Refused: 415 for another type, 422 for other fields."""
  kind = _content_type(request)
  if kind not in ("application/json", ""):
    raise Refused(415, f"The content type {kind[:60]!r} is not taken here: send application/json.")
  try:
    return model.model_validate_json(await request.body())
  except ValidationError as error:
    raise Refused(422, _sentence(error)) from None


async def sent(request: Request, model: type[Model], *, raw: bool = False) -> Sent:
  """The body of a request with images.

  Args:
    request: the request.
    model: its JSON body, with the field `images` or `image`.
    raw: True if the bytes of one image may be sent instead, as image/... or application/octet-stream.
  Raises: Refused: the body is something else.
  """
  kind = _content_type(request)
  if raw and (kind.startswith("image/") or kind == "application/octet-stream"):
    return Sent(None, [await request.body()])
  fields = await parsed(request, model)
  given = getattr(fields, "images", None) or [one for one in [getattr(fields, "image", None)] if one is not None]
  return Sent(fields, [from_base64(text, f"image {place}") for place, text in enumerate(given, 1)])


def _content_type(request: Request) -> str:
  return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _sentence(error: ValidationError) -> str:
  """The first fault of a body, in a sentence. What was sent is not repeated."""
  first = error.errors(include_url=False, include_input=False, include_context=False)[0]
  place = ".".join(map(str, first["loc"]))
  return f"{place}: {first['msg']}." if place else f"The body: {first['msg']}."
