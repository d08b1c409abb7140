"""CapFilt with a model that knows everything: what is wrong goes, what was right stays, and every picture is told."""

import dataclasses
import sys
from pathlib import Path

import pytest

from mmjax.data import DataConfig, DataError, Scenes, TokenizerConfig, make_source
from mmjax.data.corruption import CorruptedRecords
from mmjax.data.recaption import RecaptionedRecords
from mmjax.evaluate import Shared
from mmjax.evaluators import CaptionNoise, capfilt
from mmjax.evaluators.capfilt import Filtered, caption_and_filter
from mmjax.objectives import Caption, Matching

sys.path.insert(0, str(Path(__file__).parent))
from knowing import knowing_run


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
  found = caption_and_filter(run, tmp_path / "none.jsonl", threshold=10.0)
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
