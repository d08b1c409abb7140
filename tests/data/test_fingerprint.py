"""A run goes on with the same records in the same order only; of all sources, and wherever the data lie."""

import dataclasses
import json
import logging
import shutil

import numpy as np
import pytest

from mmjax.data import ClassFolders, DataError, InteractionFile, Reading, Tfds, make_source
from mmjax.data.fingerprint import SAMPLED, check_identity, order_identity, sample
from mmjax.data.shards.writer import write_shards
from mmjax.data.sources.weighted import WeightedRecords
from tests.golden.sources import config_of, picture, sentence


def reversed_lines(path):
  path.write_text("".join(line + "\n" for line in reversed(path.read_text().splitlines())))


def reversed_lists(path):
  content = json.loads(path.read_text())
  path.write_text(json.dumps({name: entries[::-1] for name, entries in content.items()}))


def reversed_shards(kind):
  """The first shard anew, its ten records in the opposite order under the same keys."""

  def apply(folder, data):
    records = [
      dict(id=str(n), image=picture(n, size=(24, 16)), captions={"name": [sentence(n)]}) for n in range(9, -1, -1)
    ]
    (written,) = write_shards(records, folder / "new", format=kind, per_shard=10)
    shutil.move(written, folder / "a" / written.name)
    return data

  return apply


def replaced(**fields):
  return lambda folder, data: dataclasses.replace(data, source=dataclasses.replace(data.source, **fields))


def changed(change, name):
  def apply(folder, data):
    change(folder / name)
    return data

  return apply


OTHERS = {
  "folder": changed(reversed_lines, "captions.jsonl"),
  "coco": changed(reversed_lists, "annotations/captions_train2017.json"),
  "flickr30k": changed(reversed_lists, "dataset_flickr30k.json"),
  "vqav2": changed(reversed_lists, "v2_OpenEnded_mscoco_train2014_questions.json"),
  "emoji, captions of a file": changed(reversed_lines, "captions.jsonl"),
  "shards": reversed_shards("webdataset"),
  "shards, ArrayRecord, repeats": reversed_shards("arrayrecord"),
  "tfds": replaced(train_split="train[-5:]"),
  "emoji": replaced(vendors=("openmoji", "twemoji")),
  "scenes, captions": replaced(seed=1),
  "scenes, questions": replaced(seed=1),
  "texts": replaced(seed=1),
  "texts, files": changed(lambda folder: (folder / "3.txt").rename(folder / "99.txt"), "."),
}
"""Another order, or other records of the same number. The records of easy_vqa cannot change."""


def sorted_texts(*keys):
  """The texts in the lists of a JSON file, or in its lines, in the opposite order; all else as it was."""

  def apply(path):
    lines = path.suffix == ".jsonl"
    content = [json.loads(line) for line in path.read_text().splitlines()] if lines else json.loads(path.read_text())
    entries = content if lines else content[keys[0]]
    texts = [entry[keys[-1]] for entry in entries][::-1]
    changed = [entry | {keys[-1]: text} for entry, text in zip(entries, texts, strict=True)]
    written = (
      "".join(json.dumps(entry) + "\n" for entry in changed) if lines else json.dumps(content | {keys[0]: changed})
    )
    path.write_text(written)

  return apply


TEXTS = {
  "folder": changed(sorted_texts("caption"), "captions.jsonl"),
  "coco": changed(sorted_texts("annotations", "caption"), "annotations/captions_train2017.json"),
  "flickr30k": changed(sorted_texts("images", "sentences"), "dataset_flickr30k.json"),
  "vqav2": changed(sorted_texts("questions", "question"), "v2_OpenEnded_mscoco_train2014_questions.json"),
  "emoji, captions of a file": changed(sorted_texts("captions"), "captions.jsonl"),
}
"""The same files in the same order, with other texts."""


@pytest.mark.parametrize("case", TEXTS)
def test_other_texts_of_the_same_files_are_refused_but_by_older_runs(case, tmp_path, emoji_config, caplog):
  data = config_of(case, tmp_path, emoji_config)
  before = order_identity(make_source(data, "train"))
  after = order_identity(make_source(TEXTS[case](tmp_path, data), "train"))
  assert before["fingerprint"] == after["fingerprint"], "the names are the same"
  with pytest.raises(DataError, match=r"others or in another order \(the sample was"):
    check_identity(after, before)
  check_identity(after, {"fingerprint": before["fingerprint"]})
  assert "The checkpoint has no sample of the data, as it is of an older version" in caplog.text


