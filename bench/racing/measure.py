"""Heats become rows: a corpus is made once for all heats over it, and whoever takes part is judged, then raced."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from tqdm import tqdm

from bench import registry
from bench.ours.contestants import Unavailable
from bench.racing import write_tables
from bench.racing.race import Settings, race
from bench.racing.row import Row
from bench.registry import Choice
from bench.workloads.shapes import Heat

EVERYBODY = Choice()


def measure(
    heats: Sequence[Heat], settings: Settings, choice: Choice = EVERYBODY, done: Callable[[list[Row]], object] = len
) -> list[Row]:
    """A row for everybody at every workload; ``done`` gets all there are after each heat. A corpus is made once for all
    the heats over it."""
    rows: list[Row] = []
    heats = [heat for heat in heats if registry.racing(heat, choice)]
    with tqdm(total=len(heats), unit="heat", disable=None) as bar:
        for corpus, same in grouped(heats):
            bar.set_postfix_str(f"making {corpus.describe()}")
            for found in _over(corpus, same, settings, choice, bar.set_postfix_str):
                rows += found
                for part in _by_workload(found):
                    bar.write(write_tables.progress(part))
                bar.update()
                done(rows)
    return rows


def _over(
    corpus: Any, heats: Sequence[Heat], settings: Settings, choice: Choice, say: Callable[[str], None]
) -> Iterable[list[Row]]:
    """The rows of each heat over one corpus."""
    try:
        made = registry.op_of(heats[0]).arena(
            corpus, max(each.n_queries for heat in heats for each in heat.workloads), settings
        )
    except (FileNotFoundError, Unavailable, MemoryError) as error:
        yield from (_nobody(heat, settings, str(error)) for heat in heats)
        return
    with made as arena:
        for heat in heats:
            say(f"{heat.table} {heat.workloads[-1].name}")
            try:
                entries = registry.op_of(heat).entries(heat, arena, registry.racing(heat, choice))
                yield race(heat, entries, settings)
            except Unavailable as error:
                yield _nobody(heat, settings, str(error))
            except (ArithmeticError, MemoryError) as error:
                yield _nobody(heat, settings, str(error) or "out of memory", failed=True)


def _nobody(heat: Heat, settings: Settings, why: str, failed: bool = False) -> list[Row]:
    """Nobody could take part in this heat."""
    row = partial(Row, contestant="everybody", threads=settings.threads, note=why, failed=failed)
    return [row(heat.table, each) for each in heat.workloads]


def _by_workload(rows: Sequence[Row]) -> list[list[Row]]:
    return [[row for row in rows if row.workload == each] for each in dict.fromkeys(row.workload for row in rows)]


def grouped(heats: Iterable[Heat]) -> list[tuple[Any, list[Heat]]]:
    """Heats by corpus, in the order in which the corpora first occur."""
    groups: dict[Any, list[Heat]] = {}
    for heat in heats:
        groups.setdefault(heat.corpus, []).append(heat)
    return list(groups.items())
