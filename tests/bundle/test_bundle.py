"""The bundled model and tasks: complete, rebuildable, honest about their splits, and of the promised size."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from zocore.bundle import MODEL, TASKS
from zocore.bundle.corpus import Corpus
from zocore.bundle.packing import separate
from zocore.bundle.probe import label_accuracy
from zocore.bundle.tasks import read_rows, write_tasks
from zocore.bundle.words import SPLITS

NAMES = ("verdict", "sentiment", "topic", "question")
NEVER_READ = NAMES[1:]  # tasks whose sentences pretraining left out

# Sentences as a visitor may type them. Some words of the bundle were added with these in mind.
VISITOR_SENTENCES = {
    "positive": (
        "The pizza was delicious and the waitress was so friendly.",
        "I loved this book from the first page to the last.",
        "My new phone is fast and the pictures look great.",
        "We had a wonderful stay and the bed was very comfortable.",
        "What a funny film, I laughed the whole time.",
        "My neighbour is a kind and generous woman.",
        "The room was small but we really enjoyed our stay.",
        "The soup was not bad at all.",
        "Best burger I have ever eaten!",
        "I could watch this movie again and again.",
        "The novel was so exciting that I read all night.",
        "The battery still lasts two days, I am impressed.",
        "Our teacher is patient and explains everything well.",
        "Great location, clean rooms and helpful staff.",
        "I did not expect much, but the dinner was excellent.",
        "the coffee here is amazing",
    ),
    "negative": (
        "The soup was cold and the waiter was rude.",
        "My phone broke after a week.",
        "The movie was boring and much too long.",
        "I hated the ending of this book.",
        "The hotel was dirty and the street was noisy all night.",
        "My boss is rude and never listens to anyone.",
        "The food looked good but it tasted horrible.",
        "I would not go back to that restaurant.",
        "The film was not good.",
        "I gave up on this novel after two chapters.",
        "The screen is cracked and the shop did not help me.",
        "There was hair in my salad and nobody said sorry.",
        "He lied to me and took my money.",
        "Terrible acting, stupid story, I want my money back.",
        "The bathroom was disgusting and the shower was broken.",
        "do not buy this phone, it is a waste of money",
    ),
}

# A second list, written when the weights were final, so that nothing could be fitted to it.
LATER_SENTENCES = {
    "positive": (
        "Lunch at the little Thai place was superb and cheap.",
        "I really enjoyed the roast chicken and the apple pie.",
        "My daughter loves her new tablet.",
        "This is one of the best novels I have read in years.",
        "The lead actress was brilliant.",
        "We will definitely stay at this hotel again.",
        "The doctor took her time and answered all my questions.",
        "Amazing breakfast with a view of the mountains.",
        "The sound of these headphones is crystal clear.",
        "The ending made me cry but I adored it.",
        "Nothing was wrong with our room.",
        "My grandfather is the sweetest man I know.",
        "The pasta was not too salty and the wine was lovely.",
        "That thriller kept me guessing until the end.",
        "I am so happy with this camera.",
        "Everyone at the front desk was kind to us.",
    ),
    "negative": (
        "The steak was burnt and nobody apologised.",
        "Worst pizza in the city.",
        "The charger stopped working on the second day.",
        "This novel is a complete waste of time.",
        "I nearly fell asleep in the cinema.",
        "The lead actor was awful.",
        "There were cockroaches in our bathroom.",
        "My landlord never answers and he is always angry.",
        "The battery does not last until lunch.",
        "We waited two hours for a cold meal.",
        "The story was not interesting.",
        "Our guide was late and unfriendly.",
        "I wish I had never bought this laptop.",
        "The mattress was hard and I slept badly.",
        "The beginning was nice but the rest was dull.",
        "That man is a liar.",
    ),
}


def described(name: str) -> dict[str, Any]:
    return json.loads((TASKS / name / "task.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(MODEL)


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(MODEL).eval()


def test_the_model_folder_is_complete_and_small() -> None:
    files = {path.name: path.stat().st_size for path in MODEL.iterdir()}
    needed = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md"}
    assert needed <= set(files)
    assert sum(files.values()) <= 12 * 2**20


def test_the_model_has_two_to_six_million_parameters(model: torch.nn.Module) -> None:
    assert 2_000_000 <= sum(parameter.numel() for parameter in model.parameters()) <= 6_000_000


def test_the_weights_load_in_full_precision(model: torch.nn.Module) -> None:
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_all_widths_are_multiples_of_64() -> None:
    config = json.loads((MODEL / "config.json").read_text("utf-8"))
    assert config["hidden_size"] % 64 == config["intermediate_size"] % 64 == config["vocab_size"] % 64 == 0


@pytest.mark.parametrize(
    "text",
    ["Plain words.", "naïve café, 3 €", "東京 🙂", "tab\tand\nline", "  two  spaces ", "don't n't", ""],
)
def test_any_string_encodes_and_decodes_back(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    ids = tokenizer.encode(text)
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_prompts_are_padded_on_the_left(tokenizer: PreTrainedTokenizerBase) -> None:
    batch = tokenizer(["short", "a much longer sentence"], padding=True)
    assert batch["attention_mask"][0][0] == 0
    assert batch["input_ids"][0][0] == tokenizer.pad_token_id


@pytest.mark.parametrize("name", NAMES)
def test_label_words_are_single_tokens(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    task = described(name)
    assert list(task["label_words"]) == task["labels"]
    tokens = [tokenizer.encode(f" {word}", add_special_tokens=False) for word in task["label_words"].values()]
    assert all(len(ids) == 1 for ids in tokens)
    assert len({ids[0] for ids in tokens}) == len(tokens)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("split", "size"), [("train", 1000), ("dev", 200), ("test", 400)])
def test_rows_are_distinct_and_every_label_has_its_share(name: str, split: str, size: int) -> None:
    task, rows = described(name), read_rows(TASKS / name / f"{split}.jsonl")
    assert len({row["text"] for row in rows}) == len(rows) == size
    counts = [sum(row["label"] == label for row in rows) for label in task["labels"]]
    assert sum(counts) == size
    # Questions for a person have fewer slots, so they run out of distinct sentences before the others do.
    assert min(counts) >= size / len(counts) / 2


@pytest.mark.parametrize("name", NAMES)
def test_splits_share_neither_patterns_nor_sentences(name: str) -> None:
    rows = {split: read_rows(TASKS / name / f"{split}.jsonl") for split in SPLITS}
    for column in ("pattern", "text"):
        used = {split: {row[column] for row in rows[split]} for split in SPLITS}
        assert not used["train"] & used["test"]
        assert not used["train"] & used["dev"]
        assert not used["dev"] & used["test"]


@pytest.mark.parametrize("name", ["sentiment", "topic"])
def test_the_test_split_has_words_of_its_own(name: str) -> None:
    seen, new = (
        set(" ".join(r["text"] for r in read_rows(TASKS / name / f"{s}.jsonl")).lower().split())
        for s in ("train", "test")
    )
    assert len(new - seen) >= 50


def test_the_tasks_are_rebuilt_byte_for_byte(tmp_path: Path) -> None:
    write_tasks(tmp_path, seed=0)
    for built in tmp_path.glob("*/*"):
        assert built.read_bytes() == (TASKS / built.relative_to(tmp_path)).read_bytes()


def test_pretraining_text_is_repeatable_and_quotes_no_task_sentence() -> None:
    held_out = {row["text"] for name in NEVER_READ for row in read_rows(TASKS / name / "test.jsonl")}
    first, again = (list(Corpus(0, held_out).documents(300_000)) for _ in range(2))
    assert first == again
    text = "\n".join(first)
    assert not any(sentence in text for sentence in held_out)


def test_zero_shot_sentiment_leaves_room_to_rise(model: Any, tokenizer: Any) -> None:
    accuracy = label_accuracy(model, tokenizer, "sentiment", read_rows(TASKS / "sentiment" / "test.jsonl"))
    assert 0.55 <= accuracy <= 0.78


@pytest.mark.parametrize("name", ["topic", "question"])
def test_zero_shot_on_the_other_tasks_is_above_chance_but_unfinished(model: Any, tokenizer: Any, name: str) -> None:
    accuracy = label_accuracy(model, tokenizer, name, read_rows(TASKS / name / "test.jsonl"))
    assert 1 / len(described(name)["labels"]) <= accuracy < 0.85


def test_packed_documents_do_not_see_each_other() -> None:
    mask, positions = separate(torch.tensor([[5, 1, 7, 8, 1]]), bos=1)
    assert positions.tolist() == [[0, 0, 1, 2, 0]]
    seen = mask[0, 0] == 0
    assert seen.sum(1).tolist() == [1, 1, 2, 3, 1]


@pytest.mark.parametrize("sentences", [VISITOR_SENTENCES, LATER_SENTENCES])
def test_visitor_sentences_are_not_in_the_tasks(sentences: dict[str, tuple[str, ...]]) -> None:
    written = {row["text"] for split in SPLITS for row in read_rows(TASKS / "sentiment" / f"{split}.jsonl")}
    assert not written & {text for texts in sentences.values() for text in texts}
