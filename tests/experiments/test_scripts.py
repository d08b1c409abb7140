"""Every script in experiments/ trains, evaluates and reports, tiny; a few do so by one subcommand after the other."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.experiments.paper_scale import PAPER_SCALE

ROOT = Path(__file__).parents[2]
# Studies train several runs each, and the papers' own configurations need a pod: both have tests of their own.
# audio_text needs sound fonts of Debian, and tests/evaluate/test_pair_retrieval.py tests its parts; probe_emoji trains
# nothing, and its command is that of tests/test_finetune.py; tests/search runs search_digits.
ELSEWHERE = ("own_modality", "audio_text", "probe_emoji", "clip4clip_b32", "search_digits")
SCRIPTS = sorted(
  path
  for path in (ROOT / "experiments").glob("*.py")
  if "\nSTUDY = " not in path.read_text() and path.stem not in (*PAPER_SCALE, *ELSEWHERE)
)

# Small enough to run in seconds; everything else is the script's own.
TINY = """--data.source.limit 40 --data.tokenizer.vocab-size 384 --data.tokenizer.max-length 8
  --model.image.width 16 --model.image.depth 1 --model.image.num-heads 2 --model.image.image-size 16
  --model.text.width 16 --model.text.depth 1 --model.text.num-heads 2 --model.embed-dim 8
  --optimizer.warmup-steps 1 --run.batch-size 16 --run.steps 3 --run.log-every 1 --run.no-tensorboard""".split()

RUN = TINY[TINY.index("--optimizer.warmup-steps") :]
TEXT = "--model.text.width 16 --model.text.depth 1 --model.text.num-heads 2 --model.text.mlp-dim 16".split()
IMAGE = "--model.image.width 16 --model.image.depth 1 --model.image.num-heads 2 --model.image.mlp-dim 16".split()
FUSION = "--model.fusion.width 16 --model.fusion.depth 1 --model.fusion.num-heads 2".split()
# The subcommands load a run, whatever its script: one of two towers and one that answers questions stand for all.
STEP_BY_STEP = ("clip_emoji", "vqa_easy")
# Of scripts whose models are no two towers.
OPTIONS = {
  "albef_emoji": [*TINY, *"--model.fusion-depth 1 --objectives.0.queue-size 24 --objectives.1.group 2".split()],
  "bert_text": [*TEXT, *RUN, *"--data.source.examples 60 --data.tokenizer.vocab-size 384".split()],
  "ensembles_digits": RUN,
  "gpt_text": [*TEXT, *RUN, *"--data.source.examples 60 --data.tokenizer.vocab-size 384".split()],
  "image_codes_scenes": [*RUN, *"--data.source.examples 60 --model.image.width 8".split()],
  "speech_words": [
    *RUN,
    *"--data.source.spoken en --data.source.voices 2 --data.source.takes 1 --data.source.root missing".split(),
    *"--model.towers.audio.width 16 --model.towers.audio.depth 1 --model.towers.audio.num-heads 2".split(),
  ],
  "speech_to_text": [
    *RUN,
    *"--data.source.voices 4 --data.source.strings 40".split(),
    *"--model.audio.width 16 --model.audio.depth 1 --model.audio.num-heads 2".split(),
  ],
  "verify": [
    *RUN,
    *"--data.source.spoken en --data.source.voices 8".split(),
    *"--model.towers.audio.width 16 --model.towers.audio.depth 1 --model.towers.audio.num-heads 2".split(),
  ],
  "vilt_scenes": [*TEXT, *RUN, *"--data.source.examples 60 --objectives.0.group 2".split()],
  "vqa_easy": [*IMAGE, *TEXT, *FUSION, *RUN, *"--evaluation.max-examples 60".split()],
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  return tmp_path_factory.mktemp("data")


@pytest.fixture(params=SCRIPTS, ids=[path.stem for path in SCRIPTS])
def script(request, monkeypatch):
  """A script as a module, with its neighbours importable as when it is run."""
  monkeypatch.syspath_prepend(str(request.param.parent))
  spec = importlib.util.spec_from_file_location(request.param.stem, request.param)
  module = importlib.util.module_from_spec(spec)
  monkeypatch.setitem(sys.modules, request.param.stem, module)
  spec.loader.exec_module(module)
  return module


def call(script, *arguments) -> int:
  with pytest.raises(SystemExit) as stop:
    script.main(
      script.EXPERIMENT,
      description=script.__doc__,
      arguments=list(arguments),
      kinds=getattr(script, "KINDS", ()),
    )
  return stop.value.code


def test_train_evaluate_report(script, data_dir, tmp_path, capsys, request):
  if script.__name__ not in STEP_BY_STEP:
    request.getfixturevalue("one_device")
  options = [*OPTIONS.get(script.__name__, TINY), "--data.dir", str(data_dir), "--run.workdir", str(tmp_path)]
  assert call(script, "train", *options) == 0  # and evaluates, and reports
  assert {"config.json", "metrics.jsonl", "checkpoints", "results.json", "report.html"} <= {
    path.name for path in tmp_path.iterdir()
  }
  assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3
  assert (tmp_path / "report.html").stat().st_size > 10_000
  assert "step 3/3" in capsys.readouterr().out
  if script.__name__ == "speech_words":
    report = (tmp_path / "report.html").read_text()
    assert "data:audio/wav" in report and "Digit by duration alone" in report
  if script.__name__ not in STEP_BY_STEP:
    return
  results = (tmp_path / "results.json").read_text()
  (tmp_path / "results.json").unlink()
  (tmp_path / "report.html").unlink()
  assert call(script, "evaluate", *options) == 0
  assert metrics((tmp_path / "results.json").read_text()) == pytest.approx(metrics(results), abs=1e-6)
  assert call(script, "report", *options) == 0
  assert (tmp_path / "report.html").stat().st_size > 10_000


def metrics(text: str) -> dict[str, float]:
  results = json.loads(text)
  return {f"{r['dataset']} {name}": value for r in results for name, value in r["metrics"].items()}


@pytest.mark.parametrize(
  ("arguments", "said"),
  [
    (["trian"], "unknown command 'trian'; commands are train, evaluate, report"),
    (["train", "--run.stepz", "3"], "--run.steps"),
    (["train", "--run.ste" + "p" * 30_000, "3"], "no option has 30,009 characters: --run.step"),
    (["train", "--run.steps", "0"], "run.steps is 0"),
    (["train", "--run.batch-size", "12"], "such as"),
    (["train", "--model.image.num-heads", "5"], "divisible by num_heads=5"),
    (["train", "--data.source.vendors", "twemojy"], "Did you mean 'twemoji'"),
    (["train", "--data.source", "folder", "--data.source.path", "/no/such/folder"], "/no/such/folder"),
    (["evaluate"], "the workdir of a run"),
  ],
)
def test_mistakes_are_answered_in_a_sentence(arguments, said, data_dir, tmp_path, monkeypatch, capsys):
  monkeypatch.syspath_prepend(str(ROOT / "experiments"))
  import clip_emoji

  command, *overrides = arguments
  tiny = TINY[2:] if "folder" in overrides else TINY  # a folder has no limit
  options = [*tiny, "--data.dir", str(data_dir), "--run.workdir", str(tmp_path), *overrides]
  assert call(clip_emoji, command, *options) == 2
  printed = capsys.readouterr()
  assert said in " ".join((printed.out + printed.err).split()), printed


def test_a_checkpoint_of_another_model_is_refused(data_dir, tmp_path, monkeypatch, capsys):
  monkeypatch.syspath_prepend(str(ROOT / "experiments"))
  import clip_emoji

  options = [*TINY, "--data.dir", str(data_dir), "--run.workdir", str(tmp_path), "--run.steps", "1"]
  assert call(clip_emoji, "train", *options) == 0
  assert call(clip_emoji, "train", *options, "--model.embed-dim", "12") == 2
  assert "is of another model" in capsys.readouterr().err


def environment() -> dict[str, str]:
  return os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"}


def test_help_shows_every_field_with_type_default_and_meaning():
  command = [sys.executable, "experiments/clip_emoji.py", "--help"]
  done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True)
  text = " ".join(done.stdout.replace("│", " ").split())
  assert "--run.steps INT Optimiser steps." in text
  assert "--model.image.pool {cls,mean,map,flat,cls_mean,cls_map,cls_and_mean,queries,probe}" in text
  assert "evaluate evaluate the newest checkpoint" in text


def test_help_may_be_read_in_part():
  command = [sys.executable, "experiments/clip_emoji.py", "--help"]
  process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
  process.stdout.close()  # as `| head` does, once it has its lines
  assert process.stderr.read() == b"" and process.wait(timeout=60) == 141


def test_ctrl_c_saves_and_the_same_command_goes_on(data_dir, tmp_path):
  options = [*TINY, "--data.dir", str(data_dir), "--run.workdir", str(tmp_path), "--run.steps", "100000"]
  command = [sys.executable, "experiments/clip_emoji.py", "train", *options]
  process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True)
  log, deadline = tmp_path / "metrics.jsonl", time.monotonic() + 180
  while not (log.exists() and log.stat().st_size) and time.monotonic() < deadline:
    time.sleep(0.2)
  process.send_signal(signal.SIGINT)
  said, _ = process.communicate(timeout=120)
  assert process.returncode == 130 and "the same command resumes from here" in said
  steps = [int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdecimal()]
  assert len(steps) == 1 and len(log.read_text().splitlines()) == steps[0]
