"""Loading: every architecture, frozen and quiet, and a sentence for whatever cannot be loaded."""

import json
import shutil
import socket
from typing import Any

import pytest
import torch

from tests.support import tiny
from tests.support.places import SHARED
from zocore.errors import InputError
from zocore.models.load import fingerprint, load

EVERY = [(family, "causal") for family in tiny.CAUSAL] + [
    (family, kind) for family in tiny.MASKED for kind in tiny.ENCODER_HEADS
]


@pytest.mark.parametrize(("family", "kind"), EVERY)
def test_every_architecture_from_a_folder(tmp_path, family, kind, capfd):
    folder = tiny.save(tmp_path / "model", family, kind)
    capfd.readouterr()
    random_state = torch.get_rng_state()
    loaded = load(folder, labels=("no", "yes"))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert capfd.readouterr() == ("", "")
    assert loaded.kind == kind
    assert loaded.notes == ()
    assert not loaded.model.training
    assert not loaded.model.config.use_cache
    assert not any(p.requires_grad for p in loaded.model.parameters())
    assert all(p.dtype == torch.float32 for p in loaded.model.parameters())
    assert not any("pooler" in name for name, _ in loaded.model.named_parameters() if kind == "encoder")
    assert loaded.tokenizer.pad_token_id is not None
    saved = dict(tiny.model(family, kind).named_parameters())
    assert all(torch.equal(p, saved[name]) for name, p in loaded.model.named_parameters())


def test_the_fingerprint_sees_one_weight(tmp_path):
    folder = tiny.save(tmp_path, "llama")
    loaded = load(folder)
    assert loaded.fingerprint == load(folder).fingerprint == fingerprint(loaded.model)
    next(loaded.model.parameters()).data[3, 5] += 1e-6
    assert fingerprint(loaded.model) != loaded.fingerprint
    assert load(folder, dtype="bf16").fingerprint != loaded.fingerprint


@pytest.mark.parametrize("dtype", ["fp64", "bf16", "float16", torch.float32])
def test_the_dtype_asked_for(tmp_path, dtype):
    loaded = load(tiny.save(tmp_path, "opt"), dtype=dtype)
    expected = {"fp64": torch.float64, "bf16": torch.bfloat16, "float16": torch.float16}.get(dtype, dtype)
    assert {p.dtype for p in loaded.model.parameters()} == {expected}


def test_a_missing_head_is_drawn_from_the_seed_and_said(tmp_path):
    folder = tiny.save(tmp_path, "roberta", "masked")
    first, again, other = (load(folder, kind="classifier", labels="abc", seed=seed) for seed in (0, 0, 1))
    model: Any = first.model
    assert "drawn from seed 0" in first.notes[0]
    assert first.fingerprint == again.fingerprint != other.fingerprint
    head = model.classifier.out_proj.weight
    assert head.shape == (3, tiny.HIDDEN)
    assert 0.1 < head.std() / model.config.initializer_range < 2
    assert model.classifier.out_proj.bias.abs().max() == 0
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}


def test_a_head_of_another_size_is_drawn_again(tmp_path):
    folder = tiny.save(tmp_path, "bert", "classifier")
    loaded = load(folder, labels=("a", "b", "c"))
    model: Any = loaded.model
    assert model.classifier.weight.shape == (3, tiny.HIDDEN)
    assert loaded.notes
    pooler = tiny.model("bert", "classifier").bert.pooler.dense.weight
    assert torch.equal(model.bert.pooler.dense.weight, pooler)


def test_a_tokenizer_without_padding_pads_with_its_end(tmp_path):
    folder = tiny.save(tmp_path, "gpt2")
    facts = json.loads((folder / "tokenizer_config.json").read_text())
    del facts["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(facts))
    loaded = load(folder)
    assert loaded.tokenizer.pad_token == loaded.tokenizer.eos_token == "</s>"
    assert loaded.model.config.pad_token_id == 2


@pytest.mark.parametrize("quantiser", ["nf4", "fp4", "int8"])
def test_quantised_loading(tmp_path, quantiser):
    pytest.importorskip("bitsandbytes")
    model: Any = load(tiny.save(tmp_path, "llama"), quantise=quantiser).model
    weight = model.model.layers[0].mlp.up_proj.weight
    assert weight.dtype == (torch.int8 if quantiser == "int8" else torch.uint8)
    assert model.lm_head.weight.dtype == torch.float32
    assert not any(p.requires_grad for p in model.parameters())
    ids = torch.tensor([[5, 6, 7]])
    assert torch.isfinite(model(ids).logits).all()


def without(*patterns):
    def damage(folder):
        for pattern in patterns:
            for path in folder.glob(pattern):
                path.unlink()

    return damage


def pickled(folder):
    torch.save(tiny.model("llama").state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def cut_short(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def config_with(**changes):
    def damage(folder):
        facts = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(facts | changes))

    return damage


def broken_config(folder):
    (folder / "config.json").write_text("{")


DAMAGE = {
    "no config": (without("config.json"), "has no config.json"),
    "no weights": (without("*.safetensors"), "has no weights"),
    "no tokenizer": (without("tokenizer*"), "has no tokenizer"),
    "pickle only": (pickled, "only as a pickle"),
    "cut short": (cut_short, "cannot be loaded"),
    "broken config": (broken_config, "cannot be loaded"),
    "unknown type": (config_with(model_type="zzz"), "cannot be loaded"),
    "own code": (config_with(model_type="zzz", auto_map={"AutoConfig": "evil.Config"}), "cannot be loaded"),
    "more layers": (config_with(num_hidden_layers=3), "do not fit a causal model: 9 tensors are missing"),
    "wider": (config_with(intermediate_size=256), "do not fit a causal model"),
    "encoder-decoder": (config_with(is_encoder_decoder=True), "encoder-decoders, which are not supported"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_folder_gets_one_sentence(tmp_path, case, capfd):
    damage, message = DAMAGE[case]
    damage(tiny.save(tmp_path, "llama"))
    capfd.readouterr()
    with pytest.raises(InputError) as caught:
        load(tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_pickle_is_opened_when_asked(tmp_path):
    pickled(tiny.save(tmp_path, "llama"))
    assert load(tmp_path, allow_pickle=True).kind == "causal"


def test_a_masked_model_needs_its_head(tmp_path):
    with pytest.raises(InputError, match="do not fit a masked model"):
        load(tiny.save(tmp_path, "bert", "encoder"), kind="masked")


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"dtype": "int9"}, "unknown dtype"),
        ({"kind": "poet"}, "model kind"),
        ({"quantise": "int2"}, "choose one of nf4, fp4"),
    ],
)
def test_unknown_wishes(tmp_path, wish, message):
    with pytest.raises(InputError, match=message):
        load(tiny.save(tmp_path, "gpt2"), **wish)


def test_names_that_are_no_model(tmp_path, monkeypatch):
    def no_network(*_):
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setenv("HTTPS_PROXY", "")
    with pytest.raises(InputError, match="no model folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(InputError, match="is no folder and was never downloaded"):
        load("nobody/no-such-model")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        load(tmp_path / "file")


def test_a_real_checkpoint(tmp_path):
    folder = SHARED / "models" / "stories260K-hf"
    if not folder.is_dir():
        pytest.skip("needs the folder of real models: set ZOCORE_SHARED")
    copy = shutil.copytree(folder, tmp_path / "copy")
    loaded = load(folder)
    assert loaded.kind == "causal"
    assert sum(p.numel() for p in loaded.model.parameters()) == 260_032
    assert loaded.fingerprint == load(copy).fingerprint
