"""The service over HTTP: answers, errors with their status and one sentence, bounds, and what is in the log."""

import asyncio
import base64
import io
import json
import logging
import time

import numpy as np
import pytest

from mmjax.deploy.serving.index import made_index
from mmjax.deploy.serving.served import (
  ANSWER,
  ATTENTION,
  CAPTION,
  CLASSIFY,
  CLASSIFY_TEXT,
  EMBED_IMAGE,
  EMBED_TEXT,
)
from mmjax.deploy.serving.service import Service
from mmjax.deploy.serving.statistics import StatisticsFile, read_statistics
from tests.deploy.served import COLORS, embed_texts, fake, png
from tests.skips import SERVE

try:
  import fastapi  # noqa: F401
  import httpx2 as httpx
  import prometheus_client  # noqa: F401
except ImportError:
  pytest.skip(SERVE, allow_module_level=True)

from mmjax.deploy.serving.app import make_app
from mmjax.deploy.serving.gate import Limits
from mmjax.deploy.serving.logs import JsonLines
from mmjax.deploy.serving.metrics import Metrics

ALL = (EMBED_IMAGE, EMBED_TEXT, CLASSIFY, CAPTION, ANSWER)
RED = base64.b64encode(png("red")).decode()
PNG = {"content-type": "image/png"}
WIDE = Limits()


def asked(work, served=None, *, limits=WIDE, key=None, metrics=None, **options):
  """The result of `work(client)`, inside a service."""
  metrics = metrics or Metrics()

  async def inside():
    service = Service(served or fake(ALL), observe=metrics.batch, max_pixels=10_000, **options)
    app = make_app(service, metrics, limits=limits, key=key)
    service.start()
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
      try:
        return await work(client)
      finally:
        await service.stop()

  return asyncio.run(inside())


def one(method, path, served=None, *, options=None, **request):
  return asked(lambda client: client.request(method, path, **request), served, **(options or {}))


def error(response, status):
  """The sentence of an error of this status."""
  assert response.status_code == status, response.text
  assert response.headers["content-type"] == "application/json" and list(response.json()) == ["error"]
  return response.json()["error"]


def test_embeddings_of_images_and_texts():
  sent = {"images": [RED, "data:image/png;base64," + base64.b64encode(png("blue")).decode()]}
  rows = one("POST", "/embed/image", json=sent).json()["embeddings"]
  np.testing.assert_allclose(rows, [[1, 0, 0], [0, 0, 1]], atol=1e-4)
  raw = one("POST", "/embed/image", content=png("red"), headers=PNG).json()["embeddings"]
  assert raw == rows[:1]
  texts = [f"text {n}" for n in range(9)]
  found = one("POST", "/embed/text", json={"texts": texts}).json()["embeddings"]
  np.testing.assert_array_equal(np.float32(found), embed_texts(texts))


def test_labels_of_the_user_and_the_models_own_classes():
  found = one("POST", "/classify", json={"images": [RED], "labels": ["blue", "red"]}).json()
  assert found["labels"] == ["blue", "red"]
  np.testing.assert_allclose(found["cosines"], [[0, 1]], atol=1e-4)
  np.testing.assert_allclose(found["probabilities"], [[1 / (1 + np.e**10), 1 / (1 + np.e**-10)]], rtol=1e-2)
  templated = {"images": [RED], "labels": ["re"], "template": "{}d"}
  assert one("POST", "/classify", json=templated).json()["cosines"][0][0] == pytest.approx(1, abs=1e-4)
  own = one("POST", "/classify", content=png("green"), headers=PNG).json()
  assert own["labels"] == list(COLORS) and own["probabilities"] == [pytest.approx([0, 1, 0], abs=1e-6)]


