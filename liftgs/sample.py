"""One corpus sample to and from its WebDataset members. Pure bytes: knows no files, no shards and no teachers.

A sample is a chunk: a point cloud and the posed, labelled photos that see it. Its members, without the key, are

    cloud.npz              xyz float32 [N, 3] metres, rgb uint8 [N, 3]
    {v:02d}.rgb.jpg        the photo
    {v:02d}.depth.png      uint16 millimetres, 0 = invalid (when the source has depth; its size may differ)
    {v:02d}.camera.json    K 3x3, cam_to_world 4x4, width, height
    {v:02d}.segments.png   Semantics: uint16 [H, W], 0 = none, i = row i - 1
    {v:02d}.embeds.npy     Index2Semantics: float16 [S, F], unit rows
    {v:02d}.captions.json  S strings (when captioned)
    instances.npz          labelled sources: instances int32 [N] per point, and the table ids [K], kinds, colours,
                           materials, boxes float64 [K, 2, 3] (lower and upper corner, metres)
    expressions.json       labelled sources: referring expressions, with "tags" where their source says more of them
    meta.json              source, frames, gravity, and the provenance that the pipeline passes in

and read back with plain `webdataset`, `tar`, PIL and NumPy. Views count from 0 without gaps.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from liftgs import codecs, labels
from liftgs.formats import check_format
from liftgs.labels import SegmentMap
from liftgs.scene import (
    BadInput,
    Camera,
    Expression,
    Frame,
    Instance,
    LoadedChunk,
    Mention,
    PointCloud,
    SceneLabels,
)

FORMAT = "liftgs-sample/1"

#: member name, without the sample's key -> content
Members = dict[str, bytes]

_VIEW_MEMBER = re.compile(r"(\d{2,})\.(.+)")
_MAX_DEPTH_MM = np.iinfo(np.uint16).max


# ---- encoding


def encode_chunk(
    loaded: LoadedChunk, provenance: Mapping[str, Any], segments: Sequence[SegmentMap] | None = None
) -> Members:
    """A chunk's members.

    Args:
        loaded: with at least one frame.
        provenance: JSON-able; becomes part of meta.json beside "format", "scene_uri", "scene", "chunk", "retry",
            "gravity", "cloud_frames" (ids of the frames that made the cloud) and "views" (ids of the stored frames, by
            number).
        segments: one per frame, or None when the labels are added later, with `encode_segment_map`.

    Raises:
        ValueError: no frame, a provenance key that the sample itself sets, or labels that do not fit.
    """
    if not loaded.frames:
        raise ValueError(f"{loaded.chunk.key} has no frame left to store")
    members = encode_cloud(loaded.cloud)
    for view, frame in enumerate(loaded.frames):
        members |= encode_frame(view, frame)
        if segments is not None:
            members |= encode_segment_map(view, segments[view])
    if loaded.labels is not None:
        members |= encode_labels(loaded.labels, loaded.cloud)
    members["meta.json"] = codecs.encode_json(_meta(loaded, provenance))
    return members


def _meta(loaded: LoadedChunk, provenance: Mapping[str, Any]) -> dict[str, Any]:
    chunk = loaded.chunk
    failed = {frame_id for frame_id, _ in loaded.failures}
    own = {
        "format": FORMAT,
        "scene_uri": chunk.scene_uri,
        "scene": chunk.scene,
        "chunk": chunk.index,
        "retry": chunk.retry,
        "gravity": loaded.gravity,
        "cloud_frames": [frame_id for frame_id in chunk.frame_ids if frame_id not in failed],
        "views": [frame.id for frame in loaded.frames],
    }
    if clash := own.keys() & provenance.keys():
        raise ValueError(f"provenance must not set {sorted(clash)}; the sample does")
    return own | dict(provenance)


def encode_frame(view: int, frame: Frame) -> Members:
    """Photo, camera and depth of one view.

    Raises:
        ValueError: the camera is of another image size than the photo.
    """
    camera = frame.camera
    if frame.rgb.shape[:2] != (camera.height, camera.width):
        raise ValueError(f"{frame.uri}: photo {frame.rgb.shape} but camera {camera.width}x{camera.height}")
    prefix = view_prefix(view)
    members = {
        f"{prefix}.rgb.jpg": encode_photo(frame),
        f"{prefix}.camera.json": encode_camera(camera),
    }
    if frame.depth is not None:
        members[f"{prefix}.depth.png"] = encode_depth(frame.depth)
    return members


def encode_segment_map(view: int, segments: SegmentMap) -> Members:
    """The labels of one view."""
    prefix = view_prefix(view)
    members = {f"{prefix}.segments.png": labels.encode_segments(segments.semantics)}
    if segments.embeds is not None:
        members[f"{prefix}.embeds.npy"] = labels.encode_embeds(segments.embeds)
    if segments.captions is not None:
        members[f"{prefix}.captions.json"] = labels.encode_captions(segments.captions)
    return members


def encode_photo(frame: Frame) -> bytes:
    """The source's own JPEG bytes if every reader sees them as `frame.rgb`, else a JPEG of quality 95, 4:4:4."""
    height, width = frame.rgb.shape[:2]
    if frame.jpeg is not None and codecs.is_plain_jpeg(frame.jpeg, width, height):
        return frame.jpeg
    return codecs.encode_jpeg(frame.rgb)


