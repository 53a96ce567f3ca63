# SPDX-License-Identifier: GPL-2.0-only
"""A cell's specification, and the steps that it reports while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from kvmtest.engine import plan
from kvmtest.lab.kernels import Kernel
from kvmtest.lab.start import Cpu
from kvmtest.model.case import Case
from kvmtest.model.host import Host
from kvmtest.model.record import Observation
from kvmtest.model.shard import Shard
from kvmtest.scenario.program import DEFAULT_ROUNDS

__all__ = ("Alive", "Answer", "Begin", "Booting", "Executed", "Remark", "Running", "Spec", "Step", "Times")


class Spec(NamedTuple):
    """A cell to run. ``parameters`` are those of modules: ``{"kvm_amd": "npt=0 nested=1"}``; ``stress_rounds`` is rounds and
    seed of randomised cases. ``fresh_boot`` boots even if a saved boot is kept. ``cases`` are those to select from, if not the
    plan's; ``full`` selects from the full plan. ``job`` is done instead of running cases (`kvmtest.lab.job`). ``coverage`` uses
    instrumented modules and makes each case report what it executed of them. ``cpu`` is what the kernel runs on. ``shard`` is the
    part of the cases that this cell runs.
    """

    backend: str
    kernel: Kernel
    selectors: tuple[str, ...] = ()
    timeout_s: float = 1.0
    own_modules: str = ""
    parameters: dict[str, str] = {}
    stress_rounds: tuple[int, int] = DEFAULT_ROUNDS
    fresh_boot: bool = False
    cases: tuple[plan.Case, ...] = ()
    full: bool = False
    job: Any = None
    coverage: bool = False
    cpu: Cpu = Cpu()
    shard: Shard | None = None

    @property
    def name(self) -> str:
        """Short, for a column of a table."""
        return "/".join(filter(None, (self.kernel.name, self.backend, self.cpu.name)))

    @property
    def options(self) -> tuple[str, ...]:
        """The options of ``kvmtest lab run`` beside backend, kernel and modules that ask for it."""
        given = [(module, one) for module, value in sorted(self.parameters.items()) for one in value.split()]
        return (*self.cpu.options, *(word for module, one in given for word in ("--module-param", f"{module}.{one}")))


class Booting(NamedTuple):
    """The guest is not up yet: which kernel in which emulator, where it is, and for how many seconds it has booted."""

    release: str
    emulator: str
    where: str
    seconds: int

    def __str__(self) -> str:
        so_far = f", {self.seconds} s: {self.where}" if self.where else ""
        return f"booting {self.release} in {self.emulator}{so_far}"


class Begin(NamedTuple):
    """The guest is up: what KVM it has, and how many cases it will run."""

    host: Host
    cases: int


class Running(NamedTuple):
    """A case begins."""

    case: Case


class Alive(NamedTuple):
    """The guest is alive, and has been in this case for so long."""

    case: Case
    seconds: float

    def __str__(self) -> str:
        return f"alive, in {self.case.name} for {self.seconds:.0f} s"


class Answer(NamedTuple):
    """The result of a job, as the guest sent it."""

    value: Any


class Executed(NamedTuple):
    """Coverage of KVM's modules in ``case``, or before the first case. ``sections`` has the address of each section by module and
    name. ``words`` has, by address of each 64 bytes, the return addresses of calls of the recorder: bit 0 is the first byte.
    """

    case: Case | None
    sections: Mapping[tuple[str, str], int]
    words: Mapping[int, int]


class Remark(NamedTuple):
    """A note on something unusual in how the cell runs."""

    text: str

    def __str__(self) -> str:
        return self.text


class Times(NamedTuple):
    """Seconds from start to the first case, from there to the last, and to the emulator's end."""

    boot_s: float
    run_s: float
    shutdown_s: float

    def __str__(self) -> str:
        return f"boot {self.boot_s:.1f} s, run {self.run_s:.1f} s, shut-down {self.shutdown_s:.1f} s"


#: Observations come together for a case that is over, its seconds on the last one, or outside of any.
Step = Answer | Booting | Begin | Running | Alive | Executed | Remark | list[Observation] | Times
