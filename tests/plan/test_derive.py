"""From a compiler's facts to times, hours and money: by hand."""

import dataclasses

import pytest

from mmjax.data import DataConfig, Texts, TokenizerConfig
from mmjax.encoders.text import TextConfig
from mmjax.experiment import Experiment
from mmjax.models.bert import BertConfig
from mmjax.models.flops import two_tower_flops
from mmjax.models.gpt import GptConfig
from mmjax.nn.words import WordsConfig
from mmjax.objectives import Caption, Contrastive, MaskedWords
from mmjax.plan.axes import by_axes, crossed_axes
from mmjax.plan.derive import derive, link
from mmjax.plan.facts import Facts, Traffic, from_json, to_json
from mmjax.plan.hardware import GIB
from mmjax.plan.hlo import Collective
from mmjax.plan.model_flops import model_flops
from mmjax.plan.topologies import parse_topology
from tests.tiny import EXPERIMENT, MODEL

FACTS = Facts(
  mesh={"data": 16, "fsdp": 1, "model": 1},
  parameters=1000,
  model_flops=model_flops(EXPERIMENT),
  parameter_bytes=4000,
  optimizer_bytes=8000,
  average_bytes=0,
  batch_bytes=500,
  trace_seconds=1.0,
  compile_seconds=2.0,
  versions={"jax": "0.10.2"},
  argument_bytes=12_500,
  output_bytes=12_100,
  alias_bytes=12_000,
  temporary_bytes=GIB,
  code_bytes=100,
  peak_bytes=12_700 + GIB,
  flops=197_000_000_000,
  cycles=3_000_000,
  memory_traffic=819_000_000,
  collectives=(Traffic("all-reduce", ("data",), 16, 15, 1, 16_000_000),),
  kernels=(("dot", 2, 1_500_000),),
)
V5E = parse_topology("v5e:4x4")


def planned(facts=FACTS, topology=V5E, **options):
  return derive(facts, EXPERIMENT, topology, **({"price": None, "cached": False} | options))


def test_it_fits_where_the_peak_is_no_more_than_there_is():
  plan = planned()
  assert plan.fits and plan.margin_bytes == int(15.75 * GIB) - 12_700 - GIB
  assert plan.memory.temporaries == GIB  # what the peak holds beside arguments (4000 + 8000 + 500), results and code
  assert planned(dataclasses.replace(FACTS, peak_bytes=int(15.75 * GIB))).fits
  assert not planned(dataclasses.replace(FACTS, peak_bytes=int(15.75 * GIB) + 1)).fits


def test_a_model_without_pictures_has_one_tower():
  bert = BertConfig(TextConfig(width=8, depth=1, num_heads=2, causal=False, mask_id=2, remat="full"))
  hidden = dataclasses.replace(EXPERIMENT, model=bert, objectives=(MaskedWords(image=False),))
  assert derive(FACTS, hidden, V5E, price=None, cached=False).remat == {"text": "full"}


def test_what_running_takes_on_a_cpu_is_part_of_the_peak():
  cpu = parse_topology("cpu:16")
  memory = planned(topology=cpu).memory
  assert memory.runtime == cpu.hardware.runtime_bytes + round(0.05 * GIB) and planned().memory.runtime == 0
  assert planned(topology=cpu).peak_bytes == planned().peak_bytes + memory.runtime


def test_times_throughput_hours_and_money():
  plan = planned(price=2.0)
  assert plan.compute_seconds == pytest.approx(1e-3)  # 197 GFLOP at 197 TFLOP/s
  assert plan.hbm_seconds == pytest.approx(1e-3)  # 819 MB at 819 GB/s
  # A ring sends 2 x 15/16 of 16 MB; the group of 16 spans both dimensions of 4 x 4 and so has all four links.
  assert plan.interconnect_seconds == pytest.approx(30e6 / 200e9)
  assert plan.compiler_seconds == plan.step_seconds == pytest.approx(2e-3)  # 3 M cycles at 1.5 GHz
  assert plan.time_source == "compiler" and plan.kernels == (("dot", 2, pytest.approx(1e-3)),)
  assert plan.samples_per_second == pytest.approx(16 / 2e-3)
  assert plan.mfu == pytest.approx(plan.model_flops / 2e-3 / 197e12)
  assert plan.chip_hours == pytest.approx(20 * 2e-3 / 3600 * 16)
  assert plan.cost == pytest.approx(2 * plan.chip_hours)
  assert plan.recompute_share == pytest.approx(1 - plan.model_flops / 197e9)


