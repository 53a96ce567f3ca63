# SPDX-License-Identifier: GPL-2.0-only
"""Behaviour that is not one item: what an event must do, or must not, to a vCPU in a given state. One topic a file.

A check has a result id like an item, ``<event>.<trigger>.<view>.<name>``. It drives the vCPU, and says in a word or two what it
expected and what it saw; a message that KVM did not even deliver raises TriggerError, so that "nothing happened" is never
taken for "was ignored".
"""

from __future__ import annotations

from kvmtest.checks import stress
from kvmtest.checks.check import DEFAULT_EFFORT, Check, Effort, Observation, Stopped, Subject, Untestable

__all__ = ("CHECKS", "DEFAULT_EFFORT", "Check", "Effort", "Observation", "Stopped", "Subject", "Untestable")

#: In the order of running.
_TOPICS = (stress,)
#: By result id.
CHECKS: dict[str, Check] = {check.id: check for topic in _TOPICS for check in topic.CHECKS}
