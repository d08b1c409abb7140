"""The OpenAPI description as a page, which needs nothing from outside."""

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from mmjax.report.page import Section, page

_LEFT = 'style="text-align: left"'  # the tables of the page are of numbers, which stand at the right


def described(api: Mapping[str, Any]) -> str:
  """An HTML document with all routes, their bodies, answers and errors."""
  sections = [
    Section(f"{method}{path}".replace("/", "-"), f"{method.upper()} {path}", _operation(operation, api))
    for path, methods in api["paths"].items()
    for method, operation in methods.items()
  ]
  lead = (
    '<p class="note">The same for programs: <a href="/openapi.json">openapi.json</a>. To try it: <a href="/">/</a>.</p>'
  )
  return page(api["info"]["title"], lead, sections)


def _operation(operation: Mapping[str, Any], api: Mapping[str, Any]) -> str:
  parts = [f"<p>{escape(operation.get('description', ''))}</p>"]
  for kind, content in operation.get("requestBody", {}).get("content", {}).items():
    parts.append(_block(f"Body, {kind}", content["schema"]))
  rows = []
  for status, response in operation["responses"].items():
    rows.append(f"<tr><td>{escape(status)}</td><td {_LEFT}>{escape(response['description'])}</td></tr>")
    reference = response.get("content", {}).get("application/json", {}).get("schema", {}).get("$ref", "")
    if status == "200" and reference:
      parts.append(_block("Answer, application/json", api["components"]["schemas"][reference.rpartition("/")[2]]))
  statuses = f'<div class="scroll"><table>{"".join(rows)}</table></div>'
  return f"{''.join(parts)}<details><summary>Statuses</summary>{statuses}</details>"


def _block(title: str, schema: Any) -> str:
  shown = escape(json.dumps(schema, indent=2))
  return f'<details><summary>{escape(title)}</summary><pre class="scroll">{shown}</pre></details>'