def test_texts_are_classified():
  texts = {"texts": ["red", "blue"]}
  found = one("POST", "/classify", json=texts | {"labels": ["blue", "red"]}).json()
  np.testing.assert_allclose(found["cosines"], [[0, 1], [1, 0]], atol=1e-4)
  classifier = fake([CLASSIFY_TEXT])
  own = one("POST", "/classify", classifier, json=texts).json()
  assert own["labels"] == list(COLORS) and own["probabilities"] == [[1, 0, 0], [0, 0, 1]]
  assert "no classes of its own for texts" in error(one("POST", "/classify", json=texts), 404)
  assert "for images" in error(one("POST", "/classify", classifier, json={"images": [RED]}), 404)
  for both in ({}, texts | {"images": [RED]}):
    assert "either images or texts" in error(one("POST", "/classify", json=both), 422)


def test_embeddings_as_bytes():
  headers = {"accept": "application/octet-stream"}
  for sent in ({"texts": ["red", "blue", "x"]}, {"texts": ["x"]}):
    raw = one("POST", "/embed/text", json=sent, headers=headers)
    assert raw.headers["content-type"] == "application/octet-stream"
    shape = tuple(map(int, raw.headers["x-shape"].split(",")))
    np.testing.assert_array_equal(np.frombuffer(raw.content, "<f4").reshape(shape), embed_texts(sent["texts"]))
  both = one("POST", "/embed/image", json={"images": [RED]}, headers={"accept": "application/json, */*"})
  assert len(both.json()["embeddings"][0]) == 3


def test_captions_and_answers():
  assert one("POST", "/caption", json={"images": [RED]}).json() == {"captions": ["it is red"]}
  both = {"images": [RED], "questions": ["a?", " b? "]}
  assert one("POST", "/answer", json=both).json() == {"answers": ["a? red", "b? red"]}
  assert "send one image, or one each" in error(one("POST", "/answer", json=both | {"images": [RED] * 3}), 422)


def test_attention_of_words_to_patches():
  found = one("POST", "/attention", fake([ATTENTION]), json={"image": RED, "text": "a cat"}).json()
  assert found["words"] == ["a", "cat"] and found["maps"] == [[[1, 0], [0, 0]], [[0, 1], [0, 0]]]
  assert found["image"].startswith("data:image/png;base64,")


def test_search_by_text_and_by_image(tmp_path):
  for name, color in COLORS.items():
    (tmp_path / f"{name}.png").write_bytes(png(color))
  options = {"index": made_index(fake(), tmp_path, tmp_path / "index.npz", 10_000)}
  hits = one("POST", "/search", json={"text": "green", "count": 2}, options=options).json()["hits"]
  assert hits[0] == {"number": 1, "name": "green.png", "cosine": pytest.approx(1, abs=1e-4)} and len(hits) == 2
  by_image = one("POST", "/search", json={"image": RED}, options=options).json()["hits"]
  assert by_image[0]["name"] == "red.png" and len(by_image) == 3
  raw = one("POST", "/search", content=png("red"), headers=PNG, options=options).json()["hits"]
  assert raw == by_image
  small = one("GET", "/images/1", options=options)
  assert small.headers["content-type"] == "image/webp" and small.content[:4] == b"RIFF"
  assert "has 3" in error(one("GET", "/images/3", options=options), 404)
  for wrong in ("-1", "x", "1e3", "٣", "9" * 30):
    error(one("GET", f"/images/{wrong}", options=options), 422)
  for neither in ({}, {"text": "a", "image": RED}):
    assert "either a text or an image" in error(one("POST", "/search", json=neither, options=options), 422)
  (tmp_path / "green.png").unlink()
  assert "is gone" in error(one("GET", "/images/1", options=options), 404)


@pytest.mark.parametrize(
  ("path", "sent", "said"),
  [
    ("/embed/image", {"images": [RED]}, "no embeddings of images"),
    ("/classify", {"images": [RED]}, "no classes of its own"),
    ("/classify", {"images": [RED], "labels": ["a"]}, "no embeddings of images"),
    ("/caption", {"images": [RED]}, "writes no captions"),
    ("/answer", {"images": [RED], "questions": ["a?"]}, "answers no questions"),
    ("/attention", {"image": RED, "text": "a"}, "do not read image patches"),
    ("/search", {"text": "a"}, "--images DIR"),
    ("/nonsense", {}, "/docs lists all"),
  ],
)
def test_what_the_model_lacks_is_said(path, sent, said):
  assert said in error(one("POST", path, fake([EMBED_TEXT]), json=sent), 404)


