"""Sources as settings: on the command line, in JSON of this version and of older ones, and in a script."""

import dataclasses
import io
import json

import numpy as np
import pytest
from PIL import Image

import mmjax
from mmjax.catalogue import KINDS
from mmjax.cli import Call, parse
from mmjax.data import (
  ClassFolders,
  Coco,
  DataError,
  Documents,
  EasyVqa,
  Emoji,
  Flickr30k,
  Folder,
  Instruments,
  InteractionFile,
  MovieLens,
  Reading,
  Scenes,
  Shards,
  Source,
  SpokenDigits,
  TableFile,
  Texts,
  Tfds,
  Vqav2,
  Weighted,
  make_loader,
  make_source,
  make_tokenizer,
)
from mmjax.errors import ConfigError
from mmjax.experiment import from_json, to_json
from mmjax.kinds import of_base, option_name
from mmjax.train.loop import train
from tests.tiny import EXPERIMENT


def parsed(*arguments, kinds=()):
  return parse("train", Call(EXPERIMENT, arguments, kinds=kinds))


def test_a_source_and_its_settings_are_chosen_on_the_command_line():
  assert parsed("--data.source", "folder", "--data.source.path", "X").data.source == Folder(path="X")
  assert parsed("--data.source.limit", "3", "--data.source.no-skin-tones").data.source == Emoji(
    limit=3, skin_tones=False
  )
  shards = parsed("--data.source", "shards", "--data.source.patterns", "a", "b", "--data.source.weights", "2", "1")
  assert shards.data.source == Shards(("a", "b"), weights=(2.0, 1.0))


def test_an_unknown_source_is_answered_with_the_list_and_the_nearest(capsys):
  with pytest.raises(SystemExit) as end:
    parsed("--data.source", "fodler")
  said = capsys.readouterr().err
  assert end.value.code == 2 and "--data.source: unknown source 'fodler'. Did you mean 'folder'?" in said
  names = [option_name(kind) for kind in of_base(Source, KINDS)]
  assert f"There are: {', '.join(names)}." in said and {"emoji", "shards", "table_file"} <= {*names}


@pytest.mark.parametrize("kind", of_base(Source, KINDS))
def test_every_source_is_read_back_from_json(kind):
  experiment = dataclasses.replace(EXPERIMENT, data=dataclasses.replace(EXPERIMENT.data, source=kind()))
  fields = json.loads(json.dumps(to_json(experiment)))
  assert fields["data"]["source"]["class"] == kind.__name__
  assert from_json(fields) == experiment


@pytest.mark.parametrize("kind", of_base(Source, KINDS))
def test_every_source_names_the_split_that_is_unknown(kind, tmp_path):
  """Or first what it lacks: a path, a name."""
  with pytest.raises(DataError, match=r"Unknown .*split.* 'tarin'|needs --data\.source\."):
    kind().open("tarin", Reading(str(tmp_path)))


# The data of the experiment `tests.tiny.EXPERIMENT` as versions before 2026-11-29 wrote it: settings of all sources.
OLD = {
  "source": "emoji",
  "path": "DIR",
  "captions_file": "list.csv",
  "name": "mnist",
  "image_key": "picture",
  "caption_key": "words",
  "shards": ["a.tar", "b.tar"],
  "shard_weights": [2.0, 1.0],
  "shard_repeats": [],
  "validation_shards": ["c.tar"],
  "train_split": "train[:9]",
  "validation_split": "val",
  "vendors": ["noto"],
  "languages": ["de"],
  "skin_tones": False,
  "groups": ["flags", "symbols"],
  "limit": 40,
  "scenes": {"text": "caption", "size": 16, "examples": 60, "questions": ["row"], "caption_shapes": 1, "seed": 3},
  "texts": {"corpus": "files", "examples": 70, "seed": 4},
}
READ = [
  Emoji(("noto",), ("de",), skin_tones=False, groups=("flags", "symbols"), limit=40),
  Tfds("mnist", "picture", "words", "train[:9]", "val"),
  Folder("DIR", "list.csv", "picture", "words"),
  Shards(("a.tar", "b.tar"), (2.0, 1.0), validation=("c.tar",), caption_key="words"),
  Scenes("caption", 16, 60, ("row",), 1, 3),
  EasyVqa(),
  Texts("files", "DIR", 70, 4),
  Coco("DIR"),
  Vqav2("DIR"),
  Flickr30k("DIR"),
]


