"""Time and memory of calls on a GPU: by its own clock, with a cold L2 cache, and as a graph where a call can be one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.ours.contestants import Search, module
from bench.racing.timing import Samples

torch: Any = module("torch")
FLUSHED = 1 << 28  # bytes: more than twice the L2 cache of any chip


class GpuSamples(Samples):
    """Seconds between two events around the call, on the current stream; ``cpu`` is not measured. The L2 cache is
    filled with something else before, and the host is ahead of the device while it is, so that the launch of a call's
    first kernel takes no time of its own."""

    def call(self, work: Callable[[], object], number: int = 0) -> object:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        _filler().zero_()
        begin.record()
        result = work()
        end.record()
        end.synchronize()
        self.wall.append(begin.elapsed_time(end) / 1e3)
        self.cpu.append(0.0)
        self.rounds.append(number)
        return result


_kept: dict[int, Any] = {}


def _filler() -> Any:
    device = torch.cuda.current_device()
    if device not in _kept:
        _kept[device] = torch.empty(FLUSHED, dtype=torch.uint8, device="cuda")
    return _kept[device]


def extra_peak(work: Callable[[], object]) -> int:
    """Call ``work`` and return by how many bytes what torch holds on the device rose above its level before."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return int(torch.cuda.max_memory_allocated() - before)


def graphed(score: Callable[[Any, int], Any]) -> Search:
    """The same function of queries (a tensor that stays where it is) and k, replayed as a CUDA graph: no time between
    its kernels. Results are overwritten by the next call. What cannot be captured is called as it is."""
    graphs: dict[tuple[int, int], Callable[[], Any]] = {}

    def search(queries: Any, k: int) -> Any:
        key = queries.data_ptr(), k
        if key not in graphs:
            graphs.clear()  # their memory is as large as all scores
            work = lambda: score(queries, k)  # noqa: E731
            try:
                graphs[key] = _captured(work)
            except RuntimeError:
                torch.cuda.synchronize()
                graphs[key] = work
        return graphs[key]()

    return search


def _captured(work: Callable[[], Any]) -> Callable[[], Any]:
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(graph):
        result = work()

    def replay() -> Any:
        graph.replay()
        return result

    return replay
