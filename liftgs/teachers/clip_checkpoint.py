"""Makes an open_clip model from a name and a tag, path or URL of its weights, with the settings those were made for.

Weights that OpenAI published compute another function under GELU than under the QuickGELU they were trained with, and
nothing fails (open_clip issues 771 and 915); so whatever is known to come from there gets the QuickGELU config.
"""

from __future__ import annotations

import difflib
import logging
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip import factory, pretrained
from torch import Tensor, nn

from liftgs.scene import BadInput
from liftgs.teachers import torchscript
from liftgs.teachers.checkpoints import file_digest, local_checkpoint
from liftgs.teachers.configs import split_weights

#: buffers that only OpenAI's own files hold beside the weights
_OPENAI_MARKS = ("input_resolution", "context_length", "vocab_size")


def create_open_clip(name: str, weights: str, precision: str, device: str) -> tuple[nn.Module, str, str]:
    """An open_clip model with weights, in evaluation mode.

    Args:
        name: any of `open_clip.list_models()`.
        weights: a pretrained tag of that model, or the path or URL of a checkpoint: a state dict
            (.pt, .pth, .bin, .safetensors), a training checkpoint of open_clip's, or a TorchScript archive of OpenAI's;
            with TAG@ before it, if tags of that model want different settings.
        precision: "fp32", "fp16" or "bf16", as open_clip means them.
        device: a torch device.

    Returns:
        The model; the name of the config it was made with, which is `name` or its QuickGELU twin; and which weights
        these are: the tag, or a hash of the file.

    Raises:
        ValueError: no such model, `weights` is neither a tag of it nor looks like a path, or it needs its tag.
        BadInput: a checkpoint that is missing, damaged, or of another architecture.
    """
    name = name.replace("/", "-")
    _check_name(name)
    tags = pretrained.list_pretrained_tags_by_model(name)
    if weights in tags:
        name = _pin_quick_gelu(name, bool(pretrained.get_pretrained_cfg(name, weights).get("quick_gelu")))
        try:
            model = open_clip.create_model(name, weights, precision=precision, device=device, weights_only=True)
        except Exception as error:  # each way of downloading raises errors of its own kinds
            reason = f"cannot load these pretrained weights ({error}); download them and give their path instead"
            raise BadInput(f"{name}:{weights}", reason) from error
        return model.eval(), name, f"{name}:{weights}"
    tag, uri = split_weights(weights)
    if (tag and tag not in tags) or ("://" not in uri and not Path(uri).suffix and not Path(uri).exists()):
        raise ValueError(
            f"{weights!r} is neither a pretrained tag of {name} ({', '.join(tags) or 'it has none'}) nor a file"
        )
    path = local_checkpoint(uri)
    state = _read(path, uri)
    if not tag and (any(mark in state for mark in _OPENAI_MARKS) or "openai" in path.name.lower()):
        tag = "openai"
    settings = _settings_of(name, tag, uri)
    name = _pin_quick_gelu(name, bool(settings.pop("quick_gelu", tag == "openai")))
    with _without("No pretrained weights loaded"):
        model = open_clip.create_model(
            name,
            precision=precision,
            device=device,
            pretrained_text=False,
            force_preprocess_cfg=settings,
        )
    _load(model, {key: value for key, value in state.items() if key not in _OPENAI_MARKS}, uri, name)
    return model.eval(), name, f"{name}:sha256-{file_digest(path)}"


@contextmanager
def _without(message: str) -> Iterator[None]:
    """Keep a warning of open_clip's, which speaks of a model that is about to get its weights, out of the logs."""

    def other(record: logging.LogRecord) -> bool:
        return message not in record.getMessage()

    logging.getLogger().addFilter(other)
    try:
        yield
    finally:
        logging.getLogger().removeFilter(other)


