# SPDX-License-Identifier: GPL-2.0-only
"""Runs the cases of one id prefix once a session, on the real KVM."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from kvmtest.engine import host, plan
from kvmtest.engine.doctor import Unusable, open_kvm
from kvmtest.engine.machine import Machines
from kvmtest.model.record import Result
from tests.cases import ran


@pytest.fixture(scope="session")
def machines() -> Iterator[Machines]:
    """The host's KVM; skips everything, with the reason, where there is none."""
    try:
        kvm = open_kvm("/dev/kvm")
    except Unusable as error:
        pytest.skip(str(error))
    with kvm:
        made = Machines(kvm, host.detect())
        yield made
        made.close()


@pytest.fixture(scope="session")
def results(machines: Machines) -> Callable[[str], list[Result]]:
    """All results of an id prefix <event>.<trigger>.<view>."""
    seen: dict[str, list[Result]] = {}

    def of(prefix: str) -> list[Result]:
        if prefix not in seen:
            cases = [case for case in plan.plan() if case.prefix == prefix]
            seen[prefix] = [result for case in cases for result in ran(case, machines) if result.prefix == prefix]
        return seen[prefix]

    return of
