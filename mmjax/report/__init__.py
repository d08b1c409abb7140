"""Shows what was measured: the report of a run, the comparison of several, and tables on the terminal."""

from typing import TYPE_CHECKING

from mmjax.lazy import lazy_names

if TYPE_CHECKING:
  from mmjax.report.comparison import write_comparison
  from mmjax.report.figures import line_chart, scatter_chart
  from mmjax.report.page import Section
  from mmjax.report.report import check_report, write_report
  from mmjax.report.terminal import print_table
else:
  __getattr__, __dir__ = lazy_names(
    __name__,
    {
      "comparison": ["write_comparison"],
      "figures": ["line_chart", "scatter_chart"],
      "page": ["Section"],
      "report": ["check_report", "write_report"],
      "terminal": ["print_table"],
    },
  )

__all__ = [
  "Section",
  "check_report",
  "line_chart",
  "print_table",
  "scatter_chart",
  "write_comparison",
  "write_report",
]
