"""The page: one file, which asks the network for nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from bench.reporting import curves, figures, interactive, tables, words
from bench.reporting.drawing import Figure, Look, looks
from bench.reporting.reading import MACHINE, Ablation, Results, Run

FOLDER = Path(__file__).parent
MACHINE_WORDS = {"memory_gib": "memory, GiB", "isa": "instruction set", "changed_settings": "settings changed"}
FAMILIES = ("dense", "maxsim", "sparse", "hybrid")  # which keep their colours whatever else is there
# Nothing is loaded from anywhere; plotly makes pictures of blobs and data.
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def plotly() -> str:
    """plotly.js, as it comes with plotly's Python package."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise ImportError("the page needs the package plotly: pip install plotly") from None
    return str(get_plotlyjs())


def drawn(everything: Sequence[Results]) -> list[list[Figure]]:
    """The figures of each of the results."""
    made = []
    for at, results in enumerate(everything):
        of = figures.of_run(results, at) if isinstance(results, Run) else figures.of_ablation(results, at)
        made.append(list(of))
    cells = [row for each in everything if isinstance(each, Ablation) for row in each.finished]
    made.append(list(figures.scaling(curves.of_cells(cells), "cells")))
    return made


def looks_of(groups: Sequence[Sequence[Figure]]) -> dict[str, Look]:
    return looks([*FAMILIES, *(family for group in groups for each in group for family in each.families)])


def html(everything: Sequence[Results], groups: Sequence[Sequence[Figure]], script: str) -> str:
    """The whole page. ``groups`` are `drawn`, ``script`` is plotly.js."""
    look = looks_of(groups)
    data = {
        "figures": [interactive.figure(each, look) for group in groups for each in group],
        "advice": _steps(everything),
    }
    sections = [_summary(everything), *(_results(results, group) for results, group in zip(everything, groups))]
    sections += [_figures("Scaling over all cells", groups[-1])] if groups[-1] else []
    return _page(_title(everything), "\n".join(sections), data, script)


def _title(everything: Sequence[Results]) -> str:
    names = [_name(results) for results in everything]
    return f"Search measured: {', '.join(dict.fromkeys(names))}"


def _name(results: Results) -> str:
    return results.path.stem if isinstance(results, Run) else str(results.manifest.get("title", results.path.name))


def _page(title: str, body: str, data: Mapping[str, Any], script: str) -> str:
    # No text of the data can end the script that it is in.
    held = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    style, code = ((FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
{body}
</main>
<script type="application/json" id="data">{held}</script>
<script>{script}</script>
<script>
{code}</script>
</body>
</html>
"""


def _searched(everything: Sequence[Results]) -> list[tuple[str, list[Any]]]:
    """Each collection in words, and its cells."""
    found = []
    for results in everything:
        if isinstance(results, Ablation):
            for name, rows in results.collections.items():
                found.append((f"{name} ({rows[0]['n_docs']:,} documents)", rows))
    return found


def _steps(everything: Sequence[Results]) -> list[dict[str, list[words.Step]]]:
    """What page.js looks the budget up in, for each collection and percentile."""
    return [{name: words.advice(rows, name) for name in words.PERCENTILES} for _, rows in _searched(everything)]


def _summary(everything: Sequence[Results]) -> str:
    searched = _searched(everything)
    parts = ['<section id="summary"><h2>In short</h2>']
    if searched:
        choices = [
            f'<option value="{name}"{" selected" if name == words.USUAL else ""}>{escape(said)}</option>'
            for name, said in words.PERCENTILES.items()
        ]
        parts.append(
            '<form><label>Budget <input id="budget" type="number" inputmode="decimal" min="0" step="any" '
            f'value="{words.BUDGET:g}"> ms</label> '
            f'<label>for <select id="percentile">{"".join(choices)}</select></label></form>'
        )
    for name, rows in searched:
        said = words.at_budget(words.advice(rows), words.BUDGET)
        parts.append(
            f'<p>For {escape(name)} and a budget of <span class="budget">{words.BUDGET:g}</span> ms a query: '
            f'<span class="advice" aria-live="polite">{escape(said)}</span></p>'
        )
    for run in everything:
        if isinstance(run, Run):
            told = [f"<li>{escape(each)}</li>" for each in words.races(run)]
            parts.append(f"<p>{escape(_name(run))}:</p><ul>{''.join(told)}</ul>")
    return "\n".join([*parts, "</section>"])


def _results(results: Results, group: Sequence[Figure]) -> str:
    of = tables.of_run(results) if isinstance(results, Run) else tables.of_ablation(results)
    missing = [f"<li>{escape(each)}</li>" for each in tables.absent(results)]
    shown = [tables.html(table) for table in of]
    parts = [
        f"<section><h2>{escape(_name(results))}</h2>",
        _machine(results),
        *shown[:1],
        _figures("", group),
        *shown[1:],
    ]
    if missing:
        parts.append(
            f"<details><summary>Without figures: {len(missing)}</summary><ul>{''.join(missing)}</ul></details>"
        )
    return "\n".join([*parts, "</section>"])


def _machine(results: Results) -> str:
    """What it is, and what it can do at best, as far as that was measured."""
    facts = {MACHINE_WORDS.get(name, name): results.machine[name] for name in MACHINE if results.machine[name]}
    measured = figures.ceilings(str(facts.get("ceilings", "")))
    if measured:
        del facts["ceilings"]
    for threads, limits in measured.items():
        rates = ", ".join(f"{words.short(rate)} GB/s of {size} MiB" for size, rate in limits["reads"].items())
        facts |= {f"reads, {threads} thread(s)": rates} if rates else {}
        for kind in figures.PEAKS:
            peaks = {name: rate for name, rate in limits["peaks"].items() if name.split()[0] == kind}
            told = ", ".join(f"{name[len(kind) :]} {words.short(rate)}".strip() for name, rate in peaks.items())
            facts |= {f"{kind} Gop/s, {threads} thread(s)": told} if told else {}
    lines = [f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in facts.items()]
    return f'<dl class="machine">{"".join(lines)}</dl>'


def _figures(title: str, group: Sequence[Figure]) -> str:
    """With boxes to choose the families that are shown."""
    families = dict.fromkeys(family for each in group for family in each.families)
    chosen = [
        f'<label><input type="checkbox" checked data-family="{escape(name)}"> {escape(name)}</label>'
        for name in families
    ]
    parts = ['<div class="figures">', f"<h2>{escape(title)}</h2>" if title else ""]
    if len(chosen) > 1:
        parts.append(f'<fieldset class="families"><legend>Shown</legend>{"".join(chosen)}</fieldset>')
    for each in group:
        parts.append(
            f'<figure><h3>{escape(each.title)}</h3><div class="plot" id="{escape(each.key)}"></div>'
            f"<figcaption>{escape(each.note)} "
            f'<button type="button" data-format="svg" data-plot="{escape(each.key)}">SVG</button> '
            f'<button type="button" data-format="png" data-plot="{escape(each.key)}">PNG</button></figcaption></figure>'
        )
    return "\n".join([*parts, "</div>"])
