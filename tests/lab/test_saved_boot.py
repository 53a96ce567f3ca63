# SPDX-License-Identifier: GPL-2.0-only
"""Guests that are saved once they have booted, with an emulator that is none: it answers on its monitor as QEMU does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kvmtest.lab.cell import Cell
from kvmtest.lab.kernels import Kernel
from kvmtest.lab.steps import Remark, Spec, Step

#: A guest that waits, and is saved and restored by its monitor; REFUSED is a command that QEMU does not know.
_QEMU = """
import json, re
memory = next(a.split("mem-path=")[1] for a in sys.argv if "mem-path=" in a) if "-fw_cfg" in sys.argv else ""
restores = "-incoming" in sys.argv
how = "restored" if restores else "saving" if memory else "plain"
open("LOG", "a").write(how + chr(10))
if memory and not restores:
    with open(memory, "wb") as file:
        file.truncate(1 << 20)
        file.write(b"in RAM")
    say("W")
if memory:
    into, answers = open("monitor.in"), open("monitor.out", "w")
    print(json.dumps({"QMP": {}}), file=answers, flush=True)
    for line in into:
        asked = json.loads(line)
        name, uri = asked["execute"], asked["arguments"].get("uri", "")
        answer = {"return": {}}
        if name == "REFUSED":
            answer = {"error": {"desc": "no such thing"}}
        elif name == "migrate":
            os.system("echo state | " + uri.removeprefix("exec:"))
        elif name == "query-migrate":
            answer = {"return": {"status": "completed"}}
        elif name == "migrate-incoming":
            state = os.popen(uri.removeprefix("exec:")).read()
            order = next(a.split("file=")[1] for a in sys.argv if a.startswith("name=opt/"))
            assert state == "state\\n" and b"'modules'" in repr(__import__("marshal").load(open(order, "rb"))).encode()
        print(json.dumps({"event": "SOMETHING"}), file=answers)
        print(json.dumps(answer), file=answers, flush=True)
        if name == "quit":
            sys.exit()
        if name == "migrate-incoming":
            break
"""
_GOOD = "RESTORED\nbegin()\nran('init.msi.host.ram', 'pass')\nsay('E')\n"


@pytest.fixture
def qemu(fake: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that says how often it was started and how; a cache of the test's own, with the initramfs of all."""
    shared = Path(os.environ["XDG_CACHE_HOME"]) / "kvmtest" / "initramfs"
    shared.mkdir(parents=True, exist_ok=True)
    own = fake / "cache" / "kvmtest"
    own.mkdir(parents=True)
    (own / "initramfs").symlink_to(shared)
    monkeypatch.setenv("XDG_CACHE_HOME", str(fake / "cache"))
    yield fake / "log"


def _play(
    kernel: Kernel, log: Path, monkeypatch: pytest.MonkeyPatch, restored: str = "", refused: str = "", **spec: object
) -> list[Step]:
    script = _QEMU.replace("LOG", str(log)).replace("REFUSED", refused or "-")
    monkeypatch.setenv("FAKE", script + _GOOD.replace("RESTORED", f"if restores:\n    {restored or 'pass'}"))
    log.write_text("")
    return list(Cell(Spec("svm", kernel, **spec)).steps())  # type: ignore[arg-type]


def _verdicts(steps: list[Step]) -> list[tuple[str, str]]:
    return [(r.id, r.verdict) for step in steps if isinstance(step, list) for one in step for r in one.results]


_PASSES = [("init.msi.host.ram", "pass"), ("none.lab.kernel.log", "pass")]


def _remarks(steps: list[Step]) -> str:
    return "\n".join(step.text for step in steps if isinstance(step, Remark))


def _kept(log: Path) -> list[Path]:
    return [path for path in (log.parent / "cache" / "kvmtest" / "boots").iterdir() if not path.name.startswith(".new-")]


