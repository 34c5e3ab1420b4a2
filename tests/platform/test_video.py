"""A video all the way: keyframes, cameras, a corpus."""

from __future__ import annotations

from pathlib import Path

import films
import numpy as np
import tiny

from liftgs.chunks import ChunkingConfig
from liftgs.geometry import CloudConfig, project, sees
from liftgs.sample import decode_sample
from liftgs.video import VideoConfig, convert
from liftgs.video.keyframes import KeyframeConfig
from liftgs_platform import pseudolabel
from liftgs_platform.pseudolabel import Spec, factories, open_plans
from liftgs_platform.reader import CorpusReader
from liftgs_platform.verify import verify


def test_a_video_becomes_a_corpus(tmp_path: Path) -> None:
    tour = films.room(views=60, count=14)
    video = films.write(tmp_path / "tour.mp4", [frame.rgb for frame in tour])
    convert(str(video), tmp_path / "scans" / "tour", VideoConfig(KeyframeConfig(min_motion=0.02)))
    corpus = str(tmp_path / "corpus")
    spec = Spec(str(tmp_path / "scans"), corpus, chunks_per_shard=1, chunking=ChunkingConfig(frames_per_chunk=6))
    pseudolabel.run_here(spec, tiny.with_quick_teachers(factories(spec, open_plans(spec))))
    assert not list(verify(corpus, deep=True))
    reader = CorpusReader(corpus)
    assert len(reader) >= 2
    for i in range(len(reader)):
        sample = decode_sample(reader[i])
        sample.check()
        assert sample.meta["scene"] == "tour"
        assert sample.meta["gravity"] == "estimated"
        for view in sample.views:
            assert view.depth is None
            assert view.segments is not None
            visible = sees(view.camera, sample.cloud.xyz, CloudConfig())
            assert visible.sum() > 30
            pixels, _ = project(sample.cloud.xyz[visible].astype(np.float64), view.camera)
            columns, rows = pixels.astype(int).T
            difference = np.abs(sample.cloud.rgb[visible].astype(float) - view.photo[rows, columns]).mean(1)
            assert np.median(difference) < 40
