"""Which format a folder is, which scenes a source has, and what they are called."""

import fsspec
import numpy as np
import pytest
from box_room import write_files
from scannet_files import ID, scan
from test_arkitscenes import video
from test_ase import walk
from test_colmap import reconstruction, text
from test_folder import openmask3d, seven_scenes
from test_nerfstudio import files_of, meta
from test_scannetpp import iphone, scans
from test_taskonomy import building
from test_tum import sequence

from liftgs.chunks import load_chunk, plan_chunks
from liftgs.readers import ReaderOptions, list_scenes, open_scene
from liftgs.readers.arkitscenes import ArkitScene
from liftgs.readers.ase import AseScene
from liftgs.readers.colmap import ColmapScene
from liftgs.readers.files import Folder, file_at, natural_order, safe_name
from liftgs.readers.folder import FolderScene
from liftgs.readers.nerfstudio import NerfstudioScene
from liftgs.readers.scannet import ScanNetScene
from liftgs.readers.scannetpp import ScanNetppScene
from liftgs.readers.taskonomy import TaskonomyScene
from liftgs.readers.tum import TumScene
from liftgs.scene import BadInput

FORMATS = {
    "seven": (seven_scenes, FolderScene),
    "masks": (openmask3d, FolderScene),
    "tum": (sequence, TumScene),
    "studio": (lambda: files_of(meta()), NerfstudioScene),
    "colmap": (lambda: reconstruction(text(count=10)), ColmapScene),
    "building": (building, TaskonomyScene),
    "walk": (walk, AseScene),
    "video": (video, ArkitScene),
    ID: (scan, ScanNetScene),
    "phone": (lambda: iphone() | scans(), ScanNetppScene),
}


@pytest.fixture(params=["local", "object store"])
def source(request, tmp_path):
    """A folder with one scene of each format, a file and an empty folder."""
    if request.param == "local":
        for name, (files, _) in FORMATS.items():
            write_files(tmp_path / name, files())
        (tmp_path / "notes").mkdir()
        (tmp_path / ".cache").mkdir()
        (tmp_path / "readme.txt").write_text("hello")
        yield str(tmp_path)
    else:
        store = fsspec.filesystem("memory")
        for name, (files, _) in FORMATS.items():
            for path, data in files().items():
                store.pipe_file(f"/scans/{name}/{path}", data)
        store.pipe_file("/scans/readme.txt", b"hello")
        yield "memory://scans"
        store.rm("/scans", recursive=True)


def test_each_scene_of_a_source_is_found_and_recognised(source):
    scenes = list_scenes(source)
    assert scenes == [f"{source}/{name}" for name in sorted(FORMATS)]
    for uri in scenes:
        scene = open_scene(uri)
        assert isinstance(scene, FORMATS[scene.name][1])
        assert scene.uri == uri
        assert list_scenes(uri) == [uri]
        assert len(scene.frame_ids()) == 3
        assert scene.load(scene.frame_ids()[0]).rgb.dtype == np.uint8


def test_a_source_may_be_narrowed_to_one_format(source):
    assert list_scenes(source, ReaderOptions(format="colmap")) == [f"{source}/colmap"]
    assert isinstance(open_scene(f"{source}/colmap", ReaderOptions(format="folder")), FolderScene)


def test_a_trailing_slash_changes_nothing(source):
    assert list_scenes(source + "/") == list_scenes(source)
    assert open_scene(f"{source}/tum/").name == "tum"


def test_procedural_rooms_are_a_source_like_any_other():
    scenes = list_scenes("procedural:apartments?scenes=2&views=3&width=64&height=48")
    assert len(scenes) == 2
    scene = open_scene(scenes[1])
    assert scene.uri == scenes[1]
    [chunk] = plan_chunks(scene)
    loaded = load_chunk(scene, chunk)
    assert loaded.failures == []
    assert loaded.gravity == "z-up"
    assert loaded.cloud.instances is not None
    assert {i.id for i in loaded.labels.instances} <= set(loaded.cloud.instances.tolist())
    with pytest.raises(BadInput, match="no procedural corpus"):
        list_scenes("procedural:castles")


def test_what_is_no_scene_is_told_what_was_looked_for(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"x")
    for ask in (open_scene, list_scenes):
        with pytest.raises(BadInput, match=r"transforms\.json \(nerfstudio\).*sparse/0.*COLMAP") as caught:
            ask(str(tmp_path))
        assert caught.value.uri == str(tmp_path)
        with pytest.raises(BadInput, match="no such folder"):
            ask(str(tmp_path / "nowhere"))
        with pytest.raises(BadInput):
            ask(str(tmp_path / "photo.jpg"))


