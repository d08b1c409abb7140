import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmjax.errors import ConfigError
from mmjax.experiment import Experiment, from_json, read_experiment, to_json
from mmjax.objectives import Contrastive, Sigmoid
from tests.json_values import JSON_VALUES
from tests.tiny import EXPERIMENT


@pytest.mark.parametrize(
  "experiment",
  [
    Experiment(),
    EXPERIMENT,
    dataclasses.replace(
      EXPERIMENT,
      objectives=(Contrastive(weight=0.5), Contrastive(between=("image", "image2"), mask_same_concept=True)),
      parallel=dataclasses.replace(EXPERIMENT.parallel, placement=((".*kernel", "fsdp,model"),)),
    ),
  ],
)
def test_json_and_back(experiment):
  assert from_json(json.loads(json.dumps(to_json(experiment)))) == experiment


def places(fields, path=()):
  """The path of every field of a configuration."""
  for name, value in fields.items():
    yield (*path, name)
    yield from places(value, (*path, name)) if isinstance(value, dict) else ()


@given(st.sampled_from(sorted(places(to_json(EXPERIMENT)))), JSON_VALUES)
def test_any_value_in_any_field_is_taken_or_refused(path, value):
  fields = to_json(EXPERIMENT)
  holder = fields
  for name in path[:-1]:
    holder = holder[name]
  holder[path[-1]] = value
  try:
    read = from_json(fields)
  except ConfigError as error:
    assert "is not an experiment of this version of mmjax: " in str(error)
  else:
    assert from_json(to_json(read)) == read or value != value  # NaN


def test_a_field_that_does_not_exist_is_named(tmp_path):
  fields = to_json(EXPERIMENT)
  fields["model"]["image"]["patch_sise"] = 8
  path = tmp_path / "config.json"
  path.write_text(json.dumps({"experiment": fields}))
  with pytest.raises(ConfigError, match=r"config.json .*patch_sise"):
    read_experiment(path)


def test_a_value_that_a_field_refuses_is_named():
  fields = to_json(EXPERIMENT)
  fields["run"]["steps"] = 0
  with pytest.raises(ConfigError, match="run.steps is 0"):
    from_json(fields)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"experiment": 3}', "\x00\xff"])
def test_what_is_no_config_is_refused_by_name(tmp_path, text):
  path = tmp_path / "config.json"
  path.write_bytes(text.encode("latin-1"))
  with pytest.raises(ConfigError, match=r"config\.json"):
    read_experiment(path)


def test_a_folder_that_is_no_workdir_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match="is .* the workdir of a run"):
    read_experiment(tmp_path / "config.json")


def test_parts_that_do_not_fit_are_refused():
  with pytest.raises(ValueError, match="needs a bias"):
    dataclasses.replace(EXPERIMENT, objectives=(Contrastive(loss=Sigmoid()),))
  with pytest.raises(ValueError, match="objectives is empty"):
    dataclasses.replace(EXPERIMENT, objectives=())
  with pytest.raises(ValueError, match="must differ"):
    dataclasses.replace(EXPERIMENT, objectives=(Contrastive(), Contrastive(weight=2.0)))


def test_what_is_far_too_long_is_refused_at_once():
  """A text in a list's place is taken letter by letter, each with an error of its own: 70,000 took 20 seconds."""
  fields = to_json(EXPERIMENT)
  fields["optimizer"]["weight_decay_rules"] = "a" * 70_000
  with pytest.raises(ConfigError, match="a str of 70000 entries; up to 4096"):
    from_json(fields)


@pytest.mark.parametrize(
  "text", ["[" * 100_000, '{"experiment": 3}', '{"experiment": null}', "[]", "9" * 5000, "\udcff"]
)
def test_a_file_that_is_no_configuration_is_named(tmp_path, text):
  path = tmp_path / "config.json"
  path.write_bytes(text.encode("utf-8", "surrogateescape"))
  with pytest.raises(ConfigError, match=r"config.json is not"):
    read_experiment(path)
