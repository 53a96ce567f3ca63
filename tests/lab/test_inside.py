# SPDX-License-Identifier: GPL-2.0-only
"""The program inside, as far as it can be tried outside."""

from __future__ import annotations

import subprocess
import sys
import zlib

#: The main thread ends alone, as where the kernel kills it in a system call: nothing of Python gets to know.
_MAIN_DIES = """
import ctypes, os, sys, threading, time
from kvmtest.lab import inside
from kvmtest.lab.stream import Encoder
inside._BEAT_S = 0.02
beats = 0
def write(data):
    global beats
    beats += 1
    os.write(1, data)
threading.Thread(target=inside._beat, args=(Encoder(write),), daemon=True).start()
while beats < 3:
    time.sleep(0.01)
os.write(1, b"")
ctypes.CDLL(None).syscall(60, 0)  # exit(2), of this thread
"""


def test_signs_of_life_end_with_the_thread_that_works() -> None:
    """And the process with them, at which the kernel panics if it is process 1."""
    done = subprocess.run([sys.executable, "-c", _MAIN_DIES], capture_output=True, timeout=60)
    assert done.returncode == 0 and not done.stderr
    beats = zlib.decompressobj().decompress(done.stdout).splitlines()
    assert len(beats) >= 3 and set(beats) == {b"h"}