def decode_photo(data: bytes, uri: str) -> UInt8[np.ndarray, "h w 3"]:
    """RGB of an encoded photo.

    Raises:
        BadInput: not a whole JPEG.
    """
    return codecs.decode_jpeg(data, uri)


def photo_size(data: bytes, uri: str) -> tuple[int, int]:
    """(height, width) of an encoded photo, from its header alone.

    Raises:
        BadInput: no such header.
    """
    return codecs.image_size(data, uri)


def encode_depth(depth: Float32[np.ndarray, "h w"]) -> bytes:
    """Depth in metres as a 16-bit PNG of millimetres; negative, non-finite or more than 65.535 m become 0, invalid."""
    depth_mm = np.rint(depth.astype(np.float64) * 1000)
    valid = (depth_mm > 0) & (depth_mm <= _MAX_DEPTH_MM)  # false for NaN
    return codecs.encode_png16(np.where(valid, depth_mm, 0).astype(np.uint16))


def decode_depth(data: bytes, uri: str) -> Float32[np.ndarray, "h w"]:
    """Depth in metres, 0 = invalid.

    Raises:
        BadInput: not a whole 16-bit PNG.
    """
    return codecs.decode_png16(data, uri).astype(np.float32) / np.float32(1000)


def encode_camera(camera: Camera) -> bytes:
    """JSON with every bit of the floats."""
    return codecs.encode_json(
        {
            "K": camera.K.tolist(),
            "cam_to_world": camera.cam_to_world.tolist(),
            "width": camera.width,
            "height": camera.height,
        }
    )


def decode_camera(data: bytes, uri: str) -> Camera:
    """The inverse of `encode_camera`.

    Raises:
        BadInput: not JSON, a field is missing, or no such camera exists.
    """
    fields = codecs.decode_json(data, uri)
    with codecs.bad_values(uri):
        return Camera(
            np.array(fields["K"], np.float64),
            np.array(fields["cam_to_world"], np.float64),
            int(fields["width"]),
            int(fields["height"]),
        )


def encode_cloud(cloud: PointCloud) -> Members:
    """`cloud.npz`."""
    return {"cloud.npz": codecs.encode_npz({"xyz": cloud.xyz, "rgb": cloud.rgb})}


