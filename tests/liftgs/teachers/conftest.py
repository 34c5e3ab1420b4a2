"""CLIPs for the tests of the teachers."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
import torch
from toy_clip import TOY, toy

from liftgs.teachers.clip import ClipModel, EmbedConfig, build_clip


@pytest.fixture(scope="module")
def toy_models(tmp_path_factory: pytest.TempPathFactory) -> None:
    """open_clip models `toy` and `toy-quickgelu`, of one shape."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "toy.json").write_text(json.dumps(TOY))
    (folder / "toy-quickgelu.json").write_text(json.dumps({**TOY, "quick_gelu": True}))
    open_clip.add_model_config(folder)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "toy.pt"
    torch.save(toy().state_dict(), path)
    return path


@pytest.fixture(scope="module")
def tiny() -> ClipModel:
    return build_clip(EmbedConfig())
