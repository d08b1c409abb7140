"""Memory traffic read from HLO text, on programs whose traffic is known by hand."""

import pytest

from mmjax.plan.hlo_bytes import memory_traffic
from mmjax.plan.hlo_text import parse

# Ten rounds, each reads one layer's 4 x 4 weights out of [10,4,4] and writes one row of [10,4] in place; after the
# loop a fusion reads 40 and 16 numbers from memory, 16 from on-chip memory, and writes 16.
PROGRAM = """HloModule jit_step, is_scheduled=true

%slice_and_store (p0: f32[10,4,4], p1: f32[10,4], p2: s32[]) -> f32[10,4] {
  %p0 = f32[10,4,4]{2,1,0} parameter(0)
  %p1 = f32[10,4]{1,0} parameter(1)
  %p2 = s32[] parameter(2)
  %zero = s32[] constant(0)
  %layer = f32[1,4,4]{2,1,0} dynamic-slice(%p0, %p2, %zero, %zero), dynamic_slice_sizes={1,4,4}
  %flat = f32[4,4]{1,0} bitcast(%layer)
  %row = f32[1,4]{1,0} reduce(%flat, %zero), dimensions={0}, to_apply=%add
  ROOT %stored = f32[10,4]{1,0} dynamic-update-slice(%p1, %row, %p2, %zero)
}

%body (s: (s32[], f32[10,4,4], f32[10,4])) -> (s32[], f32[10,4,4], f32[10,4]) {
  %s = (s32[], f32[10,4,4]{2,1,0}, f32[10,4]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %w = f32[10,4,4]{2,1,0} get-tuple-element(%s), index=1
  %o = f32[10,4]{1,0} get-tuple-element(%s), index=2
  %new = f32[10,4]{1,0} fusion(%w, %o, %i), kind=kLoop, calls=%slice_and_store
  ROOT %t = (s32[], f32[10,4,4]{2,1,0}, f32[10,4]{1,0}) tuple(%i, %w, %new)
}

%condition (s: (s32[], f32[10,4,4], f32[10,4])) -> pred[] {
  %s = (s32[], f32[10,4,4]{2,1,0}, f32[10,4]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %n = s32[] constant(10)
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

%sum (p0: f32[10,4], p1: f32[16], p2: f32[16]) -> f32[16] {
  %p0 = f32[10,4]{1,0} parameter(0)
  %p1 = f32[16]{0} parameter(1)
  %p2 = f32[16]{0} parameter(2)
  %flat = f32[40]{0} reshape(%p0)
  ROOT %out = f32[16]{0} add(%p1, %p2)
}

ENTRY %main (w: f32[10,4,4], o: f32[10,4], x: f32[16], y: f32[16]) -> f32[16] {
  %w = f32[10,4,4]{2,1,0} parameter(0)
  %o = f32[10,4]{1,0} parameter(1)
  %x = f32[16]{0} parameter(2)
  %y = f32[16]{0:S(1)} parameter(3)
  %zero = s32[] constant(0)
  %begin = (s32[], f32[10,4,4]{2,1,0}, f32[10,4]{1,0}) tuple(%zero, %w, %o)
  %loop = (s32[], f32[10,4,4]{2,1,0}, f32[10,4]{1,0}) while(%begin), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"10"}}
  %rows = f32[10,4]{1,0} get-tuple-element(%loop), index=2
  ROOT %sum = f32[16]{0} fusion(%rows, %x, %y), kind=kLoop, calls=%sum
}
"""


def test_loops_count_by_their_trips_slices_by_their_size_and_on_chip_memory_not_at_all():
  # A round: the layer's 16 numbers and the 4-byte counter in, 4 numbers out; the condition's compare reads 8, writes 1.
  in_a_round = 4 * 16 + 4 + 4 * 4 + (4 + 4 + 1)
  after = 4 * (40 + 16 + 16)
  assert memory_traffic(parse(PROGRAM)) == 10 * in_a_round + after


def test_the_workspace_of_a_library_product_is_not_traffic():
  program = """HloModule jit_f

ENTRY %main (a: bf16[8,4], b: bf16[4,2]) -> bf16[8,2] {
  %a = bf16[8,4]{1,0} parameter(0)
  %b = bf16[4,2]{1,0} parameter(1)
  %gemm = (bf16[8,2]{1,0}, s8[33554432]{0}) custom-call(%a, %b), custom_call_target="__cublas$lt$matmul"
  ROOT %out = bf16[8,2]{1,0} get-tuple-element(%gemm), index=0
}
"""
  assert memory_traffic(parse(program)) == 2 * (8 * 4 + 4 * 2 + 8 * 2)


@pytest.mark.parametrize("result", ["f32[64]{0}", "((f32[64]{0}), f32[64]{0})"])
def test_an_all_reduce_reads_and_writes_its_array_however_the_result_of_its_start_is_written(result):
  program = f"""HloModule jit_f, num_partitions=2

ENTRY %main (a: f32[64]) -> f32[64] {{
  %a = f32[64]{{0}} parameter(0)
  %start = {result} all-reduce-start(%a), channel_id=1, replica_groups={{{{0,1}}}}, to_apply=%add
  ROOT %done = f32[64]{{0}} all-reduce-done(%start)
}}
"""
  assert memory_traffic(parse(program)) == 2 * 64 * 4


@pytest.mark.parametrize(("placed", "read_and_written"), [("S(1)", 1), ("", 2)])
def test_a_slice_fetched_in_the_background_counts_by_its_size(placed, read_and_written):
  program = f"""HloModule jit_f, is_scheduled=true

ENTRY %main (a: bf16[4,64]) -> bf16[1,64] {{
  %a = bf16[4,64]{{1,0:T(4,128)(2,1)}} parameter(0)
  %start = ((bf16[4,64]{{1,0:T(4,128)(2,1)}}), bf16[1,64]{{1,0:T(4,128){placed}}}, s32[]{{:S(2)}}) slice-start(%a), \
slice={{[2:3], [0:64]}}
  ROOT %done = bf16[1,64]{{1,0:T(4,128){placed}}} slice-done(%start)
}}
"""
  assert memory_traffic(parse(program)) == read_and_written * 64 * 2


def test_a_fusion_begun_on_another_stream_moves_what_it_updates_in_place():
  program = """HloModule m, is_scheduled=true

%update (p: f32[24,1024], q: s32[], r: f32[1024]) -> f32[24,1024] {
  %p = f32[24,1024]{1,0} parameter(0)
  %r = f32[1024]{0} parameter(2)
  %row = f32[1,1024]{1,0} bitcast(%r)
  %q = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %updated = f32[24,1024]{1,0} dynamic-update-slice(%p, %row, %q, %zero)
}

ENTRY %main (a: f32[24,1024], b: s32[], c: f32[1024]) -> f32[24,1024] {
  %a = f32[24,1024]{1,0} parameter(0)
  %b = s32[] parameter(1)
  %c = f32[1024]{0} parameter(2)
  %start = ((f32[24,1024]{1,0}, s32[], f32[1024]{0}), f32[24,1024]{1,0}, u32[]) fusion-start(%a, %b, %c), kind=kLoop, \
calls=%update
  ROOT %done = f32[24,1024]{1,0} fusion-done(%start)
}
"""
  assert memory_traffic(parse(program)) == 2 * 4 * 1024 + 4  # a row read and written, and its number
