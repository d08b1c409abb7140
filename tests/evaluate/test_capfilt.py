"""CapFilt with a model that knows everything: what is wrong goes, what was right stays, and every picture is told."""

import dataclasses
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest

from mmjax.cli import Call, parse
from mmjax.data import DataConfig, DataError, Scenes, TokenizerConfig, make_source
from mmjax.data.corruption import CorruptedRecords
from mmjax.data.recaption import RecaptionedRecords
from mmjax.evaluate import Shared
from mmjax.evaluators import CapFilt, CaptionNoise, capfilt
from mmjax.evaluators.capfilt import Filtered, caption_and_filter
from mmjax.experiment import Experiment
from mmjax.objectives import Caption, Matching

sys.path.insert(0, str(Path(__file__).parent))
from knowing import Knowing, knowing_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  tokenizer = TokenizerConfig(vocab_size=400, max_length=24, bos_token="<bos>")
  directory = str(tmp_path_factory.mktemp("scenes"))
  data = DataConfig(source=Scenes(text="caption", size=16, examples=120), dir=directory, tokenizer=tokenizer)
  found = knowing_run(data, (Matching(), Caption()), batch_size=16, beams=1)
  noisy = dataclasses.replace(data, corrupt_captions=0.4)
  return dataclasses.replace(found, experiment=dataclasses.replace(found.experiment, data=noisy))


@pytest.fixture
def clean(run, monkeypatch):
  """The 20 scenes that the model knows, in place of the training split: 8 of them with the captions of others."""
  source = make_source(run.experiment.data, "validation")
  for name in ("mmjax.evaluators.capfilt", "mmjax.data"):
    monkeypatch.setattr(f"{name}.make_source", lambda data, split: CorruptedRecords(source, data.corrupt_captions))
  return source


def test_every_picture_ends_with_its_own_caption(run, clean, tmp_path, monkeypatch):
  monkeypatch.setattr(capfilt, "_AT_ONCE", 7)  # in three parts, the last of which is short
  found = caption_and_filter(run, tmp_path / "captions.jsonl")
  assert found == Filtered(records=20, kept=20, given=20, given_kept=12, written=8, written_kept=8)
  mended = RecaptionedRecords(CorruptedRecords(clean, 0.4), tmp_path / "captions.jsonl")
  assert [mended[place]["captions"] for place in range(20)] == [clean[place]["captions"] for place in range(20)]


def test_what_no_caption_fits_is_left_out_and_nothing_left_is_an_error(run, clean, tmp_path):
  found = caption_and_filter(run, tmp_path / "none.jsonl", settings=CapFilt(threshold=10.0))
  assert (found.kept, found.given_kept, found.written_kept) == (0, 0, 0)
  with pytest.raises(DataError, match="lists no record"):
    RecaptionedRecords(clean, tmp_path / "none.jsonl")


def test_captions_of_every_kind_are_judged_one_by_one(run, clean, tmp_path, monkeypatch):
  record, other = clean[0], clean[1]["captions"]["name"][0]
  own = record["captions"]["name"][0]
  shown = [{**record, "captions": {"name": [other], "de": [other, own]}}]
  monkeypatch.setattr(capfilt, "make_source", lambda data, split: shown)
  assert caption_and_filter(run, tmp_path / "kinds.jsonl").given_kept == 1
  (mended,) = RecaptionedRecords(shown, tmp_path / "kinds.jsonl")
  assert mended["captions"] == {"de": [own], "name": [own]}


def test_the_filter_is_measured_on_the_captions_that_were_made_wrong(run, clean):
  (found,) = CaptionNoise().run(run, Shared())
  assert found["metrics"] == {"itm_auc": 1.0, "itm_accuracy": 1.0} and found["n"] == 20
  assert found["dataset"] == "scenes_noisy" and found["title"] == "Training captions, 40% wrong"


