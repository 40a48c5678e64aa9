"""The text side: a byte-level BPE, a chat template that ends in registers, a small Qwen3.

The registers are special tokens behind the prompt. A causal encoder has read the whole prompt when
it comes to them, so they are where the transformer finds what the prompt asks for.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
REGISTERS = ("<|place|>", "<|change|>", "<|first|>", "<|second|>")
VOCABULARY = 2048
TOKENS = 64  # every prompt is padded or cut to this length
WIDTH = 128
LAYERS = 3
OUT_LAYERS = (1, 2, 3)

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['content'] + '<|im_end|>' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '" + "".join(REGISTERS) + "' }}{%- endif -%}"
)


def build_tokenizer(corpus: list[str]) -> Qwen2Tokenizer:
    """Train the BPE on the world's own captions; every byte is a token, so any text encodes."""
    empty = Qwen2Tokenizer()
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = empty.backend_tokenizer.pre_tokenizer
    bpe.normalizer = empty.backend_tokenizer.normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(REGISTERS) - 3,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus, trainer)
    model = json.loads(bpe.to_str())["model"]
    return Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=[tuple(merge) for merge in model["merges"]],
        unk_token=PAD,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[START, *REGISTERS],
        padding_side="right",
        truncation_side="left",
        model_max_length=TOKENS,
        chat_template=CHAT_TEMPLATE,
    )


def build_encoder(tokenizer: Qwen2Tokenizer) -> Qwen3ForCausalLM:
    """A Qwen3 from random weights (torch's seed decides)."""
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=3 * WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=4,
            num_key_value_heads=4,
            head_dim=WIDTH // 4,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


class Prompts:
    """Captions -> ids and embeddings, as the engine makes them but in batches and faster."""

    def __init__(self, tokenizer: Qwen2Tokenizer, encoder: Qwen3ForCausalLM) -> None:
        self.tokenizer = tokenizer
        self.encoder = encoder
        self._before = tokenizer.convert_tokens_to_ids([START])
        self._after = tokenizer.convert_tokens_to_ids([END, *REGISTERS])
        self._fast = tokenizer.backend_tokenizer

    def ids(self, captions: list[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Ids and mask, both (B, TOKENS), and where the first register stands, (B,)."""
        room = TOKENS - len(self._before) - len(self._after)
        ids = torch.full((len(captions), TOKENS), self.tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        first = torch.zeros(len(captions), dtype=torch.long)
        for i, found in enumerate(self._fast.encode_batch(captions, add_special_tokens=False)):
            row = self._before + found.ids[:room] + self._after
            ids[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
            first[i] = len(row) - len(REGISTERS)
        return ids, mask, first

    def embed(self, captions: list[str]) -> Tensor:
        """(B, TOKENS, len(OUT_LAYERS) * WIDTH), as the transformer takes it."""
        return self.embed_ids(self.ids(captions)[0])

    @torch.no_grad()
    def embed_ids(self, ids: Tensor) -> Tensor:
        """The same of (B, TOKENS) ids, on the encoder's device."""
        ids = ids.to(self.encoder.device, torch.long)
        output = self.encoder.model(
            input_ids=ids,
            attention_mask=(ids != self.tokenizer.pad_token_id).long(),
            output_hidden_states=True,
            use_cache=False,
        )
        return torch.cat([output.hidden_states[layer] for layer in OUT_LAYERS], dim=-1)


def load_prompts(folder: Path, device: torch.device | None = None) -> Prompts:
    """The tokenizer and the frozen encoder of a run or a pipeline folder."""
    tokenizer = Qwen2Tokenizer.from_pretrained(folder / "tokenizer")
    encoder = Qwen3ForCausalLM.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    encoder.to(device or torch.device("cpu")).eval().requires_grad_(False)
    return Prompts(tokenizer, encoder)
