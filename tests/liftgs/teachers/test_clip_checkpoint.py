"""Foreign checkpoints of CLIP: formats, settings, and what is refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import open_clip
import pytest
import torch
from toy_clip import toy

from liftgs.scene import BadInput
from liftgs.teachers.clip import EmbedConfig, build_clip
from liftgs.teachers.clip_checkpoint import create_open_clip

pytestmark = pytest.mark.usefixtures("toy_models")


def test_every_format_of_a_checkpoint_gives_the_same_model(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = toy().state_dict()
    training = tmp_path / "epoch_1.pt"
    torch.save({"epoch": 1, "state_dict": {f"module.{key}": value for key, value in state.items()}}, training)
    from safetensors.torch import save_file

    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "toy.safetensors")
    with torch.no_grad():
        wanted = toy().encode_text(open_clip.get_tokenizer("toy")(["a chair"]), normalize=True)
    found = {
        str(path): build_clip(EmbedConfig("toy", str(path)))
        for path in (checkpoint, training, tmp_path / "toy.safetensors")
    }
    for clip in found.values():
        assert clip.encode_text(["a chair"]).allclose(wanted, atol=1e-6)
    monkeypatch.setenv("LIFTGS_CACHE", str(tmp_path / "cache"))
    by_url = build_clip(EmbedConfig("toy", checkpoint.as_uri()))
    assert by_url.revision == found[str(checkpoint)].revision  # names the content, not the place
    assert len({clip.revision for clip in found.values()}) == 3


def openai_archive(path: Path) -> open_clip.CLIP:
    """A file in the format that OpenAI publishes."""
    model = toy(quick_gelu=True)
    for name, value in (("input_resolution", 32), ("context_length", 16), ("vocab_size", 49408)):
        if hasattr(model, name):
            delattr(model, name)
        model.register_buffer(name, torch.tensor(value))
    inputs = {"encode_image": torch.rand(1, 3, 32, 32), "encode_text": torch.zeros(1, 16, dtype=torch.int)}
    with torch.no_grad():
        torch.jit.save(torch.jit.trace_module(model, inputs, check_trace=False), path)
    return model


@pytest.mark.filterwarnings("ignore")
def test_openais_archives_are_read_and_get_quick_gelu_whatever_the_name(tmp_path: Path) -> None:
    path = tmp_path / "ViT-toy.pt"
    openai_archive(path)
    for name in ("toy", "toy-quickgelu"):
        model, used, _ = create_open_clip(name, str(path), "fp32", "cpu")
        assert used == "toy-quickgelu"
        assert isinstance(model, open_clip.CLIP)
        pixels = torch.rand(2, 3, 32, 32)
        with torch.no_grad():
            assert model.encode_image(pixels).allclose(toy(quick_gelu=True).encode_image(pixels), atol=1e-5)
            assert not model.encode_image(pixels).allclose(toy().encode_image(pixels), atol=1e-3)


def test_the_openai_tag_gets_quick_gelu_whatever_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def create(name: str, weights: str, **_: object) -> torch.nn.Module:
        asked.append((name, weights))
        return toy()

    monkeypatch.setattr(open_clip, "create_model", create)
    create_open_clip("ViT-L-14", "openai", "fp32", "cpu")
    create_open_clip("ViT-L-14", "laion2b_s32b_b82k", "fp32", "cpu")
    assert asked == [("ViT-L-14-quickgelu", "openai"), ("ViT-L-14", "laion2b_s32b_b82k")]


class Payload:
    """Would leave a file behind if anything executed it."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


@pytest.mark.filterwarnings("ignore")
def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path) -> None:
    trap, path = tmp_path / "executed", tmp_path / "evil.pt"
    torch.save({"weight": Payload(trap)}, path)
    with pytest.raises(BadInput, match="not a plain state dict"):
        build_clip(EmbedConfig("toy", str(path)))
    archive = tmp_path / "evil-archive.pt"
    openai_archive(archive)
    import zipfile

    with zipfile.ZipFile(archive) as good, zipfile.ZipFile(tmp_path / "evil2.pt", "w") as bad:
        for name in good.namelist():
            data = pickle.dumps(Payload(trap)) if name.endswith("/data.pkl") else good.read(name)
            bad.writestr(name, data)
    with pytest.raises(BadInput, match="not a plain state dict"):
        build_clip(EmbedConfig("toy", str(tmp_path / "evil2.pt")))
    assert not trap.exists()