def decode_cloud(data: bytes, uri: str) -> PointCloud:
    """The points, without instance ids, which are in `instances.npz`.

    Raises:
        BadInput: not such a file, or non-finite points.
    """
    arrays = codecs.decode_npz(data, uri)
    with codecs.bad_values(uri):
        xyz = _array(arrays, "xyz", np.float32, (-1, 3))
        rgb = _array(arrays, "rgb", np.uint8, (len(xyz), 3))
        if not np.isfinite(xyz).all():
            raise ValueError("xyz holds non-finite values")
    return PointCloud(xyz, rgb)


def encode_labels(scene_labels: SceneLabels, cloud: PointCloud) -> Members:
    """`instances.npz` and `expressions.json`.

    Raises:
        ValueError: the cloud carries no instance ids.
    """
    if cloud.instances is None:
        raise ValueError("the scene has 3D labels but its cloud carries no instance ids")
    table = scene_labels.instances
    arrays = {
        "instances": cloud.instances.astype(np.int32),
        "ids": np.array([row.id for row in table], np.int32),
        "kinds": np.array([row.kind for row in table], np.str_),
        "colours": np.array([row.colour for row in table], np.str_),
        "materials": np.array([row.material for row in table], np.str_),
        "boxes": np.array([(row.box_min, row.box_max) for row in table], np.float64).reshape(-1, 2, 3),
    }
    expressions = [
        {
            "text": expression.text,
            "relation": expression.relation,
            "target": _mention_json(expression.target),
            "anchors": [_mention_json(anchor) for anchor in expression.anchors],
            **({"tags": expression.tags} if expression.tags else {}),
        }
        for expression in scene_labels.expressions
    ]
    return {"instances.npz": codecs.encode_npz(arrays), "expressions.json": codecs.encode_json(expressions)}


def decode_labels(instances: bytes, expressions: bytes, uri: str) -> tuple[SceneLabels, np.ndarray]:
    """The inverse of `encode_labels`.

    Returns:
        The labels, and the instance id of each point of the cloud, int32 [N].

    Raises:
        BadInput: not such files, or mentions of unknown instances or of text that is not there.
    """
    arrays = codecs.decode_npz(instances, uri)
    parsed = codecs.decode_json(expressions, uri)
    with codecs.bad_values(uri):
        table = _decode_table(arrays)
        known = {row.id for row in table}
        decoded = SceneLabels(table, tuple(_decode_expression(fields, known) for fields in parsed))
        return decoded, _array(arrays, "instances", np.int32, (-1,))


def _decode_table(arrays: Mapping[str, np.ndarray]) -> tuple[Instance, ...]:
    ids = _array(arrays, "ids", np.int32, (-1,))
    boxes = _array(arrays, "boxes", np.float64, (len(ids), 2, 3))
    names = [_array(arrays, name, np.str_, (len(ids),)) for name in ("kinds", "colours", "materials")]
    rows = zip(ids.tolist(), *(column.tolist() for column in names), boxes.tolist(), strict=True)
    return tuple(
        Instance(row_id, kind, colour, material, tuple(low), tuple(high))
        for row_id, kind, colour, material, (low, high) in rows
    )


def _mention_json(mention: Mention) -> dict[str, Any]:
    return {"instances": mention.instances, "chars": mention.chars, "words": mention.words}


def _decode_expression(fields: Mapping[str, Any], known: Collection[int]) -> Expression:
    tags = fields.get("tags", [])  # older corpora have none
    if not isinstance(tags, list):
        raise ValueError(f"tags are {tags!r}, not a list")
    expression = Expression(
        str(fields["text"]),
        _decode_mention(fields["target"]),
        tuple(_decode_mention(anchor) for anchor in fields["anchors"]),
        str(fields["relation"]),
        tuple(map(str, tags)),
    )
    for mention in (expression.target, *expression.anchors):
        if not set(mention.instances) <= set(known):
            raise ValueError(f"{expression.text!r} mentions instances {mention.instances} that are not in the table")
        for (start, stop), length in ((mention.chars, len(expression.text)), (mention.words, len(expression.words))):
            if not 0 <= start < stop <= length:
                raise ValueError(f"span {start}:{stop} lies outside of {expression.text!r}")
    return expression


