# SPDX-License-Identifier: GPL-2.0-only
"""VMMs are started by their templates, machines go on in another process, and one that begins anew and anew is stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kvmtest import cli
from kvmtest.model.verdict import Verdict
from kvmtest.observer import monitor, vmm
from kvmtest.observer.image import Options, build
from kvmtest.observer.log import Log, parse
from kvmtest.observer.templates import Machine, VmmError, kind, usual_form
from kvmtest.observer.vmm import run
from tests.observer import fakes, made
from tests.observer.wide import records
from tests.observer.wide import run as judged

pytestmark = pytest.mark.program
_QEMU = ("qemu-system-x86_64", "-accel", "tcg", "-cpu", "max")


def _restored(lost: str = "") -> Log:
    """A log whose first boot is restored before its reset; without the value of an item, if one is ``lost``."""
    log = made.recorded()
    first = log.boots[0]
    plant = first.looks[-1]
    before = made.copied(plant)._replace(method="restore")
    after = before._replace(kind="kept")
    if lost:
        after = made.copied(after)
        made.put(after, lost, 0)
    looks = [*first.looks[:-1], before, after, plant]
    return log._replace(boots=[first._replace(looks=looks, sent=["restore", *first.sent]), *log.boots[1:]])


@pytest.mark.parametrize("name", ["firecracker", "cloud-hypervisor"])
def test_a_template_gives_the_vmm_all_that_it_needs(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = fakes.program(tmp_path, name, made.printed(made.loaded()))
    assert cli.main(["vmm", program]) == 1
    seen = capsys.readouterr()
    assert "cr0 has bits 0x60000000 wrong after INIT" in seen.out and f"{name} 1.0" in seen.out and not seen.err


@pytest.mark.parametrize("name", ["firecracker", "cloud-hypervisor"])
def test_a_vmm_that_boots_kernels_alone_has_no_other_form(name: str) -> None:
    assert usual_form(kind([name])) == "pvh"
    with pytest.raises(VmmError, match="--form pvh"):
        run(Machine([name], "bios", Options(2), 5), print)


def test_a_command_with_places_has_no_template() -> None:
    assert kind(["firecracker", "{image}"]) == "other"
    with pytest.raises(VmmError, match="needs {image}"):
        kind(["crosvm", "run"])


def test_a_machine_goes_on_in_another_process(tmp_path: Path) -> None:
    program = fakes.program(tmp_path, "qemu-system-fake", made.printed(_restored()))
    seen = run(Machine([program], "bios", Options(2, ("restore", "cf9", "init")), 20), print)
    assert seen.ended and parse(seen.log) == _restored()


def test_a_machine_that_cannot_be_saved_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = fakes.program(tmp_path, "qemu-system-fake", made.printed(_restored()), refuses=True)
    assert cli.main(["vmm", "--resets", "restore", "--silence", "1", "--format", "ktap", program]) == 1
    seen = capsys.readouterr()
    assert "QEMU refuses migrate: no room" in seen.err and "none.migrate.guest.runs" in seen.out


def test_only_qemu_can_be_restored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["vmm", "--resets", "restore", "bochs"]) == 2
    assert "restore needs QEMU" in capsys.readouterr().err


def test_what_a_restored_machine_has_lost_is_a_failure() -> None:
    case = "none.migrate/bsp,amd,cpu0,boot1"
    good = records(judged(_restored()), case)
    assert good["msr.pat"].verdict is Verdict.PASS and good["dr0"].verdict is Verdict.PASS
    assert not [record for record in good.values() if record.verdict in (Verdict.FAIL, Verdict.ERROR)]
    assert "rax" not in good and "rflags" not in good and "idt.base" not in good
    for item in ("msr.pat", "dr0", "xmm3"):
        bad = records(judged(_restored(item)), case)
        assert [name for name, record in bad.items() if record.verdict is Verdict.FAIL] == [item]


def test_a_machine_that_begins_anew_and_anew_is_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    boot = made.RECORDED[: made.RECORDED.index(b"read 1 1")]
    code = f"import sys, time; open(sys.argv[2], 'wb').write({boot!r} * 4); time.sleep(60)"
    words = ["python3", "-c", code, "{image}", "{log}"]
    began = time.monotonic()
    assert cli.main(["vmm", "--form", "bios", "--resets", "cf9", "--silence", "50", *words]) == 3
    assert "a boot begins where the one before it has not ended" in capsys.readouterr().err
    assert time.monotonic() - began < 50


def _needs_qemu() -> None:
    if not shutil.which(_QEMU[0]):
        pytest.skip("no qemu-system-x86_64: apt-get install qemu-system-x86")


@pytest.mark.parametrize("script", ["yes", "while sleep 0.01; do echo; done"])
def test_a_machine_that_prints_without_end_is_stopped(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vmm, "_MOST", 1 << 20)
    monkeypatch.setattr(vmm, "_LONGEST", 1)
    (program := tmp_path / "vmm").write_text(f"#!/bin/sh\n: {{image}}\n{script}\n")
    program.chmod(0o755)
    seen = run(Machine([str(program), "{image}"], "bios", Options(2), 2), print)
    assert not seen.ended and 0 < len(seen.log) <= 1 << 20


def test_a_vmm_does_not_outlive_a_killed_kvmtest(tmp_path: Path) -> None:
    """Nor does its folder outlive the next one."""
    (tmp_path / "tmp").mkdir()
    script = f"#!/bin/sh\n: {{image}}\necho $$ >{tmp_path}/new\nmv {tmp_path}/new {tmp_path}/pid\nexec sleep 60\n"
    (program := tmp_path / "vmm").write_text(script)
    program.chmod(0o755)
    environment = os.environ | {"TMPDIR": str(tmp_path / "tmp")}
    command = [sys.executable, "-m", "kvmtest", "vmm", "--form", "bios", str(program), "{image}"]
    for number in (signal.SIGKILL, signal.SIGTERM):
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
            while not (tmp_path / "pid").exists() and process.poll() is None:
                time.sleep(0.01)
            pid = int((tmp_path / "pid").read_text())
            process.send_signal(number)
            process.wait(60)
        (tmp_path / "pid").unlink()
        end = time.monotonic() + 30
        while os.path.exists(f"/proc/{pid}/exe") and time.monotonic() < end:
            time.sleep(0.01)
        assert not os.path.exists(f"/proc/{pid}/exe")
    assert not os.listdir(tmp_path / "tmp")


def test_qemu_itself_saves_and_restores(tmp_path: Path) -> None:
    _needs_qemu()
    saved = tmp_path / "saved.json"
    words = ["vmm", "--resets", "restore,wait,restore", "--format", "json", "-o", os.fspath(saved), *_QEMU]
    assert cli.main(words) == 1
    run = json.loads(saved.read_text())
    cases = [case["name"] for case in run["cases"]]
    assert [name for name in cases if "migrate" in name] == [f"none.migrate/bsp,amd,cpu0,boot{n}" for n in (1, 2)]
    assert [name for name in cases if "outside/bsp" in name] == ["reset.outside/bsp,amd,cpu0,boot2"]


def test_the_screen_says_that_it_has_ended(tmp_path: Path) -> None:
    _needs_qemu()
    image, log, screen, socket = (tmp_path / name for name in ("image", "log", "screen", "qmp"))
    image.write_bytes(build("multiboot", Options(cpus=2)))
    words = ["-m", "64", "-smp", "2", "-vga", "std", "-display", "none", "-serial", f"file:{log}", "-kernel", os.fspath(image)]
    process = subprocess.Popen([*_QEMU, *words, "-qmp", f"unix:{socket},server=on,wait=off"])
    try:
        text, over = "", time.monotonic() + 60
        while "has ended" not in text and time.monotonic() < over:
            time.sleep(0.2)
            for _ in range(2 if socket.exists() else 0):
                # Once more: it may be half written.
                monitor.memory(os.fspath(socket), 0xB8000, 160, os.fspath(screen))
                text = screen.read_bytes()[::2].decode("latin-1").rstrip()
    finally:
        process.kill()
        process.wait()
    checksum = log.read_text().splitlines()[-1].removeprefix("crc ")
    assert text == f"KVMTEST-OBSERVER has ended: boot 1, processors 2 (hex), checksum {checksum}"
