"""Folders of images that somebody has packed."""

import io
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from metapl.data.formats import archives, images
from metapl.data.sources import find
from metapl.registry.errors import InputError

MODES = {".zip": "", ".tar": "w", ".tar.gz": "w:gz", ".tgz": "w:gz", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def image(number):
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)).save(content, "PNG")
    return content.getvalue()


def pack(path, members):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return path
    with tarfile.open(
        path, MODES["".join(path.suffixes[-2:]) if path.suffix not in (".tar", ".tgz") else path.suffix]
    ) as archive:
        for name, content in members.items():
            head = tarfile.TarInfo(name)
            head.size = len(content)
            archive.addfile(head, io.BytesIO(content))
    return path


def members(root=""):
    return {
        f"{root}{name}/{number}.png": image(100 * (name == "dog") + number)
        for name in ("cat", "dog")
        for number in range(8)
    }


def unpacked(folder, found):
    for name, content in found.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("ending", MODES)
@pytest.mark.parametrize("root", ["", "photos/", "a/b/"])
def test_an_archive_is_the_folder_that_was_packed(tmp_path, ending, root):
    packed = find.load(str(pack(tmp_path / f"photos{ending}", members(root))))
    plain = find.load(str(unpacked(tmp_path / "plain", members())))
    assert packed.form == plain.form
    assert packed.names == plain.names
    assert packed.x.equal(plain.x)
    assert packed.y.equal(plain.y)
    assert packed.x_test.equal(plain.x_test)


def test_parts_and_what_a_mac_adds(tmp_path):
    found = {
        f"set/{part}/{name}": content for part in ("Train", "Valid", "Test") for name, content in members().items()
    }
    found |= {
        "__MACOSX/set/Train/cat/._0.png": b"x",
        "set/.DS_Store": b"x",
        "set/readme.md": b"x",
        "__MACOSX/icon.png": image(1),
    }
    data = find.load(str(pack(tmp_path / "set.zip", found)))
    assert data.form.classes == ("cat", "dog")
    assert (len(data.x), len(data.x_test), len(data.validation)) == (32, 16, 16)


def test_a_flat_folder_with_a_file_of_labels(tmp_path):
    found = {f"photos/{number}.png": image(number) for number in range(12)}
    found["photos/labels.csv"] = ("file,label\n" + "".join(f"{n}.png,{'ab'[n % 2]}\n" for n in range(10))).encode()
    data = find.load(str(pack(tmp_path / "photos.zip", found)))
    assert data.form.classes == ("a", "b")
    assert int((data.y < 0).sum()) == 2


def test_it_is_unpacked_once_and_again_when_it_has_changed(tmp_path, cache):
    path = pack(tmp_path / "photos.zip", members())
    one = archives.opened(path)
    stamps = {file: file.stat().st_mtime_ns for file in one.rglob("*.png")}
    assert archives.opened(path) == one
    assert {file: file.stat().st_mtime_ns for file in one.rglob("*.png")} == stamps
    assert one.is_relative_to(cache)
    more = members() | {"eel/1.png": image(5)}
    assert (archives.opened(pack(path, more)) / "eel" / "1.png").read_bytes() == image(5)


def test_fresh_images_are_named_by_the_archive(tmp_path):
    path = pack(tmp_path / "new.tgz", members("new/"))
    found = images.gather([path], (1, 8, 8))
    assert found.names[0] == f"{path}/cat/0.png"
    assert len(found.x) == 16


def test_shards_stay_shards(tmp_path):
    found = {}
    for number in range(10):
        found |= {f"{number % 2}/{number}.png": image(number), f"{number % 2}/{number}.cls": str(number % 2).encode()}
    path = pack(tmp_path / "shard.tar", found)
    assert archives.opened(path) == path
    assert find.load(str(path)).form.classes == ("0", "1")


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ({"../evil.png": b"x"}, "leads out"),
        ({"/tmp/evil.png": b"x"}, "leads out"),
        ({"C:\\evil.png": b"x"}, "leads out"),
    ],
)
@pytest.mark.parametrize("ending", [".zip", ".tar.gz"])
def test_what_leads_out_is_refused_and_nothing_is_written(tmp_path, cache, added, said, ending):
    with pytest.raises(InputError, match=said):
        find.load(str(pack(tmp_path / f"photos{ending}", members() | added)))
    assert not [one for one in cache.rglob("*") if one.is_file()]


def test_more_than_an_archive_of_pictures_can_hold_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "TIMES", -1e9)
    path = pack(tmp_path / "photos.zip", members())
    with pytest.raises(InputError, match="holds more than"):
        archives.opened(path)


@pytest.mark.parametrize("ending", [".zip", ".tar.gz"])
def test_what_is_damaged_is_refused(tmp_path, ending):
    path = pack(tmp_path / f"photos{ending}", members())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"complete|damaged|nothing there"):
        find.load(str(path))


def test_a_link_is_refused(tmp_path):
    path = pack(tmp_path / "photos.zip", members())
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("cat/link.png")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(InputError, match="neither file nor folder"):
        find.load(str(path))


def test_an_archive_without_images_is_refused(tmp_path):
    with pytest.raises(InputError, match="no images"):
        find.load(str(pack(tmp_path / "texts.zip", {"a/b.md": b"x"})))