def test_it_is_saved_by_the_first_cell_and_restored_by_each(qemu: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _play(kernel, qemu, monkeypatch)
    assert qemu.read_text().split() == ["saving", "restored"]
    second = _play(kernel, qemu, monkeypatch)
    assert qemu.read_text().split() == ["restored"]
    assert _verdicts(first) == _verdicts(second) == _PASSES
    assert not _remarks(first + second)
    assert [path.name for path in sorted(_kept(qemu)[0].iterdir())] == ["memory", "state", "sums"]


def test_another_kernel_has_its_own(qemu: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    _play(kernel, qemu, monkeypatch)
    with open(kernel.image, "ab") as file:
        file.write(b"another one")
    _play(kernel, qemu, monkeypatch)
    assert qemu.read_text().split() == ["saving", "restored"]
    assert len(_kept(qemu)) == 2


def test_the_oldest_ones_go(qemu: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(6):
        with open(kernel.image, "ab") as file:
            file.write(b"another one")
        _play(kernel, qemu, monkeypatch)
        newest = max(_kept(qemu), key=lambda path: path.stat().st_mtime)
    assert len(_kept(qemu)) == 4
    assert newest in _kept(qemu)


@pytest.mark.parametrize("spec", [{"fresh_boot": True}, {"parameters": {"kvm_amd": "npt=0", "built_in": "x=1"}}])
def test_a_cell_that_boots_leaves_it_alone(
    spec: dict[str, object], qemu: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = _play(kernel, qemu, monkeypatch, **spec)
    assert qemu.read_text().split() == ["plain"]
    assert _verdicts(steps) == _PASSES and not _remarks(steps)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda boot: _flip(boot / "memory"),
        lambda boot: _flip(boot / "state"),
        lambda boot: os.truncate(boot / "memory", 4096),
        lambda boot: os.truncate(boot / "state", 0),
        lambda boot: (boot / "state").unlink(),
        lambda boot: (boot / "sums").unlink(),
        lambda boot: (boot / "sums").write_text("{"),
    ],
)
def test_a_damaged_one_is_reported_and_the_kernel_booted(
    damage: object, qemu: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    _play(kernel, qemu, monkeypatch)
    damage(_kept(qemu)[0])  # type: ignore[operator]
    steps = _play(kernel, qemu, monkeypatch)
    assert "saving" not in qemu.read_text() and qemu.read_text().split()[-1] == "plain"
    assert "damaged" in _remarks(steps) and _verdicts(steps) == _PASSES
    assert not _kept(qemu)
    _play(kernel, qemu, monkeypatch)
    assert qemu.read_text().split() == ["saving", "restored"]


@pytest.mark.parametrize("command", ["migrate-set-capabilities", "migrate", "migrate-incoming"])
def test_a_qemu_that_cannot_do_it_boots(command: str, qemu: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = _play(kernel, qemu, monkeypatch, refused=command)
    assert f"QEMU refuses {command}: no such thing; booting afresh" in _remarks(steps)
    assert qemu.read_text().split()[-1] == "plain"
    assert _verdicts(steps) == _PASSES
    assert not _kept(qemu)


def test_a_restored_guest_that_does_not_start_is_booted(qemu: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = _play(kernel, qemu, monkeypatch, restored="sys.exit(1)")
    assert qemu.read_text().split() == ["saving", "restored", "plain"]
    assert "the saved boot does not continue: QEMU exited with status 1; booting afresh" in _remarks(steps)
    assert _verdicts(steps) == _PASSES


def test_one_that_dies_later_is_not_run_again(qemu: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = _play(kernel, qemu, monkeypatch, restored="begin(); os._exit(1)")
    assert qemu.read_text().split() == ["saving", "restored"]
    assert ("none.lab.kernel.run", "error") in _verdicts(steps)
    assert len(_kept(qemu)) == 1


def test_a_kernel_that_does_not_boot_is_not_booted_twice(qemu: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE", f"open({str(qemu)!r}, 'a').write('x'); sys.exit(1)")
    steps = list(Cell(Spec("svm", kernel)).steps())
    assert qemu.read_text() == "x"
    assert _verdicts(steps) == [("none.lab.kernel.boot", "error")]
    assert not list((qemu.parent / "cache" / "kvmtest" / "boots").iterdir())


def test_no_room_is_reported_and_the_kernel_booted(qemu: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvmtest.lab.saved_boot._ROOM", 1 << 60)
    steps = _play(kernel, qemu, monkeypatch)
    assert "has room for" in _remarks(steps)
    assert qemu.read_text().split() == ["plain"] and _verdicts(steps) == _PASSES


def test_several_at_once_all_run(qemu: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    _play(kernel, qemu, monkeypatch, fresh_boot=True)  # sets $FAKE
    with ThreadPoolExecutor(3) as pool:
        steps = list(pool.map(lambda _: list(Cell(Spec("svm", kernel)).steps()), range(3)))
    assert [_verdicts(cell) for cell in steps] == [_PASSES] * 3
    assert not any(map(_remarks, steps))
    assert len(_kept(qemu)) == 1
