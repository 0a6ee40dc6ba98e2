from pathlib import Path

import pytest

from models.common.files import append, write_atomically, write_together
from tests.conftest import file_limit


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path):
    for content in (b"first", b"second"):
        write_atomically(tmp_path / "a", content)
        assert files(tmp_path) == {"a": content}


@pytest.mark.parametrize("path", ["nowhere/a", "file/a", "folder", "a" * 254])
def test_what_cannot_be_written_is_named_as_it_was_asked_for(tmp_path, path):
    (tmp_path / "file").write_bytes(b"kept")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=r".") as caught:
        write_atomically(tmp_path / path, b"lost")
    assert caught.value.filename == str(tmp_path / path)
    assert caught.value.strerror
    assert files(tmp_path) == {"file": b"kept"}


def test_a_full_disk_names_the_file_and_leaves_the_one_before_it(tmp_path, monkeypatch):
    write_atomically(tmp_path / "a", b"before")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_atomically(tmp_path / "a", b"after")
    assert caught.value.filename == str(tmp_path / "a")
    assert files(tmp_path) == {"a": b"before"}


@pytest.mark.parametrize("order", [1, -1])
def test_of_files_that_belong_together_all_are_written_or_none(tmp_path, order):
    paths = [tmp_path / "a", tmp_path / "nowhere" / "b"][::order]
    with pytest.raises(FileNotFoundError, match="nowhere"):
        write_together(dict.fromkeys(paths, b"lost"))
    assert files(tmp_path) == {}
    paths[paths.index(tmp_path / "nowhere" / "b")] = tmp_path / "b"
    write_together({path: path.name.encode() for path in paths})
    assert files(tmp_path) == {"a": b"a", "b": b"b"}


def test_what_is_appended_is_there_as_a_whole_or_not_at_all(tmp_path):
    append(tmp_path / "a", b"first\n")
    with file_limit(10):  # the next line fits in part
        for name in ("a", "b"):
            with pytest.raises(OSError, match="File too large") as caught:
                append(tmp_path / name, b"a longer second line\n")
            assert caught.value.filename == str(tmp_path / name)
    assert files(tmp_path) == {"a": b"first\n"}
    append(tmp_path / "a", b"second\n")
    assert files(tmp_path) == {"a": b"first\nsecond\n"}
