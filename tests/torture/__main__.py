# SPDX-License-Identifier: GPL-2.0-only
"""`make torture`: faults of all kinds in a random order, with kvmtest's promises checked after each.

The seed is printed: with it and the number of a fault (--from N --count 1) the same is done again, as far as time allows.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from tests.torture import cells, faults, files, machine, rules

_KINDS = faults.KINDS | machine.KINDS | files.KINDS | cells.KINDS


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make torture ARGS=...", description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--time", type=float, default=3600.0, metavar="S", help="seconds (default: 3600)")
    parser.add_argument("--count", type=int, default=0, metavar="N", help="end after so many faults")
    parser.add_argument("--from", type=int, default=0, metavar="N", dest="first", help="the number of the first one")
    parser.add_argument("--seed", type=int, default=None, help="default: another one each time, which is printed")
    parser.add_argument("--only", action="append", choices=sorted(_KINDS), help="only this kind of fault; may be repeated")
    parser.add_argument("--real", action="store_true", help="with cells of real kernels, which take half a minute each")
    parser.add_argument("--keep", metavar="DIR", help="where to leave what a broken promise was found with")
    return parser.parse_args()


def _device() -> str:
    """Return why nothing can be run here; "" if it can."""
    from kvmtest.engine import doctor

    try:
        doctor.open_kvm("/dev/kvm").close()
    except doctor.Unusable as error:
        return str(error)
    return ""


def _import_all() -> None:
    """Import before forking what all forks need."""
    from kvmtest import cli
    from kvmtest.engine import plan

    cli.parser()
    plan.ids(plan.plan())
    import kvmtest.compare.changes
    import kvmtest.emit.c
    import kvmtest.engine.run
    import kvmtest.report.html
    import kvmtest.series  # noqa: F401


def main() -> int:
    """Run faults; 1 where a promise was broken, 3 where nothing can be run."""
    args = _arguments()
    if why := _device():
        print(f"torture: {why}", file=sys.stderr)
        return 3
    seed = args.seed if args.seed is not None else int.from_bytes(os.urandom(4), "little")
    print(f"torture: seed {seed}", flush=True)
    _import_all()
    kinds = {name: kind for name, kind in _KINDS.items() if not args.only or name in args.only}
    if not args.real and not args.only:
        kinds.pop("real", None)
    counts: Counter[str] = Counter()
    broken: Counter[str] = Counter()
    begin, number = time.monotonic(), args.first
    folder = Path(tempfile.mkdtemp(prefix="kvmtest-torture-"))
    native = faults.Native(folder)
    try:
        while time.monotonic() - begin < args.time and (not args.count or number < args.first + args.count):
            rng = random.Random(f"{seed}/{number}")
            name = rng.choices(list(kinds), [weight or bool(args.only) for weight, _ in kinds.values()])[0]
            try:
                counts[kinds[name][1](native, rng)] += 1
            except rules.Broken as error:
                counts[name] += 1
                rule = str(error).partition(":")[0]
                broken[rule] += 1
                print(f"torture: BROKEN --seed {seed} --from {number} --count 1: {name}: {error}", flush=True)
                _keep(args.keep, folder, f"{seed}-{number}")
            except subprocess.SubprocessError:
                traceback.print_exc()
                broken["the torture itself"] += 1
            number += 1
            _clear(folder)
    except KeyboardInterrupt:
        print("torture: interrupted", flush=True)
    finally:
        for path in (folder, *native.besides):
            shutil.rmtree(path, ignore_errors=True)
    for what, count in sorted(counts.items()):
        print(f"{count:6} {what}")
    took = f"{time.monotonic() - begin:.0f} s"
    print(f"torture: seed {seed}: {sum(counts.values())} faults in {took}, {sum(broken.values())} broken promises")
    for rule, count in broken.most_common():
        print(f"torture: {count} times: {rule}")
    return 1 if broken else 0


def _keep(to: str | None, folder: Path, name: str) -> None:
    """Leave what a broken promise was found with."""
    for path in folder.glob("broken-*"):
        if to:
            os.makedirs(to, exist_ok=True)
            shutil.copy(path, os.path.join(to, f"{name}-{path.name}"))
        path.unlink()


def _clear(folder: Path) -> None:
    """Remove what a fault left that broke a promise."""
    for path in folder.iterdir():
        if path.is_dir():
            if os.path.ismount(path / "disk"):
                subprocess.run(["umount", str(path / "disk")], check=False)
            shutil.rmtree(path, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
