"""Frames that look at a wall, and scenes made of given frames, for tests of geometry and chunks."""

import numpy as np
from scipy.spatial.transform import Rotation

from liftgs.scene import BadInput, Camera, Frame, Scene

K = np.array([[60.0, 0, 40], [0, 50.0, 30], [0, 0, 1]])
AHEAD = Camera(K, np.eye(4), 80, 60)


def posed(rotvec, position) -> Camera:
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_rotvec(rotvec).as_matrix()
    pose[:3, 3] = position
    return Camera(K, pose, 80, 60)


def wall_frame(name="0", distance_m=2.0, camera=AHEAD, shape=(60, 80), colour=(10, 20, 30), instance=None) -> Frame:
    """A wall square to the camera."""
    rgb = np.broadcast_to(np.array(colour, np.uint8), (60, 80, 3)).copy()
    depth = np.full(shape, distance_m, np.float32)
    instances = None if instance is None else np.full((60, 80), instance, np.uint16)
    return Frame(name, f"{name}.jpg", camera, rgb, depth, instances=instances)


class Listed(Scene):
    """A scene made of given frames; a BadInput in place of a frame is raised on loading. Counts loads."""

    def __init__(self, frames, cloud=None, labels=None):
        self.uri, self.name = "memory://scene", "scene"
        self._frames, self._cloud, self._labels = frames, cloud, labels
        self.loads = []

    def frame_ids(self):
        return [str(i) for i in range(len(self._frames))]

    def load(self, frame_id):
        self.loads.append(frame_id)
        frame = self._frames[int(frame_id)]
        if isinstance(frame, BadInput):
            raise frame
        return frame

    def cloud(self):
        return self._cloud

    def labels(self):
        return self._labels
