import os
import socket
from pathlib import Path

from tests.training.data.examples import plain_image, write_image, write_images
from training.data import load_dataset


def test_files_that_are_certainly_not_images_are_skipped_and_counted(pets):
    names = ["Thumbs.db", "desktop.ini", "a.json", "b.TXT", "c.txt", "drawing.svg", ".hidden.png", "._0.png"]
    for name in names:
        (pets / "cats" / name).write_text("no image")
    (pets / "README.md").touch()
    for thumbnails in ("@eaDir", "#recycle", "__MACOSX"):
        write_image(pets / thumbnails / "cats" / "thumb.png")
        write_image(pets / "dogs" / thumbnails / "thumb.png")
    loaded = load_dataset("folder", pets)
    assert (loaded.info.class_names, loaded.info.class_counts) == (("cats", "dogs"), (1, 1))
    (skipped,) = [line for line in loaded.summary if line.startswith("skipped")]
    assert skipped.startswith("skipped 15 files or folders that are not images of a class (")
    for part in (".txt: 2", ".json: 1", "Thumbs.db: 1", "hidden: 2", "@eaDir: 2", "#recycle: 2", ".svg: 1", ".md: 1"):
        assert part in skipped


def test_pipes_devices_sockets_and_circular_links_are_skipped(pets):
    os.mkfifo(pets / "cats" / "pipe.png")
    os.mkfifo(pets / "pipe")
    (pets / "cats" / "device.png").symlink_to("/dev/zero")
    (pets / "cats" / "gone.png").symlink_to("nowhere")
    (pets / "cats" / "itself.png").symlink_to("itself.png")
    (pets / "cats" / "parent").symlink_to(pets)
    (pets / "cats" / "here").symlink_to(".")
    (pets / "cats" / "link.png").symlink_to("0.png")
    here = Path.cwd()
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(pets)  # a socket's path is short
        try:
            server.bind("dogs/socket.png")
        finally:
            os.chdir(here)
    loaded = load_dataset("folder", pets)
    assert loaded.info.class_counts == (2, 1)
    assert (
        "skipped 8 files or folders that are not images of a class "
        "(not a regular file: 4, broken link: 2, link to a folder that is read already: 2)" in loaded.summary
    )


def test_folders_are_searched_at_any_depth_except_hidden_ones(tmp_path):
    image = plain_image()
    folder = write_images(tmp_path / ".home", sevens=[image])
    write_images(folder / "sevens", deeper=[image], **{".checkpoints": [image]})
    write_images(folder, **{".git": [image]})
    (folder / "sevens" / ".DS_Store").write_bytes(b"no image")
    (folder / "README.md").write_text("next to the class folders")
    loaded = load_dataset("folder", folder)
    assert (len(loaded), loaded.info.class_names) == (2, ("sevens",))