def test_what_capfilt_leaves_is_measured_beside_what_was_given(run, clean):
  assert CapFilt().applies(run.experiment)
  (found,) = CapFilt().run(run, Shared())
  assert found["metrics"] == {"right_captions": 1.0, "images_left": 1.0} and found["dataset"] == "scenes_capfilt"
  assert found["chance"] == {"right_captions": 0.6, "images_left": 1.0} and found["n"] == 20
  (nothing,) = CapFilt(threshold=10.0).run(run, Shared())
  assert nothing["metrics"] == {"right_captions": 0.0, "images_left": 0.0}


def test_the_settings_are_those_of_the_configuration(run, clean, tmp_path):
  evaluation = run.experiment.evaluation
  strict = dataclasses.replace(evaluation, evaluators=evaluation.evaluators | {"capfilt": CapFilt(threshold=10.0)})
  found = caption_and_filter(
    dataclasses.replace(run, experiment=dataclasses.replace(run.experiment, evaluation=strict)), tmp_path / "none.jsonl"
  )
  assert found.kept == 0
  experiment = Experiment(objectives=(Matching(), Caption()))
  line = "--evaluation.evaluators.capfilt.threshold 0.5 --evaluation.evaluators.capfilt.top-p 0.8"
  read = parse("train", Call(experiment, line.split())).evaluation.evaluators["capfilt"]
  assert read == CapFilt(threshold=0.5, top_p=0.8)


def test_captioner_filter_and_data_may_be_three(run, clean, tmp_path):
  """As they are where both were fine-tuned on clean data."""
  tuned = dataclasses.replace(run.experiment.data, corrupt_captions=0.0)
  captioner = dataclasses.replace(run, experiment=dataclasses.replace(run.experiment, data=tuned))
  fields = dict(data=run.experiment.data, settings=CapFilt())
  found = caption_and_filter(captioner, tmp_path / "both.jsonl", **fields)
  assert (found.given_kept, found.written_kept) == (12, 8)
  never = dataclasses.replace(run, model=Never(run.model.config))
  found = caption_and_filter(captioner, tmp_path / "none.jsonl", judge=never, **fields)
  assert (found.given, found.written, found.given_kept, found.written_kept) == (20, 8, 0, 0)


class Never(Knowing):
  """Says that nothing belongs together."""

  def match_logits(self, pooled):
    return -super().match_logits(pooled)[:, :1] * 0 - jnp.array([[0.0, 1.0]])


class Unsure(Knowing):
  """Says each word with some doubt."""

  def decode(self, ids, context, *, rng=None, cache=None, text=None):
    logits, cache = super().decode(ids, context, rng=rng, cache=cache, text=text)
    return logits * 0.3, cache


def test_sampled_captions_depend_on_the_image_its_number_and_the_seed(run, clean):
  unsure = dataclasses.replace(run, model=Unsure(run.model.config))
  records = [clean[number] for number in range(20)]

  def said(settings, numbers):
    shown = [records[number] for number in numbers]
    judged = capfilt.judge_captions(capfilt.Bootstrap(unsure, run, settings), shown, numbers)
    given = [record["captions"]["name"] for record in shown]
    return [[c.text for c in captions if c.text not in known] for captions, known in zip(judged, given)]

  whole = said(CapFilt(), range(20))
  assert whole[13:] + whole[:13] == said(CapFilt(), [*range(13, 20), *range(13)])
  assert whole != said(CapFilt(seed=1), range(20)) and whole != said(CapFilt(top_p=0.01), range(20))
  assert said(CapFilt(top_p=0.01), range(20)) == [[]] * 20  # the likeliest words alone: the right caption
  assert said(CapFilt(beams=2), range(20)) == said(CapFilt(beams=2, seed=1), range(20)) == [[]] * 20


@pytest.mark.parametrize(
  ("fields", "said"), [({"beams": 0}, "beams is 0"), ({"top_p": 0.0}, r"top_p is 0.0.*\(0, 1\]")]
)
def test_impossible_settings_are_refused(fields, said):
  with pytest.raises(ValueError, match=said):
    CapFilt(**fields)
