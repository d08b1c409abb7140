"""The configurations of all scripts as runs of 2026-11-29 saved them, read by today's code.

A file `configs/NAME.json` holds what `config.json` then held of experiments/NAME.py. These files stay as they are: they
are what old workdirs hold. Where a script's experiment is changed on purpose, change that value in its file by hand.
Scripts that are younger have no file: nothing older than today's code has saved them.
"""

import importlib
import json
from pathlib import Path

import pytest

from mmjax.experiment import from_json
from tests.golden.values import FOLDER

SCRIPTS = Path(__file__).parents[2] / "experiments"
NAMES = sorted(path.stem for path in (FOLDER / "configs").glob("*.json"))


@pytest.mark.parametrize("name", NAMES)
def test_golden_configuration_is_the_script_s_experiment(name, monkeypatch):
  monkeypatch.syspath_prepend(str(SCRIPTS))
  fields = json.loads((FOLDER / "configs" / f"{name}.json").read_text(encoding="utf-8"))
  assert from_json(fields) == importlib.import_module(name).EXPERIMENT
