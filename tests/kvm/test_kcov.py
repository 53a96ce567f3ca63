# SPDX-License-Identifier: GPL-2.0-only
"""KCOV's interface, by a file in its place: the kernels here have none."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvmtest.kvm import kcov
from kvmtest.kvm.kcov import Kcov, KcovError

#: KCOV_INIT_TRACE, KCOV_ENABLE, KCOV_DISABLE, as the kernel's header has them: _IOR('c', 1, long), _IO('c', 100), _IO('c', 101).
_INIT, _ENABLE, _DISABLE = 2 << 30 | 8 << 16 | ord("c") << 8 | 1, ord("c") << 8 | 100, ord("c") << 8 | 101
_ENTRIES = 512


class _Fake:
    """The ioctls, by thread; a file is what each trace maps, all the same one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.calls: list[tuple[int, int, str]] = []
        self.refuse = 0
        path.write_bytes(bytes(_ENTRIES * 8))

    def ioctl(self, fd: int, request: int, argument: int) -> int:
        if request == self.refuse:
            raise OSError(16, "Device or resource busy")
        self.calls.append((request, argument, threading.current_thread().name))
        return 0

    def execute(self, *addresses: int) -> None:
        with self.path.open("r+b") as file:
            words = (len(addresses), *addresses)
            file.write(b"".join(word.to_bytes(8, "little") for word in words))


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Fake]:
    made = _Fake(tmp_path / "kcov")
    monkeypatch.setattr(fcntl, "ioctl", made.ioctl)
    monkeypatch.setattr(kcov, "_ENTRIES", _ENTRIES)
    yield made


def test_a_trace_is_made_enabled_read_and_ended(fake: _Fake) -> None:
    main = threading.current_thread().name
    trace = Kcov(str(fake.path))
    assert fake.calls == [(_INIT, _ENTRIES, main), (_ENABLE, 0, main)]
    fake.execute(0xFFFFFFFF81000005, 0xFFFFFFFFC0000012, 0xFFFFFFFF81000005)
    assert trace.take() == {0xFFFFFFFF81000005, 0xFFFFFFFFC0000012}
    assert trace.take() == set() and not trace.cut
    trace.close()
    assert fake.calls[2:] == [(_DISABLE, 0, main)]


def test_a_thread_has_a_trace_of_its_own(fake: _Fake) -> None:
    trace = Kcov(str(fake.path))

    def run() -> None:
        with trace.thread():
            fake.execute(0x10, 0x20)

    thread = threading.Thread(target=run, name="vcpu 1")
    thread.start()
    thread.join()
    assert [call for call in fake.calls if call[2] == "vcpu 1"] == [
        (_INIT, _ENTRIES, "vcpu 1"),
        (_ENABLE, 0, "vcpu 1"),
        (_DISABLE, 0, "vcpu 1"),
    ]
    assert trace.take() == {0x10, 0x20}
    trace.close()


def test_what_had_no_room_is_reported(fake: _Fake) -> None:
    trace = Kcov(str(fake.path))
    fake.execute(*range(1, _ENTRIES))
    assert len(trace.take()) == _ENTRIES - 1 and trace.cut
    trace.close()


@pytest.mark.parametrize("request_", [_INIT, _ENABLE])
def test_what_the_kernel_refuses_is_one_line(fake: _Fake, request_: int) -> None:
    fake.refuse = request_
    with pytest.raises(KcovError, match="kcov: Device or resource busy; it is root's"):
        Kcov(str(fake.path))


def test_without_it_a_line_says_which_kernels_have_it(tmp_path: Path) -> None:
    with pytest.raises(KcovError, match="a kernel with CONFIG_KCOV has it.*kvmtest lab coverage needs neither"):
        Kcov(str(tmp_path / "none"))
