"""FLOPs, cycles and collectives read from HLO text: exact on programs whose cost is known by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mmjax.plan.hlo import analyse
from mmjax.plan.hlo_bytes import memory_traffic
from mmjax.plan.hlo_groups import replica_groups
from mmjax.plan.hlo_text import parse

# As the TPU compiler writes it, shortened: a loop without a known trip count from 2 up to 12, a fusion in it with an
# estimate of its own and (of no account) one inside, a batched product [4,8,16] x [4,16,32] as a dilated convolution.
TPU = """HloModule jit_step, is_scheduled=true, num_partitions=16

%fused (p0: bf16[4,8,16], p1: bf16[4,16,32]) -> f32[4,8,32] {
  %p0 = bf16[4,8,16]{2,1,0:T(8,128)(2,1)} parameter(0)
  %p1 = bf16[4,16,32]{2,1,0:T(8,128)(2,1)S(1)} parameter(1)
  %inner = bf16[4,8,16]{2,1,0:T(8,128)(2,1)} copy(%p0), backend_config={"window_config":{"estimated_cycles":"999"}}
  ROOT %conv = f32[4,8,32]{2,1,0:T(8,128)} convolution(%inner, %p1), window={size=4 stride=3 lhs_dilate=4}, \
dim_labels=0bf_0io->0bf
}

%body (s: (s32[], bf16[4,8,16], bf16[4,16,32])) -> (s32[], bf16[4,8,16], bf16[4,16,32]) {
  %s = (s32[]{:T(128)}, bf16[4,8,16]{2,1,0:T(8,128)(2,1)}, /*index=2*/bf16[4,16,32]{2,1,0}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%s), index=0
  %one = s32[] constant(1)
  %next = s32[]{:T(128)} add(%i, %one)
  %a = bf16[4,8,16]{2,1,0:T(8,128)(2,1)} get-tuple-element(%s), index=1
  %b = bf16[4,16,32]{2,1,0} get-tuple-element(%s), index=2
  %product = f32[4,8,32]{2,1,0:T(8,128)} fusion(%a, %b), kind=kOutput, calls=%fused, \
metadata={op_name="jit(step)/dot"}, backend_config={"window_config":{"estimated_cycles":"1894"}}
  %shifted = (bf16[4,8,16]{2,1,0}, bf16[4,8,16]{2,1,0}, u32[]{:S(2)}, \
u32[]{:S(2)}) collective-permute-start(%a), source_target_pairs={{0,1},{1,0},{2,3},{3,2}}
  %arrived = bf16[4,8,16]{2,1,0} collective-permute-done(%shifted)
  ROOT %t = (s32[], bf16[4,8,16]{2,1,0}, bf16[4,16,32]{2,1,0}) tuple(%next, %arrived, %b)
}

%cond (s.1: (s32[], bf16[4,8,16], bf16[4,16,32])) -> pred[] {
  %s.1 = (s32[]{:T(128)}, bf16[4,8,16]{2,1,0}, bf16[4,16,32]{2,1,0}) parameter(0)
  %limit = s32[]{:T(128)} constant(12)
  %i.1 = s32[]{:T(128)} get-tuple-element(%s.1), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i.1, %limit), direction=LT
}

ENTRY %main (x: bf16[4,8,16], y: bf16[4,1,32]) -> bf16[4,8,16] {
  %x = bf16[4,8,16]{2,1,0} parameter(0)
  %y = bf16[4,1,32]{2,1,0} parameter(1)
  %start = (bf16[4,1,32]{2,1,0}, bf16[4,16,32]{2,1,0}) all-gather-start(%y), \
replica_groups=mesh['a'=1,'b'=16] {'b'}, dimensions={1}
  %gathered = bf16[4,16,32]{2,1,0} all-gather-done(%start)
  %two = s32[] constant(2)
  %t.1 = (s32[], bf16[4,8,16]{2,1,0}, bf16[4,16,32]{2,1,0}) tuple(%two, %x, %gathered)
  %loop = (s32[], bf16[4,8,16]{2,1,0}, bf16[4,16,32]{2,1,0}) while(%t.1), condition=%cond, body=%body, \
metadata={op_name="jit(step)/while"}
  ROOT %out = bf16[4,8,16]{2,1,0} get-tuple-element(%loop), index=1
}
"""

# As the TPU compiler writes a collective that overlaps a loop: begun by one kernel, carried on by those of the loop's
# body (which do something else as well), ended by a last one. All name it; it runs once.
OVERLAPPED = """HloModule jit_step, is_scheduled=true, num_partitions=4

