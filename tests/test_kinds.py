"""Open fields hold any listed class: chosen by name on the command line, tagged in JSON, refused with the list."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmjax.catalogue import KINDS
from mmjax.choosing import chosen, listing, open_fields
from mmjax.cli import main
from mmjax.encoders.resnet import ResNetConfig
from mmjax.errors import ConfigError
from mmjax.experiment import Experiment, from_json, to_json
from mmjax.kinds import Kind, check, find, option_name
from mmjax.models.config import ModelConfig
from mmjax.models.shared_space import SharedSpaceConfig
from mmjax.objectives import Caption, Contrastive, Hinge, Matching, PairLoss, Softmax, Term
from tests.tiny import EXPERIMENT


@dataclasses.dataclass(frozen=True)
class Mine(PairLoss):
  """A loss of a script's own."""

  margin: float = 0.5


def test_every_listed_class_can_be_chosen_by_its_name_alone():
  assert check(KINDS) == KINDS
  for kind in KINDS:
    base = next(base for base in kind.__mro__ if Kind in base.__bases__)
    assert find(base, option_name(kind), KINDS) is find(base, kind.__name__, KINDS) is kind


@pytest.mark.parametrize(
  ("line", "expected"),
  [
    ("--objectives.0.loss hinge", (Contrastive(loss=Hinge()),)),
    ("--objectives.0.loss=hinge", (Contrastive(loss=Hinge()),)),
    ("--objectives contrastive matching", (Contrastive(), Matching())),
    ("--objectives.0 caption", (Caption(),)),
    ("--objectives.0.loss mine", (Contrastive(loss=Mine()),)),
    ("--objectives.0.loss softmax", (Contrastive(),)),
  ],
)
def test_a_name_replaces_the_value_of_an_open_field(line, expected):
  found, rest = chosen(EXPERIMENT, line.split(), (*KINDS, Mine))
  assert found.objectives == expected and rest == []


def test_a_value_of_that_class_is_kept_and_other_arguments_are_left():
  before = dataclasses.replace(EXPERIMENT, objectives=(Contrastive(loss=Hinge(margin=0.7)),))
  found, rest = chosen(before, "--objectives.0.loss hinge --objectives.0.loss.margin 0.9 --run.steps 3".split(), KINDS)
  assert found == before and rest == "--objectives.0.loss.margin 0.9 --run.steps 3".split()


def test_towers_of_a_shared_space_are_chosen_one_by_one():
  space = dataclasses.replace(EXPERIMENT, model=SharedSpaceConfig())
  found, _ = chosen(space, "--model.towers image=res_net second=vi_t".split(), KINDS)
  assert list(found.model.towers) == ["image", "second"] and isinstance(found.model.towers["image"], ResNetConfig)
  found, _ = chosen(space, "--model.towers.image res_net".split(), KINDS)
  assert isinstance(found.model.towers["image"], ResNetConfig) and "text" in found.model.towers
  assert open_fields(space)["model.towers.text"] is open_fields(EXPERIMENT)["model.image"]


@pytest.mark.parametrize(
  ("line", "said"),
  [
    ("--model cocca", "unknown model 'cocca'. Did you mean 'coca'? There are: two_tower, shared_space, albef"),
    ("--objectives.0.loss", "takes one name, got 0; there are softmax, sigmoid"),
    ("--objectives.0.loss.margin 0.3", "softmax has no 'margin'; choose --objectives.0.loss hinge, semi_hard, triplet"),
    ("--objectives.0.loss mine", "Classes of a script must be passed in kinds="),
  ],
)
def test_a_wrong_name_is_answered_with_the_names_there_are(line, said):
  with pytest.raises(ConfigError) as raised:
    chosen(EXPERIMENT, line.split(), KINDS)
  assert said in str(raised.value)


def test_a_class_of_the_script_that_main_does_not_know_is_named_before_anything_else(capsys):
  own = dataclasses.replace(EXPERIMENT, objectives=(Contrastive(loss=Mine()),))
  with pytest.raises(SystemExit) as ended:
    main(own, arguments=["--help"])
  said = " ".join(capsys.readouterr().err.split())
  assert ended.value.code == 2
  assert "--objectives.0.loss holds a Mine, a class of the script" in said and "kinds=(Mine,)" in said
  with pytest.raises(SystemExit) as ended:
    main(own, arguments=["--help"], kinds=(Mine,))
  assert ended.value.code == 0