def _decode_mention(fields: Mapping[str, Any]) -> Mention:
    (char_start, char_stop), (word_start, word_stop) = fields["chars"], fields["words"]
    return Mention(
        tuple(int(instance) for instance in fields["instances"]),
        (int(char_start), int(char_stop)),
        (int(word_start), int(word_stop)),
    )


def _array(arrays: Mapping[str, np.ndarray], name: str, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    """The array of that name, after a check of its dtype and shape, where -1 is any size."""
    array = arrays[name]
    fits = len(array.shape) == len(shape) and all(
        want in (-1, have) for want, have in zip(shape, array.shape, strict=True)
    )
    if not fits or not np.issubdtype(array.dtype, dtype):
        raise ValueError(f"{name} is {array.dtype} {array.shape}, not {np.dtype(dtype).name} {shape}")
    return array


# ---- views by name


def view_prefix(view: int) -> str:
    """What the names of a view's members begin with, e.g. "03"."""
    return f"{view:02d}"


def view_numbers(members: Mapping[str, Any]) -> list[int]:
    """Numbers of the views that have a photo, in order."""
    matches = (_VIEW_MEMBER.fullmatch(name) for name in members)
    return sorted(int(match[1]) for match in matches if match and match[2] == "rgb.jpg")


def keep_views(members: Members, views: Collection[int]) -> Members:
    """The sample with only some of its views, renumbered without gaps, here and in meta.json; the cloud stays.

    Args:
        members: a whole sample.
        views: numbers to keep, at least one.

    Raises:
        ValueError: nothing to keep, or a view that does not exist.
    """
    keep = sorted(views)
    if not keep or not set(keep) <= set(view_numbers(members)):
        raise ValueError(f"cannot keep views {keep} of {view_numbers(members)}")
    renumbered: Members = {}
    for name, data in members.items():
        match = _VIEW_MEMBER.fullmatch(name)
        if match is None:
            renumbered[name] = data
        elif int(match[1]) in keep:
            renumbered[f"{view_prefix(keep.index(int(match[1])))}.{match[2]}"] = data
    meta = codecs.decode_json(members["meta.json"], "meta.json")
    meta["views"] = [meta["views"][view] for view in keep]
    renumbered["meta.json"] = codecs.encode_json(meta)
    return renumbered


# ---- decoding


@dataclass(frozen=True, eq=False)
class View:
    """One stored frame. Each piece is decoded when first asked for; a broken one raises BadInput then.

    Attributes:
        id: the frame's name within its scene.
        number: of the view within the sample.
        members: of the whole sample.
        uri: of the sample; for messages.
    """

    id: str
    number: int
    members: Mapping[str, bytes]
    uri: str

    def _find(self, suffix: str) -> tuple[bytes | None, str]:
        name = f"{view_prefix(self.number)}.{suffix}"
        return self.members.get(name), f"{self.uri}.{name}"

    def _get(self, suffix: str) -> tuple[bytes, str]:
        data, uri = self._find(suffix)
        if data is None:
            raise BadInput(uri, "the sample has no such member")
        return data, uri

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the photo, without decoding it."""
        return photo_size(*self._get("rgb.jpg"))

    @cached_property
    def camera(self) -> Camera:
        """Of the photo."""
        return decode_camera(*self._get("camera.json"))

    @cached_property
    def photo(self) -> UInt8[np.ndarray, "h w 3"]:
        """RGB."""
        return decode_photo(*self._get("rgb.jpg"))

    @cached_property
    def depth(self) -> Float32[np.ndarray, "dh dw"] | None:
        """Metres, 0 = invalid; may be of another size than the photo; None when the source has none."""
        data, uri = self._find("depth.png")
        return None if data is None else decode_depth(data, uri)

    @cached_property
    def segments(self) -> SegmentMap | None:
        """The labels; None before labelling."""
        segments, uri = self._find("segments.png")
        if segments is None:
            return None
        return labels.decode_segment_map(segments, self._find("embeds.npy")[0], self._find("captions.json")[0], uri)


@dataclass(frozen=True, eq=False)
class Sample:
    """A decoded sample. Each piece is decoded when first asked for; a broken one raises BadInput then.

    Attributes:
        members: by name without the key.
        uri: for messages.
    """

    members: Mapping[str, bytes]
    uri: str

    def _get(self, name: str) -> tuple[bytes, str]:
        uri = f"{self.uri}.{name}"
        if name not in self.members:
            raise BadInput(uri, "the sample has no such member")
        return self.members[name], uri

    @cached_property
    def meta(self) -> dict[str, Any]:
        """What `encode_chunk` and its caller recorded."""
        data, uri = self._get("meta.json")
        meta = codecs.decode_json(data, uri)
        if not isinstance(meta, dict):
            raise BadInput(uri, "not a JSON object")
        with codecs.bad_values(uri):
            check_format(meta.get("format", "liftgs-sample/1"), FORMAT, uri)
        return meta

    @cached_property
    def cloud(self) -> PointCloud:
        """The points, with instance ids in a labelled corpus."""
        cloud = decode_cloud(*self._get("cloud.npz"))
        if self._labels is None:
            return cloud
        instances = self._labels[1]
        if len(instances) != len(cloud):
            raise BadInput(self.uri, f"{len(cloud)} points but {len(instances)} instance ids")
        return PointCloud(cloud.xyz, cloud.rgb, instances)

    @property
    def labels(self) -> SceneLabels | None:
        """3D ground truth; None in a corpus without."""
        return None if self._labels is None else self._labels[0]

    @cached_property
    def _labels(self) -> tuple[SceneLabels, np.ndarray] | None:
        if "instances.npz" not in self.members:
            return None
        instances, uri = self._get("instances.npz")
        return decode_labels(instances, self._get("expressions.json")[0], uri)

    @cached_property
    def views(self) -> tuple[View, ...]:
        """The stored frames, in order."""
        numbers = view_numbers(self.members)
        ids = self.meta.get("views")
        if not isinstance(ids, list) or numbers != list(range(len(ids))):
            raise BadInput(self.uri, f"photos {numbers} do not match the views {ids} of meta.json")
        return tuple(View(str(ids[number]), number, self.members, self.uri) for number in numbers)

    def check(self) -> None:
        """Decode everything once, and compare the sizes of what belongs together.

        Raises:
            BadInput: a piece is broken, or two do not fit each other.
        """
        if len(self.cloud) == 0 or not self.views:
            raise BadInput(self.uri, f"{len(self.cloud)} points and {len(self.views)} views; both need at least one")
        for view in self.views:
            height, width = view.photo.shape[:2]
            if (view.camera.height, view.camera.width) != (height, width):
                raise BadInput(self.uri, f"view {view.id}: photo and camera differ in size")
            if view.segments is not None and view.segments.semantics.shape != (height, width):
                raise BadInput(self.uri, f"view {view.id}: photo and segments differ in size")
            _ = view.depth


def decode_sample(members: Mapping[str, Any], uri: str | None = None) -> Sample:
    """A sample from its members, undecoded as yet.

    Args:
        members: names without the key -> bytes; also as plain `webdataset` yields them, with "__key__" and "__url__".
        uri: what to call it in messages; by default its WebDataset url and key.

    Raises:
        BadInput: no cloud, no meta.json or no photo.
    """
    if uri is None:
        uri = f"{members.get('__url__', '')}#{members.get('__key__', 'sample')}".lstrip("#")
    files = {name: data for name, data in members.items() if not name.startswith("__")}
    if not {"cloud.npz", "meta.json"} <= files.keys() or not view_numbers(files):
        raise BadInput(uri, f"not a sample: it holds {sorted(files)}, but no cloud.npz, meta.json or photo")
    return Sample(files, uri)