@pytest.mark.parametrize("source", READ, ids=lambda source: option_name(type(source)))
def test_settings_of_older_versions_are_read(source):
  fields = to_json(EXPERIMENT)
  del fields["data"]["source"]
  fields["data"] |= OLD | {"source": option_name(type(source))}
  assert from_json(fields).data == dataclasses.replace(EXPERIMENT.data, source=source)


def test_older_settings_of_every_source_are_tested():
  newer = {ClassFolders, Documents, Instruments, SpokenDigits, TableFile, Weighted, InteractionFile, MovieLens}
  assert [type(source) for source in READ] == [kind for kind in of_base(Source, KINDS) if kind not in newer]


def test_a_wrong_field_of_an_older_version_is_named():
  fields = to_json(EXPERIMENT)
  del fields["data"]["source"]
  for change, message in (({"limitt": 3}, "limitt"), ({"source": "foldr"}, "a Source is an object")):
    with pytest.raises(ConfigError, match=message):
      from_json(fields | {"data": fields["data"] | OLD | change})


@dataclasses.dataclass(frozen=True)
class Squares(Source):
  """Grey squares, named by number: a source of a script's own."""

  number: int = 24
  """Number of squares."""

  def open(self, split, reading):
    records = []
    for n in range(self.number):
      png = io.BytesIO()
      Image.new("RGB", (8, 8), (9 * n, 9 * n, 9 * n)).save(png, "PNG")
      record = {"image": png.getvalue(), "captions": {"name": [f"number {n}"]}, "id": f"squares/{n}", "concept": n}
      records += [record] if (n % 4 == 0) == (split == "validation") else []
    return records


def test_a_source_of_a_script_gives_batches(tmp_path):
  config = parsed("--data.source", "squares", "--data.source.number", "20", kinds=(Squares,)).data
  assert config.source == Squares(20) and config.source.title == "squares"
  config = dataclasses.replace(config, dir=str(tmp_path))
  source = make_source(config, "train")
  assert len(source) == 15 and len(make_source(config, "validation")) == 5
  batch = next(make_loader(config, source, make_tokenizer(config, source), image_size=8, batch_size=15))
  assert batch.keys() == {"index", "concept", "image", "text"}
  assert sorted(batch["concept"].tolist()) == [n for n in range(20) if n % 4]


def test_a_source_of_a_script_is_read_back_where_it_is_given():
  experiment = parsed("--data.source", "squares", kinds=(Squares,))
  fields = to_json(experiment)
  assert from_json(fields, kinds=(Squares,)) == experiment
  with pytest.raises(ConfigError, match=r"unknown source 'Squares'.*Classes of a script must be passed in kinds="):
    from_json(fields)


PLAIN = "--optimizer.algorithm momentum --optimizer.ema-decay 0".split()  # compiles sooner than Adam and an average


def test_a_source_of_a_script_trains_and_is_loaded(tmp_path, one_device):
  options = ["--data.source", "squares", "--data.dir", str(tmp_path / "data"), "--run.workdir", str(tmp_path / "run")]
  experiment = parsed(*options, "--run.steps", "1", *PLAIN, kinds=(Squares,))
  assert train(experiment, kinds=(Squares,)).exit_status == 0
  run = mmjax.load_run(tmp_path / "run", kinds=(Squares,))
  assert run.experiment.data.source == Squares()
  assert np.isfinite(run.encode_text(["number 3"])).all()