def bomb(side=30_000):
  """A PNG whose header claims 900 million pixels."""
  data = bytearray(png("red"))
  data[16:24] = side.to_bytes(4, "big") * 2
  import zlib

  data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
  return bytes(data)


@pytest.mark.parametrize(
  ("content", "said"),
  [
    (b"", "cannot be read as an image"),
    (b"no image", "cannot be read as an image"),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "cannot be read as an image"),
    (png("red", (64, 64))[:-30], "corrupt or truncated"),
    (png("red", (200, 100)), "claims 200 x 100 pixels and the limit is 10000. Shrink it."),
    (bomb(), "refused"),
  ],
)
def test_what_is_no_image_is_refused(content, said):
  assert said in error(one("POST", "/embed/image", content=content, headers=PNG), 400)
  both = {"images": [RED, base64.b64encode(content).decode()]}
  assert "image 2 of 2" in error(one("POST", "/embed/image", json=both), 400)


@pytest.mark.parametrize(
  ("path", "sent", "status", "said"),
  [
    ("/embed/text", {"texts": []}, 422, "texts: List should have at least 1 item"),
    ("/embed/text", {"texts": ["a"], "extra": 1}, 422, "extra"),
    ("/embed/text", {"texts": "a"}, 422, "texts"),
    ("/embed/text", {"texts": [3]}, 422, "texts.0: Input should be a valid string"),
    ("/embed/text", {"texts": ["a" * 2001]}, 422, "2000 characters"),
    ("/embed/text", {"texts": ["a"] * 257}, 422, "256 items"),
    ("/embed/text", {"texts": ["a", " \u200b"]}, 400, "text 2 of 2 is empty"),
    ("/embed/text", {"texts": ["a\0"]}, 400, "NUL"),
    ("/embed/image", {"images": ["*"]}, 400, "image 1: not base64"),
    ("/embed/image", {"images": [RED] * 33}, 422, "32 items"),
    ("/classify", {"images": [RED], "labels": ["a"], "template": "no place"}, 422, "template"),
    ("/search", {"text": "a", "count": 0}, 422, "count"),
    ("/search", [], 422, "The body"),
  ],
)
def test_bad_bodies_are_one_sentence(path, sent, status, said):
  assert said in error(one("POST", path, json=sent), status)


def test_bodies_that_are_no_json():
  texts = {"content-type": "application/json"}
  for content in (b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"texts": ["\\ud800"]}', b"1e999"):
    assert len(error(one("POST", "/embed/text", content=content, headers=texts), 422)) < 300
  for kind in ("text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded"):
    said = error(one("POST", "/embed/text", content=b"{}", headers={"content-type": kind}), 415)
    assert "send application/json" in said
  assert "415" not in said and error(one("GET", "/embed/text"), 405)


async def raw_call(app, messages, *, headers=(), path="/embed/text", gap=0.0):
  """(status, body) of a call of the application with these messages of a client."""
  left, sent = list(messages), []
  scope = {
    "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
    "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
    "headers": [(b"content-type", b"application/json"), *headers], "client": ("127.0.0.1", 1), "server": ("test", 80),
  }  # fmt: skip

  async def receive():
    await asyncio.sleep(gap)
    return left.pop(0) if left else await asyncio.sleep(60)

  async def send(message):
    sent.append(message)

  await app(scope, receive, send)
  if not sent:
    return None, None
  return sent[0]["status"], json.loads(sent[1]["body"])


