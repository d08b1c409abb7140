"""Bodies of requests and answers, as they stand in the OpenAPI description."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

MOST_IMAGES, MOST_TEXTS, MOST_LABELS, MOST_FOUND = 32, 256, 100, 100
"""Largest numbers of items of one request."""

Base64 = Annotated[str, Field(description="an image file (JPEG, PNG, WebP, GIF, BMP, TIFF, PPM, AVIF) in base64")]
Images = Annotated[list[Base64], Field(min_length=1, max_length=MOST_IMAGES)]
Phrase = Annotated[str, Field(min_length=1, max_length=2000)]
Short = Annotated[str, Field(min_length=1, max_length=200)]
Count = Annotated[int, Field(ge=1, le=MOST_FOUND)]
Texts = Annotated[list[Phrase], Field(min_length=1, max_length=MOST_TEXTS)]
Rows = list[list[float]]


class Body(BaseModel):
  """Body of a request. An unknown field is an error."""

  model_config = ConfigDict(extra="forbid", strict=True)


class ImagesBody(Body):
  """Images."""

  images: Images


class TextsBody(Body):
  """Texts."""

  texts: Texts


class ClassifyBody(Body):
  """Images or texts, and names of classes. Without names, a classifier answers with its own classes."""

  images: Images | None = None
  texts: Texts | None = None
  labels: Annotated[list[Short], Field(min_length=1, max_length=MOST_LABELS)] | None = None
  template: Annotated[str, Field(max_length=200, pattern=r"\{\}")] = "{}"
  """Text around a label, which stands in place of {}."""


class SearchBody(Body):
  """A text or an image, and the number of images to find."""

  text: Phrase | None = None
  image: Base64 | None = None
  count: Count = 10


class AnswerBody(Body):
  """Questions about one image, or about one image each."""

  images: Images
  questions: Annotated[list[Phrase], Field(min_length=1, max_length=MOST_IMAGES)]


class AttentionBody(Body):
  """An image and a text."""

  image: Base64
  text: Phrase


class Embeddings(BaseModel):
  """Unit-norm embeddings: their dot products are cosines."""

  embeddings: Rows


class Classes(BaseModel):
  """Probabilities of the labels, one row per image or text; for labels of the request, their cosines too."""

  labels: list[str]
  probabilities: Rows
  cosines: Rows | None = None


class Hit(BaseModel):
  """An image of the index."""

  number: int
  name: str
  cosine: float


class Hits(BaseModel):
  """The nearest images, the nearest first."""

  hits: list[Hit]


class Captions(BaseModel):
  """A caption for each image."""

  captions: list[str]


class AnswersFound(BaseModel):
  """An answer to each question."""

  answers: list[str]


class LookFound(BaseModel):
  """For each word, the relevance of every patch of the image from 0 to 1; and the image that the model saw, as a data
  URI: cut to a square and shrunk."""

  words: list[str]
  maps: list[Rows]
  image: str


class Health(BaseModel):
  """State of the service."""

  status: str
  model: str
  step: int
  abilities: list[str]
  classes: int
  indexed: int
  key: bool


class Error(BaseModel):
  """A refusal: what is wrong, and the remedy."""

  error: str


ERRORS: dict[int, str] = {
  400: "an image cannot be read, or a text is blank",
  401: "the API key is missing or wrong",
  404: "the model or the service lacks what this needs",
  408: "the body did not arrive in time",
  413: "the body is too large",
  415: "the body is neither JSON nor an image",
  422: "the body is not as described here",
  503: "too many requests wait; Retry-After says when to try again",
  504: "the answer took too long",
}
"""Errors that requests can have, by status."""


BYTES = "application/octet-stream"
RAW_ROWS: dict[str, Any] = {
  BYTES: {
    "schema": {"type": "string", "format": "binary"},
    "description": "float32 values, the lowest byte first; the header X-Shape has rows and columns",
  }
}
"""Embeddings as they are answered to requests with the header `Accept: application/octet-stream`."""


NUMBER = {"name": "number", "in": "path", "required": True, "schema": {"type": "integer", "minimum": 0}}
"""Parameter of /images/NUMBER."""


def openapi_body(model: type[Body], *, raw: bool) -> dict[str, Any]:
  """The requestBody of an operation.

  Args:
    model: the JSON body.
    raw: True if the bytes of one image may be sent instead.
  """
  content: dict[str, Any] = {"application/json": {"schema": model.model_json_schema()}}
  if raw:
    content[BYTES] = {"schema": {"type": "string", "format": "binary"}}
  return {"requestBody": {"required": True, "content": content}}
