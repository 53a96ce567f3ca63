# SPDX-License-Identifier: GPL-2.0-only
"""Programs that stand in for VMMs: they hold their command line against what the VMM accepts, and print a log as it would."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

_HEAD = """#!{python}
import argparse, json, socket, sys, time
if sys.argv[1:] == ["--version"]:
    print("{name} 1.0")
    sys.exit()
data = open({data!r}, "rb").read()
parser = argparse.ArgumentParser()
"""
_FIRECRACKER = """
parser.add_argument("--no-api", action="store_true", required=True)
parser.add_argument("--config-file", required=True)
parser.add_argument("--log-path", required=True)
args = parser.parse_args()
config = json.load(open(args.config_file))
assert sorted(config) == ["boot-source", "drives", "machine-config"] and config["drives"] == []
assert config["machine-config"] == {{"vcpu_count": 2, "mem_size_mib": 128}}
assert open(config["boot-source"]["kernel_image_path"], "rb").read(5) == b"\\x7fELF\\2"
open(args.log_path, "a").write("a message\\n")
sys.stdout.buffer.write(data)
sys.stdout.flush()
time.sleep(60)
"""
_CLOUD_HYPERVISOR = """
for option in ("--kernel", "--cpus", "--memory", "--serial", "--console"):
    parser.add_argument(option, required=True)
args = parser.parse_args()
assert (args.cpus, args.memory, args.console) == ("boot=2", "size=128M", "off")
assert open(args.kernel, "rb").read(5) == b"\\x7fELF\\2"
assert args.serial.startswith("file=")
open(args.serial.removeprefix("file="), "wb").write(data)
time.sleep(60)
"""
#: Serves a monitor, and goes on with the log where the state that it was given says how much of it is printed.
_QEMU = """
for option in ("-qmp", "-incoming", "-chardev", "-device", "-bios", "-display", "-m", "-smp"):
    parser.add_argument(option)
for option in ("-nodefaults", "-no-user-config"):
    parser.add_argument(option, action="store_true")
args = parser.parse_args()
log = args.chardev.partition("path=")[2]
stops = [data.index(b"\\n", data.index(b"crc", at)) + 1 for at in range(len(data)) if data.startswith(b"send restore\\n", at)]
restored = int(open(args.incoming.partition("'")[2].rstrip("'")).read()) if args.incoming else 0
assert args.device.endswith("readback=" + str(0xe9 + restored % 2)) and ("append=on" in args.chardev) == bool(restored)
begin, end = [0, *stops, len(data)][restored : restored + 2]
open(log, "ab" if restored else "wb").write(data[begin:end])
server = socket.socket(socket.AF_UNIX)
server.bind(args.qmp.removeprefix("unix:").partition(",")[0])
server.listen()
while True:
    with server.accept()[0] as to, to.makefile("rw") as file:
        print(json.dumps({{"QMP": {{}}}}), file=file, flush=True)
        for line in file:
            order = json.loads(line)
            if order["execute"] == "migrate":
                if {refuses}:
                    print(json.dumps({{"error": {{"desc": "no room"}}}}), file=file, flush=True)
                    continue
                open(order["arguments"]["uri"].partition("> ")[2].strip("'"), "w").write(str(restored + 1))
            print(json.dumps({{"event": "STOP"}}), file=file)
            print(json.dumps({{"return": {{"status": "completed"}}}}), file=file, flush=True)
"""
_SOURCES = {"firecracker": _FIRECRACKER, "cloud-hypervisor": _CLOUD_HYPERVISOR, "qemu-system-fake": _QEMU}


def program(folder: Path, name: str, data: bytes, refuses: bool = False) -> str:
    """The path of a program ``name`` that prints ``data``."""
    (folder / "printed").write_bytes(data)
    path = folder / name
    text = (_HEAD + _SOURCES[name]).format(python=sys.executable, name=name, data=str(folder / "printed"), refuses=refuses)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)
