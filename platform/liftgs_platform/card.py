"""The data card of a corpus: a page for people, and nothing in it that the manifest does not say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_CARD = """\
---
pretty_name: LIFT-GS pseudo-labels
tags: [3d, rgb-d, webdataset, pseudo-labels]
---

# LIFT-GS corpus {spec_hash}

Chunks of 3D scans, each a coloured point cloud and the posed photos that see it, with 2D pseudo-labels per photo:
segments, an embedding per segment and, where a captioner ran, a caption per segment. Made from `{source}`.

| | |
| --- | ---: |
{counts}

{loss}

## Reading it

Plain WebDataset: every sample is a run of tar members of one key, `{{scene}}-{{chunk:03d}}`.

```python
import glob, webdataset
samples = webdataset.WebDataset(sorted(glob.glob("shards/*.tar")), shardshuffle=False)

from liftgs.sample import decode_sample          # decodes; pip install liftgs
from liftgs_platform.reader import CorpusReader  # random access, local or s3://
sample = decode_sample(CorpusReader(".")[0])
```

| member | holds |
| --- | --- |
| `cloud.npz` | xyz float32 [N, 3] in metres, rgb uint8 [N, 3] |
| `{{v:02d}}.rgb.jpg` | photo number v |
| `{{v:02d}}.depth.png` | uint16 millimetres along the optical axis, 0 = invalid (if the source has depth) |
| `{{v:02d}}.camera.json` | K 3x3, cam_to_world 4x4 (OpenCV axes), width, height |
| `{{v:02d}}.segments.png` | uint16 [H, W]: 0 = none, i = row i - 1 of embeds and captions |
| `{{v:02d}}.embeds.npy` | float16 [S, F], unit rows |
| `{{v:02d}}.captions.json` | S strings (if captioned) |
| `instances.npz`, `expressions.json` | 3D ground truth (labelled sources only) |
| `meta.json` | source, frames, gravity, revisions of teachers and code |

`shards/*.json` gives the offset, size and CRC-32 of every member in its tar, and the tar's sha256. `manifest.json`
lists the shards; `quarantine.jsonl` what could not be labelled, with its reason. `liftgs verify` checks all of it.

The segments, embeddings and captions are the output of models, not of people; they carry those models' errors and
biases. The photos are the source's, under the source's licence.

## How it was made

{plans}

What decides the content of this corpus (spec `{spec_hash}`):

```json
{spec}
```
"""


def card(manifest: Mapping[str, Any]) -> str:
    """The text of README.md."""
    counts = {"shards": len(manifest["shards"]), **manifest["counts"]}
    size = sum(shard["size"] for shard in manifest["shards"])
    order = ("shards", "samples", "views", "segments", "captions", "points", "expressions")
    rows = [f"| {name} | {counts[name]:,} |" for name in order if counts.get(name)]
    return _CARD.format(
        spec_hash=manifest["spec_hash"],
        source=manifest["spec"].get("source", "an unnamed source"),
        counts="\n".join([*rows, f"| size | {size / 1e6:,.1f} MB |"]),
        loss=_loss(manifest),
        plans="\n".join(map(_plan, manifest["plans"])),
        spec=json.dumps(manifest["spec"], indent=2, sort_keys=True),
    )


def _loss(manifest: Mapping[str, Any]) -> str:
    wanted, stored = manifest["planned"]["views"], manifest["counts"]["views"]
    if not manifest["quarantine"]["rows"]:
        return f"All {wanted:,} planned views are in it."
    stages = ", ".join(f"{rows} in {stage}" for stage, rows in sorted(manifest["quarantine"]["by_stage"].items()))
    rate = 100 * (wanted - stored) / wanted if wanted else 0.0
    return (
        f"{wanted - stored:,} of {wanted:,} planned views ({rate:.2f} %) are missing. `quarantine.jsonl` says why, in "
        f"{manifest['quarantine']['rows']} rows ({stages}); `retry=true` does them again, once mended."
    )


def _plan(plan: Mapping[str, Any]) -> str:
    provenance = json.dumps(plan["provenance"], sort_keys=True)
    return f"- `{plan['file']}` (sha256 `{plan['sha256'][:16]}`): `{provenance}`"
