"""The autoencoder of the trained iris-mini: a linear encoder in closed form, a decoder to train.

The encoder is written from components that are measured on rendered pictures; `LinearCodec` is
the same map as one matrix.

    components = fit_components(pictures)
    codec = LinearCodec.of(components)
    cells = codec.encode(pictures)  # what the transformer is trained on
    vae = build_vae(components)
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKLFlux2

from training.components import Components
from training.decoder import LATENTS, WIDTHS, Decoder, write_decoder
from training.encoder import ENCODER_WIDTHS, write_encoder


def build_vae(components: Components, decoder: Decoder | None = None) -> AutoencoderKLFlux2:
    """The whole autoencoder in fp32, the encoder rounded to bf16 as it is stored.

    Without `decoder`, decoding is the linear inverse.
    """
    vae = empty_vae()
    write_encoder(vae, components)
    write_decoder(vae, decoder or start_decoder(components))
    return vae.eval()


def start_decoder(components: Components, seed: int = 0) -> Decoder:
    """A decoder, ready to be trained, that is the linear inverse of the encoder."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        decoder = Decoder()
    decoder.start(components.ups)
    return decoder


def empty_vae() -> AutoencoderKLFlux2:
    """An autoencoder without weights yet: its residual blocks pass their input through."""
    levels = len(WIDTHS)
    vae = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=ENCODER_WIDTHS,
        decoder_block_out_channels=WIDTHS,
        layers_per_block=1,
        latent_channels=LATENTS,
        norm_num_groups=1,
        sample_size=768,
        mid_block_add_attention=False,
    )
    with torch.no_grad():
        for name, parameter in vae.named_parameters():
            # a residual block of zeros passes its input through
            parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
        for conv in (vae.quant_conv, vae.post_quant_conv):
            conv.weight[:, :, 0, 0] = torch.eye(conv.out_channels)
    return vae.eval()
