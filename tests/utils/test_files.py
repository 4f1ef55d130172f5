"""Files that are whole, or not there."""

import errno
from pathlib import Path

import pytest

from noisyfit import NoisyFitWarning
from noisyfit.utils.files import make_folder, read_sealed, write_sealed
from tests.helpers import full_disk


def test_sealed__comes_back_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    assert read_sealed(file) is None
    write_sealed(file, b"content", tmp_path / "tmp")
    assert read_sealed(file) == b"content"
    assert list(tmp_path.iterdir()) == [file]


def test_sealed__any_flipped_bit_or_cut__is_set_aside_with_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_sealed(file, b"content", tmp_path / "tmp")
    whole = file.read_bytes()
    flipped = [
        whole[:i] + bytes([whole[i] ^ (1 << bit)]) + whole[i + 1 :]
        for i in range(len(whole))
        for bit in range(8)
    ]
    for damaged in [*flipped, *(whole[:n] for n in range(len(whole))), whole + b"\0"]:
        file.write_bytes(damaged)
        with pytest.warns(NoisyFitWarning, match=rf"Got {file} with other contents.*\.damaged"):
            assert read_sealed(file) is None
        assert [path.name for path in tmp_path.iterdir()] == ["file.damaged"]


def test_sealed__on_a_full_disk__leaves_the_old_file_and_names_it(tmp_path: Path) -> None:
    """The half-written file stayed, so that the disk stayed full."""
    file = tmp_path / "file"
    write_sealed(file, b"old", tmp_path / "tmp")
    with full_disk(1000), pytest.raises(OSError, match=f"Free space.*{file}") as caught:
        write_sealed(file, bytes(5000), tmp_path / "tmp")
    assert caught.value.errno == errno.EFBIG
    assert read_sealed(file) == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_make_folder__where_a_file_is__names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=f"can be written to.*{tmp_path / 'file'}"):
        make_folder(tmp_path / "file" / "folder")
