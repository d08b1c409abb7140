"""Bounds of connections, before and after a request: slow headers, answers that nobody reads, and their number."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from mmjax.deploy.serving.gate import Limits
from mmjax.deploy.serving.refusals import Refused, busy

MOST_HEAD = 65_536
"""Largest size of a request's headers, in bytes."""


class _Joined:
  """A transport that sends what is written in one turn of the event loop together.

  uvicorn writes the headers and the body of an answer one after the other, and each costs a system call.
  """

  def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop):
    self._transport, self._loop, self._parts = transport, loop, list[bytes]()

  def __getattr__(self, name: str) -> Any:
    return getattr(self._transport, name)

  def write(self, data: bytes) -> None:
    if not self._parts:
      self._loop.call_soon(self._flush)
    self._parts.append(data)

  def close(self) -> None:
    self._flush()
    self._transport.close()

  def write_eof(self) -> None:
    self._flush()
    self._transport.write_eof()

  def get_write_buffer_size(self) -> int:
    return self._transport.get_write_buffer_size() + sum(map(len, self._parts))

  def _flush(self) -> None:
    if self._parts and not self._transport.is_closing():
      self._transport.write(b"".join(self._parts))
    self._parts.clear()


def bounded(limits: Limits, count: Callable[[int], None] = lambda _: None) -> type[asyncio.Protocol]:
  """Make the HTTP protocol of uvicorn with bounds.

  uvicorn itself waits forever for the end of the headers, and for a client that does not read. With httptools it also
  takes headers of any size.

  Args:
    limits: the bounds.
    count: called with the status of a request that is refused before its headers are complete.
  Returns: the class, for `uvicorn.Config(http=...)`. Its parser is httptools where that is installed, else h11.
  """
  from uvicorn.protocols.http.auto import AutoHTTPProtocol

  base: Any = AutoHTTPProtocol

  class Bounded(base):
    """A connection.

    It is between requests, and waits for headers, if `cycle` (the request under way) is None or complete.
    """

    def __init__(self, *arguments: Any, **named: Any):
      super().__init__(*arguments, **named)
      self._head_timer: asyncio.TimerHandle | None = None
      self._write_timer: asyncio.TimerHandle | None = None
      self._head_size, self._in_body = 0, False
      self._refused, self._drained = False, 0

    def connection_made(self, transport: asyncio.Transport) -> None:
      super().connection_made(_Joined(transport, self.loop))
      if len(self.connections) > limits.connections:
        self._refuse(busy())
      else:
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
      if self._refused:
        self._drain(data)
        return
      before = self.cycle
      super().data_received(data)
      if self.cycle is not before:
        self._cancel_head()
      elif self.cycle is None or self.cycle.response_complete:
        self._head_size += len(data)
        if self._head_size > MOST_HEAD:
          self._refuse(Refused(400, f"The headers are larger than {MOST_HEAD:,} bytes."))
        elif self._head_timer is None:
          self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
      self._cancel_head()
      self.resume_writing()
      super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
      self._refuse(Refused(400, msg))

    def on_response_complete(self) -> None:
      super().on_response_complete()
      if self.transport.is_closing() and self.transport.get_write_buffer_size():
        self.loop.call_later(limits.seconds, self.transport.abort)

    def timeout_keep_alive_handler(self) -> None:
      super().timeout_keep_alive_handler()
      if self.transport.get_write_buffer_size():
        self.transport.abort()  # the client has not read the last answer

    def pause_writing(self) -> None:
      super().pause_writing()
      if self._write_timer is None:
        self._write_timer = self.loop.call_later(limits.seconds, self.transport.abort)

    def resume_writing(self) -> None:
      super().resume_writing()
      if self._write_timer is not None:
        self._write_timer.cancel()
        self._write_timer = None

    def on_message_begin(self) -> None:  # this and the next two: calls of httptools
      self._in_body = False
      super().on_message_begin()

    def on_headers_complete(self) -> None:
      self._in_body = True
      super().on_headers_complete()

    def on_header(self, name: bytes, value: bytes) -> None:
      if not self._in_body:  # trailers, of which there may be any number, are left out
        super().on_header(name, value)

    def _wait_for_head(self) -> None:
      self._head_timer = self.loop.call_later(limits.head_seconds, self._late)

    def _cancel_head(self) -> None:
      self._head_size = 0
      if self._head_timer is not None:
        self._head_timer.cancel()
        self._head_timer = None

    def _late(self) -> None:
      if self._head_size:
        self._refuse(Refused(408, f"The headers did not arrive within {limits.head_seconds:g} s."))
      else:
        self.transport.close()  # browsers open connections that they may not need

    def _refuse(self, error: Refused) -> None:
      """Answer with an error. What the client still sends is read, so that it gets the answer, and no reset."""
      if self._refused or self.transport.is_closing():
        return
      self._refused = True
      self.loop.call_later(limits.drain_seconds, self.transport.abort)
      if self.cycle is not None and not self.cycle.response_complete:
        self.cycle.disconnected = True  # its application learns that nobody listens
        self.cycle.message_event.set()
        if self.cycle.response_started:
          self.transport.close()
          return
      body = json.dumps({"error": error.message}).encode()
      headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
      lines = [f"{name}: {value}\r\n" for name, value in (headers | error.headers).items()]
      first = f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n"
      self.transport.write("".join([first, *lines, "\r\n"]).encode() + body)
      self.transport.write_eof()
      self.flow.resume_reading()
      count(error.status)

    def _drain(self, data: bytes) -> None:
      self._drained += len(data)
      if self._drained > limits.drained:
        self.transport.abort()

  return Bounded
