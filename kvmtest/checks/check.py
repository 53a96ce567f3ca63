# SPDX-License-Identifier: GPL-2.0-only
"""What a check is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from kvmtest.engine.error import TriggerError
from kvmtest.judge.evidence import Checked
from kvmtest.kvm import Vcpu

__all__ = ("DEFAULT_EFFORT", "Check", "Effort", "Observation", "Stopped", "Subject", "Untestable")


class Effort(NamedTuple):
    """For what is done again and again in an order that dice choose: how many ``rounds``, and the dice's ``seed``."""

    rounds: int = 24
    seed: int = 1


DEFAULT_EFFORT = Effort()

class Untestable(Exception):
    """This host, or any host, cannot show the behaviour; the text says why."""


class Stopped(TriggerError):
    """The guest did something else than its next word, so that there is nothing to judge."""


class Subject(NamedTuple):
    """What a check may use: the ``vcpu`` it drives, and through it the VM with the other one.

    ``vendor`` is the guest's CPUID vendor, ``backend`` the vendor module that runs it. ``timeout_s`` bounds each KVM_RUN, in
    seconds.
    """

    vcpu: Vcpu
    vendor: str = "intel"
    timeout_s: float = 1.0
    effort: Effort = DEFAULT_EFFORT
    backend: str = ""


class Observation(NamedTuple):
    """What was seen, to be held against ``expected``; ``reason`` says more, ``undefined`` why it is recorded and not judged."""

    text: str
    reason: str = ""
    undefined: str = ""


class Check(NamedTuple):
    """One behaviour. ``observe`` drives a vCPU and returns what it saw, to be held against ``expected``.

    ``expected`` is "" where the manuals let nothing be expected, ``undefined`` says why a check is recorded and not judged.
    ``target`` is ``bsp`` or ``ap``. ``view`` is ``guest`` where guest code tells, ``host`` where ioctls do. A check that is
    ``alone`` gets a VM that nothing has happened to and may put memory and vCPUs into it; another one an AP with every piece of
    state planted, in a VM without memory. ``observe`` raises KvmError, TriggerError and Untestable.
    """

    event: str
    trigger: str
    name: str
    expected: str
    observe: Callable[[Subject], str | Observation]
    cite: tuple[str, ...]
    undefined: str = ""
    target: str = "ap"
    view: str = "host"
    alone: bool = False

    @property
    def id(self) -> str:
        """The result id."""
        return f"{self.event}.{self.trigger}.{self.view}.{self.name}"

    def checked(self, seen: str | Observation) -> Checked:
        """What was ``seen``, as it is judged."""
        seen = Observation(seen) if isinstance(seen, str) else seen
        return Checked(self.expected, seen.text, seen.reason, self.undefined or seen.undefined)
