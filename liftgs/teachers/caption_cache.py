"""Answers of vision-language models, one small JSON file per question, in a folder that outlives a run.

A captioner that was killed, or a corpus that is labelled again with other settings elsewhere, asks only what is new.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import fsspec
import numpy as np
from jaxtyping import UInt8

from liftgs.secrecy import blanked
from liftgs.teachers.captions import CaptionConfig


def question_key(config: CaptionConfig, image: UInt8[np.ndarray, "h w 3"]) -> str:
    """Hash of what decides an answer: the model, the prompt, the parameters and the pixels that the model is shown.

    Pixels rather than their JPEG, whose bytes change between versions of the codec.
    """
    question = {
        "model": config.model,
        "prompt": config.prompt_hash,
        "parameters": config.parameters,
        "image": hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest(),
    }
    return hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()


class CaptionCache:
    """Key -> caption, at `{url}/{key[:2]}/{key}.json`. Any number may write at once: files are replaced as a whole."""

    def __init__(self, url: str):
        """Open the folder; it need not exist yet."""
        self._fs, self._root = fsspec.core.url_to_fs(url)

    def get(self, key: str) -> str | None:
        """The caption, or None when there is none or its file is damaged (it is then asked for and written again).

        Raises:
            OSError: the storage fails.
        """
        try:
            with self._faults():
                data = self._fs.cat_file(self._path(key))
            record = json.loads(data)
        except (FileNotFoundError, ValueError, RecursionError):
            return None
        caption = record.get("caption") if isinstance(record, dict) else None
        return caption if isinstance(caption, str) else None

    def put(self, key: str, caption: str, model: str) -> None:
        """Keep a caption.

        Raises:
            OSError: the storage fails.
        """
        data = json.dumps({"caption": caption, "model": model}, sort_keys=True).encode()
        path = self._path(key)
        if "file" not in self._fs.protocol:
            with self._faults():
                self._fs.pipe_file(path, data)  # object stores show a PUT whole or not at all
            return
        os.makedirs(os.path.dirname(path), exist_ok=True)
        temporary = f"{path}.{uuid.uuid4().hex}.tmp"
        with open(temporary, "wb") as file:
            file.write(data)
        os.replace(temporary, path)

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Clients of object stores have exceptions of their own for a store that is down or keys that are missing."""
        try:
            yield
        except OSError:
            raise
        except Exception as fault:
            raise OSError(f"caption.cache {self._root}: {blanked(f'{type(fault).__name__}: {fault}')}") from fault

    def _path(self, key: str) -> str:
        return f"{self._root}/{key[:2]}/{key}.json"
