from pathlib import Path

import pytest

from models.common.files import append, atomic_file, remove_temporaries, write_atomically, write_together
from tests.conftest import file_limit


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def test_writing_replaces_a_file_and_leaves_no_temporary_file(tmp_path):
    for content in (b"first", b"second"):
        write_atomically(tmp_path / "a", content)
        assert files(tmp_path) == {"a": content}


@pytest.mark.parametrize("path", ["nowhere/a", "file/a", "folder", "a" * 254])
def test_an_error_names_the_file_and_not_the_temporary_file(tmp_path, path):
    (tmp_path / "file").write_bytes(b"kept")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=r".") as caught:
        write_atomically(tmp_path / path, b"lost")
    assert caught.value.filename == str(tmp_path / path)
    assert caught.value.strerror
    assert files(tmp_path) == {"file": b"kept"}


def test_a_full_disk_leaves_the_previous_file(tmp_path, monkeypatch):
    write_atomically(tmp_path / "a", b"before")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_atomically(tmp_path / "a", b"after")
    assert caught.value.filename == str(tmp_path / "a")
    assert files(tmp_path) == {"a": b"before"}


def test_an_error_in_the_context_of_an_atomic_file_leaves_the_previous_file(tmp_path):
    def write_and_fail(file: Path) -> None:
        file.write_bytes(b"after")
        raise RuntimeError

    write_atomically(tmp_path / "a", b"before")
    with pytest.raises(RuntimeError), atomic_file(tmp_path / "a") as temporary:
        write_and_fail(temporary)
    assert files(tmp_path) == {"a": b"before"}


def test_an_error_that_names_another_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, atomic_file(tmp_path / "a"):
        (tmp_path / "other").read_bytes()
    assert str(caught.value.filename) == str(tmp_path / "other")


def test_only_temporary_files_of_the_given_names_are_removed(tmp_path):
    for name in (".a.123", ".b.123", ".a.txt", "a"):
        (tmp_path / name).touch()
    remove_temporaries(tmp_path, {"a"})
    assert sorted(files(tmp_path)) == [".a.txt", ".b.123", "a"]


@pytest.mark.parametrize("order", [1, -1])
def test_files_written_together_are_all_written_or_none(tmp_path, order):
    paths = [tmp_path / "a", tmp_path / "nowhere" / "b"][::order]
    with pytest.raises(FileNotFoundError, match="nowhere"):
        write_together(dict.fromkeys(paths, b"lost"))
    assert files(tmp_path) == {}
    paths[paths.index(tmp_path / "nowhere" / "b")] = tmp_path / "b"
    write_together({path: path.name.encode() for path in paths})
    assert files(tmp_path) == {"a": b"a", "b": b"b"}


def test_data_is_appended_completely_or_not_at_all(tmp_path):
    append(tmp_path / "a", b"first\n")
    with file_limit(10):  # the next line fits in part
        for name in ("a", "b"):
            with pytest.raises(OSError, match="File too large") as caught:
                append(tmp_path / name, b"a longer second line\n")
            assert caught.value.filename == str(tmp_path / name)
    assert files(tmp_path) == {"a": b"first\n"}
    append(tmp_path / "a", b"second\n")
    assert files(tmp_path) == {"a": b"first\nsecond\n"}