def test_wires_that_take_longer_than_the_computation_decide():
  slow = dataclasses.replace(FACTS, collectives=(Traffic("all-reduce", ("data",), 16, 15, 1, 16_000_000_000),))
  assert planned(slow).step_seconds == pytest.approx(0.15)


def test_without_cycles_the_roofline_is_a_bound_and_says_so():
  plan = planned(dataclasses.replace(FACTS, cycles=0), parse_topology("h100x8"))
  assert plan.time_source == "roofline" and plan.compiler_seconds is None
  assert plan.step_seconds == max(plan.compute_seconds, plan.hbm_seconds, plan.interconnect_seconds)
  assert any("bounds" in note for note in plan.notes)


def test_a_compiler_that_gave_up_makes_a_plan_that_does_not_fit():
  plan = planned(dataclasses.replace(FACTS, peak_bytes=20 * GIB, complaint="RESOURCE_EXHAUSTED"))
  assert not plan.fits and plan.peak_bytes == 20 * GIB
  assert not planned(dataclasses.replace(FACTS, peak_bytes=0, complaint="RESOURCE_EXHAUSTED")).fits
  assert plan.step_seconds is None and plan.mfu is None and plan.to_json()["fits"] is False


@pytest.mark.parametrize(
  ("kind", "axes_size", "topology", "expected"),
  [
    ("all-gather", 4, "v5e:4x4", 0.75 / 100),  # one dimension of the torus: half the links
    ("all-gather", 16, "v5e:4x4", 15 / 16 / 200),
    ("collective-permute", 16, "v5e:4x4", 1 / 50),  # one link one way
    ("all-reduce", 8, "h100x8", 2 * 7 / 8 / 450),
    ("all-reduce", 64, "h100x64", 2 * 63 / 64 / 8 / 50),  # eight ports a node share it
  ],
)
def test_seconds_of_a_gigabyte(kind, axes_size, topology, expected):
  traffic = Traffic(kind, ("data",), axes_size, axes_size - 1, 1, 10**9)
  assert link(traffic, parse_topology(topology)).seconds == pytest.approx(expected)


def test_ranks_far_apart_share_no_port():
  across = Traffic("all-reduce", ("data",), 8, 56, 1, 10**9)  # device 0, 8, 16, ... of eight nodes
  assert link(across, parse_topology("h100x64")).seconds == pytest.approx(2 * 7 / 8 / 50)


def test_axes_that_a_group_crosses():
  mesh = {"data": 2, "fsdp": 4, "model": 2}
  assert crossed_axes(((0, 1), (2, 3)), mesh) == ("model",)
  assert crossed_axes(((0, 2, 4, 6), (1, 3, 5, 7)), mesh) == ("fsdp",)
  assert crossed_axes(((0, 8),), mesh) == ("data",)
  assert crossed_axes((tuple(range(16)),), mesh) == ("data", "fsdp", "model")
  same = (Collective("all-gather", ((0, 1),), 2, 100), Collective("all-gather", ((2, 3),), 1, 50))
  assert by_axes(same, mesh) == (Traffic("all-gather", ("model",), 2, 1, 3, 150),)


def test_the_models_flops_count_a_tower_for_every_view():
  two = two_tower_flops(MODEL, batch_size=16) * 16
  assert model_flops(EXPERIMENT) == two
  views = (Contrastive(), Contrastive(between=("image2", "text")))
  twice = dataclasses.replace(EXPERIMENT, objectives=views)
  image = MODEL.image.flops() + 2 * 8 * MODEL.image.pooled_width
  assert model_flops(twice) == two + 16 * 3 * (image + 2 * 16 * 8)


def test_facts_survive_the_cache():
  assert from_json(to_json(FACTS)) == FACTS


def test_systems_without_a_formula_are_counted_as_they_are_traced():
  words = WordsConfig(width=16, depth=2, num_heads=2, vocab_size=32, max_length=8)
  data = DataConfig(source=Texts(), tokenizer=TokenizerConfig(max_length=8))
  experiment = Experiment(data=data, model=GptConfig(words), objectives=(Caption(image=False),))
  tokens = experiment.run.batch_size * 8
  block = 2 * tokens * (4 * 16**2 + 2 * 16 * 64) + 4 * tokens * 8 * 16  # projections and MLP; attention
  expected = 3 * (2 * block + 2 * tokens * 16 * 32)  # both blocks, and the scores of the words
  assert model_flops(experiment) == pytest.approx(expected, rel=1e-3)