def test_a_bad_checkpoint_is_refused_in_one_sentence_that_names_it(checkpoint: Path, tmp_path: Path) -> None:
    good = checkpoint.read_bytes()
    state = toy().state_dict()
    (tmp_path / "cut.pt").write_bytes(good[: len(good) // 2])
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "short.safetensors").write_bytes(b"123")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({**state, "ln_final.weight": torch.zeros(7)}, tmp_path / "wrong_shape.pt")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pt")
    reasons = {
        "cut.pt": "not a readable checkpoint",
        "empty.pt": "not a readable checkpoint",
        "short.safetensors": "not a readable checkpoint",
        "list.pt": "checkpoint",
        "wrong_shape.pt": r"ln_final.weight is \[7\], not \[64\]",
        "other.pt": "another architecture than toy",
        "absent.pt": "no such checkpoint file",
    }
    for name, reason in reasons.items():
        with pytest.raises(BadInput, match=reason) as caught:
            build_clip(EmbedConfig("toy", str(tmp_path / name)))
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_wrong_name_or_tag_is_refused_with_what_there_is() -> None:
    with pytest.raises(ValueError, match="did you mean 'ViT-L-14'"):
        build_clip(EmbedConfig("ViT-L14", "openai"))
    with pytest.raises(ValueError, match=r"RN101 \(openai"):
        build_clip(EmbedConfig("RN101", "opnai"))
    with pytest.raises(ValueError, match="pretrained is empty"):
        EmbedConfig("ViT-L-14")


def test_settings_of_a_path_are_those_of_the_models_known_weights() -> None:
    from liftgs.teachers.clip_checkpoint import _settings_of

    agreed = _settings_of("ViT-B-16-SigLIP", "", "a.pt")
    assert (agreed["mean"], agreed["resize_mode"]) == ((0.5, 0.5, 0.5), "squash")
    assert "quick_gelu" not in agreed
    assert _settings_of("toy", "", "a.pt") == {}


@pytest.mark.parametrize(
    ("name", "tag", "mean", "resize", "quick"),
    [
        ("ViT-L-14", "laion2b_s32b_b82k", 0.5, "shortest", None),
        ("ViT-L-14", "openai", 0.48145466, "shortest", True),
        ("ViT-H-14", "dfn5b", 0.48145466, "squash", True),
        ("ViT-B-32", "laion2b_s34b_b79k", 0.48145466, "shortest", None),
    ],
)
def test_a_path_with_its_tag_gets_the_settings_of_the_tag(
    name: str, tag: str, mean: float, resize: str, quick: bool | None
) -> None:
    from liftgs.teachers.clip_checkpoint import _settings_of

    found = _settings_of(name, tag, "a.pt")
    assert (found["mean"][0], found["resize_mode"], found.get("quick_gelu")) == (mean, resize, quick)


def test_a_path_whose_settings_nobody_can_know_needs_its_tag(tmp_path: Path) -> None:
    """Weights of one model were made with other means, crops and activations; nothing would fail."""
    path = tmp_path / "weights.pt"
    torch.save({"visual.proj": torch.zeros(2)}, path)
    with pytest.raises(
        ValueError, match=r"ViT-L-14 differ in mean, std, quick_gelu; .* as in openai@PATH: openai, laion400m"
    ):
        create_open_clip("ViT-L-14", str(path), "fp32", "cpu")
    with pytest.raises(ValueError, match=r"'opnai@.*weights.pt' is neither a pretrained tag of ViT-L-14"):
        create_open_clip("ViT-L-14", f"opnai@{path}", "fp32", "cpu")
    with pytest.raises(BadInput, match="another architecture than ViT-B-32"):
        create_open_clip("ViT-B-32", f"laion2b_s34b_b79k@{path}", "fp32", "cpu")


def test_a_job_resolves_the_path_behind_a_tag() -> None:
    from liftgs.teachers.configs import split_weights

    assert split_weights("laion2b_s34b_b79k@/weights/b.pt") == ("laion2b_s34b_b79k", "/weights/b.pt")
    assert split_weights("openai") == ("", "openai")
    assert split_weights("s3://user@host/b.pt") == ("", "s3://user@host/b.pt")
