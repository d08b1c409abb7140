"""Headless Chromium, told what to do over its debugging pipe: no package, no port."""

import base64
import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OPTIONS = (
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--remote-debugging-pipe",
  "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip


class Page:
  """A page in Chromium."""

  def __init__(self, inward: int, outward: int):
    self._out, self._in = os.fdopen(inward, "wb", 0), os.fdopen(outward, "rb", 0)
    self._number, self._session, self._held = 0, None, b""
    target = self.ask("Target.createTarget", url="about:blank")["targetId"]
    self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    self.ask("Page.enable")

  def ask(self, method: str, **params: Any) -> Any:
    """Call a method of the DevTools protocol."""
    self._number += 1
    message = {"id": self._number, "method": method, "params": params}
    message |= {"sessionId": self._session} if self._session else {}
    self._out.write(json.dumps(message).encode() + b"\0")
    while True:
      answer = self._read()
      if answer.get("id") == self._number:
        assert "error" not in answer, answer
        return answer["result"]

  def _read(self) -> Any:
    while b"\0" not in self._held:
      part = self._in.read(1 << 20)
      assert part, "Chromium has ended"
      self._held += part
    first, _, self._held = self._held.partition(b"\0")
    return json.loads(first)

  def run(self, script: str) -> Any:
    """The value of a script, after its promise."""
    found = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
    assert "exceptionDetails" not in found, found["exceptionDetails"]
    return found["result"].get("value")

  def until(self, script: str, seconds: float = 60) -> None:
    """Wait until a script gives something true."""
    end = time.monotonic() + seconds
    while not self.run(script):
      assert time.monotonic() < end, f"{script}: {self.run('document.body.innerText')}"
      time.sleep(0.05)

  def size(self, width: int, height: int, *, phone: bool = False) -> None:
    self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)

  def screenshot(self, path: Path) -> None:
    """Write the whole page as PNG."""
    size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
    clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
    data = self.ask("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)["data"]
    path.write_bytes(base64.b64decode(data))


@contextlib.contextmanager
def browsing(chromium: str, profile: Path) -> Iterator[Page]:
  """A page of a browser that is ended afterwards."""
  (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
  shell = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'  # Chromium's pipe is its files 3 and 4
  command = ["bash", "-c", shell, chromium, *OPTIONS, f"--user-data-dir={profile}"]
  process = subprocess.Popen(command, pass_fds=(theirs_in, theirs_out), stderr=subprocess.DEVNULL)
  os.close(theirs_in)
  os.close(theirs_out)
  try:
    yield Page(ours_out, ours_in)
  finally:
    process.kill()
    process.wait()
