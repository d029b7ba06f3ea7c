"""wav2vec 2.0 through transformers: the speech network of CDRL.

Baevski et al., "wav2vec 2.0", NeurIPS 2020; Conneau et al., "XLSR", Interspeech 2021. XLSR-53 has 24 layers of 1024
numbers at 50 Hz and 316 M parameters; CDRL takes the output of layer 20, before any final layer norm.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Wav2Vec2Config, Wav2Vec2Model

from spfem_dist.saved import FETCH_AGAIN, refuse_not_finite

SAMPLE_RATE = 16_000


def load_wav2vec2(name_or_path: str | Path = "wav2vec2-large-xlsr-53") -> Wav2Vec2Model:
    """The network, frozen and in eval mode. Nothing is downloaded.

    name_or_path: a folder in transformers' format, or a name of `spfem weights list`. Raises MissingWeights (what it is,
    where to get it, where to put it) or ValueError where the files do not hold such a network.
    """
    folder = Path(name_or_path)
    if not folder.is_dir():
        from spfem_dist.weights import locate

        folder = locate(str(name_or_path))
    try:
        loaded: Any = Wav2Vec2Model.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    except Exception as error:
        raise ValueError(
            f"{folder} cannot be loaded as wav2vec 2.0 ({type(error).__name__}: {error}); it must hold config.json and "
            "model.safetensors or pytorch_model.bin of a Wav2Vec2Model"
        ) from error
    network, report = loaded
    absent = sorted(report["missing_keys"])
    if absent:
        raise ValueError(
            f"{folder} lacks {len(absent)} tensors of wav2vec 2.0 ({', '.join(absent[:3])}, ...), which would stay random: "
            "put the weights of this very architecture there"
        )
    refuse_not_finite(network.state_dict(), folder, FETCH_AGAIN)
    return network.eval().requires_grad_(False)


def tiny_wav2vec2(seed: int = 0) -> Wav2Vec2Model:
    """A random network of 2 layers of 32 numbers with the real one's 50 Hz front end; for tests and demos. Frozen."""
    config = Wav2Vec2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        do_stable_layer_norm=True,
        feat_extract_norm="layer",
        conv_bias=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Wav2Vec2Model(config).eval().requires_grad_(False)


@torch.inference_mode()
def layer_features(model: Wav2Vec2Model, waveform: np.ndarray | torch.Tensor, layer: int = 20) -> torch.Tensor:
    """Output of transformer layer `layer` (from 1, before any final layer norm), float32 [T50, D], on the model's device.

    waveform: [N] mono at 16 kHz, any scale: it is brought to zero mean and unit variance over its whole length, as XLSR-53
    was trained. T50 is about N / 320 (50 Hz). Raises ValueError for a wrong shape, an impossible layer, or less than
    400 samples (25 ms), which give no output at all.
    """
    layers = model.config.num_hidden_layers
    if not 1 <= layer <= layers:
        raise ValueError(f"layer {layer} of a wav2vec 2.0 network with {layers} layers; choose 1 to {layers}")
    samples = torch.as_tensor(waveform, dtype=torch.float32)
    if samples.dim() != 1 or len(samples) < 400:
        raise ValueError(
            f"waveform is {tuple(samples.shape)}; expected [N], mono at 16 kHz, at least 400 samples (25 ms)"
        )
    samples = samples.to(next(model.parameters()).device)
    samples = (samples - samples.mean()) / torch.sqrt(samples.var(unbiased=False) + 1e-7)
    # A hook sees the layer itself; whether `hidden_states` ends before or after the final norm differs by version.
    taken: list[torch.Tensor] = []
    hook = model.encoder.layers[layer - 1].register_forward_hook(
        lambda _module, _inputs, output: taken.append(output[0] if isinstance(output, tuple) else output)
    )
    try:
        model(samples[None].to(model.dtype))
    finally:
        hook.remove()
    return taken[0][0].float()