%begin (p: bf16[16,8]) -> (bf16[16,8], bf16[64,8]) {
  %p = bf16[16,8]{1,0} parameter(0)
  %gather = bf16[64,8]{1,0} all-gather(%p), channel_id=17, replica_groups=[1,4]<=[4], dimensions={0}
  ROOT %start = (bf16[16,8]{1,0}, bf16[64,8]{1,0}) custom-call(%gather), custom_call_target="AsyncCollectiveStart"
}

%step (p.1: bf16[16,8], p.2: bf16[64,8], p.3: f32[4,4]) -> (f32[4,4], bf16[16,8], bf16[64,8]) {
  %p.1 = bf16[16,8]{1,0} parameter(0)
  %p.2 = bf16[64,8]{1,0} parameter(1)
  %p.3 = f32[4,4]{1,0} parameter(2)
  %gather.1 = bf16[64,8]{1,0} all-gather(%p.1), channel_id=17, replica_groups=[1,4]<=[4], dimensions={0}
  %twice = f32[4,4]{1,0} add(%p.3, %p.3)
  ROOT %all = (f32[4,4]{1,0}, bf16[16,8]{1,0}, bf16[64,8]{1,0}) tuple(%twice, %p.1, %p.2)
}

%body (s: (f32[4,4], bf16[16,8], bf16[64,8])) -> (f32[4,4], bf16[16,8], bf16[64,8]) {
  %s = (f32[4,4]{1,0}, bf16[16,8]{1,0}, bf16[64,8]{1,0}) parameter(0)
  %x = f32[4,4]{1,0} get-tuple-element(%s), index=0
  %a = bf16[16,8]{1,0} get-tuple-element(%s), index=1
  %b = bf16[64,8]{1,0} get-tuple-element(%s), index=2
  ROOT %carried = (f32[4,4]{1,0}, bf16[16,8]{1,0}, bf16[64,8]{1,0}) fusion(%a, %b, %x), kind=kOutput, calls=%step
}

%more (s.1: (f32[4,4], bf16[16,8], bf16[64,8])) -> pred[] {
  %s.1 = (f32[4,4]{1,0}, bf16[16,8]{1,0}, bf16[64,8]{1,0}) parameter(0)
  ROOT %true = pred[] constant(true)
}

%finish (p.4: bf16[64,8]) -> bf16[64,8] {
  %p.4 = bf16[64,8]{1,0} parameter(0)
  %gather.2 = bf16[64,8]{1,0} all-gather(%p.4), channel_id=17, replica_groups=[1,4]<=[4], dimensions={0}
  ROOT %done = bf16[64,8]{1,0} custom-call(%gather.2), custom_call_target="AsyncCollectiveDone"
}

ENTRY %main (shard: bf16[16,8], m: f32[4,4]) -> bf16[64,8] {
  %shard = bf16[16,8]{1,0} parameter(0)
  %m = f32[4,4]{1,0} parameter(1)
  %begun = (bf16[16,8]{1,0}, bf16[64,8]{1,0}) fusion(%shard), kind=kCustom, calls=%begin
  %part = bf16[64,8]{1,0} get-tuple-element(%begun), index=1
  %state = (f32[4,4]{1,0}, bf16[16,8]{1,0}, bf16[64,8]{1,0}) tuple(%m, %shard, %part)
  %loop = (f32[4,4]{1,0}, bf16[16,8]{1,0}, bf16[64,8]{1,0}) while(%state), condition=%more, body=%body, \
backend_config={"known_trip_count":{"n":"6"}}
  %last = bf16[64,8]{1,0} get-tuple-element(%loop), index=2
  ROOT %gathered = bf16[64,8]{1,0} fusion(%last), kind=kCustom, calls=%finish
}
"""

# As the compiler writes what it has a tpu7x's SparseCores do: a call that is begun without operands and given them
# later, and a fusion in it that has the largest number there is for an estimate.
OFFLOADED = """HloModule jit_step, is_scheduled=true, num_partitions=8

%inside (p: f32[64,32]) -> f32[64,32] {
  %p = f32[64,32]{1,0} parameter(0)
  ROOT %twice = f32[64,32]{1,0} add(%p, %p)
}

