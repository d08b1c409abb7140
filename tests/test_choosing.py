"""Classes of open fields, and their settings, on the command line."""

import pytest

from mmjax.catalogue import KINDS
from mmjax.choosing import chosen
from mmjax.errors import ConfigError
from mmjax.experiment import Experiment


@pytest.mark.parametrize(
  "option, message",
  [
    ("--data.limit", "no such option; use --data.source.limit, a setting of --data.source emoji"),
    (
      "--data.path=X",
      "--data.path: .* use --data.source.path, a setting of --data.source class_folders, folder, texts, ",
    ),
    ("--data.no-skin-tones", "use --data.source.no-skin-tones, a setting of --data.source emoji"),
    ("--data.scenes.caption-shapes", "use --data.source.caption-shapes, a setting of --data.source scenes"),
    ("--data.source.caption-shapes", "emoji has no 'caption_shapes'; choose --data.source scenes"),
  ],
)
def test_a_setting_that_has_another_place_is_named_there(option, message):
  with pytest.raises(ConfigError, match=message):
    chosen(Experiment(), [option, "3"], KINDS)


@pytest.mark.parametrize(
  "option",
  [
    "--data.no-trim",
    "--data.dir",
    "--data.tokenizer.path",
    "--data.source.limit",
    "--data.source.no-skin-tone",
    "--data.nonsense",
    "--objectives.0.weight",
    "--objectives.7.weight",
    "--run.no-resume",
    "--path",
    "--nonsense.path",
  ],
)
def test_what_is_an_option_or_is_like_none_is_left_to_the_parser(option):
  assert chosen(Experiment(), [option, "3"], KINDS) == (Experiment(), [option, "3"])
