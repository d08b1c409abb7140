"""Names of machines."""

import pytest

from mmjax.plan import TopologyError, known_topologies
from mmjax.plan.hardware import CHIPS, GIB
from mmjax.plan.topologies import parse_topology


@pytest.mark.parametrize(
  ("name", "chip", "grid", "devices"),
  [
    ("v5e:16x16", "v5e", (16, 16), 256),
    ("v5p:16x16x24", "v5p", (16, 16, 24), 6144),
    ("tpu7x:4x4x4", "tpu7x", (4, 4, 4), 128),  # two devices a chip
    ("h100x8", "h100", (1, 8), 8),
    ("H200x64", "h200", (8, 8), 64),
    ("a100x2", "a100", (1, 2), 2),
    ("cpu:8", "cpu", (8,), 8),
  ],
)
def test_a_name_says_chip_and_shape(name, chip, grid, devices):
  topology = parse_topology(name)
  assert (topology.hardware.name, topology.grid, topology.devices) == (chip, grid, devices)


def test_every_known_name_is_one():
  names = list(known_topologies())
  assert [parse_topology(name).name for name in names] == names
  assert {parse_topology(name).hardware.name for name in names} == {*CHIPS, "cpu"}


@pytest.mark.parametrize(
  ("typed", "meant"),
  [
    ("v5e:16x15", "v5e:16x16"),
    ("v5e-256", "v5e:16x16"),
    ("v5litepod-16", "v5e:4x4"),
    ("h100-64", "h100x64"),
    ("h10x8", "h100x8"),
    ("cpu", "cpu:"),
  ],
)
def test_an_unknown_name_is_answered_with_the_nearest_and_the_list(typed, meant):
  with pytest.raises(TopologyError) as error:
    parse_topology(typed)
  assert f"Did you mean '{meant}" in str(error.value)
  assert "v5p:4x4x8" in str(error.value) and "h200xN" in str(error.value)


def test_gpus_come_in_whole_nodes():
  with pytest.raises(TopologyError, match="whole nodes of 8, such as h100x16"):
    parse_topology("h100x12")


def test_virtual_devices_divide_the_machine():
  assert parse_topology("cpu:8").hardware.hbm_bytes == parse_topology("cpu:1").hardware.hbm_bytes // 8


def test_memory_is_what_a_program_can_have():
  assert CHIPS["v5e"].hbm_bytes == 15.75 * GIB  # of 16
  assert all(chip.flops / chip.hbm_bandwidth > 100 for chip in CHIPS.values())
