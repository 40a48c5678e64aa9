"""Tiny FLUX.2-klein models and styles of random weights, stored as the published ones are.

Only the autoencoder has a task: a smooth picture that goes in comes out again, roughly. Without
that it would mean nothing how far an edit is from its source.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
)
from diffusers.models.resnet import ResnetBlock2D
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM

LATENT_CHANNELS = 8
TEXT_WIDTH = 64
TEXT_LAYERS = (1, 2, 3)
TEXT_TOKENS = 128

# What the tokenizer learns its merges from; any other text is bytes.
TEXT = [
    "user\n\nassistant\n\n",
    "a red boat on a calm sea, the boat in the harbour at sunset",
    "sebuah perahu merah di laut yang tenang, pantai Indonesia saat matahari terbenam",
]
# Qwen3's turns. Without thinking the reply starts with an empty thought.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
    "{% if enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% endif %}"
)


def write_model(folder: Path, vae_widths: Sequence[int], seed: int) -> None:
    """Write a whole pipeline folder and its iris.json; weights are stored in bfloat16.

    vae_widths: the autoencoder's channels, full resolution first. 4 of them make 16 pixels a
    token, 5 make 32.
    """
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        tokenizer = _tokenizer()
        pipeline = Flux2KleinPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
            vae=_autoencoder(vae_widths),
            text_encoder=_text_encoder(tokenizer),
            tokenizer=tokenizer,
            transformer=_transformer(),
        )
    pipeline.to(torch.bfloat16).save_pretrained(folder)
    numbers = {"text_encoder_out_layers": TEXT_LAYERS, "max_sequence_length": TEXT_TOKENS}
    (folder / "iris.json").write_text(json.dumps(numbers))


def write_style(folder: Path, model: Path, seed: int) -> None:
    """Write a LoRA for every linear layer in the transformer blocks of the model folder."""
    transformer = Flux2Transformer2DModel.from_pretrained(model / "transformer")
    layers = [
        path
        for path, module in transformer.named_modules()
        if isinstance(module, nn.Linear) and "transformer_blocks." in path
    ]
    config = LoraConfig(r=4, lora_alpha=6, target_modules=layers, init_lora_weights=False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformer.add_adapter(config)
    Flux2KleinPipeline.save_lora_weights(
        folder,
        transformer_lora_layers=get_peft_model_state_dict(transformer),
        transformer_lora_adapter_metadata=transformer.peft_config["default"].to_dict(),
    )


def _tokenizer() -> Qwen2Tokenizer:
    """A byte-level BPE with a few merges and the special tokens of a chat."""
    qwen = Qwen2Tokenizer().backend_tokenizer
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.normalizer = qwen.pre_tokenizer, qwen.normalizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + 64, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(TEXT, trainer)
    learnt = json.loads(bpe.to_str())["model"]
    return Qwen2Tokenizer(
        vocab=learnt["vocab"],
        merges=[tuple(merge) for merge in learnt["merges"]],
        unk_token="<|endoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<think>", "</think>"],
        padding_side="right",
        chat_template=CHAT_TEMPLATE,
    )


def _text_encoder(tokenizer: Qwen2Tokenizer) -> Qwen3ForCausalLM:
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=2 * TEXT_WIDTH,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            tie_word_embeddings=True,
            initializer_range=0.2,  # large enough that prompts differ
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )


def _transformer() -> Flux2Transformer2DModel:
    transformer = Flux2Transformer2DModel(
        patch_size=1,
        in_channels=4 * LATENT_CHANNELS,
        num_layers=2,
        num_single_layers=3,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=TEXT_WIDTH * len(TEXT_LAYERS),
        timestep_guidance_channels=64,
        mlp_ratio=2.0,
        axes_dims_rope=(8, 8, 8, 8),
        guidance_embeds=False,
    )
    for module in transformer.modules():
        if isinstance(module, nn.Linear):  # what it gives is as large as what it takes
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
        elif isinstance(module, nn.RMSNorm):  # queries and keys: attention that picks
            nn.init.constant_(module.weight, 2.0)
    return transformer


def _autoencoder(widths: Sequence[int]) -> AutoencoderKLFlux2:
    vae = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=tuple(widths),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=1,
        mid_block_add_attention=False,
    )
    for module in vae.modules():
        if isinstance(module, nn.Conv2d):
            _only_mix_channels(module)
    for module in vae.modules():
        if isinstance(module, ResnetBlock2D):  # lets its input pass
            nn.init.zeros_(module.conv2.weight)
            nn.init.zeros_(module.conv2.bias)
    for part in (vae.encoder, vae.decoder):
        nn.init.constant_(part.conv_norm_out.bias, 3.0)  # where a SiLU is nearly straight
    colours = torch.rand(16, 3, 3, 3) * 2 - 1
    pictures = functional.interpolate(colours, size=64, mode="bilinear", align_corners=True)
    latents = vae.encode(pictures).latent_dist.mode()
    cells = functional.pixel_unshuffle(latents, 2)
    vae.bn.running_mean.copy_(cells.mean(dim=(0, 2, 3)))
    vae.bn.running_var.copy_(cells.var(dim=(0, 2, 3)))
    _fit_last_layer(vae, latents, pictures)
    return vae


def _only_mix_channels(layer: nn.Conv2d) -> None:
    """Make it a rotation of the channels of a pixel, or of the mean of 2x2 where it strides."""
    mixing = nn.init.orthogonal_(torch.empty(layer.weight.shape[:2]))
    middle = layer.kernel_size[0] // 2
    nn.init.zeros_(layer.weight)
    if layer.stride == (2, 2):
        layer.weight[..., :2, :2] = mixing[..., None, None] / 4
    else:
        layer.weight[..., middle, middle] = mixing


def _fit_last_layer(vae: AutoencoderKLFlux2, latents: Tensor, pictures: Tensor) -> None:
    """Make the pictures of the latents, by least squares on what reaches the last convolution."""
    seen, layer = [], vae.decoder.conv_out
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    vae.decode(latents)
    hook.remove()
    patches = functional.pad(functional.unfold(seen[0], 3, padding=1), (0, 0, 0, 1), value=1.0)
    patches = patches.movedim(1, 0).flatten(1).double()  # (weights and bias, pixels)
    wanted = pictures.movedim(1, 0).flatten(1).double()
    squares = patches @ patches.T / patches.shape[1]
    squares += 1e-3 * torch.eye(len(squares))  # keeps noise from glaring
    fitted = torch.linalg.solve(squares, patches @ wanted.T / patches.shape[1]).T
    layer.weight.copy_(fitted[:, :-1].view_as(layer.weight))
    layer.bias.copy_(fitted[:, -1])
