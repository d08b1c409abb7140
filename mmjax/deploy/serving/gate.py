"""ASGI middleware before all routes: the API key, bounds on bodies, on time and on requests under way, and the log."""

import asyncio
import contextlib
import dataclasses
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from mmjax.deploy.serving import logs
from mmjax.deploy.serving.metrics import Metrics
from mmjax.deploy.serving.refusals import Refused, busy

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
OPEN = ("/", "/health", "/docs", "/openapi.json")
"""Paths that need no API key: they tell nothing of images, and use no model."""


class Gone(Exception):
  """The client has closed the connection before its body was there."""


@dataclasses.dataclass(frozen=True)
class Limits:
  """Bounds of requests.

  Attributes:
    body: largest body, in bytes.
    bodies: largest sum of all bodies under way, in bytes.
    requests: largest number of requests under way.
    connections: largest number of open connections.
    head_seconds: longest time from the first byte of the headers to the last one.
    body_seconds: longest time until a body is there.
    seconds: longest time of a request after that, and of a client that does not read its answer.
    drained: largest number of bytes of a refused body that are read, and thrown away.
    drain_seconds: longest time of that.
  """

  body: int = 8_000_000
  bodies: int = 256_000_000
  requests: int = 1024
  connections: int = 2048
  head_seconds: float = 10.0
  body_seconds: float = 10.0
  seconds: float = 30.0
  drained: int = 64_000_000
  drain_seconds: float = 5.0


class Gate:
  """The middleware. It answers every error itself, as {"error": sentence}.

  Args:
    app: the routes.
    limits: bounds of requests.
    key: the API key. None: none is needed.
    metrics: counters of requests.

  Attributes:
    under_way: number of requests under way.
  """

  def __init__(self, app: App, limits: Limits, key: str | None, metrics: Metrics):
    self._app, self._limits, self._metrics = app, limits, metrics
    self._key = None if key is None else hashlib.sha256(key.encode()).digest()
    self.under_way, self._bytes = 0, 0

  async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
      await self._app(scope, receive, send)
      return
    call = _Call(scope, send)
    self.under_way += 1
    try:
      await self._answer(call, receive)
    except Refused as error:
      self._bytes -= call.held
      call.held = 0
      await call.refuse(error, lambda: self._drain(call, receive))
    except Gone:
      call.status = 499  # as nginx logs it; nobody reads an answer
    except TimeoutError:
      await call.refuse(Refused(504, f"No answer within {self._limits.seconds:g} s. Send fewer items, or try later."))
    except Exception:
      logs.requests.error("a request failed", exc_info=True, extra={"fields": {"id": call.id}})
      await call.refuse(Refused(500, f"The service failed. Its log names the place, under the id {call.id}."))
    finally:
      self.under_way -= 1
      self._bytes -= call.held
      self._log(call)

  async def _answer(self, call: "_Call", receive: Receive) -> None:
    self._check_key(call)
    if self.under_way > self._limits.requests:
      raise busy()
    body = await self._body(call, receive)
    async with asyncio.timeout(self._limits.seconds):
      await self._app(call.scope, _replayed(body, receive), call.send)

  def _check_key(self, call: "_Call") -> None:
    if self._key is None or call.scope["path"] in OPEN:
      return
    given = call.header(b"x-api-key") or call.header(b"authorization").removeprefix(b"Bearer ")
    if not hmac.compare_digest(hashlib.sha256(given).digest(), self._key):  # the time says nothing of the key
      said = "Send the API key as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'."
      raise Refused(401, said, {"WWW-Authenticate": "Bearer"})

  async def _body(self, call: "_Call", receive: Receive) -> bytes:
    """The body of a request. It is never larger in memory than the limit, whatever its headers say."""
    most = self._limits.body
    claimed = call.header(b"content-length")
    if claimed.isdigit() and int(claimed[:20]) > most:
      raise _too_large(most)
    parts: list[bytes] = []
    try:
      async with asyncio.timeout(self._limits.body_seconds):
        while True:
          message = await receive()
          if message["type"] == "http.disconnect":
            raise Gone
          part = message.get("body", b"")
          call.size += len(part)
          call.held += len(part)
          self._bytes += len(part)
          call.whole = not message.get("more_body", False)
          if call.size > most:
            raise _too_large(most)
          if self._bytes > self._limits.bodies:
            raise busy()
          parts.append(part)
          if call.whole:
            return b"".join(parts)
    except TimeoutError:
      raise Refused(408, f"The body did not arrive within {self._limits.body_seconds:g} s.") from None

  async def _drain(self, call: "_Call", receive: Receive) -> None:
    """Read the rest of a refused body, and throw it away.

    If a connection is closed while a body arrives, the client's machine is told that the connection was reset, and
    throws away the answer, too.
    """
    left = self._limits.drained
    with contextlib.suppress(TimeoutError):
      async with asyncio.timeout(self._limits.drain_seconds):
        while not call.whole and left > 0:
          message = await receive()
          left -= len(message.get("body", b""))
          call.whole = message["type"] == "http.disconnect" or not message.get("more_body", False)

  def _log(self, call: "_Call") -> None:
    route, seconds = call.route, time.monotonic() - call.began
    self._metrics.requests.labels(route, str(call.status)).inc()
    self._metrics.seconds.labels(route).observe(seconds)
    if route not in ("/health", "/metrics"):
      logs.request(
        id=call.id, route=route, method=call.scope["method"][:10], status=call.status, bytes=call.size,
        milliseconds=round(1000 * seconds, 1),
      )  # fmt: skip


class _Call:
  """A request: its size, the bytes of it that are held, whether its body has ended, and the status of its answer.

  The status is 0 if there is no answer.
  """

  def __init__(self, scope: MutableMapping[str, Any], send: Send):
    self.scope, self._send = scope, send
    self.id, self.began = uuid.uuid4().hex, time.monotonic()
    self.size, self.held, self.whole, self.status = 0, 0, False, 0
    scope["mmjax.id"] = self.id

  @property
  def route(self) -> str:
    """Path of the route, without what a user may have written into it."""
    return getattr(self.scope.get("route"), "path", "none")

  def header(self, name: bytes) -> bytes:
    return next((value for key, value in self.scope["headers"] if key == name), b"")

  async def send(self, message: Message) -> None:
    if message["type"] == "http.response.start":
      self.status = message["status"]
      message = {**message, "headers": [*message.get("headers", ()), (b"x-request-id", self.id.encode())]}
    await self._send(message)

  async def refuse(self, error: Refused, drain: Callable[[], Awaitable[None]] | None = None) -> None:
    """Answer with an error, unless an answer has begun.

    Args:
      error: the error.
      drain: function that reads the rest of the body. It is called between the answer and the end of the connection.
    """
    if self.status:
      return
    body = json.dumps({"error": error.message}).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **error.headers}
    if error.status in (401, 408, 413, 503):
      headers["connection"] = "close"  # the rest of the body is not wanted
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await self.send({"type": "http.response.start", "status": error.status, "headers": pairs})
    await self.send({"type": "http.response.body", "body": body, "more_body": True})
    if drain is not None and "connection" in headers:
      await drain()
    await self.send({"type": "http.response.body", "body": b""})


def _too_large(most: int) -> Refused:
  return Refused(413, f"The body is larger than {most:,} bytes. Send smaller images, or fewer at a time.")


def _replayed(body: bytes, receive: Receive) -> Receive:
  """A receive function that gives a body that has been read, and then what the client does."""
  left = [{"type": "http.request", "body": body, "more_body": False}]

  async def again() -> Message:
    return left.pop() if left else await receive()

  return again
