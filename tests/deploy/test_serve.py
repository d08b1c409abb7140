"""The command `serve` and a real run behind it: as a user starts it, and stops it."""

import asyncio
import dataclasses
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from mmjax.deploy.__main__ import main
from mmjax.deploy.serving import command
from mmjax.deploy.serving.of_run import fingerprint, of_run
from mmjax.deploy.serving.served import EMBED_IMAGE, EMBED_TEXT
from mmjax.deploy.serving.service import Service
from mmjax.loading import load_run
from mmjax.train.loop import train
from tests import tiny
from tests.deploy.served import png
from tests.skips import SERVE

ROOT = Path(__file__).parents[2]


def installed() -> bool:
  return all(map(importlib.util.find_spec, command._PACKAGES))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  """The smallest run, after one step on one device."""
  import jax

  folder = tmp_path_factory.mktemp("serve")
  with pytest.MonkeyPatch.context() as patch:
    first = jax.devices()[:1]
    patch.setattr(jax, "devices", lambda *_: first)
    train(tiny.experiment(data=dict(dir=str(folder / "data")), run=dict(workdir=folder / "run", steps=1)))
  return folder / "run"


def test_a_run_is_served_as_it_embeds(workdir, one_device):
  run = load_run(workdir)
  served = of_run(run, 4)
  assert set(served.abilities) == {EMBED_IMAGE, EMBED_TEXT} and served.abilities[EMBED_IMAGE].sizes == (1, 2, 4)
  images, texts = [png("red", (9, 7)), png("blue"), png((9, 200, 30))], ["a heart", "a cat", "a dog", "x", "y"]

  async def inside():
    service = Service(served)
    service.start()
    try:
      return await asyncio.gather(service.embed_images(images), service.embed_texts(texts))
    finally:
      await service.stop()

  rows, columns = asyncio.run(inside())
  np.testing.assert_allclose(rows, run.encode_image(images), atol=1e-6)
  np.testing.assert_allclose(columns, run.encode_text(texts), atol=1e-6)
  scale = float(run.model.apply({"params": run.params}, method="logit_scale"))
  assert served.logit_scale == pytest.approx(scale) and served.name == "run" and served.step == 1


def test_the_fingerprint_changes_with_a_parameter_and_the_transform(workdir, one_device):
  import jax

  run = load_run(workdir)
  again = fingerprint(load_run(workdir))
  assert fingerprint(run) == again
  leaves, tree = jax.tree.flatten(run.params)
  changed = jax.tree.unflatten(tree, [leaves[0] + 1e-3, *leaves[1:]])
  assert fingerprint(dataclasses.replace(run, params=changed)) != again
  other = dataclasses.replace(run.transform, interpolation="bicubic")
  assert fingerprint(dataclasses.replace(run, image=other)) != again


def status(*arguments):
  try:
    return main([*map(str, arguments)])
  except SystemExit as end:
    return end.code


@pytest.mark.parametrize(
  ("arguments", "said"),
  [
    (["--max-batch", "12"], "not a power of two"),
    (["--port", "99999"], "is not a port"),
    (["--timeout", "nan"], "not a number above 0"),
    (["--max-queue", "0"], "not a whole number of at least 1"),
    (["--prot", "8000"], "unrecognized arguments"),
  ],
)
def test_options_are_checked(arguments, said, capsys):
  assert status("serve", "run", *arguments) == 2
  assert said in capsys.readouterr().err


def test_bad_input_is_one_sentence(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(command, "_PACKAGES", ("nonsense",))
  assert status("serve", tmp_path) == 2
  assert "serving needs nonsense: pip install 'mmjax[serve]'" in " ".join(capsys.readouterr().err.split())
  monkeypatch.setattr(command, "_PACKAGES", ())
  with socket.create_server(("127.0.0.1", 0)) as taken:
    assert status("serve", tmp_path, "--port", taken.getsockname()[1]) == 2
  assert "cannot be used (Address already in use): choose another with --port" in capsys.readouterr().err
  assert status("serve", tmp_path, "--host", "x" * 300, "--port", "0") == 2
  assert "is no address of this machine" in capsys.readouterr().err
  assert status("nonsense") == 2 and status("--help") == 0


def test_another_host_without_a_key_is_warned_of(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(command, "_PACKAGES", ())
  monkeypatch.setattr(command, "_serve", lambda *_: 0)
  monkeypatch.delenv("MMJAX_API_KEY", raising=False)
  status("serve", tmp_path, "--host", "0.0.0.0", "--port", "0")
  assert "set MMJAX_API_KEY" in capsys.readouterr().err
  status("serve", tmp_path, "--port", "0")
  assert "MMJAX_API_KEY" not in capsys.readouterr().err
  monkeypatch.setenv("MMJAX_API_KEY", "x")
  status("serve", tmp_path, "--host", "0.0.0.0", "--port", "0")
  assert "warning" not in capsys.readouterr().err


def test_started_searched_and_stopped_with_a_request_under_way(workdir, tmp_path):
  if not installed():
    pytest.skip(SERVE)
  for name in ("red", "blue"):
    (tmp_path / f"{name}.png").write_bytes(png(name, (16, 16)))
  with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]
  options = ["--images", tmp_path, "--index", tmp_path / "index.npz", "--port", port, "--max-batch", 2]
  words = [sys.executable, "-m", "mmjax.deploy", "serve", workdir, *options, "--statistics", tmp_path / "s.jsonl"]
  process = subprocess.Popen(
    [*map(str, words)], stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
  )
  try:
    url = f"http://127.0.0.1:{port}"
    until(lambda: process.poll() is not None or answers(url))
    assert process.poll() is None, process.stderr.read()
    hits = post(f"{url}/search", {"text": "a cat"})["hits"]
    assert sorted(hit["name"] for hit in hits) == ["blue.png", "red.png"]
    for many in (1, 2, 3, 5, 20):
      assert len(post(f"{url}/embed/text", {"texts": ["a cat"] * many})["embeddings"]) == many
    metrics = urllib.request.urlopen(f"{url}/metrics").read().decode()
    assert "mmjax_compilations_total 0.0" in metrics  # of whatever size the requests were
    with socket.create_connection(("127.0.0.1", port)) as client:
      body = json.dumps({"texts": ["a dog"]}).encode()
      head = f"POST /embed/text HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
      client.sendall(head.encode() + b"\r\n\r\n" + body[:5])
      time.sleep(0.3)
      process.send_signal(signal.SIGTERM)
      time.sleep(0.3)
      client.sendall(body[5:])
      answer = client.recv(100_000)
    assert answer.startswith(b"HTTP/1.1 200") and process.wait(30) == 0
    assert (tmp_path / "s.jsonl").read_text().count("\n") == 1  # written as it stopped
  finally:
    process.kill()
    process.stderr.close()


def until(done, seconds=120):
  end = time.monotonic() + seconds
  while not done():
    assert time.monotonic() < end
    time.sleep(0.1)


def answers(url):
  try:
    return urllib.request.urlopen(f"{url}/health", timeout=5).status == 200
  except OSError:
    return False


def post(url, value):
  request = urllib.request.Request(url, json.dumps(value).encode(), {"content-type": "application/json"})
  return json.loads(urllib.request.urlopen(request, timeout=60).read())
