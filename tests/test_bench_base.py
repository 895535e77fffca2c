"""``bench.run --base``: two commits side by side, and a verdict that knows noise."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rich")
pytest.importorskip("tqdm")

from bench import run
from bench.limits import machine
from bench.racing import base

TINY = ["--op", "dense_topk", "--shapes", "n300-d8-q2-k5", "--backends", "numpy", "--peers", "none", "--base", "HEAD"]
NOTHING = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"  # git's empty tree


def in_git() -> None:
    if not (base.ROOT / ".git").exists():
        pytest.skip("this is no git checkout")


def test_a_verdict_knows_noise() -> None:
    rng = np.random.default_rng(0)
    noise = rng.lognormal(0, 0.02, 31)
    later, sooner = (1.08 * noise).tolist(), (noise / 1.08).tolist()
    assert base.difference(later).verdict.startswith("faster by 1.0")
    assert base.difference(sooner).verdict.startswith("slower by 1.0")
    assert base.difference(noise.tolist()).verdict.startswith("no difference shown: 1.00 [0.9")
    wide = base.difference((1.08 * rng.lognormal(0, 1, 31)).tolist())
    assert wide.low < 1 < wide.high
    assert base.difference([2.0] * 11) == (2.0, 2.0, 2.0)
    assert base.difference([0.5] * 11).verdict == "slower by 2.00 [2.00, 2.00]"


def test_this_commit_is_compared_with_itself() -> None:
    in_git()
    before = listed()
    lines = list(base.compare("HEAD", TINY, 0.1, 3))
    assert [line.contestant for line in lines] == [f"pyengine-{each}@numpy" for each in ("int8", "float32", "topk")]
    for line in lines:
        assert line.workload == "n300-d8-q2-k5"
        if line.found is None:
            assert line.note, line
            continue
        assert 0 < line.found.low <= line.found.ratio <= line.found.high
        assert line.now_ms
    assert any(line.found for line in lines)
    assert before == listed()


WAITS = """
import sys, time
from bench.racing import base
base.remove_left()
with base.checked_out("HEAD") as tree:
    print(tree, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_who_is_stopped_leaves_no_worktree(number: int, tmp_path: Path) -> None:
    """A kill -9 does, until the next run. A run that goes on keeps its own."""
    in_git()
    environment, command = {**os.environ, "TMPDIR": str(tmp_path)}, [sys.executable, "-c", WAITS]
    with subprocess.Popen(
        command, cwd=base.ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as running:
        assert running.stdout is not None
        tree = running.stdout.readline().strip()
        assert tree in listed()
        assert (Path(tree) / "bench" / "run.py").is_file()
        base.remove_left()
        assert tree in listed()
        running.send_signal(number)
    if number == signal.SIGTERM:
        assert running.returncode == 128 + number
    if number == signal.SIGKILL:
        assert tree in listed()
        base.remove_left()
    assert tree not in listed()
    assert not list(tmp_path.iterdir())


def test_a_build_ends_with_all_that_it_started(tmp_path: Path) -> None:
    """cmake starts ninja, and ninja compilers, which would go on in a folder that is being removed."""
    script = "import subprocess, sys; subprocess.run(['sleep', '60.25'])"
    outer = f"from bench.racing import base; base._run_whole([{sys.executable!r}, '-c', {script!r}], {str(tmp_path)!r})"
    running = subprocess.Popen([sys.executable, "-c", outer], cwd=base.ROOT, stderr=subprocess.DEVNULL)
    sleeping: set[str] = set()
    while not sleeping:
        sleeping = {path.parent.name for path in Path("/proc").glob("[0-9]*/cmdline") if b"60.25" in _said(path)[:20]}
    running.send_signal(signal.SIGINT)
    running.wait()
    for _ in range(100):
        if not any((Path("/proc") / each).exists() for each in sleeping):
            return
        time.sleep(0.05)
    pytest.fail(f"{sleeping} go on")


def _said(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended
        return b""


def listed() -> str:
    command = ["git", "worktree", "list"]
    return subprocess.run(command, cwd=base.ROOT, capture_output=True, text=True, check=True).stdout


def test_an_unknown_commit_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    in_git()
    monkeypatch.setattr(machine, "rerun_fairly", lambda threads: None)
    assert run.main([*TINY[:-1], "nowhere"]) == 2
    told = capsys.readouterr().err
    assert told == "bench.run: --base must be a commit of this repository; git finds none for 'nowhere'\n"


def test_an_extension_of_other_sources_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_git()
    (tmp_path / "pyengine").mkdir()
    built: list[str] = []
    monkeypatch.setattr(base, "build", lambda tree, revision: built.append(revision))
    base._provide_extension(tmp_path, NOTHING, "old")
    assert built == ["old"]
    monkeypatch.setattr(base, "SOURCES", ("no such file",))
    base._provide_extension(tmp_path, NOTHING, "same")
    assert built == ["old"]
    ours = {each.name for each in (base.ROOT / "pyengine").glob("_native*.so")}
    assert {each.name for each in (tmp_path / "pyengine").iterdir()} == ours


def test_what_does_not_build_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"^--base") as error:
        base.build(tmp_path, "HEAD~9")
    assert "\n" not in str(error.value)


def test_what_cannot_run_says_why() -> None:
    with (
        pytest.raises(RuntimeError, match=r"^--base: old cannot run this benchmark: .*nothing is called 'x'"),
        base._started(base.ROOT, ["--op", "x"], "old"),
    ):
        pass


def test_base_does_not_save(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run.parse([*TINY, "--save"])
    assert "--save does not go with --base" in capsys.readouterr().err
    assert base._without_base(["--op", "a", "--base", "b", "--base=c", "d"]) == ["--op", "a", "d"]