def test_other_files_under_the_same_names_are_refused(tmp_path):
  for label in "ab":
    (tmp_path / label).mkdir()
    for number in range(3):
      (tmp_path / label / f"{number}.png").write_bytes(picture(number))
  source = ClassFolders(path=str(tmp_path))
  before = order_identity(source.open("all", Reading()))
  assert order_identity(source.open("all", Reading())) == before
  (tmp_path / "a/1.png").write_bytes(picture(1, size=(99, 99)))
  with pytest.raises(DataError, match="the sample was"):
    check_identity(order_identity(source.open("all", Reading())), before)


def test_other_weights_and_interactions_are_refused(tmp_path):
  records = [{"id": str(n), "concept": n, "captions": {"name": [str(n)]}} for n in range(4)]
  before = order_identity(WeightedRecords(records, np.array([1.0, 2, 3, 4])))
  assert order_identity(WeightedRecords(records, np.array([1.0, 2, 3, 4]))) == before
  with pytest.raises(DataError, match="the sample was"):
    check_identity(order_identity(WeightedRecords(records, np.array([4.0, 3, 2, 1]))), before)
  file = tmp_path / "log.csv"
  found = []
  for users in ("ab", "cd", "ab"):
    file.write_text("user,item,time\n" + "".join(f"{user},{n},{n}\n" for user in users for n in range(3)))
    found.append(order_identity(InteractionFile(path=str(file)).open("train", Reading())))
  assert found[0] == found[2]
  with pytest.raises(DataError, match="the sample was"):
    check_identity(found[1], found[0])


@pytest.mark.parametrize("case", OTHERS)
def test_other_records_of_the_same_number_are_refused(case, tmp_path, emoji_config):
  data = config_of(case, tmp_path, emoji_config)
  if isinstance(data.source, Tfds):
    data = replaced(train_split="train[:5]")(tmp_path, data)
  first = make_source(data, "train")
  identity = order_identity(first)
  assert order_identity(make_source(data, "train")) == identity
  other = make_source(OTHERS[case](tmp_path, data), "train")
  assert len(other) == len(first)
  with pytest.raises(DataError, match=r"others or in another order.*new --run.workdir"):
    check_identity(order_identity(other), identity)


@pytest.mark.parametrize("case", ["folder", "shards", "coco", "texts, files"])
def test_data_may_be_moved(case, tmp_path, emoji_config):
  (tmp_path / "old").mkdir()
  data = config_of(case, tmp_path / "old", emoji_config)
  identity = order_identity(make_source(data, "train"))
  (tmp_path / "old").rename(tmp_path / "new")
  here = lambda value: value.replace(f"{tmp_path}/old", f"{tmp_path}/new") if isinstance(value, str) else value
  fields = {f.name: getattr(data.source, f.name) for f in dataclasses.fields(data.source)}
  fields = {
    name: tuple(map(here, value)) if isinstance(value, tuple) else here(value) for name, value in fields.items()
  }
  moved = dataclasses.replace(data, source=dataclasses.replace(data.source, **fields))
  assert order_identity(make_source(moved, "train")) == identity


def test_a_list_of_a_scripts_own_is_sampled():
  records = [{"id": f"a/{n}", "concept": n % 7, "captions": {"name": [f"thing {n}"]}} for n in range(3 * SAMPLED)]
  assert sample(records) == sample(list(records)) != sample(records[::-1])
  assert order_identity(records) == {"sample": sample(records)}


def test_a_bad_record_of_the_sample_is_no_error():
  class Records(list):
    def __getitem__(self, index):
      if index == 1:
        raise DataError("broken")
      return super().__getitem__(index)

  assert sample(Records([{"id": str(n), "concept": n} for n in range(3)])) > 0


def test_checkpoints_of_older_versions_go_on_and_it_is_said(caplog):
  identity = {"seed": 0, "num_records": 5, "batch_size": 2, "sample": 7}
  with caplog.at_level(logging.WARNING):
    check_identity(identity, {"seed": 0, "num_records": 5, "batch_size": 2})
  assert "The checkpoint has no sample of the data, as it is of an older version" in caplog.text
  with pytest.raises(DataError, match="num_records = 5, this run has 6"):
    check_identity(identity | {"num_records": 6}, identity)