def _check_name(name: str) -> None:
    names = open_clip.list_models()
    if name not in names:
        near = difflib.get_close_matches(name, names, 1)
        raise ValueError(f"open_clip has no model {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))


def _pin_quick_gelu(name: str, wanted: bool) -> str:
    """The config that computes what the weights were trained for."""
    config = factory.get_model_config(name)
    if not wanted or config.get("quick_gelu") or "timm_model_name" in config["vision_cfg"]:
        return name
    twin = f"{name}-quickgelu"
    if twin not in open_clip.list_models():
        raise ValueError(
            f"these weights need QuickGELU and open_clip has no model {twin!r}; name the model they belong to"
        )
    return twin


#: What the makers of weights may have chosen; without it they compute something else, and nothing fails.
_SETTINGS = ("mean", "std", "interpolation", "resize_mode", "quick_gelu")


def _settings_of(name: str, tag: str, uri: str) -> dict[str, Any]:
    """How photos are prepared for weights that are given by path, and which GELU they want: as for their tag, or as for
    all tags of the model.

    Raises:
        ValueError: the tags differ, and none is named.
    """
    known = {one: pretrained.get_pretrained_cfg(name, one) for one in pretrained.list_pretrained_tags_by_model(name)}
    first, *others = [known[tag]] if tag in known else list(known.values()) or [{}]
    differ = [key for key in _SETTINGS if any((one.get(key) or None) != (first.get(key) or None) for one in others)]
    if differ:
        raise ValueError(
            f"{uri}: known weights of {name} differ in {', '.join(differ)}; say before the path which these are, as in "
            f"{next(iter(known))}@PATH: {', '.join(known)}"
        )
    return {key: first[key] for key in _SETTINGS if first.get(key)}


def _read(path: Path, uri: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint file. Nothing in it is run or unpickled beyond tensors and containers."""
    try:
        if torchscript.is_torchscript(path):
            state = torchscript.read_state_dict(path)
            # a constant, which such an archive keeps among its tensors
            state = {key: value for key, value in state.items() if not key.endswith("attn_mask")}
        else:
            state = factory.load_state_dict(str(path), weights_only=True)
    except pickle.UnpicklingError as error:
        reason = "is not a plain state dict, and nothing else is unpickled; save model.state_dict() as .safetensors"
        raise BadInput(uri, reason) from error
    except Exception as error:  # torch, zipfile and safetensors raise nearly anything on damaged files
        reason = f"not a readable checkpoint ({_first_line(error)}); download or export it again"
        raise BadInput(uri, reason) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise BadInput(uri, "holds no state dict of tensors; save model.state_dict()")
    return state


def _load(model: nn.Module, state: dict[str, Tensor], uri: str, name: str) -> None:
    """As `open_clip.load_checkpoint`, which takes only paths, from tensors in memory."""
    try:
        state = factory.convert_state_dict(model, state)
        if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
            state = factory.convert_to_custom_text_state_dict(state)
        for scalar in ("logit_scale", "logit_bias"):
            own = getattr(model, scalar, None)
            if scalar in state and own is not None:
                state[scalar] = state[scalar].reshape(own.shape)
        factory.resize_pos_embed(state, model)
        factory.resize_text_pos_embed(state, model)
        model.load_state_dict(state)
    except (RuntimeError, KeyError, AttributeError, ValueError, AssertionError) as error:
        reason = (
            f"holds weights of another architecture than {name} ({_mismatch(error)}); name the model they belong to"
        )
        raise BadInput(uri, reason) from error


def _mismatch(error: Exception) -> str:
    """The first thing that does not fit, out of torch's long list."""
    size = re.search(
        r"size mismatch for (\S+): .*?torch.Size\((\[[\d, ]*\])\).*?torch.Size\((\[[\d, ]*\])\)", str(error)
    )
    if size:
        return f"{size[1]} is {size[2]}, not {size[3]}"
    for kind in ("Missing", "Unexpected"):
        keys = re.search(kind + r' key\(s\) in state_dict: "([^"]+)"', str(error))
        if keys:
            return f"{kind.lower()} {keys[1]}"
    return _first_line(error)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].split(". ")[0][:200] if lines else type(error).__name__


def image_dtype(tower: nn.Module) -> torch.dtype:
    """What an image tower of some precision wants its input to be. (Its norms and positions stay float32.)"""
    return next(m.weight.dtype for m in tower.modules() if isinstance(m, nn.Conv2d | nn.Linear))
