"""Time of hand-written TPU kernels, from the schedules that the compiler writes. It makes no estimates for them.

A TPU executes one bundle of instructions per cycle, in the order that the compiler chose. A kernel whose body is not a
loop takes one cycle per bundle of its schedule, for each of its programs. Waits for its own results are included.
Memory is read and written at the same time, so the longer of the two times counts.
"""

import re
from pathlib import Path

_TOTAL = re.compile(r"total scheduled bundles:\s*(\d+)")
_FILE = re.compile(r"\d+-(.+)-\d+-schedule-analysis_packed-bundles-post-ra\.txt")


def compiler_flags(folder: Path) -> str:
  """Flags for LIBTPU_INIT_ARGS that make the compiler write schedules into a folder. Set them before libtpu loads."""
  return (
    f"--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true --xla_jf_dump_llo_html=false "
    "--xla_jf_dump_llo_pass_label_regex=packed-bundles-post-ra"
  )


def read_schedules(folder: Path) -> dict[str, int]:
  """Read the number of bundles of each kernel, by its name without a number.

  The compiler numbers equal kernels, and compiles them once.
  """
  found = {}
  for path in folder.iterdir():
    if name := _FILE.fullmatch(path.name):
      total = _TOTAL.search(path.read_text(encoding="utf-8", errors="replace"))
      found[base_name(name[1])] = int(total[1]) if total else 0
  return found


def base_name(instruction: str) -> str:
  """Name of a kernel without its number: `attention_forward` for `attention_forward.12`."""
  return instruction.partition(".")[0]
