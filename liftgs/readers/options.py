"""What a person may tell the readers about a source that the source does not say itself."""

from __future__ import annotations

from dataclasses import dataclass

FORMATS = (
    "auto",
    "folder",
    "tum",
    "nerfstudio",
    "colmap",
    "scannet",
    "scannetpp",
    "taskonomy",
    "ase",
    "arkitscenes",
    "procedural",
)


@dataclass(frozen=True)
class ReaderOptions:
    """How to read a source.

    Attributes:
        format: "auto" looks at the listing; else one of "folder" (7-Scenes or OpenMask3D layout), "tum",
            "nerfstudio", "colmap", "scannet", "scannetpp", "taskonomy", "ase" (Aria Synthetic
            Environments), "arkitscenes", "procedural".
        depth_units_per_m: depth image units in a metre. By default 1000 (millimetres), 5000 for TUM, 512 for Taskonomy;
            Replica in the OpenMask3D layout has 6553.5. Aria Synthetic Environments always has 1000.
        metres_per_unit: length of the world's unit, for sources whose scale is arbitrary (COLMAP, nerfstudio); applied
            to poses and point clouds, not to depth.
        intrinsics: (fx, fy, cx, cy) in pixels of the photo, +0.5 convention; used instead of the source's own
            intrinsics ("folder" and "tum" only), and assumed free of distortion.
        max_time_difference_s: TUM: photo, depth and pose belong together if no farther apart. The 0.02 s of the
            benchmark's own `associate.py`.
        scannetpp_camera: "iphone" (video with depth) or "dslr" (sharp photos, no depth), for ScanNet++ scans that have
            both; of others, the one that is there.
    """

    format: str = "auto"
    depth_units_per_m: float | None = None
    metres_per_unit: float = 1.0
    intrinsics: tuple[float, float, float, float] | None = None
    max_time_difference_s: float = 0.02
    scannetpp_camera: str = "iphone"

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ValueError(f"unknown format {self.format!r}; choose one of {', '.join(FORMATS)}")
        if self.depth_units_per_m is not None and not self.depth_units_per_m > 0:
            raise ValueError(f"depth_units_per_m must be positive, not {self.depth_units_per_m}")
        if not self.metres_per_unit > 0:
            raise ValueError(f"metres_per_unit must be positive, not {self.metres_per_unit}")
        if self.scannetpp_camera not in ("iphone", "dslr"):
            raise ValueError(f"scannetpp_camera must be 'iphone' or 'dslr', not {self.scannetpp_camera!r}")


DEFAULT_OPTIONS = ReaderOptions()
