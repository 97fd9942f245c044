"""Tiny random models of every supported architecture and a tiny byte-level tokenizer, made in process."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

TEXT = "great terrible good bad yes no maybe positive negative It was the film food a b and or not"
SPECIAL = ["<s>", "<pad>", "</s>", "<mask>"]
HIDDEN, LAYERS, HEADS, POSITIONS = 64, 2, 4, 128

CAUSAL = ("llama", "opt", "gpt2", "qwen2", "qwen3", "gpt_neox")
MASKED = ("bert", "roberta")
ENCODER_HEADS = {"masked": "ForMaskedLM", "classifier": "ForSequenceClassification", "encoder": "Model"}
PREFIX = {
    "llama": "Llama",
    "opt": "OPT",
    "gpt2": "GPT2",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "gpt_neox": "GPTNeoX",
    "bert": "Bert",
    "roberta": "Roberta",
}


@lru_cache(maxsize=2)
def tokenizer(frame: bool = False) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer with the words of TEXT as tokens; `frame` gives <s> text </s>."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([" " + TEXT] * 10, trainer)
    single, pair = ("<s> $A </s>", "<s> $A </s> </s> $B:1 </s>:1") if frame else ("<s> $A", "<s> $A $B")
    ids = [("<s>", 0), ("</s>", 2)]
    core.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        mask_token="<mask>",
        model_max_length=POSITIONS,
    )


def config(family: str, **changes: Any) -> Any:
    """Return the configuration of a two-layer model with 64 hidden units."""
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer()),
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": 2 * HIDDEN,
        "max_position_embeddings": POSITIONS + 2 * (family == "roberta"),
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
    }
    if family in ("llama", "qwen2", "qwen3"):
        sizes |= {"num_key_value_heads": 2}
    if family == "qwen3":
        sizes |= {"head_dim": 16}
    if family == "opt":
        sizes |= {"ffn_dim": sizes.pop("intermediate_size"), "word_embed_proj_dim": HIDDEN}
    if family == "gpt2":
        sizes |= {"n_inner": sizes.pop("intermediate_size")}
    if family == "bert":
        sizes |= {"type_vocab_size": 2}
    if family == "roberta":
        sizes |= {"type_vocab_size": 1}
    return getattr(transformers, PREFIX[family] + "Config")(**sizes | changes)


def model(family: str, kind: str = "", seed: int = 0, dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    """Return a random model, frozen and in eval mode; the kind defaults to causal, for encoders to masked."""
    kind = kind or ("masked" if family in MASKED else "causal")
    ending = ENCODER_HEADS.get(kind, "LMHeadModel" if family == "gpt2" else "ForCausalLM")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = getattr(transformers, PREFIX[family] + ending)(config(family, initializer_range=0.2, **changes))
    made.config.use_cache = False
    return made.eval().requires_grad_(False).to(dtype)


def save(folder: Path, family: str, kind: str = "", **changes: Any) -> Path:
    """Write a random model and its tokenizer as a Hugging Face folder, and return the folder."""
    model(family, kind, **changes).save_pretrained(folder)
    tokenizer(frame=family in MASKED).save_pretrained(folder)
    return folder
