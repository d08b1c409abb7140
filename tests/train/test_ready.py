"""Nothing is trained that cannot be evaluated: what is missing, short or broken is told before the first step."""

import dataclasses
import json
import logging
import re
import sys
from pathlib import Path

import jax
import pytest
from PIL import Image

from mmjax import cli
from mmjax.data import ClassFolders, Emoji, Flickr30k, Folder, Shards, Texts, TokenizerConfig, Vqav2
from mmjax.data.splits import is_held_out
from mmjax.data.text.tokenizer import train_vocabulary
from mmjax.errors import UserError
from mmjax.evaluate import Shared, check_ready, evaluate
from mmjax.evaluators import HiddenWords, Probe
from mmjax.objectives import Answer, Caption, Classify, Contrastive, MaskedWords, Matching, NextSentence
from mmjax.parallel.mesh import ParallelConfig, make_mesh
from mmjax.report import check_report
from mmjax.run import Run
from mmjax.train import loop
from tests.golden import sources
from tests.tiny import experiment

sys.path.insert(0, str(Path(__file__).parents[1] / "evaluate"))
from knowing import Knowing, knowing_run


def folder(path, captions, splits=None):
  """Images of one colour each, with these captions."""
  rows = []
  for number, texts in enumerate(captions):
    Image.new("RGB", (20, 20), (255 * number // len(captions), 90, 30)).save(path / f"{number}.png")
    rows.append({"image": f"{number}.png", "caption": texts, "split": splits[number] if splits else ""})
  (path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  return Folder(str(path))


MASKED = (Contrastive(mask_same_concept=True),)


def run_of(tmp_path, source, objectives=MASKED, data=None, **parts):
  fields = {"source": source, "dir": str(tmp_path / "cache"), **(data or {})}
  run = {"workdir": tmp_path / "run", "steps": 2, "batch_size": 8, "log_every": 1} | parts.pop("run", {})
  return dataclasses.replace(experiment(data=fields, run=run, **parts), objectives=objectives)


def six(tmp_path):
  return folder(tmp_path, [f"image number {n}" for n in range(6)])


def coco_without_validation(tmp_path):
  source = sources.coco_(tmp_path)["source"]
  (tmp_path / "val2017").rename(tmp_path / "val2017.later")
  return source


def vqa_without_annotations(tmp_path):
  source = sources.vqav2_(tmp_path)["source"]
  (tmp_path / "v2_mscoco_val2014_annotations.json").unlink()
  return source


MISSING = {
  "six images": (six, r"retrieval would fail after the training: .*no image of the split 'validation'.*split"),
  "coco": (coco_without_validation, r"retrieval would fail .* has no val2017 or images/val2017"),
}


@pytest.mark.parametrize("name", MISSING)
@pytest.mark.parametrize("every", [0, 1])
def test_a_missing_validation_split_is_told_before_the_first_step(name, every, tmp_path, capsys):
  make, message = MISSING[name]
  config = run_of(tmp_path, make(tmp_path), evaluation={"every": every})
  with pytest.raises(ValueError, match=message):
    loop.train(config, checks=() if every else (check_ready,))
  assert not (tmp_path / "run" / "config.json").exists() and not list((tmp_path / "run" / "checkpoints").iterdir())


def test_the_command_line_checks_it(tmp_path, capsys):
  config = run_of(tmp_path, six(tmp_path))
  with pytest.raises(SystemExit) as ended:
    cli.main(config, arguments=["train"])
  told = capsys.readouterr().err
  assert ended.value.code == 2 and "The evaluator retrieval would fail after the training" in told
  assert "--evaluation.evaluators" in told and not (tmp_path / "run" / "metrics.jsonl").exists()


def few_flickr(tmp_path):
  sources.flickr30k_(tmp_path)
  (tmp_path / "dataset_flickr30k.json").unlink()
  (tmp_path / "results_20130124.token").write_text("".join(f"{n}.jpg#0\tan image {n}\n" for n in range(12)))
  return Flickr30k(str(tmp_path))


def small_shards(tmp_path):
  one = sources.shards_(tmp_path)["source"].patterns[0]
  return Shards((one,))


def tfds_without_test(tmp_path):
  return dataclasses.replace(sources.tfds_(tmp_path)["source"], validation_split="val")


def few_texts(tmp_path):
  for number in [n for n in range(9) if not is_held_out(f"text {n}.txt/0")][:3]:
    (tmp_path / f"{number}.txt").write_text(f"it is {number}\nso it is {number}\n")
  return Texts(corpus="files", path=str(tmp_path))


def classes_for_training(tmp_path):
  for name in "ab":
    sources.write(tmp_path / "train" / name / "1.png", sources.picture(ord(name)))
  return ClassFolders(str(tmp_path))


WORDS = (MaskedWords(image=False), NextSentence())
NO_SPLIT = {
  "flickr30k": (few_flickr, MASKED, "retrieval would fail .*has no (picture|image) of the split 'validation'"),
  "shards": (small_shards, MASKED, "retrieval would fail .*has no record in this split.*--data.source.validation"),
  "tfds": (tfds_without_test, MASKED, "retrieval would fail .*Unknown split of golden_pictures 'val'"),
  "texts": (few_texts, WORDS, "hidden_words would fail .*no pair in the split 'validation': add documents"),
  "class_folders": (classes_for_training, (Classify(),), "classes would fail .*has no folder for validation"),
}
"""Scenes, easy_vqa and the emoji are built with their validation splits. COCO is above, VQAv2 below."""


@pytest.mark.parametrize("name", NO_SPLIT)
def test_every_source_is_opened_before_the_first_step(name, tmp_path):
  make, objectives, message = NO_SPLIT[name]
  config = run_of(tmp_path, make(tmp_path), objectives, data={"tokenizer": sources.PAIRS})
  loop.make_source(config.data, "train")  # which is there
  with pytest.raises(ValueError, match=message):
    checked(config)


def ready(config, tokenizer=None, step=0, fitted=None):
  """A run before its first step, as check_ready gets it; of the knowing model, which needs no preparation."""
  mesh = make_mesh(ParallelConfig(), jax.devices()[:1])
  return Run(config, config.run.workdir, Knowing(config.model), {}, tokenizer, mesh, step, fitted or {})


def checked(config, **fields):
  source = loop.make_source(config.data, "train")
  return check_ready(ready(config, loop.streams_tokenizer(config, {"": source}), **fields))


def test_one_image_is_too_few_for_retrieval(tmp_path):
  source = folder(tmp_path, ["a", "b", "c", "d"], ["train"] * 3 + ["val"])
  with pytest.raises(ValueError, match="has one image only, and retrieval chooses among two"):
    checked(run_of(tmp_path, source))


@pytest.fixture
def broken(tmp_path):
  """Ten images, of which the last four are for validation and one of these is no image."""
  source = folder(tmp_path, [f"image number {n}" for n in range(10)], ["train"] * 6 + ["val"] * 4)
  data = (tmp_path / "8.png").read_bytes()
  (tmp_path / "8.png").write_bytes(data[: len(data) // 2])
  return source


def test_a_damaged_validation_image_is_named_before_the_first_step(broken, tmp_path):
  with pytest.raises(ValueError, match=r"8\.png"):
    checked(run_of(tmp_path, broken))
  checked(run_of(tmp_path, broken), step=5)  # a resumed run need not decode all again
  with pytest.raises(ValueError, match=r"captions.jsonl, line 8: there is no image"):
    (tmp_path / "7.png").unlink()
    checked(run_of(tmp_path, broken))


def test_a_damaged_validation_image_is_skipped_by_every_evaluator(broken, tmp_path, caplog):
  data = {"on_bad_record": "skip"}
  objectives = (Matching(hard=False, group=2), Caption(), MaskedWords())
  tokens = dataclasses.replace(sources.TOKENIZER, bos_token="<bos>", mask_token="<mask>")
  config = run_of(tmp_path, broken, data={**data, "tokenizer": tokens}, objectives=objectives)
  with caplog.at_level(logging.WARNING):
    checked(config)
  assert "8.png" in caplog.text
  known = dataclasses.replace(config.data)
  (tmp_path / "8.png").write_bytes((tmp_path / "9.png").read_bytes())  # the knowing model must see it
  run = knowing_run(known, objectives, rerank=0, beams=1)
  (tmp_path / "8.png").write_bytes(b"no image")
  assert {result["n"] for result in evaluate(run) if result["task"] == "captioning"} == {3}


def test_answers_that_training_does_not_have(tmp_path):
  sources.vqav2_(tmp_path)
  path = tmp_path / "v2_mscoco_val2014_annotations.json"
  path.write_text(path.read_text().replace('"multiple_choice_answer": "', '"multiple_choice_answer": "other '))
  config = run_of(tmp_path, Vqav2(str(tmp_path)), objectives=(Answer(),))
  with pytest.raises(ValueError, match="answers would fail .*no answer of vqav2, validation is one of"):
    checked(config)
  vqa_without_annotations(tmp_path / "other")
  with pytest.raises(ValueError, match="answers would fail .*v2_mscoco_val2014_annotations.json"):
    checked(dataclasses.replace(config, data=dataclasses.replace(config.data, source=Vqav2(str(tmp_path / "other")))))


@pytest.mark.parametrize(
  "evaluator, message",
  [
    (HiddenWords(masked_words=("number", "unheard-of")), "masked_words: .*unheard-of.* is not one token"),
    (HiddenWords(masked_words=("zzz",)), "zzz|no text of"),
    (HiddenWords(), None),
  ],
)
def test_words_to_hide(evaluator, message, tmp_path):
  source = folder(tmp_path, [f"image number {n}" for n in range(10)], ["train"] * 6 + ["val"] * 4)
  tokens = dataclasses.replace(sources.TOKENIZER, bos_token="<bos>", mask_token="<mask>")
  evaluation = {"evaluators": {"hidden_words": evaluator}}
  config = run_of(tmp_path, source, (MaskedWords(),), data={"tokenizer": tokens}, evaluation=evaluation)
  if message is None:
    return checked(config)
  with pytest.raises(UserError, match=message):
    checked(config)


def test_matching_needs_two_concepts_where_it_is_the_metric(tmp_path, caplog):
  source = folder(tmp_path, ["photo"] * 6, ["train"] * 3 + ["val"] * 3)
  named = {"best_metric": f"{tmp_path}_itm_random/itm_auc"}
  for evaluation in ({}, named):
    config = run_of(tmp_path, source, (Matching(hard=False, group=2),), evaluation=evaluation)
    if not evaluation:
      checked(config)
      assert "has one concept only: matching will give no results" in caplog.text
      continue
    with pytest.raises(ValueError, match="matching would fail .*has one concept only"):
      checked(config)


def test_too_few_emoji(data_dir, tmp_path):
  check = lambda **fields: checked(run_of(tmp_path, Emoji(limit=40, **fields), data={"dir": data_dir}))
  check()
  with pytest.raises(ValueError, match="1 emoji of these groups .*retrieval chooses among two"):
    check(groups=("activities",))


def test_one_class_is_too_few_for_a_probe(tmp_path):
  for part in ("train", "validation"):
    folder_of = tmp_path / part / "cat"
    folder_of.mkdir(parents=True)
    six(folder_of)
    (folder_of / "captions.jsonl").unlink()
  run = ready(run_of(tmp_path, ClassFolders(str(tmp_path))), fitted={"label": {"classes": ["cat"]}})
  shared = Shared()
  shared.once("checked", lambda: None)
  with pytest.raises(ValueError, match="one class only"):
    Probe().check(run, shared)


def test_results_and_report_can_be_written_and_drawn(tmp_path, monkeypatch):
  run = ready(run_of(tmp_path, six(tmp_path)))
  check_report(run)
  (tmp_path / "run" / "report.html").mkdir(parents=True)
  with pytest.raises(UserError, match=r"report.html cannot be written"):
    check_report(run)
  (tmp_path / "run" / "report.html").rmdir()
  monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
  with pytest.raises(UserError, match="cannot be drawn by matplotlib"):
    check_report(run)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
  """One vocabulary for the runs that train, so that they share their compiled step, of an optimiser with one state."""
  path = tmp_path_factory.mktemp("words") / "tokenizer.json"
  path.write_text(train_vocabulary(["image number photo"], TokenizerConfig(vocab_size=300)).to_str())
  data = {"tokenizer": TokenizerConfig(path=str(path), max_length=8)}
  return {"data": data, "optimizer": {"algorithm": "momentum", "ema_decay": 0.0}}


def test_a_run_that_cannot_be_evaluated_any_more_has_a_report(tmp_path, words, one_device):
  """The validation images vanish while it trains: what was learned is saved and shown, and the error says so."""
  source = folder(tmp_path, [f"image number {n}" for n in range(12)], ["train"] * 8 + ["val"] * 4)
  run = loop.train(run_of(tmp_path, source, **words)).run
  for number in range(8, 12):
    (tmp_path / f"{number}.png").unlink()
  with pytest.raises(UserError, match=r"no image '8.png'.*The training is complete.*report.html.*evaluate"):
    cli._measure_and_report(run)
  assert "There is no results.json" in (tmp_path / "run" / "report.html").read_text()


def test_a_run_does_not_go_on_with_re_sorted_rows(tmp_path, words, one_device):
  source = folder(tmp_path, [["photo", *(f"{word} {n}" for word in "abcd")] for n in range(16)], ["train"] * 16)
  config = run_of(tmp_path, source, **words)
  assert loop.train(config).run.step == 2
  assert not (tmp_path / "run" / "events.jsonl").read_text()  # a first caption that all have makes no concept
  saved = (tmp_path / "run" / "config.json").read_text()
  rows = (tmp_path / "captions.jsonl").read_text().splitlines()
  (tmp_path / "captions.jsonl").write_text("\n".join(reversed(rows)))
  longer = dataclasses.replace(config, run=dataclasses.replace(config.run, steps=4))
  with pytest.raises(ValueError, match="in another order"):
    loop.train(longer)
  assert (tmp_path / "run" / "config.json").read_text() == saved


def test_a_batch_of_one_concept_is_an_event_of_the_run(tmp_path, words, one_device, capsys):
  source = folder(tmp_path, ["photo"] * 16, ["train"] * 16)
  loop.train(run_of(tmp_path, source, **words))
  events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
  assert [(event["event"], event["about"]) for event in events] == [
    ("warning", "concepts"),
    ("warning", "nearly 0: softmax_image_text"),
  ]
  told = " ".join(capsys.readouterr().out.split())  # in lines of any length
  assert "warning: a batch of 8 has only 1 different concept(s)" in told
  assert re.search(r"softmax_image_text is (0|\S+e-07) at step 1", told)
