"""What torch allocates in a block, in bytes: at the most, and what is left of it."""

from __future__ import annotations

from typing import Any

from torch.profiler import ProfilerActivity, profile


class Allocations:
    """``most`` and ``left``: bytes of the CPU's tensors made within the block, at the same time, and at its end."""

    most: int
    left: int

    def __enter__(self) -> Allocations:
        self._profile: Any = profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True)
        self._profile.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._profile.stop()
        events = self._profile.profiler.kineto_results.events()
        changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
        self.most = self.left = 0
        for _, change in changes:
            self.left += change
            self.most = max(self.most, self.left)
