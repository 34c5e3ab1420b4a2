"""A video -> a scene folder that the readers read. A conversion, since structure from motion takes minutes to hours.

`convert` is the whole interface (`liftgs video` on the command line). It needs the extra `sfm`: PyAV and pycolmap.
"""

from liftgs.video.convert import VideoConfig, convert

__all__ = ["VideoConfig", "convert"]
