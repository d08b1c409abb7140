"""How long hand-written TPU kernels take: the compiler estimates nothing for them, but writes down their schedules.

A TPU executes one bundle of instructions a cycle, in the order that the compiler has decided. A kernel whose body is
not a loop takes as many cycles as its schedule has bundles, waiting for its own results included, once for each of its
programs. Memory is read and written meanwhile: the longer of the two counts.
"""

import re
from pathlib import Path

_TOTAL = re.compile(r"total scheduled bundles:\s*(\d+)")
_FILE = re.compile(r"\d+-(.+)-\d+-schedule-analysis_packed-bundles-post-ra\.txt")


def compiler_flags(folder: Path) -> str:
  """What LIBTPU_INIT_ARGS must hold before libtpu is loaded for the compiler to write schedules into a folder."""
  return (
    f"--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true --xla_jf_dump_llo_html=false "
    "--xla_jf_dump_llo_pass_label_regex=packed-bundles-post-ra"
  )


def read_schedules(folder: Path) -> dict[str, int]:
  """Bundles by kernel. The compiler compiles equal kernels once, and numbers them: the numbers are left out."""
  found = {}
  for path in folder.iterdir():
    if name := _FILE.fullmatch(path.name):
      total = _TOTAL.search(path.read_text(encoding="utf-8", errors="replace"))
      found[base_name(name[1])] = int(total[1]) if total else 0
  return found


def base_name(instruction: str) -> str:
  """`attention_forward.12` and `attention_forward.7` are one kernel."""
  return instruction.partition(".")[0]
