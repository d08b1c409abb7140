"""Model card of an exported model: how to load it, its results and its configuration."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.interop.formats import Format


def model_card(
  title: str,
  form: Format,
  folder: str,
  config: Mapping[str, Any],
  results: Sequence[Mapping[str, Any]],
  notes: Sequence[str],
) -> str:
  """Make a model card.

  Args:
    title: name of the run.
    form: format of the exported weights.
    folder: folder of the exported weights.
    config: content of the run's config.json (experiment, packages, git).
    results: content of the run's results.json; empty if the run was not evaluated.
    notes: differences between mmjax and the other library, one sentence each.
  Returns: the card in Markdown, with the front matter that model hubs read.
  """
  code = form.code.format(folder=folder, name=f"local-dir:{folder}")
  parts = [
    f"---\nlibrary_name: {form.library}\ntags: [mmjax, contrastive, image-text]\n---\n",
    f"# {title}\n\nTrained with mmjax, and written in the format `{form.name}`.\n",
    f"```python\n{code}\n```\n",
    "## Results\n\n" + (_results(results) if results else "The run was not evaluated.\n"),
    *(["## Notes\n\n" + "\n".join(f"* {note}" for note in notes) + "\n"] if notes else []),
    f"## Run\n\nCommit {config.get('git') or 'unknown'}, Python {config.get('python', 'unknown')}; "
    f"{_packages(config)}.\n\n```json\n{json.dumps(config.get('experiment', {}), indent=2, ensure_ascii=False)}\n```\n",
  ]
  return "\n".join(parts)


def _results(results: Sequence[Mapping[str, Any]]) -> str:
  lines = ["| task | n | metric | value | chance |", "|---|---|---|---|---|"]
  for result in results:
    for metric, value in result["metrics"].items():
      chance = result["chance"].get(metric)
      shown = "" if chance is None else f"{chance:.4g}"
      lines.append(f"| {result['title']} | {result['n']} | {metric} | {value:.4g} | {shown} |")
  return "\n".join(lines) + "\n"


def _packages(config: Mapping[str, Any]) -> str:
  return (
    ", ".join(f"{name} {version}" for name, version in config.get("packages", {}).items() if version) or "no versions"
  )