def test_help_lists_what_could_stand_in_every_open_field():
  text = listing(EXPERIMENT, (*KINDS, Mine))
  assert "--objectives.0.loss softmax, sigmoid, align" in text and text.count("mine") == 1
  assert "--model two_tower, " in text and "--model.image vi_t, res_net, " in text


def test_json_names_the_class_of_every_open_field():
  experiment = dataclasses.replace(EXPERIMENT, objectives=(Contrastive(loss=Mine(margin=0.25)),))
  fields = to_json(experiment)
  assert fields["objectives"][0]["loss"] == {"class": "Mine", "margin": 0.25}
  assert fields["model"]["class"] == "TwoTowerConfig" and fields["model"]["image"]["class"] == "ViTConfig"
  assert from_json(fields, kinds=(Mine,)) == experiment
  with pytest.raises(ConfigError, match=r"unknown pair loss 'Mine'.*must be passed in kinds=.*objectives"):
    from_json(fields)


@pytest.mark.parametrize("value", [3, "Contrastive", {}, {"class": 3}, [{"class": "Contrastive"}]])
def test_json_that_names_no_class_is_refused_by_field(value):
  fields = to_json(EXPERIMENT) | {"objectives": [value]}
  if value == {}:  # as the first version wrote its only term
    assert from_json(fields).objectives == (Contrastive(),)
  else:
    with pytest.raises(ConfigError, match="objectives"):
      from_json(fields)


def test_two_classes_of_one_name_are_refused():
  other = dataclasses.make_dataclass("Softmax", [], bases=(PairLoss,), frozen=True)
  with pytest.raises(ConfigError, match="have the same name, 'softmax'; rename one"):
    check((*KINDS, other))
  with pytest.raises(ConfigError, match="is not a dataclass that inherits from a base"):
    check((int,))


def test_a_class_whose_fields_have_no_default_cannot_be_chosen_by_name():
  needy = dataclasses.make_dataclass("Needy", [("size", int)], bases=(PairLoss,), frozen=True)
  with pytest.raises(ConfigError, match="its field 'size' has no default"):
    chosen(EXPERIMENT, "--objectives.0.loss needy".split(), (*KINDS, needy))


def test_bases_are_told_from_the_classes_below_them():
  assert open_fields(Experiment())["objectives"] is Term and open_fields(Experiment())["model"] is ModelConfig
  assert option_name(Softmax) == "softmax" and option_name(ResNetConfig) == "res_net"


SCRIPT = """
import dataclasses, optax
from mmjax.cli import main
from mmjax.objectives import Contrastive, PairLoss, clip_loss
from tests.tiny import EXPERIMENT

@dataclasses.dataclass(frozen=True)
class Cubed(PairLoss):
  def __call__(self, image, text, *, logit_scale, axis_name, **_):
    return clip_loss(image, text, logit_scale=logit_scale, axis_name=axis_name) ** 3

optimizer = dataclasses.replace(EXPERIMENT.optimizer, ema_decay=0.0)
experiment = dataclasses.replace(EXPERIMENT, objectives=(Contrastive(loss=Cubed()),), optimizer=optimizer)
print("a line that the script prints")
main(experiment, core=optax.identity(), kinds=(Cubed,))
"""


def test_plan_compiles_the_scripts_own_classes_and_optimiser(tmp_path):
  path = tmp_path / "own.py"
  path.write_text(SCRIPT)
  root = str(Path(__file__).parents[1])
  line = ["plan", "--topology", "cpu:1", "--json", "--data.dir", str(tmp_path), "--run.workdir", str(tmp_path / "run")]
  done = subprocess.run(
    [sys.executable, str(path), *line], cwd=root, env=os.environ | {"PYTHONPATH": root}, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  found = json.loads(done.stdout.partition("prints\n")[2])
  assert found["fits"] and found["memory"]["optimizer"] < found["memory"]["parameters"] / 10  # Adam: twice as much
