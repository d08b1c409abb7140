"""Connections of hostile and slow clients, over real sockets: an answer with its status, and an end."""

import importlib.util
import socket
import time

import pytest

from mmjax.deploy.serving.served import EMBED_TEXT
from mmjax.deploy.serving.service import Service
from tests.deploy.listening import listening
from tests.deploy.served import fake
from tests.skips import SERVE

if not all(map(importlib.util.find_spec, ("fastapi", "uvicorn", "prometheus_client"))):
  pytest.skip(SERVE, allow_module_level=True)

from mmjax.deploy.serving.app import make_app
from mmjax.deploy.serving.connections import MOST_HEAD, bounded
from mmjax.deploy.serving.gate import Limits
from mmjax.deploy.serving.metrics import Metrics

LIMITS = Limits(
  body=1_000_000, connections=8, head_seconds=0.3, body_seconds=0.3, seconds=0.5, drained=4_000_000, drain_seconds=0.5
)
PARSERS = [name for name in ("h11", "httptools") if importlib.util.find_spec(name)]
HEAD = b"POST /embed/text HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
TEXT = b'{"texts": ["a"]}'
GOOD = HEAD + b"content-length: %d\r\n\r\n" % len(TEXT) + TEXT


def protocol(parser, monkeypatch, **more):
  module = importlib.import_module(f"uvicorn.protocols.http.{parser}_impl")
  chosen = module.H11Protocol if parser == "h11" else module.HttpToolsProtocol
  monkeypatch.setattr("uvicorn.protocols.http.auto.AutoHTTPProtocol", chosen)
  return bounded(LIMITS, **more)


@pytest.fixture(params=PARSERS)
def place(request, monkeypatch):
  """(host, port) of a service with LIMITS."""
  metrics = Metrics()
  app = make_app(Service(fake([EMBED_TEXT])), metrics, limits=LIMITS, key=None)
  count = lambda status: metrics.requests.labels("none", str(status)).inc()
  with listening(app, http=protocol(request.param, monkeypatch, count=count)) as (url, _):
    yield "127.0.0.1", int(url.rstrip("/").rpartition(":")[2])


def read(client):
  """(status, headers and error) of everything that comes until the end of the connection."""
  parts = []
  client.settimeout(10)
  while part := client.recv(1 << 16):
    parts.append(part)
  text = b"".join(parts).decode()
  return int(text.split()[1]) if text else 0, text


def exchanged(place, *parts, gap=0.0):
  """The answer to parts of a request that are sent one after the other."""
  with socket.create_connection(place) as client:
    for part in parts:
      client.sendall(part)
      time.sleep(gap)
    return read(client)


def test_a_body_that_is_too_large_gets_an_answer_and_no_reset(place):
  large = bytes(1_500_000)
  for _ in range(10):
    status, text = exchanged(place, HEAD + b"content-length: 1500000\r\n\r\n" + large)
    assert status == 413 and "larger than 1,000,000 bytes" in text
    status, _ = exchanged(
      place, HEAD + b"transfer-encoding: chunked\r\n\r\n%x\r\n" % len(large) + large + b"\r\n0\r\n\r\n"
    )
    assert status == 413
  began = time.monotonic()
  status, _ = exchanged(place, HEAD + b"content-length: 999999999\r\n\r\n" + TEXT)
  assert status == 413 and time.monotonic() - began < 3  # what is announced does not come
  with socket.create_connection(place) as client, pytest.raises(OSError):
    client.sendall(HEAD + b"content-length: 999999999\r\n\r\n")
    for _ in range(100):  # more than is read: the connection ends
      client.sendall(large)


def test_who_asks_before_sending_a_large_body_is_told_at_once(place):
  with socket.create_connection(place) as client:
    client.sendall(HEAD + b"content-length: 1500000\r\nexpect: 100-continue\r\n\r\n")
    client.settimeout(10)
    assert client.recv(100).startswith(b"HTTP/1.1 413")


def test_slow_headers_and_slow_bodies_get_408(place):
  status, text = exchanged(place, b"POST /embed", b"/te", b"xt HT", gap=0.05)
  assert status == 408 and "headers did not arrive within 0.3 s" in text and "connection: close" in text
  status, text = exchanged(place, HEAD + b"content-length: 99\r\n\r\n", b"{", gap=0.05)
  assert status == 408 and "body did not arrive within 0.3 s" in text
  assert exchanged(place) == (0, "")  # a browser's spare connection
  with socket.create_connection(place) as client:
    client.sendall(GOOD)
    client.settimeout(10)
    assert client.recv(1 << 16).startswith(b"HTTP/1.1 200")
    client.sendall(b"GET /hea")  # the second request of the connection
    assert read(client)[0] == 408
  with socket.create_connection(place) as client:
    client.sendall(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert 'mmjax_requests_total{route="none",status="408"} 3.0' in read(client)[1]


def test_a_slow_but_steady_client_is_answered(place):
  with socket.create_connection(place) as client:
    for start in range(0, len(GOOD), 30):
      client.sendall(GOOD[start : start + 30])
      time.sleep(0.02)
    client.settimeout(10)
    assert client.recv(1 << 16).startswith(b"HTTP/1.1 200")


def test_headers_of_any_size_and_many_connections_are_refused(place):
  status, text = exchanged(place, b"GET /health HTTP/1.1\r\nx: " + b"x" * (MOST_HEAD + 100_000))
  assert status == 400 and text
  held = [socket.create_connection(place) for _ in range(LIMITS.connections)]
  try:
    held[-1].sendall(b"G")
    time.sleep(0.05)
    status, text = exchanged(place)
    assert status == 503 and "retry-after: 1" in text.lower()
  finally:
    for client in held:
      client.close()


def test_trailers_are_left_out(place):
  trailers = b"".join(b"x%d: y\r\n" % number for number in range(50))
  body = b"%x\r\n" % len(TEXT) + TEXT + b"\r\n0\r\n" + trailers + b"\r\n"
  with socket.create_connection(place) as client:
    client.sendall(HEAD + b"transfer-encoding: chunked\r\n\r\n" + body)
    client.settimeout(10)
    assert client.recv(1 << 16).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("parser", PARSERS)
def test_who_does_not_read_the_answer_is_cut_off(parser, monkeypatch):
  async def app(scope, receive, send):
    if scope["type"] == "http":
      await send({"type": "http.response.start", "status": 200, "headers": []})
      await send({"type": "http.response.body", "body": bytes(30_000_000)})

  with (
    listening(app, http=protocol(parser, monkeypatch), lifespan="off") as (url, server),
    socket.create_connection(("127.0.0.1", int(url.rstrip("/").rpartition(":")[2]))) as client,
  ):
    client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    time.sleep(0.2)
    assert server.server_state.connections
    end = time.monotonic() + 5
    while server.server_state.connections:
      assert time.monotonic() < end
      time.sleep(0.05)
