"""Plans of the papers' own configurations, as Markdown: every script below on every machine below.

  python scripts/benchmarks/plan_table.py --out scripts/benchmarks/PLAN.md
  python scripts/benchmarks/plan_table.py --only siglip_b16 clip_l14 --topologies v5e:16x16 --out build/plan.md

Each row is a compile by the machine's own compiler (extras plan-tpu and plan-gpu), several minutes on two cores, so all
of them take hours; plans are remembered in --data-dir, and a second run goes on where the first was stopped. The file
is written anew after every row. --microbatches are tried in turn, from the configuration's own number on, until a step
fits; fsdp is the configuration's own, or what of it divides the devices. A row that could not be compiled says why.

--check compares the rows with those of scripts/benchmarks/PLAN.md and with the goals for v5e:16x16, names each that is
worse, and ends with status 1 if there is one:

  python scripts/benchmarks/plan_table.py --check --only siglip_b16 clip_l14 --topologies v5e:16x16 --out build/plan.md

With --tiny, the configurations are shrunk, and compared with the rows in this file.
"""

import argparse
import dataclasses
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

from mmjax.errors import UserError
from mmjax.experiment import Experiment
from mmjax.plan import Plan, plan
from mmjax.plan.table import seconds, size
from mmjax.plan.variants import with_microbatches

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPTS = ("clip_b32", "clip_b16", "clip_l14", "clip_l14_1m", "openclip_h14", "siglip_b16", "siglip_so400m14")
TOPOLOGIES = ("v5e:16x16", "v5p:4x4x8", "h100x8", "h100x64")
COLUMNS = (
  "configuration | machine | batch | mesh (data x fsdp) | pieces | remat | peak of memory | fits | recomputed | step "
  "| from | pairs/s | MFU | chip-hours | US$ | compiled in | jax"
).split(" | ")
PAGE = REPOSITORY / "scripts" / "benchmarks" / "PLAN.md"
# Bounds of --check. The goals are those of RESULTS.md. A compiler's next version lowered a row's MFU by 5% at most
# (PLAN.md, 0.10.2 beside 0.12.0.1); nothing but programs and compilers enters these numbers, no clock does.
GOALS = {("clip_l14", "v5e:16x16"): 0.55, ("siglip_b16", "v5e:16x16"): 0.5}
LEAST_OF_PAGE = 0.95
Rows = dict[tuple[str, str], dict[str, str]]
# Rows of --tiny that --check compares with. JAX 0.12.0.1 gave an MFU of 8.5%; other versions fuse differently.
TINY: Rows = {("clip_l14_1m", "cpu:2"): {"fits": "yes", "pieces": "2", "MFU": "6.0%"}}
HEAD = """# The papers' own configurations, planned

What each would take, said by the real compilers without the hardware. **Compiled:** memory, FLOPs, collectives and,
for TPU, the time of everything but collectives: the compiler's estimated cycles at the chip's clock, and the schedules
it made for our own kernels. **Modelled:** the time on the wires at their full speed, and for GPUs every time
("roofline": a bound that no run reaches). **Not known:** contention on the wires, stragglers, reading and decoding the
input. MFU counts the model's FLOPs once, whatever the program recomputes or leaves out, against the peak in bfloat16:
towers that are not scanned and read one token compute the last block for it alone, 7% less of CLIP B than counted. The
run is the paper's number of examples, at list prices. **jax:** the version that compiled, with the libtpu or CUDA
plugin that goes with it.

    {command}

"""


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--only", nargs="+", default=SCRIPTS, choices=SCRIPTS)
  parser.add_argument("--topologies", nargs="+", default=TOPOLOGIES)
  parser.add_argument("--microbatches", nargs="+", type=int, default=(1, 2, 4, 8, 16, 32, 64))
  parser.add_argument("--data-dir", default="~/.cache/mmjax", help="where plans are remembered, under plan/")
  parser.add_argument("--out", type=Path, required=True)
  parser.add_argument("--check", action="store_true", help="fail where a row is worse than PLAN.md's, or than a goal")
  parser.add_argument("--tiny", action="store_true", help="shrink the configurations, to show that the benchmark runs")
  options = parser.parse_args()
  before = TINY if options.tiny else table(PAGE.read_text(encoding="utf-8"))  # --out may be that page
  command = "python " + " ".join([str(Path(__file__).resolve().relative_to(REPOSITORY)), *sys.argv[1:]])
  sys.path[:0] = [str(REPOSITORY / "experiments"), str(REPOSITORY)]
  rows = [row(COLUMNS), row("---" for _ in COLUMNS)]
  for name in options.only:
    experiment = importlib.import_module(name).EXPERIMENT
    if options.tiny:
      experiment = importlib.import_module("tests.experiments.paper_scale").shrunk(experiment)
    data = dataclasses.replace(experiment.data, dir=str(Path(options.data_dir).expanduser()))
    experiment = dataclasses.replace(experiment, data=data)
    for topology in options.topologies:
      rows.append(row(cells(name, experiment, topology, options.microbatches)))
      print(rows[-1], flush=True)
      options.out.parent.mkdir(parents=True, exist_ok=True)
      options.out.write_text(HEAD.format(command=command) + "\n".join(rows) + "\n", encoding="utf-8")
  if options.check and (faults := missed(table("\n".join(rows)), before)):
    sys.exit("\n".join(faults))


