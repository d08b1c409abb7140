"""The frame of the report: one HTML file that needs nothing from outside."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple


class Section(NamedTuple):
  """A section of a page. The anchor is its name in links, and no other section's; the heading is text."""

  anchor: str
  heading: str
  html: str


def page(title: str, lead: str, sections: Sequence[Section]) -> str:
  """The whole document. `lead` and the sections are HTML; title and headings are escaped here."""
  links = "".join(f'<a href="#{anchor}">{escape(heading)}</a>' for anchor, heading, _ in sections)
  body = "".join(
    f'<section id="{anchor}"><h2>{escape(heading)}</h2>{html}</section>' for anchor, heading, html in sections
  )
  return (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f"<title>{escape(title)}</title><style>{CSS}</style></head>"
    f"<body><header><h1>{escape(title)}</h1>{lead}</header><nav>{links}</nav><main>{body}</main></body></html>\n"
  )


def missing(reason: str) -> str:
  """Text of a section without results."""
  return f'<p class="missing">{escape(reason)}</p>'


def card(value: str, label: str, note: str = "") -> str:
  below = f"<small>{escape(note)}</small>" if note else ""
  return f'<div class="card"><b>{escape(value)}</b><span>{escape(label)}</span>{below}</div>'


CSS = """
:root { color-scheme: light dark; --page: #f6f7f9; --surface: #fff; --text: #1b1f24; --muted: #6b7480;
  --line: #dfe3e8; --series-1: #0072b2; --series-2: #d55e00; --series-3: #00795a; --good: #00795a; --bad: #c04a00;
  --tint: #e6f1f8; }
@media (prefers-color-scheme: dark) { :root { --page: #12151a; --surface: #1a1f26; --text: #e8ebef; --muted: #98a2ae;
  --line: #2e3640; --series-1: #56b4e9; --series-2: #f0a050; --series-3: #4fd1a5; --good: #4fd1a5; --bad: #f0a050;
  --tint: #1e3040; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); line-height: 1.5;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
header, main, nav { max-width: 1120px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 36px; }
h1 { margin: 0 0 4px; font-size: 1.9rem; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { margin: 0 0 12px; font-size: 1.2rem; }
h3 { margin: 20px 0 6px; font-size: 1rem; }
p { margin: 0 0 12px; } .note, small, .legend, .missing { color: var(--muted); }
.note { max-width: 75ch; font-size: 0.92rem; }
nav { position: sticky; top: 0; z-index: 1; display: flex; flex-wrap: wrap; gap: 4px 18px; padding-top: 10px;
  padding-bottom: 10px; background: var(--page); }
nav a { color: var(--series-1); text-decoration: none; font-size: 0.92rem; }
  nav a:hover { text-decoration: underline; }
section { background: var(--surface); border: 1px solid var(--line); border-radius: 12px; padding: 20px;
  margin: 0 0 20px; scroll-margin-top: 60px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 18px 0 8px; }
.card { background: var(--surface); border: 1px solid var(--line); border-radius: 12px; padding: 14px 16px; }
.card b { display: block; font-size: 1.55rem; line-height: 1.2; } .card span { display: block; font-size: 0.9rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 16px 24px; }
.charts svg { width: 100%; max-width: 680px; height: auto; } .charts h3 { margin: 0; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: 0.92rem; }
th, td { padding: 8px 10px; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top;
  font-variant-numeric: tabular-nums; }
th { font-weight: 600; color: var(--muted); } th:first-child, td:first-child { text-align: left; }
td:first-child { min-width: 190px; } td b { font-size: 1.02rem; } td small { display: block; white-space: nowrap; }
tr.control { color: var(--muted); } .best { color: var(--good); font-size: 0.8rem; white-space: nowrap; }
.bar { position: relative; height: 5px; margin: 4px 0 2px auto; width: 84px; border-radius: 3px;
  background: var(--line); }
.bar span { position: absolute; inset: 0 auto 0 0; border-radius: 3px; background: var(--series-1); }
.bar i { position: absolute; top: -2px; bottom: -2px; width: 2px; background: var(--series-2); }
.query { display: flex; flex-wrap: wrap; align-items: center; gap: 8px 18px; padding: 10px 0;
  border-bottom: 1px solid var(--line); } .query:last-child { border-bottom: 0; }
.what { flex: 0 0 190px; overflow-wrap: anywhere; } .what .rank { display: block; color: var(--muted);
  font-size: 0.85rem; }
.pictured { display: flex; align-items: center; gap: 10px; }
.tiles { display: flex; flex-wrap: wrap; gap: 8px; } .artist span { color: var(--muted); font-size: 0.85rem; }
.tile { position: relative; border: 3px solid transparent; border-radius: 10px; }
.tile.right { border-color: var(--good); } .tile.wrong { border-color: var(--line); }
.tile i { position: absolute; right: -7px; bottom: -7px; width: 18px; height: 18px; border-radius: 50%;
  font: 700 11px/18px
  sans-serif; text-align: center; color: var(--surface); background: var(--good); }
.tile.wrong i { background: var(--muted); }
img { display: block; width: 58px; height: 58px; object-fit: contain; padding: 3px; border-radius: 7px;
  background: #fff; }
.tiles.large { flex: 0 0 auto; } img.large { width: 96px; height: 96px; padding: 0;
  image-rendering: pixelated; outline: 1px solid var(--line); } .scroll + .note { margin-top: 12px; }
.what.wide { flex: 1 1 260px; }
.looks { align-items: flex-start; gap: 8px; } figure { margin: 0; width: 96px; }
figure img { margin-bottom: 4px; } figcaption { font-size: 0.85rem; text-align: center; overflow-wrap: anywhere; }
.heat { width: 100%; max-width: 680px; height: auto; } .heat text { font-size: 11px; fill: var(--text); }
.truth { stroke: var(--text); stroke-width: 2; }
.scale { display: inline-block; width: 160px; height: 12px; border-radius: 3px; vertical-align: middle; }
details { border-top: 1px solid var(--line); padding: 8px 0; } summary { cursor: pointer; font-weight: 600; }
dl { display: grid; grid-template-columns: minmax(150px, max-content) 1fr; gap: 2px 16px; margin: 8px 0;
  font-size: 0.9rem; }
dt { color: var(--muted); } dd { margin: 0; overflow-wrap: anywhere;
  font-family: ui-monospace, "Liberation Mono", monospace; }
@media (max-width: 620px) { .what { flex-basis: 100%; } img { width: 48px; height: 48px; }
  header { padding-top: 20px; }
  section { padding: 14px; } dl { grid-template-columns: 1fr; } dd { margin-bottom: 6px; } }
"""
