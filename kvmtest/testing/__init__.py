# SPDX-License-Identifier: GPL-2.0-only
"""For other people's tests: compare the state of a vCPU with the manuals, load a guest.

Plain functions, of use in any test runner; `kvmtest.pytest_plugin` has fixtures on top of them.
"""

from __future__ import annotations

from .guest import Guest, GuestError, load_guest
from .judged import Judged, StateMismatch, assert_state, assert_unchanged
from .state import State, read_state, saved_state

__all__ = [
    "Guest",
    "GuestError",
    "Judged",
    "State",
    "StateMismatch",
    "assert_state",
    "assert_unchanged",
    "load_guest",
    "read_state",
    "saved_state",
]
