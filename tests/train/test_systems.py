"""Every system has a configuration, and is refused before the first step where something is missing."""

import dataclasses
import types

import jax
import pytest

from mmjax.errors import ConfigError
from mmjax.experiment import from_json, to_json
from mmjax.objectives import Matching
from mmjax.settings import OptimizerConfig
from mmjax.train.setup import check_needs, prepare
from tests.train.systems import SYSTEMS, experiment


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_configuration_survives_its_json(system):
  assert from_json(to_json(experiment(system))) == experiment(system)


def test_terms_that_need_what_there_is_not_are_refused():
  with pytest.raises(ValueError, match="ema-decay"):
    dataclasses.replace(experiment("albef"), optimizer=OptimizerConfig())
  with pytest.raises(ValueError, match="looks at 16 rows together"):
    prepare(dataclasses.replace(experiment("blip"), objectives=(Matching(),)), devices=jax.devices()[:2])


@pytest.mark.parametrize(
  ("system", "features", "said"),
  [
    ("vqa", ("image", "text"), "answer reads 'answer'"),
    ("bert", ("text", "segment", "next"), "mask-token"),
    ("coca", ("image", "text"), "bos-token"),
    ("seq2seq", ("image", "text"), "target_text reads 'target'"),
  ],
)
def test_what_the_data_lacks_is_named_before_the_first_step(system, features, said):
  with pytest.raises(ConfigError, match=said):
    check_needs(
      experiment(system), types.SimpleNamespace(features=features), types.SimpleNamespace(mask_id=None, begin_id=None)
    )