%called (p.1: f32[64,32]) -> f32[64,32] {
  %p.1 = f32[64,32]{1,0} parameter(0)
  %scattered = f32[64,32]{1,0} fusion(%p.1), kind=kCustom, calls=%inside, \
backend_config={"window_config":{"estimated_cycles":"9223372036854775807"}}
  ROOT %reduced = f32[64,32]{1,0} all-reduce(%scattered), channel_id=28, replica_groups=[1,8]<=[8], to_apply=%add
}

ENTRY %main (x: f32[64,32]) -> f32[64,32] {
  %x = f32[64,32]{1,0} parameter(0)
  %begun = ((), (), (s32[1]{0:T(128)S(2)})) call-start(), async_execution_thread="sparsecore", to_apply=%called
  %given = ((f32[64,32]{1,0}), f32[64,32]{1,0}) call-update(%begun, %x)
  ROOT %ended = f32[64,32]{1,0} call-done(%given)
}
"""

GPU = """HloModule jit_f, is_scheduled=true, replica_count=2

%async (p: f32[64,32]) -> f32[128,32] {
  %p = f32[64,32]{1,0} parameter(0)
  ROOT %gather = f32[128,32]{1,0} all-gather(%p), replica_groups={}, dimensions={0}
}

ENTRY %main (a: f32[64,32], b: f32[32,16]) -> f32[64,16] {
  %a = f32[64,32]{1,0} parameter(0)
  %b = f32[32,16]{1,0} parameter(1)
  %begin = ((f32[64,32]{1,0}), f32[128,32]{1,0}) async-start(%a), calls=%async
  %end = f32[128,32]{1,0} async-done(%begin)
  %gemm = (f32[64,16]{1,0}, s8[4194304]{0}) custom-call(%a, %b), custom_call_target="__cublas$gemm", \
backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],\
"rhs_contracting_dimensions":["0"]}}}
  ROOT %out = f32[64,16]{1,0} get-tuple-element(%gemm), index=0
}
"""


def compiled(function, *arguments) -> str:
  return jax.jit(function).lower(*arguments).compile().as_text()


def test_flops_of_nested_loops_and_their_gradients_are_exact():
  def forward(weights, x):  # 5 x 3 products [8, 16] x [16, 16]
    outer = lambda x, w: (jax.lax.scan(lambda y, _: (jnp.tanh(y @ w), None), x, length=3)[0], None)
    return jax.lax.scan(outer, x, weights)[0].sum()

  weights, x = jnp.ones((5, 16, 16)), jnp.ones((8, 16))
  product = 2 * 8 * 16 * 16
  assert analyse(compiled(forward, weights, x)).flops == 15 * product
  cost = analyse(compiled(jax.grad(forward), weights, x))
  assert cost.flops == 15 * product * 3 and cost.unknown_loops == () and cost.cycles == 0


def test_a_reduction_over_one_mesh_axis_moves_the_local_array():
  mesh = jax.make_mesh((2, 4), ("a", "b"))
  total = jax.shard_map(lambda x: jax.lax.psum(x, "a"), mesh=mesh, out_specs=PartitionSpec(None, "b"))
  x = jax.device_put(jnp.ones((16, 16)), NamedSharding(mesh, PartitionSpec("a", "b")))
  (record,) = analyse(compiled(total, x)).collectives
  assert (record.kind, record.count, record.bytes) == ("all-reduce", 1, 8 * 4 * 4)
  assert record.group_size == 2 and record.groups == ((0, 4), (1, 5), (2, 6), (3, 7))


def test_a_tpu_loop_counts_by_its_condition_and_a_fusion_once_an_iteration():
  cost = analyse(TPU)
  assert cost.cycles == 10 * 1894
  assert [(k.name, k.source, k.trips, k.cycles) for k in cost.kernels] == [("product", "jit(step)/dot", 10, 18940)]
  assert cost.flops == 10 * 2 * 4 * 8 * 16 * 32
  permute, gather = cost.collectives
  assert (gather.kind, gather.group_size, gather.count, gather.bytes) == ("all-gather", 16, 1, 4 * 16 * 32 * 2)
  assert (permute.kind, permute.count, permute.bytes) == ("collective-permute", 10, 10 * 4 * 8 * 16 * 2)
  assert permute.groups == ((0, 1), (2, 3))


def test_a_collective_that_kernels_carry_on_runs_once():
  (record,) = analyse(OVERLAPPED).collectives
  assert (record.kind, record.count, record.bytes) == ("all-gather", 1, 64 * 8 * 2)
  # Six rounds read and write the 16 numbers that are added; the gathered array is written once, its quarter read once.
  assert memory_traffic(parse(OVERLAPPED)) == 6 * 2 * 64 + 64 * 8 * 2 + 16 * 8 * 2


def test_work_of_sparse_cores_counts_but_for_its_time():
  cost = analyse(OFFLOADED)
  (record,) = cost.collectives
  assert (record.kind, record.count, record.bytes, record.group_size) == ("all-reduce", 1, 64 * 32 * 4, 8)
  assert cost.cycles == 0 and cost.kernels == ()
  assert memory_traffic(parse(OFFLOADED)) == 2 * 2 * 64 * 32 * 4  # each of the two reads it and writes it


def test_a_hand_written_kernel_takes_its_schedule_or_the_memory_whichever_is_longer():
  line = "  %next = s32[]{:T(128)} add(%i, %one)\n"
  kernel = (
    '  %attend.3 = bf16[4,8,16]{2,1,0} custom-call(%a, %a, %b), custom_call_target="tpu_custom_call", '
    'frontend_attributes={kernel_metadata={\n"flops":"5000",\n"programs":"6"\n}}, backend_config={"x":"y"}\n'
  )
  text = TPU.replace(line, line + kernel)
  cost = analyse(text, {"attend": 100})
  assert cost.cycles == 10 * (1894 + 6 * 100) and cost.unknown_kernels == ()
  assert cost.flops == analyse(TPU).flops + 10 * 5000
  touched = 2 * (4 * 8 * 16 + 4 * 8 * 16 + 4 * 16 * 32)  # what it writes; of what it reads, each array once
  assert analyse(text, {"attend": 100}, bytes_per_cycle=4).cycles == 10 * (1894 + touched // 4)
  unknown = analyse(text)
  assert unknown.unknown_kernels == ("attend.3",) and unknown.cycles == 10 * 1894


def test_a_loop_whose_end_is_unknown_is_named():
  cost = analyse(TPU.replace("s32[]{:T(128)} constant(12)", "s32[]{:T(128)} custom-call()"))
  assert cost.unknown_loops == ("loop",) and cost.cycles == 1894


def test_gpu_library_calls_and_wrapped_collectives_count():
  cost = analyse(GPU)
  assert cost.flops == 2 * 64 * 32 * 16 and cost.cycles == 0
  (record,) = cost.collectives
  assert (record.kind, record.groups, record.bytes) == ("all-gather", ((0, 1),), 128 * 32 * 4)


def test_a_strided_convolution_counts_its_valid_taps():
  image, kernel = jnp.ones((2, 5, 5, 3)), jnp.ones((3, 3, 3, 4))
  convolve = lambda x, k: jax.lax.conv_general_dilated(
    x, k, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
  )
  # Of three windows of three along a side, the outer two hang over the edge by one: 2 + 3 + 2 taps.
  assert analyse(compiled(convolve, image, kernel)).flops == 2 * 2 * 3 * 4 * 7 * 7


@pytest.mark.parametrize(
  ("written", "groups"),
  [
    ("replica_groups={{0,2},{1,3}}, x", ((0, 2), (1, 3))),
    ("replica_groups=[2,2]<=[4]", ((0, 1), (2, 3))),
    ("replica_groups=[2,2]<=[2,2]T(1,0), x", ((0, 2), (1, 3))),
    ("replica_groups=mesh['a'=2,'b'=2] {'a'}, x", ((0, 2), (1, 3))),
    ("replica_groups=mesh['a'=2,'b'=2,'c'=1] {'a','b'}", ((0, 1, 2, 3),)),
    ("replica_groups=mesh['a'=2,'b'=1,'c'=2], device_ids=([2,2]T(1,0)) {'a'}, x", ((0, 1), (2, 3))),
    ("replica_groups=mesh['a'=2,'b'=2], device_ids=([4]<=[2,2]T(1,0)) {'a'}, x", ((0, 1), (2, 3))),
    ("replica_groups={}, x", ((0, 1, 2, 3),)),
    ("source_target_pairs={{0,1},{1,2},{2,0}}", ((0, 1, 2),)),
  ],
)
def test_every_notation_of_groups(written, groups):
  assert replica_groups(written, 4) == groups


def test_other_text_is_refused():
  with pytest.raises(ValueError, match="ENTRY"):
    analyse("module @jit_f {}")
