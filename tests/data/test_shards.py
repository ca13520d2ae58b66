"""Images in tar archives, against the files that went into them."""

import io
import re
import tarfile
import threading

import numpy as np
import pytest
import torch
from pictures import members_of, png, random_levels, shard

from metapl.data.formats import images, shards
from metapl.registry.errors import InputError

LEVELS = random_levels(10, 6, 7)
TARGETS = [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]


@pytest.fixture
def folder(tmp_path):
    """Ten images in three shards."""
    for number, (start, end) in enumerate([(0, 4), (4, 5), (5, 10)]):
        shard(tmp_path / f"{number:03d}.tar", members_of(LEVELS[start:end], TARGETS[start:end], start))
    return tmp_path


def all_of(x):
    return x[torch.arange(len(x))]


# ---------------------------------------------------------------- reading


def test_shards_give_their_images_and_labels(folder):
    members = shards.read(shards.find(folder))
    assert [member.label for member in members] == TARGETS
    np.testing.assert_array_equal(all_of(images.load(members, (1, 6, 7)))[:, 0].numpy(), LEVELS)
    assert str(members[4]) == f"{folder}/001.tar/000004.png"


def test_any_image_can_be_read_in_any_order(folder):
    store = images.Files(shards.read(shards.find(folder)), (1, 6, 7))
    index = torch.tensor([9, 0, 4, 4, 7])
    np.testing.assert_array_equal(store[index][:, 0].numpy(), LEVELS[index.numpy()])


def test_many_threads_may_read(folder):
    store = images.Files(shards.read(shards.find(folder)), (1, 6, 7))
    right = []

    def read():
        right.append(all(np.array_equal(all_of(store)[:, 0].numpy(), LEVELS) for _ in range(5)))

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 8


def test_the_images_are_not_read_in_advance(tmp_path):
    """What stands where the image should be is found out when it is asked for."""
    file = shard(tmp_path / "a.tar", [("a.png", b"no image"), ("b.png", png(LEVELS[0]))])
    store = images.Files(shards.read([file]), (1, 6, 7))
    np.testing.assert_array_equal(store[torch.tensor([1])][0, 0].numpy(), LEVELS[0])
    with pytest.raises(InputError, match=rf"^{re.escape(str(file))}/a\.png: no image that can be read .* remove it$"):
        store[torch.tensor([0])]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_with_odd_characters(tmp_path, form):
    folder = "long/" * 19
    names = ["a b.png", "ä日.png", "-x.png", f"{folder}{'y' * 60}.png", "n/1.PNG"]
    file = shard(tmp_path / "#1, x=2.tar", [(name, png(LEVELS[0])) for name in names], format=form)
    members = shards.read(shards.find(tmp_path))
    assert [str(member) for member in members] == [f"{file}/{name}" for name in names]
    assert (all_of(images.load(members, (1, 6, 7))).numpy() == LEVELS[0]).all()


def test_what_belongs_to_a_key_is_no_image_of_its_own(tmp_path):
    members = [
        ("d/1.cls", b" 3\n"),
        ("d/1.jpg", png(LEVELS[0])),
        ("d/1.json", b"{}"),
        ("d/1.seg.png", png(LEVELS[1])),
        ("e/1.png", png(LEVELS[2])),
        ("d/._1.png", b"x"),
        (".png", b"x"),
        ("notes.txt", b"x"),
        ("e/1.cls", b"5"),
        ("2.png", png(LEVELS[3])),
    ]
    found = shards.read([shard(tmp_path / "a.tar", members)])
    assert [(member.name, member.label) for member in found] == [("d/1.jpg", 3), ("e/1.png", 5), ("2.png", -1)]


