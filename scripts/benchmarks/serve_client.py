"""Clients of the service for scripts/benchmarks/serve.py: as little HTTP as they need, which costs little."""

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
JSON = "application/json"


@dataclasses.dataclass(frozen=True)
class Answer:
  """Status, headers and body of an answer. Status 0: the connection was closed without one."""

  status: int
  headers: dict[str, str]
  body: bytes


class Connection:
  """A connection that stays open between requests."""

  def __init__(self, port: int):
    self._port = port
    self._reader: Any = None
    self._writer: Any = None

  async def ask(self, path: str, body: bytes, kind: str = JSON) -> Answer:
    """Send a request, and wait for its answer."""
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    return await self.send(head.encode() + body)

  async def send(self, data: bytes, *, finish: bool = False) -> Answer:
    """Send bytes as they are. `finish`: close the sending side after them."""
    try:
      if self._writer is None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
      self._writer.write(data)
      await self._writer.drain()
      if finish:
        self._writer.write_eof()
    except OSError:
      if self._reader is None:
        self.close()
        return Answer(0, {}, b"")  # an early answer may lie there all the same
    return await self._answer()

  async def _answer(self) -> Answer:
    try:
      head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin1")
      first, *lines = head.split("\r\n")
      headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
      body = await self._reader.readexactly(int(headers.get("content-length", 0)))
    except (OSError, asyncio.IncompleteReadError):
      self.close()
      return Answer(0, {}, b"")
    if headers.get("connection") == "close":
      self.close()
    return Answer(int(first.split()[1]), headers, body)

  def close(self) -> None:
    if self._writer is not None:
      self._writer.close()
    self._reader = self._writer = None


class Server:
  """The service, in a process of its own.

  Args:
    workdir: the run.
    port: a free port.
    log: file of its standard error.
    options: more options of `serve`.

  Attributes:
    start_seconds: time from the start to the first answer.
  """

  def __init__(self, workdir: Path, port: int, log: Path, options: Sequence[str] = ()):
    words = [sys.executable, "-m", "mmjax.deploy", "serve", str(workdir), "--port", str(port), *options]
    began = time.monotonic()
    with log.open("a") as file:
      self._process = subprocess.Popen(words, stderr=file, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    self._port = port
    while not self._healthy():
      if self._process.poll() is not None:
        raise SystemExit(f"the service ended with status {self._process.returncode}; see {log}")
      time.sleep(0.02)
    self.start_seconds = time.monotonic() - began

  def _healthy(self) -> bool:
    with contextlib.suppress(OSError):
      return urllib.request.urlopen(f"http://127.0.0.1:{self._port}/health", timeout=5).status == 200
    return False

  def metrics(self) -> dict[str, float]:
    """{name and labels: value} of /metrics."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=30).read().decode()
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}

  def memory_mb(self) -> dict[str, float]:
    """Resident memory now, and its peak."""
    status = Path(f"/proc/{self._process.pid}/status").read_text()
    numbers = {line.split(":")[0]: line.split() for line in status.splitlines() if line.startswith(("VmRSS", "VmHWM"))}
    return {name: int(words[1]) / 1024 for name, words in numbers.items()}

  def cpu_seconds(self) -> float:
    """Time of all cores that the process has used."""
    words = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

  def kill(self) -> None:
    self._process.send_signal(signal.SIGKILL)
    self._process.wait()

  def stop(self) -> int:
    """SIGTERM; returns the exit status."""
    self._process.send_signal(signal.SIGTERM)
    return self._process.wait(60)


@contextlib.contextmanager
def served(workdir: Path, port: int, log: Path, options: Sequence[str] = ()) -> Iterator[Server]:
  """A service that is stopped in the end."""
  server = Server(workdir, port, log, options)
  try:
    yield server
  finally:
    server.kill()


def texts_body(texts: Sequence[str]) -> bytes:
  return json.dumps({"texts": list(texts)}).encode()
