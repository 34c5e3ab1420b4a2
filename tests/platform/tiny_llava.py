"""Makes a LLaVA of random weights, 0.1 million parameters, in a folder: `python tiny_llava.py FOLDER`.

Needs transformers, so the interpreter of vLLM's environment runs it. The model says random syllables that depend on the
image, by the same code paths in vLLM as a real one.
"""

from __future__ import annotations

import json
import string
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

IMAGE_SIZE, PATCH_SIZE = 28, 14
SPECIAL = ["<pad>", "<s>", "</s>", "<image>"]

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message.role }}: {% for part in message.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
WORDS = ("the", "red", "chair", "near", "a", "wooden", "table", "in", "corner", "of", "small", "room", "white", "walls")


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Letters, spaces and a few syllables, so that whatever the model says is text; other characters are dropped."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=SPECIAL, initial_alphabet=list(string.ascii_letters + "Ġ")
    )
    tokenizer.train_from_iterator([f" {first} {second}" for first in WORDS for second in WORDS], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens={"image_token": "<image>"},
    )


def random_weights(config: LlavaConfig) -> dict[str, torch.Tensor]:
    """Wide enough that the image matters, under the names of published LLaVA checkpoints.

    transformers 5 has other names in memory than in those files, and vLLM knows only the latter.
    """
    torch.manual_seed(0)
    published = {
        "model.vision_tower.": "vision_tower.vision_model.",
        "model.multi_modal_projector.": "multi_modal_projector.",
        "model.language_model.": "language_model.model.",
        "lm_head.": "language_model.lm_head.",
    }
    weights = {}
    for name, value in LlavaForConditionalGeneration(config).state_dict().items():
        prefix = next(prefix for prefix in published if name.startswith(prefix))
        matrix = value.ndim > 1
        weights[published[prefix] + name.removeprefix(prefix)] = torch.randn_like(value) * 0.3 if matrix else value
    return weights


def make(folder: Path) -> None:
    """Write configuration, tokenizer, processor and chat template."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        image_seq_length=(IMAGE_SIZE // PATCH_SIZE) ** 2,
    )
    config.architectures = ["LlavaForConditionalGeneration"]
    config.save_pretrained(folder)
    save_file(random_weights(config), folder / "model.safetensors")
    square = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    CLIPImageProcessor(size=square, crop_size=square, do_center_crop=False).save_pretrained(folder)
    processor = {
        "processor_class": "LlavaProcessor",
        "patch_size": PATCH_SIZE,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
        "image_token": "<image>",
    }
    (folder / "processor_config.json").write_text(json.dumps(processor))
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": CHAT_TEMPLATE}))


if __name__ == "__main__":
    make(Path(sys.argv[1]))
