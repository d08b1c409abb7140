"""Right answers of a retrieval: an image's own captions as CLIP_benchmark counts, or those of its concept, as said."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmjax.data import DataConfig, Folder
from mmjax.evaluate import evaluate
from mmjax.evaluate.retrieval import Embedded, Texts, counted, image_text_retrieval
from mmjax.evaluators import EvaluationConfig
from mmjax.report import print_table
from mmjax.report.report import _results

sys.path.insert(0, str(Path(__file__).parent))
from fakes import FakeExperiment, FakeRun, fingerprint

CAPTIONS = [["photo", "a cat"], ["photo", "a cat"], ["photo", "a dog"], ["a fox", "fox", "fox"]]
RECORDS = [{"concept": min(n, 1 if n < 2 else 9), "captions": {"name": texts}} for n, texts in enumerate(CAPTIONS)]


def clip_benchmark(images, texts, owner, k):
  """CLIP_benchmark's recall: any of a query's positive pairs among its k best; every caption is a text of its own."""
  positive = owner[:, None] == np.arange(len(images))[None]  # [texts, images]

  def recall(scores, positive):
    best = np.argsort(-scores, axis=1)[:, :k]
    return float(np.mean([positive[row, best[row]].any() for row in range(len(scores))]))

  scores = texts @ images.T
  return recall(scores, positive), recall(scores.T, positive.T)


@pytest.mark.parametrize("k", [1, 5])
def test_own_captions_are_counted_as_clip_benchmark_does(k):
  rng = np.random.default_rng(0)
  records = [{"concept": 0, "captions": {"name": [f"{n}/{c}" for c in range(1 + n % 3)]}} for n in range(40)]
  texts = Texts.of(records)
  unit = lambda rows: (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
  images, said = unit(rng.normal(size=(40, 8))), unit(rng.normal(size=(len(texts.distinct), 8)))
  image_ids, text_ids, counts = counted(records, texts, "own")
  found, _ = image_text_retrieval(Embedded(images, image_ids), Embedded(said[texts.row], text_ids))
  expected = clip_benchmark(images, said[texts.row], texts.owner, k)
  ways = found[f"image_retrieval_recall@{k}"], found[f"text_retrieval_recall@{k}"]
  assert ways == pytest.approx(expected) and min(expected) < 1
  assert counts == "an image's own captions, as CLIP_benchmark"


def test_every_caption_of_every_image_is_a_text():
  texts = Texts.of(RECORDS)
  assert texts.captions == [text for many in CAPTIONS for text in many]
  assert texts.owner.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 3] and texts.first.tolist() == [0, 2, 4, 6]
  assert [texts.distinct[row] for row in texts.row] == texts.captions and len(texts.distinct) == 5
  assert texts.shared() == pytest.approx(5 / 9)  # "fox" twice of one image is not another's
  assert "56% of them are other images' captions too" in counted(RECORDS, texts, "own")[2]
  assert counted(RECORDS, texts, "concept")[1].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 3]


@pytest.fixture
def named(tmp_path):
  """Six images of two classes whose only caption is the class, and a run that knows the class of each."""
  meanings = {"cat": "cat", "dog": "dog"}
  rows = []
  for number in range(6):
    image = Image.new("RGB", (8, 8), (40 * number, 0, 99))
    image.save(tmp_path / f"{number}.png")
    meanings[fingerprint(image)] = ("cat", "dog")[number % 2]
    rows.append({"image": f"{number}.png", "caption": ("cat", "dog")[number % 2], "split": "validation"})
  (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
  return FakeRun(meanings, 0.0, FakeExperiment(DataConfig(source=Folder(str(tmp_path)))))


def test_class_names_are_counted_by_concept_if_asked_and_it_is_said(named, capsys):
  own = evaluate(named)
  assert own[0]["metrics"]["image_retrieval_recall@1"] == 0.0  # each image of the class is as near as its own
  assert "100% of them are other images' captions too, which --evaluation.counts concept" in own[0]["counts"]
  by_concept = dataclasses.replace(named.experiment, evaluation=EvaluationConfig(counts="concept"))
  found = evaluate(dataclasses.replace(named, experiment=by_concept))
  assert found[0]["metrics"]["image_retrieval_recall@1"] == found[0]["metrics"]["text_retrieval_recall@1"] == 1.0
  print_table(found)
  said = "Right answers: all images and captions of the same concept."
  assert capsys.readouterr().out.splitlines()[-1] == said and said in _results(found, {})
