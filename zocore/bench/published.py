"""The MeZO step as it was published, kept as the baseline of `bench.py`; nothing trains with it.

It does what princeton-nlp/MeZO's `large_models/trainer.py` and its wrapped forward do: a re-seeded global
generator, three out-of-place sweeps `p = p + s * z * eps` and one update sweep, logits at all positions,
shifted and soft-maxed whole, the key-value cache kept. Compare `carriers/scratch.py` and
`models/objectives/label_rows.py`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


def published_step(
    model: nn.Module, ids: Tensor, mask: Tensor, lr: float, eps: float, seed: int, decay: float = 0.0
) -> float:
    """One step on the last token of each row (B, T); returns the projected gradient.

    It re-seeds torch's global generator, as published: `bench.py` puts the generator's state back.
    """
    moving = [(name, p) for name, p in model.named_parameters()]
    _perturb(moving, seed, +1, eps)
    plus = _loss(model, ids, mask)
    _perturb(moving, seed, -2, eps)
    minus = _loss(model, ids, mask)
    projected_grad = ((plus - minus) / (2 * eps)).item()
    _perturb(moving, seed, +1, eps)
    torch.manual_seed(seed)
    for name, p in moving:
        z = torch.normal(mean=0.0, std=1.0, size=p.data.size(), device=p.data.device, dtype=p.data.dtype)
        exempt = "bias" in name or "layer_norm" in name or "layernorm" in name
        p.data = p.data - lr * (projected_grad * z if exempt else projected_grad * z + decay * p.data)
    return projected_grad


def _perturb(moving: list[tuple[str, nn.Parameter]], seed: int, factor: int, eps: float) -> None:
    torch.manual_seed(seed)
    for _, p in moving:
        z = torch.normal(mean=0.0, std=1.0, size=p.data.size(), device=p.data.device, dtype=p.data.dtype)
        p.data = p.data + factor * z * eps


@torch.inference_mode()
def _loss(model: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
    """The wrapped forward: log-softmax of all shifted logits, the loss of the last token alone."""
    logits = model(input_ids=ids, attention_mask=mask, use_cache=True).logits
    shifted = logits[..., :-1, :].contiguous()
    log_probs = functional.log_softmax(shifted, dim=-1)
    chosen = torch.gather(log_probs, -1, ids[..., 1:].unsqueeze(-1)).squeeze(-1)
    wanted = torch.zeros_like(chosen, dtype=torch.bool)
    wanted[:, -1] = True
    return -(chosen * wanted).sum(-1).mean()
