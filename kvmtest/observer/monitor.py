# SPDX-License-Identifier: GPL-2.0-only
"""QEMU's monitor (QMP): what an observer asks its machine for."""

from __future__ import annotations

import contextlib
import json
import shlex
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ("MonitorError", "memory", "save", "system_reset")

#: Seconds for a reply, and for a machine to be saved: each is a matter of milliseconds.
_ANSWER_S = 60.0
_TICK_S = 0.02


class MonitorError(RuntimeError):
    """QEMU did not answer, or refused; the message says what."""


@contextlib.contextmanager
def _asking(path: str) -> Iterator[Callable[..., Any]]:
    with socket.socket(socket.AF_UNIX) as to:
        to.settimeout(_ANSWER_S)
        try:
            to.connect(path)
            file = to.makefile("rw", encoding="utf-8")
            file.readline()
        except OSError as error:
            raise MonitorError(f"QEMU's monitor: {error.strerror or error}") from None

        def ask(order: str, **arguments: object) -> Any:
            try:
                file.write(json.dumps({"execute": order, "arguments": arguments}) + "\n")
                file.flush()
                while line := file.readline():
                    answer = json.loads(line)
                    if "error" in answer:
                        raise MonitorError(f"QEMU refuses {order}: {answer['error'].get('desc')}")
                    if "return" in answer:
                        return answer["return"]
            except (OSError, ValueError) as error:
                raise MonitorError(f"QEMU does not answer to {order}: {error}") from None
            raise MonitorError(f"QEMU ended before it answered to {order}")

        with file:
            ask("qmp_capabilities")
            yield ask


def system_reset(path: str) -> None:
    """Reset the machine whose monitor is the socket ``path``. Raises MonitorError."""
    with _asking(path) as ask:
        ask("system_reset")


def memory(path: str, address: int, size: int, to: str) -> None:
    """Write ``size`` bytes of the machine's memory into the file ``to``. Raises MonitorError."""
    with _asking(path) as ask:
        ask("pmemsave", val=address, size=size, filename=to)


def save(path: str, to: str) -> None:
    """Save the machine in the file ``to``, for ``-incoming``; it does not go on. Raises MonitorError."""
    with _asking(path) as ask:
        ask("migrate", uri=f"exec:cat > {shlex.quote(to)}")
        over = time.monotonic() + _ANSWER_S
        while (status := ask("query-migrate").get("status")) != "completed":
            if status in ("failed", "cancelled") or time.monotonic() > over:
                raise MonitorError("QEMU cannot save the machine")
            time.sleep(_TICK_S)
