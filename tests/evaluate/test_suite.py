"""The suites on a run that understands everything, and on one that understands nothing."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmjax.data import DataConfig, DataError, Emoji, Folder
from mmjax.evaluate import evaluate, flatten, write_results
from mmjax.evaluate.evaluator import best_metric
from mmjax.evaluate.images import raw_pixel_floor
from mmjax.evaluators import EmojiSuite, EvaluationConfig, MatchedPairs, WrittenCaptions
from mmjax.report import print_table
from tests.golden import values

sys.path.insert(0, str(Path(__file__).parent))
from fakes import FakeExperiment, FakeRun, emoji_run, fingerprint

LIMIT = 60


def test_one_group_is_evaluated_where_one_is_trained_on():
  run = emoji_run(LIMIT)
  data = dataclasses.replace(run.experiment.data, source=Emoji(groups=("people-and-body",), limit=LIMIT))
  found = {
    r["dataset"]: r
    for r in evaluate(dataclasses.replace(run, experiment=dataclasses.replace(run.experiment, data=data)))
  }
  assert 0 < found["emoji_noto"]["n"] < evaluate(run)[0]["n"]
  assert "emoji_groups_by_name" not in found  # of one class


def recall_1(result):
  return [value for name, value in result["metrics"].items() if name.endswith("recall@1")]


def test_all_knowing_run_finds_everything_and_the_control_is_at_chance():
  run = emoji_run(LIMIT)
  results = evaluate(run)
  names = [result["dataset"] for result in results]
  assert {"emoji_noto_to_twemoji", "emoji_noto_to_openmoji", "emoji_noto", "emoji_heldout_noto"} <= set(names)
  assert {"emoji_groups_by_name", "emoji_groups_by_members"} <= set(names)
  for result in results:
    assert result["metrics"].keys() == result["chance"].keys()
    if result["task"].endswith("retrieval") and not result.get("control"):
      assert recall_1(result) == [1.0] * len(recall_1(result)), result["dataset"]
    if result.get("control"):
      assert max(recall_1(result)) < 0.2
  assert results[0]["n"] == results[0]["gallery"] and 0 < results[0]["floor"]["image_retrieval_recall@1"] < 1


def test_each_picture_and_caption_is_embedded_once():
  run = emoji_run(LIMIT)
  results = evaluate(run)
  size, classes = results[0]["n"], sum(r.get("classes", 0) for r in results if r["dataset"].endswith("_name"))
  assert run.embedded["image"] == 3 * size
  prompts = classes * len(EmojiSuite().templates)
  assert size + prompts <= run.embedded["text"] <= size + prompts + 270  # the flags' names


def test_collapsed_run_is_never_better_than_chance():
  for result in evaluate(emoji_run(LIMIT, collapsed=True)):
    for name, value in result["metrics"].items():
      worse = value >= result["chance"][name] if name.endswith("rank") else value <= result["chance"][name]
      assert worse, (result["dataset"], name)


def test_an_artist_that_was_trained_on_is_called_seen():
  run = emoji_run(LIMIT)
  data = dataclasses.replace(run.experiment.data, source=Emoji(("twemoji", "noto"), limit=LIMIT))
  titles = [r["title"] for r in evaluate(dataclasses.replace(run, experiment=FakeExperiment(data)))]
  assert "OpenMoji (unseen) to Twemoji" in titles and "OpenMoji (unseen) to Noto" in titles


def test_flatten_leaves_controls_out():
  run = emoji_run(LIMIT)
  numbers = flatten(evaluate(run))
  assert numbers["mean_recall@1"] == 1.0 and best_metric(run.experiment) == "mean_recall@1"
  assert "emoji_noto_to_twemoji/image_retrieval_recall@1" in numbers
  assert not any("shuffled" in name for name in numbers)


def test_plain_lines_and_json(tmp_path, capsys):
  results = evaluate(emoji_run(LIMIT))
  print_table(results)
  first = capsys.readouterr().out.splitlines()[0]
  assert first.startswith(f"Noto (unseen) to Twemoji (n={results[0]['n']}): R@1 1.000 (chance 0.0")
  assert "floor 0." in first
  write_results(results, tmp_path / "results.json")
  assert json.loads((tmp_path / "results.json").read_text()) == results
  assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_raw_pixel_floor_by_hand():
  colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]
  pictures = [Image.new("RGB", (20, 20), color) for color in colors]
  scores, how = raw_pixel_floor(pictures, pictures, (range(4), range(4)))
  assert scores["image_retrieval_recall@1"] == 1.0 and "16 px" in how
  shifted = raw_pixel_floor(pictures, pictures, (range(4), [1, 2, 3, 0]))[0]
  assert shifted["image_retrieval_recall@1"] == 0.0


def folder_run(directory, **data):
  """Eight pictures with two captions each."""
  meanings = {}
  with (directory / "captions.csv").open("w") as file:
    file.write("image,caption,split\n")
    for number in range(8):
      image = Image.new("RGB", (9, 9), (30 * number, 0, 99))
      image.save(directory / f"{number}.png")
      meanings[fingerprint(image)] = number
      for caption in (f"<b>thing {number}</b>", f"the other name of {number}"):
        file.write(f"{number}.png,{caption},validation\n")
        meanings[caption] = number
  return FakeRun(meanings, 0.0, FakeExperiment(DataConfig(source=Folder(str(directory)), **data)))


def test_folder_with_several_captions(tmp_path):
  results = evaluate(folder_run(tmp_path))
  metrics = results[0]["metrics"]
  assert metrics["image_retrieval_recall@1"] == metrics["text_retrieval_recall@1"] == 1.0
  assert results[0]["n"] == 8 and results[0]["chance"]["image_retrieval_recall@1"] == pytest.approx(1 / 8)
  assert results[0]["chance"]["text_retrieval_recall@1"] == pytest.approx(2 / 16)
  assert results[1]["control"] and results[1]["metrics"]["image_retrieval_recall@1"] < 1


@pytest.mark.parametrize("fields", [{}, {"noise": 1.0}, {"collapsed": True}], ids=["knowing", "noisy", "collapsed"])
def test_golden_results_of_emoji(fields, request):
  found = values.numbers(evaluate(emoji_run(LIMIT, **fields)))
  values.check("results", f"emoji, {request.node.callspec.id}", found, abs=1e-6)


def test_golden_results_of_a_folder(tmp_path):
  found = [
    {**result, "dataset": result["dataset"].replace(str(tmp_path), "FOLDER")}
    for result in values.numbers(evaluate(folder_run(tmp_path)))
  ]
  values.check("results", "folder", found, abs=1e-6)


def test_bad_picture_is_named_or_skipped(tmp_path):
  run = folder_run(tmp_path)
  (tmp_path / "3.png").write_bytes(b"not a picture")
  with pytest.raises(DataError, match=r"3\.png"):
    evaluate(run)
  data = dataclasses.replace(run.experiment.data, on_bad_record="skip")
  results = evaluate(dataclasses.replace(run, experiment=FakeExperiment(data)))
  assert (results[0]["n"], results[0]["skipped"]) == (7, 1)


def test_max_examples_spreads_over_the_split(tmp_path):
  run = folder_run(tmp_path)
  experiment = dataclasses.replace(run.experiment, evaluation=EvaluationConfig(max_examples=3))
  assert evaluate(dataclasses.replace(run, experiment=experiment))[0]["n"] == 3


@pytest.mark.parametrize("fields", [{"every": -1}, {"batch_size": 0}])
def test_configuration_is_checked(fields):
  with pytest.raises(ValueError, match=f"evaluation.{next(iter(fields))}"):
    EvaluationConfig(**fields)


@pytest.mark.parametrize(
  ("kind", "fields"),
  [
    (EmojiSuite, {"templates": ("no class",)}),
    (EmojiSuite, {"min_class_size": 0}),
    (MatchedPairs, {"rerank": -1}),
    (WrittenCaptions, {"beams": 0}),
  ],
)
def test_settings_of_evaluators_are_checked(kind, fields):
  with pytest.raises(ValueError, match=f"{kind.__name__}.{next(iter(fields))}"):
    kind(**fields)


def test_unit_norm_is_assumed_nowhere_else():
  assert np.isfinite(list(flatten(evaluate(emoji_run(LIMIT, noise=1.0))).values())).all()
