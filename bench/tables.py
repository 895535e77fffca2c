"""The tables by name: who takes part in each, and which module makes entries of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from tqdm import tqdm

from bench import (
    compress,
    gpu_contestants,
    lexicon,
    life,
    searches,
    sparse_contestants,
    sparse_life,
    sparse_peers,
    token_contestants,
    token_peers,
    training,
    write_tables,
)
from bench.arena import Arena
from bench.contestants import FORCED, OURS, Unavailable
from bench.filters import FILTERING
from bench.gpu_arena import GpuArena, GpuSparseArena, GpuTokenArena
from bench.peers import PEERS
from bench.race import Entry, Settings, race
from bench.row import Row
from bench.shapes import Heat
from bench.sparse_arena import SparseArena
from bench.token_arena import TokenArena

Key = TypeVar("Key")


class Table(NamedTuple):
    """``entries(heat, arena, contestants)`` makes those of the contestants who are to be raced; ``extra`` are only
    where they are named. ``arena`` is of the family."""

    contestants: tuple[Any, ...]
    entries: Callable[[Heat, Any, Sequence[Any]], list[Entry]]
    extra: tuple[Any, ...] = ()
    arena: type[Arena] = Arena


SEARCHES = Table((*OURS, *PEERS), searches.entries, FORCED)
TABLES = {
    "search": SEARCHES,
    "memory": SEARCHES,
    "binary": Table(compress.BINARY, compress.binary_entries),
    "residual": Table(compress.RESIDUAL, compress.residual_entries),
    "build": Table(life.BUILDING, life.entries),
    "save": Table(life.SAVING, life.entries),
    "load": Table(life.LOADING, life.entries),
    "batches": Table((OURS[0], *PEERS[:2]), searches.entries, FORCED),
    "k": SEARCHES,
    "filters": Table(FILTERING, searches.entries),
    "threads": Table(OURS[:1], searches.entries, FORCED),
    "maxsim": Table((*token_contestants.OURS, *token_peers.PEERS), searches.entries, arena=TokenArena),
    "training": Table(training.TRAINERS, training.entries, arena=TokenArena),
    "codecs": Table(token_contestants.CODECS, compress.residual_entries, arena=TokenArena),
    "sparse": Table(
        (*sparse_contestants.OURS, *sparse_peers.PEERS, sparse_peers.SEISMIC), searches.entries, arena=SparseArena
    ),
    "bm25": Table(
        (*sparse_contestants.OURS, *sparse_peers.TEXT_PEERS, *sparse_peers.PEERS),
        searches.entries,
        (sparse_peers.SEISMIC,),
        SparseArena,
    ),
    "postings": Table(sparse_contestants.KEPT, compress.residual_entries, sparse_contestants.SLOW, SparseArena),
    "sparse-build": Table(sparse_life.BUILDING, life.entries, sparse_life.SLOW, SparseArena),
    "gpu-dense": Table(gpu_contestants.DENSE, searches.entries, arena=GpuArena),
    "gpu-maxsim": Table(gpu_contestants.MAXSIM, searches.entries, arena=GpuTokenArena),
    "gpu-training": Table(gpu_contestants.TRAINING, training.entries, arena=GpuTokenArena),
    "gpu-sparse": Table(gpu_contestants.SPARSE, searches.entries, arena=GpuSparseArena),
    "lexicon": Table(lexicon.SIDES, lexicon.entries, arena=SparseArena),
}


def names(tables: Iterable[str] = TABLES) -> list[str]:
    """Of all contestants in those tables, also of those who take part only where they are named."""
    found = (who.name for table in tables for who in (*TABLES[table].contestants, *TABLES[table].extra))
    return list(dict.fromkeys(found))


def racing(heat: Heat, wanted: Collection[str] = ()) -> list[Any]:
    """Who takes part in that heat: whoever is wanted, or, where that is nobody in particular, all of the table or those
    that the heat names."""
    table = TABLES[heat.table]
    if wanted:
        return [who for who in (*table.contestants, *table.extra) if who.name in wanted]
    return [who for who in table.contestants if not heat.racing or who.name in heat.racing]


def measure(
    heats: Sequence[Heat], settings: Settings, wanted: Collection[str] = (), done: Callable[[list[Row]], object] = len
) -> list[Row]:
    """A row for everybody at every workload; ``done`` gets all there are after each heat. A corpus is made once for all
    the heats over it."""
    rows: list[Row] = []
    heats = [heat for heat in heats if racing(heat, wanted)]
    with tqdm(total=len(heats), unit="heat", disable=None) as bar:
        for corpus, same in grouped(heats):
            bar.set_postfix_str(f"making {corpus.describe()}")
            for found in _over(corpus, same, settings, wanted, bar.set_postfix_str):
                rows += found
                for part in _by_workload(found):
                    bar.write(write_tables.progress(part))
                bar.update()
                done(rows)
    return rows


def _over(
    corpus: Any, heats: Sequence[Heat], settings: Settings, wanted: Collection[str], say: Callable[[str], None]
) -> Iterable[list[Row]]:
    """The rows of each heat over one corpus."""
    try:
        made = TABLES[heats[0].table].arena(
            corpus, max(each.n_queries for heat in heats for each in heat.workloads), settings
        )
    except (FileNotFoundError, Unavailable, MemoryError) as error:
        yield from (_nobody(heat, settings, str(error)) for heat in heats)
        return
    with made as arena:
        for heat in heats:
            say(f"{heat.table} {heat.workloads[-1].name}")
            try:
                entries = TABLES[heat.table].entries(heat, arena, racing(heat, wanted))
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
