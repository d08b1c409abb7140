"""What a search tries and finds, and what would make a step fit, on compilers that are formulas."""

import dataclasses

import pytest

from mmjax.encoders.efficientnet import EfficientNetConfig
from mmjax.models.shared_space import SharedSpaceConfig
from mmjax.plan.changes import cheapest_changes
from mmjax.plan.derive import derive
from mmjax.plan.hardware import GIB
from mmjax.plan.search import FINENESS, find
from mmjax.plan.topologies import parse_topology
from mmjax.plan.variants import options, remat_of, tower_remat, with_batch, with_microbatches, with_remat
from tests.plan.test_derive import FACTS
from tests.tiny import EXPERIMENT

TOPOLOGY = "v5e:4x4"
BASE = with_batch(EXPERIMENT, 1024)
KEPT = {"none": 1.0, "dots": 0.5, "hidden": 0.4, "attention": 0.2, "full": 0.1}
SLOWER = {"none": 1.0, "dots": 1.1, "hidden": 1.2, "attention": 1.3, "full": 1.4}


class FakeCompiler:
  """Memory that grows with rows, shrinks with microbatches, remat and sharding; time that does the opposite."""

  def __init__(self, row_bytes: int, state_bytes: int = GIB):
    self.row_bytes, self.state_bytes, self.calls = row_bytes, state_bytes, []

  def __call__(self, experiment, topology):
    machine = parse_topology(topology)
    parallel, policy = experiment.parallel, remat_of(experiment)
    self.calls.append((experiment, topology))
    rows = experiment.run.batch_size * parallel.model / machine.devices / parallel.microbatches
    time = SLOWER[policy] * (1.3 if parallel.microbatches > 1 else 1.0) * (1 + parallel.model / 10)
    facts = dataclasses.replace(
      FACTS,
      mesh={"data": machine.devices // parallel.fsdp // parallel.model, "fsdp": parallel.fsdp, "model": parallel.model},
      parameter_bytes=self.state_bytes // parallel.fsdp,
      optimizer_bytes=0,
      batch_bytes=0,
      argument_bytes=self.state_bytes // parallel.fsdp,
      output_bytes=0,
      alias_bytes=0,
      temporary_bytes=int(self.row_bytes * rows * KEPT[policy]),
      code_bytes=0,
      peak_bytes=self.state_bytes // parallel.fsdp + int(self.row_bytes * rows * KEPT[policy]),
      cycles=int(1e6 * experiment.run.batch_size / machine.devices * time),
      collectives=(),
    )
    return derive(facts, experiment, machine, price=None, cached=False)


def test_the_largest_batch_is_found_to_a_sixteenth_in_few_compilations():
  row = GIB // 100  # (15.75 - 1) GiB hold 1,475 rows a device, 23,600 in all
  compiler = FakeCompiler(row)
  search = find("batch-size", BASE, TOPOLOGY, compiler)
  assert search.best.fits
  assert 23_600 * (1 - FINENESS) < search.best.batch_size <= 23_600
  assert search.options == f"--run.batch-size {search.best.batch_size}"
  assert len(compiler.calls) == len(search.trials) <= 10
  over = [t for t in search.trials if not t.fits]
  assert over, "the next larger one was tried, and did not fit"


def test_a_batch_too_large_is_halved_until_it_fits():
  search = find("batch-size", with_batch(EXPERIMENT, 4096), TOPOLOGY, FakeCompiler(GIB))
  assert search.best.batch_size == 14 * 16  # 14 rows of a GiB beside a GiB of state
  assert find("batch-size", BASE, TOPOLOGY, FakeCompiler(100 * GIB)).best is None


def test_the_fewest_microbatches():
  search = find(
    "microbatches", BASE, TOPOLOGY, FakeCompiler(GIB)
  )  # 64 rows a device: 8 pieces of 8 fit, 4 of 16 do not
  assert search.best.microbatches == 8 and search.options == "--parallel.microbatches 8"
  assert {trial.options: trial.fits for trial in search.trials}["--parallel.microbatches 4"] is False
  assert find("microbatches", BASE, TOPOLOGY, FakeCompiler(1)).options == ""  # fits as it is: one compilation
  assert find("microbatches", BASE, TOPOLOGY, FakeCompiler(20 * GIB)).best is None


def test_the_fastest_mesh_recomputes_no_more_than_it_must():
  free = find("mesh", BASE, TOPOLOGY, FakeCompiler(1))
  assert free.best.mesh["model"] == 1 and free.best.remat == {"image": "none", "text": "none"}
  tight = find("mesh", BASE, TOPOLOGY, FakeCompiler(GIB // 3, 8 * GIB))  # only sharded does "dots" fit
  assert tight.best.remat["image"] == "dots" and tight.best.mesh["fsdp"] > 1
  assert max(t.samples_per_second for t in tight.trials if t.fits) == tight.best.samples_per_second


def test_towers_of_any_name_are_recomputed_and_those_without_heads_have_a_mesh():
  towers = {"sound": EXPERIMENT.model.image, "text": EXPERIMENT.model.text, "photo": EfficientNetConfig()}
  named = dataclasses.replace(BASE, model=SharedSpaceConfig(towers=towers))
  changed = with_remat(named, "full")
  assert [tower_remat(changed.model.towers[name]) for name in towers] == ["full", "full", "none"]
  words = ["--model.towers.sound.remat full", "--model.towers.text.remat full"]
  assert options(changed, named) == " ".join(words)
  found = find("mesh", named, TOPOLOGY, FakeCompiler(1)).best
  assert found.remat == {"sound": "none", "text": "none", "photo": "none"}


def test_three_changes_that_the_compiler_confirms_the_cheapest_first():
  compiler = FakeCompiler(GIB)
  changes = cheapest_changes(BASE, compiler(BASE, TOPOLOGY), compiler)
  assert len(changes) == 3 and all(change.compiled and change.peak_bytes <= 15.75 * GIB for change in changes)
  assert [c.cost for c in changes] == sorted(c.cost for c in changes)
  assert all("--" in change.options for change in changes)


def test_without_patience_rules_of_thumb_say_that_they_are():
  compiler = FakeCompiler(GIB)
  plan = compiler(BASE, TOPOLOGY)
  compiler.calls.clear()
  changes = cheapest_changes(BASE, plan, compiler, patience=-1)
  assert len(changes) == 3 and not compiler.calls
  assert all(not change.compiled and change.cost is None for change in changes)


def test_when_nothing_else_helps_a_smaller_batch_or_a_larger_machine_does():
  # 64 rows of 2 GiB a device that no policy, piece or shard of this model's towers shrinks enough but one row at a time
  base = with_remat(with_microbatches(BASE, 64), "full")
  compiler = FakeCompiler(200 * GIB, 0)
  changes = cheapest_changes(base, compiler(base, TOPOLOGY), compiler)
  assert changes == ()
  state = FakeCompiler(1, 40 * GIB)
  assert any("--parallel.fsdp" in change.options for change in cheapest_changes(BASE, state(BASE, TOPOLOGY), state))


def test_microbatches_that_do_not_divide_the_batch_are_refused():
  with pytest.raises(ValueError, match="multiple of 16"):
    find("microbatches", with_batch(EXPERIMENT, 100), TOPOLOGY, FakeCompiler(1))
