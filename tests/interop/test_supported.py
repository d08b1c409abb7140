"""The table of supported architectures: no row is hidden by another one, and the command prints all of them."""

import re
from pathlib import Path

import pytest

from mmjax.interop import InteropError
from mmjax.interop.__main__ import main
from mmjax.interop.fields import Fields
from mmjax.interop.supported import CLASSES, PROCESSORS, WHOLES, part_of_whole, read_class, refused, supported
from mmjax.interop.tensors import Entry
from mmjax.interop.transformers_dual import KIND as DUAL

LITERAL = re.compile(r"[\\^$(]|\|.*\)")  # of (a|b), the first


def entries(expression: str) -> dict[str, Entry]:
  """A tensor that an expression of the table finds."""
  name = LITERAL.sub("", expression) or "x"
  assert re.search(expression, name)
  return {name: None}  # type: ignore[dict-item]  # only names are looked at


@pytest.mark.parametrize("row", CLASSES, ids=lambda row: row.architecture.name)
def test_every_row_is_reached(row):
  parts = {"vision_config": {"model_type": "vit"}, "text_config": {"model_type": "bert"}}  # of a dual encoder
  found = read_class(Fields({"model_type": row.kind} | parts, "config.json"), entries(row.having))
  assert found is row.architecture or (found.name == row.architecture.name and row.kind == DUAL)


def test_names_are_unique_and_since_a_version():
  names = [row.architecture.name for row in CLASSES]
  assert len(set(names)) == len(names) and set(PROCESSORS) <= set(names)
  assert all(re.fullmatch(r"\d+\.\d+\.\d+", line.since) for line in supported())


@pytest.mark.parametrize("whole", [whole for whole in WHOLES if not whole.read], ids=lambda whole: whole.name)
def test_the_refusal_of_a_class_says_what_can_be_had(whole):
  fields = Fields({"model_type": whole.kind}, "config.json")

  class File:
    entries = entries(whole.having)

  first = next(iter(whole.towers))
  with pytest.raises(InteropError, match=rf"{whole.name}, which mmjax has no model for.*--tower {first}.*into {first}"):
    part_of_whole(fields, File(), "")


@pytest.mark.parametrize(("kind", "said"), list(refused()))
def test_a_class_that_is_not_read_is_refused_by_name(kind, said):
  """With the name of the class, and what of it can be had."""
  with pytest.raises(InteropError, match=rf"config.json: model_type {kind!r} is {said.split(',')[0]}"):
    read_class(Fields({"model_type": kind}, "config.json"), {})
  assert re.match(r"\w+Model,", said) and kind not in {row.kind for row in CLASSES} | {row.kind for row in WHOLES}


def test_of_a_class_that_no_table_names_the_towers_that_could_be_read_are_named():
  parts = {"text_config": {"model_type": "gemma"}, "vision_config": {"model_type": "siglip_vision_model"}}
  fields = Fields({"model_type": "paligemma", "architectures": ["PaliGemmaModel"], **parts}, "config.json")
  said = "is 'paligemma', but .*no model for PaliGemmaModel, but its vision_config is 'siglip_vision_model': .*alone"
  with pytest.raises(InteropError, match=said):
    read_class(fields, {})


def test_the_command_lists_every_row(capsys):
  assert main(["list"]) == 0
  shown = capsys.readouterr().out
  for line in supported():
    assert re.search(" .*".join(map(re.escape, line)), shown), line


def test_the_page_is_the_list(capsys):
  assert main(["list", "--markdown"]) == 0
  page = (Path(__file__).parents[2] / "docs" / "weights.md").read_text(encoding="utf-8")
  assert page == capsys.readouterr().out, "python -m mmjax.interop list --markdown > docs/weights.md"
  for line in supported():
    assert f"| {' | '.join(line[1:])} |" in page
