"""Tables of the report, for the page and as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import Any, NamedTuple

from bench.reporting import words
from bench.reporting.reading import Ablation, Row, Run

Shown = Callable[[Any], str]
NUMBER = ' class="number"'


class Table(NamedTuple):
    """``cells`` are (what to sort by, what to read)."""

    title: str
    heading: Sequence[str]
    cells: Sequence[Sequence[tuple[Any, str]]]


def _text(value: Any) -> str:
    return str(value)


def _share(value: float) -> str:
    return f"{value:.3f}"


def _yes(value: bool) -> str:
    return "✓" if value else "no"


RUN: dict[str, tuple[str, Shown]] = {
    "workload": ("workload", _text),
    "contestant": ("contestant", _text),
    "threads": ("threads", _text),
    "exact": ("exact", _yes),
    "recall": ("recall", _share),
    "p20_ms": ("p20 ms", words.short),
    "p50_ms": ("p50 ms", words.short),
    "p80_ms": ("p80 ms", words.short),
    "ms_per_query": ("ms/query", words.short),
    "vs_best_peer": ("x peer", words.short),
    "gb_per_s": ("GB/s", words.short),
    "gop_per_s": ("Gop/s", words.short),
    "of_ceiling": ("of ceiling", "{:.0%}".format),
    "bound": ("bound by", _text),
    "joules": ("J", words.short),
    "extra_mb": ("+MB", words.short),
    "bytes_per_vector": ("B/vector", words.short),
}
CELLS: dict[str, tuple[str, Shown]] = {
    "cell": ("cell", _text),
    "family": ("family", _text),
    "exactness": ("exactness", _text),
    "k": ("k", _text),
    "recall": ("recall", _share),
    "ndcg_10": ("nDCG@10", _share),
    "mrr_10": ("MRR@10", _share),
    "p_value": ("p", "{:.2g}".format),
    "b1_p50_ms": ("p50 ms", words.short),
    "b1_p95_ms": ("p95 ms", words.short),
    "b1_p99_ms": ("p99 ms", words.short),
    "b1_cpu_ratio": ("CPU / other's", words.short),
    "queries_per_s": ("queries/s", words.short),
    "build_s": ("build s", words.short),
    "memory_bytes": ("memory", words.memory),
    "disk_bytes": ("disk", words.memory),
}
CLAIMS: dict[str, tuple[str, Shown]] = {
    "says": ("claim", _text),
    "verdict": ("verdict", _text),
    "figure": ("here", lambda value: words.short(float(value))),
    "published": ("to reach", _text),
    "measure": ("what", _text),
    "source": ("source", _text),
}


def _made(title: str, columns: dict[str, tuple[str, Shown]], rows: Sequence[Row]) -> Table:
    """Without the columns in which nothing is."""
    kept = [name for name in columns if any(row.get(name) not in (None, "") for row in rows)]
    cells = [[_cell(row.get(name), columns[name][1]) for name in kept] for row in rows]
    return Table(title, [columns[name][0] for name in kept], cells)


def _cell(value: Any, shown: Shown) -> tuple[Any, str]:
    return ("", "") if value in (None, "") else (value, shown(value))


def of_run(run: Run) -> Iterator[Table]:
    for table in dict.fromkeys(str(row["table"]) for row in run.timed):
        yield _made(words.title(table), RUN, [row for row in run.timed if row["table"] == table])


def of_ablation(results: Ablation) -> Iterator[Table]:
    for name, rows in results.collections.items():
        yield _made(f"{name}: {rows[0]['n_docs']:,} documents, {rows[0]['n_queries']:,} queries", CELLS, rows)
    if results.claims:
        yield _made("Published claims", CLAIMS, results.claims)


def absent(results: Ablation | Run) -> list[str]:
    """Who has no figures, and why; a reason once."""
    if isinstance(results, Run):
        rows = [row for row in results.rows if not row["p50_ms"]]
        why = dict.fromkeys((str(row["contestant"]), str(row["note"])) for row in rows)
    else:
        rows = [row for row in results.rows if row["status"] != "ok"]
        why = dict.fromkeys((f"{row['cell']} ({row['status']})", str(row["reason"])) for row in rows)
    return [f"{name}: {reason or 'no reason was given'}" for name, reason in why]


def html(table: Table) -> str:
    heading = ""
    for at, name in enumerate(table.heading):
        numbers = any(_sorting(row[at][0]) for row in table.cells)
        heading += f'<th scope="col"{NUMBER * numbers}><button type="button">{escape(name)}</button></th>'
    lines = []
    for row in table.cells:
        cells = [f"<td{_sorting(value)}>{escape(text)}</td>" for value, text in row]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    body = "\n".join(lines)
    title = escape(table.title)
    return (
        f'<h3>{title}</h3>\n<div class="wide" tabindex="0" role="region" aria-label="{title}">'
        f"<table>\n<thead><tr>{heading}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def _sorting(value: Any) -> str:
    """The number that a column is sorted by, where it is one."""
    return f'{NUMBER} data-value="{float(value)}"' if isinstance(value, (int, float)) else ""


def markdown(tables: Sequence[Table]) -> str:
    """A section for each."""
    sections = []
    for table in tables:
        lines = [f"## {_plain(table.title)}", "", _line(table.heading), "|---" * len(table.heading) + "|"]
        sections.append("\n".join([*lines, *(_line([text for _, text in row]) for row in table.cells), ""]))
    return "\n".join(sections)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_plain(each) for each in cells)} |"


def _plain(text: str) -> str:
    """Nothing of it is Markdown or HTML."""
    text = escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{sign}" if sign in "\\`*_[]|#!" else sign for sign in text)
