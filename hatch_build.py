# SPDX-License-Identifier: GPL-2.0-only
"""Assembles the guests for a wheel that is built from a clean tree; adds its man page and completions."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class GuestsHook(BuildHookInterface):  # type: ignore[type-arg]
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        # The wheel holds code for the vCPU, and of the host's only what it can do without: it stays a pure Python one.
        if version == "editable":
            return
        root = pathlib.Path(self.root)
        try:
            subprocess.run(["make", "-s", "-C", str(root / "guests")], check=True)
        except FileNotFoundError:
            # A source distribution brings the guests built: no make is needed then.
            if not any((root / "kvmtest" / "guests").glob("*.sym")):
                raise RuntimeError("the guests could not be assembled: make and binutils are needed") from None
        except subprocess.CalledProcessError as error:
            raise RuntimeError("the guests could not be assembled: binutils are needed") from error
        build_data["shared_data"].update(self._shared(root))

    def _shared(self, root: pathlib.Path) -> dict[str, str]:
        """The man page and the shells' completions: where they are made, and where they go below sys.prefix."""
        sys.path[:0] = [str(root), str(root / "docs")]
        import generate

        folder = root / "build" / "generated"
        generate.main(folder)
        return {str(folder / path): path for path in generate.PATHS}
