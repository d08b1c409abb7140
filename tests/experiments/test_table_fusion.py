"""The study of image, text and table runs tiny on a miniature of Wesnoth's files, whose units it reads as they are."""

import dataclasses
import io
import json

import PIL.Image
import pytest

from mmjax.evaluate.evaluator import measured
from mmjax.study import main, members
from mmjax.train.setup import check_model

UNIT = """
[unit_type]
    id={name}
    name= _ "{name}"
    race={race}
    image="units/{name}.png~RC(magenta>red)"
    hitpoints={hp}
    cost=1{hp}
    movement=5
    experience=30
    level=1
    alignment=lawful
    usage=fighter
    advances_to={after}
    description= _ "An elvish archer, said ""quick"", and not
a troll."
    [attack]
        name=sword
        range=melee
        damage=5
        number=3
    [/attack]
    [attack]
        range={attack}
        damage=4
        number=4
    [/attack]
[/unit_type]
"""


@pytest.fixture
def script(monkeypatch, request):
  monkeypatch.syspath_prepend(str(request.config.rootpath / "experiments"))
  import table_fusion

  return table_fusion


@pytest.fixture
def folder(tmp_path):
  """Three families of each of two races; the first family of each has two units."""
  core = tmp_path / "core"
  (core / "units" / "x").mkdir(parents=True)
  (core / "images" / "units").mkdir(parents=True)
  pixels = io.BytesIO()
  PIL.Image.new("RGBA", (16, 16), (20, 99, 7, 255)).save(pixels, "PNG")
  for race, hp, attack in (("elf", 2, "melee"), ("orc", 4, "ranged")):
    names = [f"{race}{number}" for number in range(4)]
    text = "".join(
      UNIT.format(name=n, race=race, hp=hp, attack=attack, after=names[1] if n == names[0] else "null") for n in names
    )
    (core / "units" / "x" / f"{race}.cfg").write_text(text)
    for name in names:
      (core / "images" / "units" / f"{name}.png").write_bytes(pixels.getvalue())
  return core


def test_units_are_read_and_families_held_out_whole(script, folder):
  source = script.Units(path=str(folder))
  folds = [dataclasses.replace(source, fold=fold).open("validation", None) for fold in range(3)]
  train = source.open("train", None)
  assert sorted(r["id"] for fold in folds for r in fold) == sorted(r["id"] for r in [*train, *folds[0]])
  assert all({"unit/elf0", "unit/elf1"} <= {*ids} or not {"unit/elf0", "unit/elf1"} & {*ids} for ids in _ids(folds))
  record = train[0]
  assert record["captions"] == {"name": ['An unit archer, said "quick", and not a unit.']}
  assert (record["melee"], record["ranged"], record["cost"]) == (16, None, "12") and record["race"] == "elf"
  with pytest.raises(script.DataError, match="Install wesnoth-1.16-data, or set --data.source.path"):
    script.Units(path=str(folder / "none")).open("train", None)


def _ids(folds):
  return [[record["id"] for record in fold] for fold in folds]


@pytest.fixture
def experiment(script, folder, tmp_path):
  small = dict(width=8, depth=1, num_heads=2, mlp_dim=8)
  towers = {name: dataclasses.replace(tower, **small) for name, tower in script.TOWERS.items()}
  data = dataclasses.replace(script.EXPERIMENT.data, source=script.Units(path=str(folder)), dir=str(tmp_path / "data"))
  model = dataclasses.replace(script.EXPERIMENT.model, towers=towers)
  run = dataclasses.replace(script.EXPERIMENT.run, workdir=tmp_path / "runs", steps=2, batch_size=4)
  return dataclasses.replace(script.EXPERIMENT, data=data, model=model, run=run)


def test_every_variant_has_the_columns_and_metrics_that_it_needs(script, experiment):
  measures = set()
  runs = members(dataclasses.replace(script.STUDY, seeds=1), experiment)
  for member in runs:
    check_model(member.experiment)
    assert member.experiment.model.chooses == ("only" not in member.variant.name)
    measures |= {*measured(member.experiment)}
  assert {*script.STUDY.metrics.values()} <= measures


def test_the_study_runs(script, experiment, tmp_path, one_device, capsys):
  study = dataclasses.replace(script.STUDY, variants=script.STUDY.variants[2:3], seeds=1)
  study = dataclasses.replace(study, metrics={"accuracy": "units_classes/acc1"})
  with pytest.raises(SystemExit) as stop:
    main(study, experiment, arguments=["train"])
  assert stop.value.code == 0, capsys.readouterr()
  (row,) = json.loads((tmp_path / "runs" / "comparison.json").read_text())
  assert row["variant"] == "table only" and len(row["accuracy"]) == 1
  page = (tmp_path / "runs" / "table_only" / "seed0" / "report.html").read_text(encoding="utf-8")
  assert "Which columns of table matter" in page and "<td>melee</td>" in page
