"""The report: one file, every section, nothing from outside, whatever the run left behind."""

import html.parser
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmjax.errors import UserError
from mmjax.evaluate import evaluate, flatten, write_results
from mmjax.report import write_report
from mmjax.report.figures import heat_map, line_chart, moving_average
from tests.skips import CHROMIUM

sys.path.insert(0, str(Path(__file__).parent))
from fakes import emoji_run
from test_suite import folder_run

SECTIONS = ["results", "training", "text-to-image", "similarity", "neighbours", "configuration"]


class Reader(html.parser.HTMLParser):
  """Collects sections, references and tags; complains about tags that do not match."""

  def __init__(self, text):
    super().__init__()
    self.sections, self.references, self.tags, self._open = [], [], [], []
    self.feed(text)
    assert self._open == []

  def handle_starttag(self, tag, attributes):
    values = dict(attributes)
    self.tags.append(tag)
    self.sections += [values["id"]] if tag == "section" else []
    self.references += [values[key] for key in ("src", "href", "xlink:href") if values.get(key)]
    if tag not in ("meta", "img", "br", "link"):
      self._open.append(tag)

  def handle_endtag(self, tag):
    assert self._open.pop() == tag

  def handle_startendtag(self, tag, attributes):
    self.handle_starttag(tag, attributes)
    if self._open and self._open[-1] == tag:
      self._open.pop()


def read(path):
  text = path.read_text(encoding="utf-8")
  reader = Reader(text)
  assert reader.sections == SECTIONS
  assert all(reference.startswith(("#", "data:image/")) for reference in reader.references)
  assert not re.search(r"@import|url\((?!#)", text) and "script" not in reader.tags
  return text, reader


def test_metrics_of_any_name_are_drawn(tmp_path):
  lines = [{"step": step, "loss": 1 / step, "seconds": step} for step in range(1, 5)]
  lines += [{"step": step, "eval": {"patients/r2": step / 10}} for step in (2, 4)]
  (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
  assert "<h3>r2 during training</h3><svg" in write_report(tmp_path).read_text()


def fill(workdir, results):
  """What a run writes."""
  write_results(results, workdir / "results.json")
  fields = {"run": {"steps": 40, "workdir": "<script>alert(1)</script>"}, "objectives": [{"loss": "softmax"}]}
  (workdir / "config.json").write_text(json.dumps({"experiment": fields, "python": "3.11"}))
  with (workdir / "metrics.jsonl").open("w") as file:
    for step in range(1, 41):
      numbers = {"loss": 5 / step, "chance": math.log(256), "logit_scale": 14.0, "grad_norm": 1.0}
      numbers |= {"learning_rate": 1e-3, "examples_per_second": 500.0, "input_wait": 0.01}
      numbers["seconds"] = 30 * ((step - 1) % 30 + 1)  # it was resumed after step 30
      file.write(json.dumps({"step": step, **numbers}) + "\n")
    file.write(json.dumps({"step": 20, "eval": {k: v / 2 for k, v in flatten(results).items()}}) + "\n")
    file.write('{"step": 41, "lo')  # cut short by a crash


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("run")
  run = emoji_run(60, workdir=workdir)
  fill(workdir, evaluate(run))
  return write_report(workdir, run)


def test_finished_run(finished):
  text, reader = read(finished)
  assert finished.name == "report.html" and reader.tags.count("svg") == 8  # seven charts and the matrix
  assert "fill: #ffffff" not in text  # charts are see-through, so that they fit a dark page
  assert re.search(r">20\.0<.*?>minutes<", text)
  assert ">chance<" in text and "Noto (unseen) to Twemoji" in text and "best so far" in text
  assert 'class="tile right"' in text and 'class="tile wrong"' in text
  assert "right one at rank 1<" in text and "prefers-color-scheme: dark" in text
  assert "&lt;script&gt;alert(1)" in text and "<script>alert" not in text


def test_interrupted_run_says_what_is_missing(tmp_path):
  text, _ = read(write_report(tmp_path))
  for words in ("no results.json", "training has not begun", "no model to embed", "no config.json"):
    assert words in text


def test_folder_run_escapes_captions(tmp_path):
  run = folder_run(tmp_path)
  write_results(evaluate(run), tmp_path / "results.json")
  text, _ = read(write_report(tmp_path, run))
  assert "&lt;b&gt;thing 0&lt;/b&gt;" in text and "<b>thing" not in text
  assert "several artists" in text


def test_bad_files_are_named(tmp_path):
  with pytest.raises(UserError, match="not a directory"):
    write_report(tmp_path / "nowhere")
  (tmp_path / "metrics.jsonl").write_text('{"step": 1}\nnonsense\n')
  with pytest.raises(UserError, match=r"metrics\.jsonl, line 2"):
    write_report(tmp_path)
  (tmp_path / "metrics.jsonl").unlink()
  (tmp_path / "results.json").write_text("{")
  with pytest.raises(UserError, match=r"results\.json is not JSON"):
    write_report(tmp_path)


def test_moving_average_by_hand():
  np.testing.assert_allclose(moving_average([1, 2, 3, 10], 3), [1.5, 2, 5, 6.5])


def test_log_axes_follow_the_page_too():
  drawing = line_chart([("norm", [1, 2, 3], [0.4, 2.0, 4.0])], ylabel="norm", log=True)
  labels = re.findall(r'<g id="text_\d+">.*?<(?:g|text)([^>]*)>', drawing, re.DOTALL)
  assert len(labels) > 8 and all("var(--text)" in label for label in labels)


def test_heat_map_frames_the_diagonal():
  drawing = heat_map(np.eye(3), ["data:,"] * 3, ["a", "<b>", "c"])
  assert drawing.count('class="truth"') == 3 and drawing.count("#ffea46") == 3 and drawing.count("#00204d") == 6
  assert "&lt;b&gt;: 1.00" in drawing


def test_a_browser_draws_it(finished, tmp_path):
  chromium = shutil.which("chromium")
  if chromium is None:
    pytest.skip(CHROMIUM)
  options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
  options += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
  options += [f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={tmp_path / 'page.png'}"]
  subprocess.run(
    [chromium, *options, "--window-size=900,3000", finished.as_uri()], check=True, timeout=120, capture_output=True
  )
  pixels = np.asarray(Image.open(tmp_path / "page.png").convert("RGB"))
  assert pixels.shape[:2] == (3000, 900)
  for part in np.array_split(pixels, 3):  # something is drawn in every third of the page
    assert len(np.unique(part.reshape(-1, 3), axis=0)) > 50