def test_folders_and_links_in_an_archive_are_skipped(tmp_path):
    file = tmp_path / "a.tar"
    with tarfile.open(file, "w") as archive:
        for name, kind in (("f.png", tarfile.DIRTYPE), ("g.png", tarfile.SYMTYPE)):
            head = tarfile.TarInfo(name)
            head.type, head.linkname = kind, "x"
            archive.addfile(head)
        head = tarfile.TarInfo("h.png")
        head.size = len(png(LEVELS[0]))
        archive.addfile(head, io.BytesIO(png(LEVELS[0])))
    assert [member.name for member in shards.read([file])] == ["h.png"]


def test_shards_are_found_at_any_depth_in_the_order_of_their_paths(tmp_path):
    names = ["b.tar", "a/1.tar", "a/10.TAR", "a/2.tar"]
    for name in [*names, ".hidden.tar", "old.tar.gz", "x.png"]:
        shard(tmp_path / name, [])
    assert shards.find(tmp_path) == [tmp_path / name for name in sorted(names)]
    assert shards.find(tmp_path / "b.tar") == [tmp_path / "b.tar"]


# ---------------------------------------------------------------- what is refused


def refusal(file):
    with pytest.raises(InputError) as caught:
        shards.read([file])
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(str(file))
    return message


# Ten members of two blocks each, then blocks of zeros, the first of which says that this is all.
@pytest.mark.parametrize("length", [0, 100, 512, 600, 1024, 1500, 1536, 10_240, 10_751])
def test_an_archive_that_is_cut_short(tmp_path, length):
    file = shard(tmp_path / "a.tar", [(f"{number}.png", png(LEVELS[number])) for number in range(10)])
    content = file.read_bytes()
    file.write_bytes(content[:length])
    assert re.search(r"damaged or cut short \(.*\): fetch or write it again$", refusal(file))
    file.write_bytes(content[:10_752])
    assert len(shards.read([file])) == 10


def test_an_archive_that_is_damaged_in_the_middle(tmp_path):
    file = shard(tmp_path / "a.tar", members_of(LEVELS, TARGETS))
    content = bytearray(file.read_bytes())
    place = content.index(b"000005.cls")
    content[place : place + 4] = b"xxxx"  # the checksum of the header is wrong now
    file.write_bytes(content)
    assert "damaged or cut short" in refusal(file)


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_a_compressed_archive(tmp_path, mode, name):
    with tarfile.open(tmp_path / name, mode) as archive:
        archive.addfile(tarfile.TarInfo("a.png"))
    assert re.search(r"compressed archive .*: unpack it to a \.tar$", refusal(tmp_path / name))
    if name == "a.tar.gz":
        with pytest.raises(InputError, match=r"unpack it to a \.tar$"):
            images.gather([tmp_path], (1, 6, 7))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], r"no images in it: name them KEY\.jpg, or what kind they are of"),
        ([("a.txt", b"x"), ("b.cls", b"0")], r"no images in it"),
        (
            [("p.1.png", b"x"), ("q.png", b"x")],
            r"/p\.1\.png: a name ends at its first dot in a shard: leave the others",
        ),
        ([("a.cls", b"cat"), ("a.png", b"x")], r"/a\.cls: 'cat' is no class index: write 0, 1, 2, …"),
        ([("a.cls", b"-1"), ("a.png", b"x")], r"/a\.cls: '-1' is no class index"),
        ([("a.cls", b"1.0"), ("a.png", b"x")], r"/a\.cls: '1\.0' is no class index"),
        ([("a.cls", b""), ("a.png", b"x")], r"/a\.cls: '' is no class index"),
        ([("a.cls", b"\xff"), ("a.png", b"x")], r"/a\.cls: '.' is no class index"),
        ([("a.cls", b"9" * 30), ("a.png", b"x")], r"/a\.cls: '9{20}' is no class index"),
    ],
)
def test_archives_without_what_is_needed(tmp_path, members, message):
    assert re.search(message, refusal(shard(tmp_path / "a.tar", members)))


def test_an_archive_that_is_none(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"text" * 1000)
    assert "damaged or cut short" in refusal(tmp_path / "a.tar")
    assert "No such file" in refusal(tmp_path / "b.tar")
