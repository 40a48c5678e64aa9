"""The text side: a byte-level BPE tokenizer with a chat template, and a Qwen3 encoder."""

from __future__ import annotations

import json

import torch
from diffusers import Flux2KleinPipeline
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM

from iris_mini.config import MiniConfig
from iris_mini.words import corpus

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
THOUGHT = ("<think>", "</think>")
SPECIAL = (PAD, START, END, *THOUGHT)

# The turns of the Qwen3 chat format. With enable_thinking false the reply starts
# with an empty thought, as the production encoder expects it.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}"
    "{{ '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false -%}"
    "{{ '<think>\\n\\n</think>\\n\\n' }}"
    "{%- endif -%}"
    "{%- endif -%}"
)


def build_tokenizer(config: MiniConfig) -> Qwen2Tokenizer:
    """Train the BPE on the word list; every byte is a token, so any text encodes."""
    empty = Qwen2Tokenizer()
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = empty.backend_tokenizer.pre_tokenizer
    bpe.normalizer = empty.backend_tokenizer.normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=config.text_vocab - len(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus(), trainer)
    model = json.loads(bpe.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=[tuple(merge) for merge in model["merges"]],
        unk_token=PAD,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[START, *THOUGHT],
        padding_side="right",
        model_max_length=config.text_tokens,
        chat_template=CHAT_TEMPLATE,
    )
    return tokenizer


def build_text_encoder(
    config: MiniConfig, tokenizer: Qwen2Tokenizer, generator: torch.Generator
) -> Qwen3ForCausalLM:
    """An untrained Qwen3 whose hidden states stay near unit size and differ by prompt."""
    encoder = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=config.text_width,
            intermediate_size=config.text_mlp,
            num_hidden_layers=config.text_layers,
            num_attention_heads=config.text_heads,
            num_key_value_heads=config.text_kv_heads,
            head_dim=config.text_width // config.text_heads,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )
    with torch.no_grad():
        for name, weight in sorted(encoder.named_parameters()):
            if weight.ndim == 2:
                fan_in = 1 if "embed_tokens" in name else weight.shape[1]
                weight.copy_(torch.randn(weight.shape, generator=generator) / fan_in**0.5)
            else:
                weight.fill_(1.0)
    return encoder


def encode(
    prompts: list[str],
    config: MiniConfig,
    tokenizer: Qwen2Tokenizer,
    encoder: Qwen3ForCausalLM,
) -> torch.Tensor:
    """(B, text_tokens, joint_attention_dim), as the pipeline conditions the transformer."""
    with torch.no_grad():
        return Flux2KleinPipeline._get_qwen3_prompt_embeds(
            encoder,
            tokenizer,
            prompts,
            max_sequence_length=config.text_tokens,
            hidden_states_layers=list(config.text_out_layers),
        )
