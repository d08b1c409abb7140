"""The routes of the service, with their OpenAPI description."""

import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from importlib import resources
from typing import Any

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.routing import APIRoute
from jaxtyping import Float
from pydantic_core import to_json
from starlette.exceptions import HTTPException

import mmjax
from mmjax.deploy.serving import schemas
from mmjax.deploy.serving.bodies import parsed, sent
from mmjax.deploy.serving.describe import described
from mmjax.deploy.serving.gate import OPEN, Gate, Limits
from mmjax.deploy.serving.metrics import Metrics
from mmjax.deploy.serving.pictures import data_uri
from mmjax.deploy.serving.refusals import Refused
from mmjax.deploy.serving.service import Service

_LIMITS = Limits()
_NOTHING_ELSE = (
  "default-src 'none'; connect-src 'self'; img-src blob: data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content security policy of the page: it loads nothing, and asks this service alone."""


class _Direct(APIRoute):
  """A route whose function takes the request and makes the answer itself.

  FastAPI describes it. What FastAPI would do for each request, which takes longer than small models, is left out.
  """

  def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    return self.endpoint


def make_app(service: Service, metrics: Metrics, *, limits: Limits = _LIMITS, key: str | None = None) -> Gate:
  """Make the ASGI application of a service.

  Args:
    service: the service. It is started and stopped with the application.
    metrics: its metrics.
    limits: bounds of requests.
    key: the API key. None: none is needed.
  """

  @contextlib.asynccontextmanager
  async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    service.start()
    yield
    await service.stop()

  title = f"mmjax: {service.served.name}"
  app = FastAPI(
    title=title, version=mmjax.__version__, docs_url=None, redoc_url=None, lifespan=lifespan, redirect_slashes=False,
    exception_handlers={Refused: _refused, HTTPException: _not_found, Exception: _failed},
  )  # fmt: skip
  app.router.route_class = _Direct
  _add_routes(app, service)
  _add_pages(app, service, metrics, key is not None)
  _describe_key(app, key is not None)
  gate = Gate(app, limits, key, metrics)
  metrics.watch(lambda: service.waiting, lambda: gate.under_way)
  return gate


def _add_routes(app: FastAPI, service: Service) -> None:
  """The routes that ask the model."""

  def post(path: str, body: type[schemas.Body], answer: type, *, raw: bool = False) -> Any:
    errors: dict[int | str, dict[str, Any]] = {
      status: {"model": schemas.Error, "description": text} for status, text in schemas.ERRORS.items()
    }
    if answer is schemas.Embeddings:
      errors[200] = {"content": schemas.RAW_ROWS}
    return app.post(path, response_model=answer, responses=errors, openapi_extra=schemas.openapi_body(body, raw=raw))

  @post("/embed/image", schemas.ImagesBody, schemas.Embeddings, raw=True)
  async def embed_image(request: Request) -> Response:
    """Embed images."""
    got = await sent(request, schemas.ImagesBody, raw=True)
    return _rows(request, await service.embed_images(got.images))

  @post("/embed/text", schemas.TextsBody, schemas.Embeddings)
  async def embed_text(request: Request) -> Response:
    """Embed texts."""
    got = await parsed(request, schemas.TextsBody)
    return _rows(request, await service.embed_texts(got.texts))

  @post("/classify", schemas.ClassifyBody, schemas.Classes, raw=True)
  async def classify(request: Request) -> Response:
    """Classify images or texts: by labels of the request (zero-shot), or by the model's own classes."""
    got = await sent(request, schemas.ClassifyBody, raw=True)
    texts = None if got.fields is None else got.fields.texts
    if (texts is None) == (not got.images):
      raise Refused(422, "Send either images or texts.")
    items = got.images if texts is None else texts
    if got.fields is None or got.fields.labels is None:
      rows = await service.classify(items)
      return _json({"labels": service.served.classes, "probabilities": rows.tolist()})
    labels = got.fields.labels
    shares, cosines = await service.zero_shot(items, labels, got.fields.template)
    return _json({"labels": labels, "probabilities": shares.tolist(), "cosines": cosines.tolist()})

  @post("/search", schemas.SearchBody, schemas.Hits, raw=True)
  async def search(request: Request) -> Response:
    """Find the images of the index that are nearest to a text or an image."""
    got = await sent(request, schemas.SearchBody, raw=True)
    text = None if got.fields is None else got.fields.text
    if (text is None) == (not got.images):
      raise Refused(422, "Send either a text or an image.")
    count = 10 if got.fields is None else got.fields.count
    found = await service.search(got.images[0] if text is None else text, count)
    names = () if service.index is None else service.index.names
    return _json({"hits": [{"number": n, "name": _printable(names[n]), "cosine": cosine} for n, cosine in found]})

  @post("/caption", schemas.ImagesBody, schemas.Captions, raw=True)
  async def caption(request: Request) -> Response:
    """Write a caption for each image."""
    got = await sent(request, schemas.ImagesBody, raw=True)
    return _json({"captions": await service.captions(got.images)})

  @post("/answer", schemas.AnswerBody, schemas.AnswersFound)
  async def answer(request: Request) -> Response:
    """Answer questions about images."""
    got = await sent(request, schemas.AnswerBody)
    return _json({"answers": await service.answers(got.images, got.fields.questions)})

  @post("/attention", schemas.AttentionBody, schemas.LookFound)
  async def attention(request: Request) -> Response:
    """Show which patches of an image the words of a text read."""
    got = await sent(request, schemas.AttentionBody)
    look = await service.attention(got.images[0], got.fields.text)
    return _json({"words": look.words, "maps": look.maps.tolist(), "image": data_uri(look.seen)})


def _add_pages(app: FastAPI, service: Service, metrics: Metrics, key: bool) -> None:
  """The routes that do not ask the model."""
  demo = resources.files(__package__).joinpath("demo.html").read_text(encoding="utf-8")

  @app.get("/health", response_model=schemas.Health)
  async def health(_: Request) -> Response:
    """Tell that the service is ready, and what it can do."""
    served = service.served
    state = {"status": "ok", "model": served.name, "step": served.step, "abilities": sorted(served.abilities)}
    indexed = 0 if service.index is None else len(service.index.names)
    return _json(state | {"classes": len(served.classes), "indexed": indexed, "key": key})

  @app.get("/metrics", responses={200: {"content": {"text/plain": {}}}, **_errors(401, 503, 504)})
  async def prometheus(_: Request) -> Response:
    """Metrics in Prometheus' format."""
    return Response(metrics.text(), media_type="text/plain; version=0.0.4")

  @app.get(
    "/images/{number}", openapi_extra={"parameters": [schemas.NUMBER]},
    responses={200: {"content": {"image/webp": {}}}, **_errors(400, 401, 404, 422, 503, 504)},
  )  # fmt: skip
  async def image(request: Request) -> Response:
    """A small copy of an image of the index, as WebP."""
    number = request.path_params["number"]
    if not (number.isascii() and number.isdecimal() and len(number) < 10):
      raise Refused(422, "The number of an image is a whole number.")
    return Response(await service.thumbnail(int(number)), media_type="image/webp")

  @app.get("/", include_in_schema=False)
  async def page(_: Request) -> Response:
    return HTMLResponse(demo, headers={"Content-Security-Policy": _NOTHING_ELSE})

  @app.get("/docs", include_in_schema=False)
  async def docs(_: Request) -> Response:
    return HTMLResponse(described(app.openapi()))


def _describe_key(app: FastAPI, key: bool) -> None:
  """Add the API key to the description, if one is needed."""
  whole = app.openapi()
  if key:
    whole.setdefault("components", {})["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    whole["security"] = [{"key": []}]
    for path, operations in whole["paths"].items():
      if path in OPEN:
        for operation in operations.values():
          operation["security"] = []


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
  return {status: {"model": schemas.Error, "description": schemas.ERRORS[status]} for status in statuses}


def _json(value: Any) -> Response:
  return Response(to_json(value), media_type="application/json")


def _rows(request: Request, rows: Float[np.ndarray, "n dim"]) -> Response:
  """Embeddings as JSON; or as float32 values, the lowest byte first, if the request accepts these alone."""
  if request.headers.get("accept", "").strip().lower() != schemas.BYTES:
    return _json({"embeddings": rows.tolist()})
  shape = ",".join(map(str, rows.shape))
  return Response(rows.astype("<f4").tobytes(), media_type=schemas.BYTES, headers={"X-Shape": shape})


def _printable(name: str) -> str:
  """A file name that may have bytes that are no UTF-8, which JSON cannot hold."""
  return name.encode("utf-8", "replace").decode()


async def _refused(_: Request, error: Any) -> Response:
  return JSONResponse({"error": error.message}, error.status, error.headers)


async def _not_found(_: Request, error: Any) -> Response:
  said = {404: "There is no such page. /docs lists all.", 405: "This page does not take this method. /docs lists all."}
  return JSONResponse({"error": said.get(error.status_code, str(error.detail))}, error.status_code, error.headers)


async def _failed(request: Request, _: Any) -> Response:
  """The answer to a request that found a fault of the service. The middleware logs the fault under the same id."""
  said = f"The service failed. Its log names the place, under the id {request.scope['mmjax.id']}."
  return JSONResponse({"error": said}, 500)
