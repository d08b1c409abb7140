import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from mmjax.errors import ConfigError
from mmjax.parallel import mesh as m


def shapes(**sizes):
  return {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in sizes.items()}


def test_data_takes_the_devices_that_are_left():
  mesh = m.make_mesh(m.ParallelConfig(fsdp=2, model=2))
  assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "model": 2}
  assert m.batch_shards(mesh) == 4


@pytest.mark.parametrize("config", [m.ParallelConfig(data=3), m.ParallelConfig(fsdp=16), m.ParallelConfig(model=3)])
def test_a_mesh_that_does_not_use_all_devices_is_refused(config):
  with pytest.raises(ConfigError, match="does not make the 8 devices"):
    m.make_mesh(config)


def test_a_batch_that_the_mesh_cannot_divide_is_refused_with_one_that_it_can():
  mesh = m.make_mesh(m.ParallelConfig(model=2))
  m.check_batch_size(24, mesh, microbatches=3)
  with pytest.raises(ConfigError, match="batch_size=25 .* multiple of 12, such as 36"):
    m.check_batch_size(25, mesh, microbatches=3)


def test_placement_aligns_with_trailing_dimensions_and_leaves_out_what_does_not_divide():
  mesh = m.make_mesh(m.ParallelConfig(fsdp=2, model=2))
  tree = shapes(kernel=(4, 6), stacked=(3, 4, 6), odd=(5, 6), bias=(6,))
  rules = [(".*", ("fsdp", "model"))]
  specs = {name: s.spec for name, s in m.parameter_shardings(rules, tree, mesh).items()}
  assert specs == {
    "kernel": P("fsdp", "model"),
    "stacked": P(None, "fsdp", "model"),
    "odd": P(None, "model"),
    "bias": P("model"),
  }


def test_the_largest_tactic_splits_the_largest_dimension_that_divides():
  mesh = m.make_mesh(m.ParallelConfig(fsdp=4))
  assert m.largest((4, 16), mesh) == P(None, "fsdp")
  assert m.largest((18, 8), mesh) == P(None, "fsdp")
  assert m.largest((3, 5), mesh) == P()


def test_placements_read_from_the_command_line():
  assert m.parse_placement("fsdp,model") == ("fsdp", "model")
  assert m.parse_placement("-,model") == (None, "model")
  assert m.parse_placement("") == ()
  assert m.parse_placement("largest") is m.largest
  with pytest.raises(ConfigError, match="names the axis 'modle'"):
    m.parse_placement("modle")


def test_a_batch_is_split_over_data_and_fsdp_in_order():
  mesh = m.make_mesh(m.ParallelConfig(fsdp=2, model=2))
  rows = np.arange(8, dtype=np.int32)
  placed = m.put_batch({"index": rows}, mesh)["index"]
  assert placed.sharding.spec == P(m.BATCH_AXES)
  assert {tuple(np.asarray(s.data)) for s in placed.addressable_shards} == {(0, 1), (2, 3), (4, 5), (6, 7)}


def test_rows_are_asked_for_once_by_the_devices_that_share_them():
  asked = []

  class Rows:
    shape = (8, 3)

    def __getitem__(self, index):
      asked.append((index[0].start, index[0].stop))
      return np.arange(24.0, dtype=np.float32).reshape(8, 3)[index]

  mesh = m.make_mesh(m.ParallelConfig(fsdp=2, model=2))
  placed = m.put_rows(Rows(), m.batch_sharding(mesh))
  np.testing.assert_array_equal(placed, np.arange(24.0).reshape(8, 3))
  assert sorted(asked) == [(0, 2), (2, 4), (4, 6), (6, 8)]