def through_gate(messages, *, limits=WIDE, **options):
  async def inside():
    metrics = Metrics()
    app = make_app(Service(fake()), metrics, limits=limits)
    found = await raw_call(app, messages, **options)
    return (*found, app, metrics.text().decode())

  return asyncio.run(inside())


def part(body, more=True):
  return {"type": "http.request", "body": body, "more_body": more}


def test_bodies_are_bounded_before_they_are_read():
  limits = Limits(body=100, drain_seconds=0.05)
  lying = [(b"content-length", b"9" * 40)]
  status, said, _, _ = through_gate([], limits=limits, headers=lying)  # nothing is received
  assert status == 413 and "larger than 100 bytes" in said["error"]
  status, _, app, _ = through_gate([part(b"x" * 60)] * 50, limits=limits, headers=[(b"content-length", b"10")])
  assert status == 413 and app._bytes == 0 and app.under_way == 0
  status, said, *_ = through_gate([part(b"x" * 60)] * 50, limits=Limits(body=1000, bodies=200, drain_seconds=0.05))
  assert status == 503 and "Try again" in said["error"]


def test_slow_clients_and_those_that_leave():
  status, said, _, _ = through_gate([part(b"x")] * 100, limits=Limits(body_seconds=0.05, drain_seconds=0.05), gap=0.01)
  assert status == 408 and "within 0.05 s" in said["error"]
  status, _, app, metrics = through_gate([part(b"x"), {"type": "http.disconnect"}])
  assert status is None and app.under_way == 0 and 'status="499"' in metrics


def test_too_many_requests_and_too_slow_answers():
  def slow(items):
    time.sleep(0.2)
    return embed_texts(items)

  served = fake([EMBED_TEXT], embed_text=slow, largest=1)
  texts = lambda n: {"texts": [f"{k}" for k in range(n)]}

  async def work(client):
    first = asyncio.create_task(client.post("/embed/text", json=texts(1)))
    await asyncio.sleep(0.05)
    second = asyncio.create_task(client.post("/embed/text", json=texts(2)))
    await asyncio.sleep(0.05)
    return await client.post("/embed/text", json=texts(1)), await first, await second

  refused, first, second = asked(work, served, max_queue=2)
  assert "busy" in error(refused, 503) and refused.headers["retry-after"] == "1"
  assert first.status_code == second.status_code == 200 and len(second.json()["embeddings"]) == 2
  late = one("POST", "/embed/text", served, json=texts(1), options={"limits": Limits(seconds=0.05)})
  assert "No answer within 0.05 s" in error(late, 504)
  none = one("POST", "/embed/text", served, json=texts(1), options={"limits": Limits(requests=0)})
  assert error(none, 503) and none.headers["retry-after"] == "1"


def test_the_api_key():
  options, sent = {"key": "secret"}, {"texts": ["a"]}
  for headers in ({}, {"x-api-key": "wrong"}, {"authorization": "Bearer "}, {"authorization": "Basic secret"}):
    response = one("POST", "/embed/text", json=sent, headers=headers, options=options)
    assert "API key" in error(response, 401) and response.headers["www-authenticate"] == "Bearer"
    error(one("GET", "/metrics", headers=headers, options=options), 401)
  for headers in ({"x-api-key": "secret"}, {"authorization": "Bearer secret"}):
    assert one("POST", "/embed/text", json=sent, headers=headers, options=options).status_code == 200
  assert one("GET", "/health", options=options).json()["key"] is True
  assert one("GET", "/", options=options).status_code == 200
  api = one("GET", "/openapi.json", options=options).json()
  assert api["security"] == [{"key": []}] and api["paths"]["/health"]["get"]["security"] == []


def test_numbers_that_are_not_finite_are_never_sent():
  infinite = lambda items: np.full((len(items), 3), np.inf, np.float32)
  served = fake(ALL, embed_text=infinite, embed_image=infinite, classify=infinite)
  for path, sent in (
    ("/embed/text", {"texts": ["a"]}),
    ("/embed/image", {"images": [RED]}),
    ("/classify", {"images": [RED]}),
    ("/classify", {"images": [RED], "labels": ["a"]}),
  ):
    assert "not finite" in error(one("POST", path, served, json=sent), 500)