def test_names_are_fit_for_keys_and_stay_different():
    names = ["scene0000_00", "my kitchen", "my_kitchen", "my.kitchen", "küche", "кухня", "台所", "厨房"]
    safe = [safe_name(name) for name in names]
    assert safe[0] == "scene0000_00"
    assert len(set(safe)) == len(names)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") for name in safe)
    assert safe[1] == "my_kitchen-" + safe[1][-6:]


def test_numbers_sort_by_value():
    assert natural_order(["10", "2", "1"]) == ["1", "2", "10"]
    assert natural_order(["b1", "a10", "a9", "a", "7"]) == ["7", "a", "a9", "a10", "b1"]
    assert natural_order(["01", "1"]) == ["01", "1"]
    assert natural_order(["9" * 5000, "10", "0"]) == ["0", "10", "9" * 5000]


def test_a_refusal_is_a_files_fault_on_a_disk_and_the_credentials_in_a_store(tmp_path, monkeypatch):
    """Else credentials that expire would put all that is left of a source into quarantine."""
    (tmp_path / "x").write_bytes(b"x")
    fsspec.filesystem("memory").pipe_file("/refused/x", b"x")

    def refuse(*_, **__):
        raise PermissionError("The provided token has expired")

    for folder, fault in ((Folder(str(tmp_path)), BadInput), (Folder("memory://refused"), PermissionError)):
        for verb, ask in (("ls", folder.entries), ("cat_file", lambda folder=folder: folder.read("x"))):
            monkeypatch.setattr(folder._fs, verb, refuse)
            with pytest.raises(fault, match=r"no permission to (list|read) it \(The provided token has expired"):
                ask()
            monkeypatch.undo()

    local = Folder(str(tmp_path))
    for verb, ask in (("size", local.size), ("_open", local.open), ("cat_file", lambda name: local.part(name, 0, 1))):
        monkeypatch.setattr(local._fs, verb, refuse)
        with pytest.raises(BadInput, match="no permission to read it"):
            ask("x")
        monkeypatch.undo()


def test_a_name_that_no_file_can_have_is_the_fault_of_what_names_it(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    folder = Folder(str(tmp_path))
    for name in ("a" * 300, "loop"):
        for ask in (folder.read, folder.open, lambda name: folder.part(name, 0, 1)):
            with pytest.raises(BadInput, match=r"cannot be opened|missing"):
                ask(name)


def test_links_to_scenes_are_scenes(tmp_path):
    """As in a split that was made with `ln -s`."""
    write_files(tmp_path / "disk" / "a", seven_scenes())
    write_files(tmp_path / "scans" / "b", seven_scenes())
    (tmp_path / "scans" / "a").symlink_to(tmp_path / "disk" / "a")
    (tmp_path / "scans" / "nowhere").symlink_to(tmp_path / "gone")
    assert [uri.rpartition("/")[2] for uri in list_scenes(str(tmp_path / "scans"))] == ["a", "b"]


def test_a_folder_that_cannot_be_listed_costs_itself(tmp_path, monkeypatch):
    """It is taken for a scene, so that whoever opens it says what is wrong with it."""
    for name in ("a", "lost+found"):
        write_files(tmp_path / name, seven_scenes())
    entries = Folder.entries

    def refuse(self, relative=""):
        if self.uri.endswith("lost+found"):
            raise BadInput(self.uri, "no permission to list it")
        return entries(self, relative)

    monkeypatch.setattr(Folder, "entries", refuse)
    scenes = list_scenes(str(tmp_path))
    assert [uri.rpartition("/")[2] for uri in scenes] == ["a", "lost+found"]
    with pytest.raises(BadInput, match="no permission to list it"):
        open_scene(scenes[1])


def test_a_file_directly_under_the_root_is_looked_for_there():
    folder, name = file_at("/room.ply")
    assert folder.uri_of(name) == "/room.ply"
    assert file_at("room.ply")[0].uri == "."
    assert [part if isinstance(part, str) else part.uri for part in file_at("s3://bucket/a/room.ply")] == [
        "s3://bucket/a",
        "room.ply",
    ]


def test_an_unknown_format_is_refused():
    with pytest.raises(ValueError, match="unknown format 'scanet'; choose one of auto, folder"):
        ReaderOptions(format="scanet")


def test_a_frame_that_does_not_exist_is_bad_input(source):
    for name in FORMATS:
        with pytest.raises(BadInput, match="there is no"):
            open_scene(f"{source}/{name}").load("nobody")
