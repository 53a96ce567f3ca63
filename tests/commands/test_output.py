# SPDX-License-Identifier: GPL-2.0-only
"""Files that are there as a whole or not at all."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from kvmtest.commands import output
from kvmtest.commands.common import Failed
from kvmtest.commands.output import Output, opened


def test_what_was_there_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text("old")
    path.chmod(0o640)
    out = Output(str(path))
    out.text.write("new")
    out.text.flush()
    assert path.read_text() == "old"
    out.keep()
    assert path.read_text() == "new" and path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["r.json"]


@pytest.mark.parametrize("name", ["r.json", "r.json.gz"])
def test_what_goes_wrong_leaves_the_old_one_and_nothing_else(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("old")
    with pytest.raises(ZeroDivisionError), opened(str(tmp_path / name)) as out:
        out.write("half of it")
        raise ZeroDivisionError
    assert (tmp_path / name).read_text() == "old" and os.listdir(tmp_path) == [name]


def test_gzipped(tmp_path: Path) -> None:
    with opened(str(tmp_path / "r.gz")) as out:
        out.write("text")
    assert gzip.decompress((tmp_path / "r.gz").read_bytes()) == b"text" and os.listdir(tmp_path) == ["r.gz"]


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="^cannot write /dev/full: No space left on device$") as error, opened("/dev/full") as out:
        out.write("x" * 100_000)
    assert error.value.status == 2


def test_lines_are_written_in_their_place(tmp_path: Path) -> None:
    out = Output(str(tmp_path / "r.jsonl"), by_line=True)
    out.text.write("{}\n")
    out.text.flush()
    assert (tmp_path / "r.jsonl").read_text() == "{}\n"
    out.drop()
    assert os.listdir(tmp_path) == ["r.jsonl"]


def test_a_link_stays_one_and_so_does_a_file_of_two_names(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    with opened(str(tmp_path / "link")) as out:
        out.write("new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"
    os.link(tmp_path / "real", tmp_path / "other")
    with opened(str(tmp_path / "other")) as out:
        out.write("newer")
    assert (tmp_path / "real").read_text() == "newer"


def test_where_no_file_can_be_made_the_one_that_is_there_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "r").write_text("old")
    made = open

    def refuse(path: str, mode: str = "r", **more: object) -> object:
        if mode == "x":
            raise PermissionError(13, "Permission denied", path)
        return made(path, mode, **more)  # type: ignore[call-overload]

    monkeypatch.setattr("builtins.open", refuse)
    with opened(str(tmp_path / "r")) as out:
        out.write("new")
    assert (tmp_path / "r").read_text() == "new"


def test_a_fifo_is_written_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    with opened(str(tmp_path / "fifo")) as out:
        out.write("text")
    assert os.read(reader, 10) == b"text"
    os.close(reader)


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="cannot write .*: No such file or directory"):
        Output(str(tmp_path / "no" / "r"))
    with pytest.raises(Failed, match="cannot write .*: Is a directory"):
        Output(str(tmp_path))


def test_what_somebody_has_open_already_is_written_in_its_place(tmp_path: Path) -> None:
    assert not any(map(output._is_replaceable, ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "/dev/null", str(tmp_path))))
    assert output._is_replaceable(str(tmp_path / "new"))