def test_the_log_has_no_content_of_users(caplog):
  stream = io.StringIO()
  handler = logging.StreamHandler(stream)
  handler.setFormatter(JsonLines())
  logger = logging.getLogger("mmjax.deploy")
  logger.addHandler(handler)
  logger.setLevel(logging.INFO)

  def fail(items):
    raise ValueError(f"cannot embed {items}")

  try:
    response = one("POST", "/embed/text?private=1", fake(embed_text=fail), json={"texts": ["private words"]})
    one("GET", "/private/path")
    one("POST", "/embed/image", content=b"private bytes", headers=PNG)
  finally:
    logger.removeHandler(handler)
  said = error(response, 500)
  lines = [json.loads(line) for line in stream.getvalue().splitlines()]
  assert "private" not in stream.getvalue() and "private" not in said
  failed = next(line for line in lines if line["level"] == "error")
  assert failed["exception"] == "ValueError" and any("test_http.py" in place for place in failed["at"])
  assert failed["id"] in said and failed["id"] == response.headers["x-request-id"]
  done = [line for line in lines if line["message"] == "request"]
  assert [line["route"] for line in done] == ["/embed/text", "none", "/embed/image"]
  assert [line["status"] for line in done] == [500, 404, 400]
  assert all(line["milliseconds"] >= 0 for line in done) and done[2]["bytes"] == 13


def test_metrics_count_requests_and_batches():
  async def work(client):
    await asyncio.gather(*(client.post("/embed/text", json={"texts": ["a", f"{n}"]}) for n in range(3)))
    await client.get("/nonsense")
    return (await client.get("/metrics")).text

  text = asked(work)
  assert 'mmjax_requests_total{route="/embed/text",status="200"} 3.0' in text
  assert 'mmjax_requests_total{route="none",status="404"} 1.0' in text
  assert 'mmjax_batch_items_sum{ability="embed_text"} 6.0' in text
  assert "mmjax_queue_items 0.0" in text and "mmjax_requests_open 1.0" in text
  assert "process_resident_memory_bytes" in text and "mmjax_compilations_total 0.0" in text


def test_statistics_of_the_embeddings_are_written(tmp_path):
  path = tmp_path / "statistics.jsonl"
  options = {"statistics": StatisticsFile(path, "abc", 600)}
  texts = [f"{n}" for n in range(40)]
  assert one("POST", "/embed/text", json={"texts": texts}, options=options).status_code == 200
  (line,) = read_statistics(path, "abc")
  assert line["text"].count == 40 and "image" not in line
  np.testing.assert_allclose(line["text"].mean, embed_texts(texts).mean(0), atol=1e-6)


def test_pages_ask_nothing_from_outside():
  page = one("GET", "/")
  assert "default-src 'none'" in page.headers["content-security-policy"]
  docs = one("GET", "/docs").text
  for text in (page.text, docs):
    assert "http://" not in text.replace("http://www.w3.org", "") and "https://" not in text and "@import" not in text
  for path in ("/embed/image", "/classify", "/search", "/health"):
    assert path in docs
  health = one("GET", "/health").json()
  assert health == {
    "status": "ok", "model": "fake", "step": 7, "abilities": sorted(ALL), "classes": 3, "indexed": 0, "key": False,
  }  # fmt: skip


def test_the_description_lists_every_status_that_is_answered():
  api = one("GET", "/openapi.json").json()
  assert {"/embed/image", "/embed/text", "/classify", "/search", "/caption", "/answer"} <= set(api["paths"])
  for path, operations in api["paths"].items():
    for operation in operations.values():
      if path not in ("/health", "/metrics", "/images/{number}"):
        assert set(operation["responses"]) >= set("200 400 401 404 408 413 415 422 503 504".split())
        assert "application/json" in operation["requestBody"]["content"]