def table(text: str) -> Rows:
  """{(configuration, machine): {column: cell}} of the first table in a page with these columns."""
  lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")]
  rows = [dict(zip(COLUMNS, cells, strict=True)) for cells in lines if len(cells) == len(COLUMNS)]
  return {(row["configuration"], row["machine"]): row for row in rows if row["machine"] not in ("machine", "---")}


def missed(rows: Rows, before: Rows) -> list[str]:
  """A sentence for each row that is worse than it was before, or than its goal."""
  faults = []
  for place, found in rows.items():
    name, was = " on ".join(place), before.get(place)
    if was is None:
      faults.append(f"{name}: there is no such row to compare with; there are {', '.join(map(' on '.join, before))}")
    elif was["fits"] == "yes" and found["fits"] != "yes":
      reason = found["jax"] if not found["fits"] else f"{found['peak of memory']} in {found['pieces']} pieces"
      faults.append(f"{name} does not fit, as it did in PLAN.md: {reason}")
    elif int(found["pieces"] or 0) > int(was["pieces"]):
      faults.append(f"{name} fits in {found['pieces']} pieces only; PLAN.md has {was['pieces']}")
    least = max(GOALS.get(place, 0.0), LEAST_OF_PAGE * mfu(was) if was else 0.0)
    if mfu(found) < least:
      faults.append(f"{name} reaches an MFU of {mfu(found):.1%}; the bound is {least:.1%}")
  return faults


def mfu(row: dict[str, str]) -> float:
  return float(row["MFU"].removesuffix("%")) / 100 if row["MFU"].endswith("%") else 0.0


def cells(name: str, experiment: Experiment, topology: str, microbatches: list[int]) -> list[str]:
  """The row of one configuration on one machine, in the fewest pieces that fit."""
  try:
    found = fewest_pieces(experiment, topology, microbatches)
  except UserError as error:
    reason = " ".join(str(error).split())[:160].replace("|", "/")
    return [name, topology, f"{experiment.run.batch_size:,}", *[""] * (len(COLUMNS) - 4), f"not planned: {reason}"]
  return list(described(name, found))


def fewest_pieces(experiment: Experiment, topology: str, microbatches: list[int]) -> Plan:
  """The first plan that fits, from the configuration's own number of microbatches on; else the last one tried."""
  own = experiment.parallel.microbatches
  for count in (own, *(n for n in microbatches if n > own)):
    found = plan(with_microbatches(experiment, count), topology, say=lambda phase: None)
    if found.fits:
      break
  return found


def described(name: str, p: Plan) -> Iterator[str]:
  known = lambda value, text: "?" if value is None else text(value)
  yield from (name, p.topology, f"{p.batch_size:,}", f"{p.mesh['data']} x {p.mesh['fsdp']}", str(p.microbatches))
  yield "/".join(dict.fromkeys(p.remat.values()))
  yield f"{size(p.peak_bytes)} of {size(p.hbm_bytes)}"
  yield "yes" if p.fits else "no"
  yield known(p.recompute_share, lambda share: f"{share:.0%}")
  yield known(p.step_seconds, seconds)
  yield p.time_source or "?"
  yield known(p.samples_per_second, lambda rate: f"{rate:,.0f}")
  yield known(p.mfu, lambda mfu: f"{mfu:.1%}")
  yield known(p.chip_hours, lambda hours: f"{hours:,.0f}")
  yield known(p.cost, lambda cost: f"{cost:,.0f}")
  yield f"{p.compile_seconds:.0f} s"
  yield p.versions["jax"]


def row(cells) -> str:
  return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
  main()
