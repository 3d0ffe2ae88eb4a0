from pathlib import Path

import numpy as np
import pytest

from golf.data.documents import read_documents
from golf.data.prepare import embedded_corpus
from golf.data.tokenizer import (
    ByteTable,
    TokenizerError,
    load_processor,
    train_tokenizer,
)

SENTENCES = ["In the beginning God created the heaven and the earth.", "And there was light."] * 9


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    train_tokenizer(SENTENCES, 300, path)
    return path


@pytest.fixture(scope="module")
def published_model(shared_data_dir: Path) -> Path:
    """One of the challenge's own tokenizers."""
    path = shared_data_dir / "fineweb_8192_bpe.model"
    if not path.exists():
        pytest.skip(f"no {path}")
    return path


def scored_bytes(model: Path, text: str) -> int:
    """Bytes of `text` as a document after BOS."""
    processor = load_processor(model)
    tokens = np.array([processor.bos_id(), *processor.encode(text)])
    table = ByteTable.load(model, processor.vocab_size())
    return int(table.count(tokens[:-1], tokens[1:]).sum())


def test_counts_follow_the_golden_table(golden_dir: Path) -> None:
    golden = np.load(golden_dir / "ttt.npz")
    table = ByteTable(golden["base_bytes"], golden["lead"], golden["boundary"])
    tokens = golden["tokens"]
    assert table.count(tokens[:-1], tokens[1:]).sum() == golden["ttt"][2]


def test_pieces_count_by_their_kind() -> None:
    """`▁the` after a word, after a boundary, a byte piece, a control piece."""
    table = ByteTable(
        base_bytes=np.array([0, 3, 1], dtype=np.int16),
        leading_space=np.array([False, True, False]),
        boundary=np.array([True, False, False]),
    )
    previous, targets = np.array([[1, 0], [1, 2]]), np.array([[1, 1], [2, 0]])
    np.testing.assert_array_equal(table.count(previous, targets), [[4, 3], [1, 0]])


def test_the_published_tokenizers_table_holds_every_kind(published_model: Path) -> None:
    table = ByteTable.load(published_model, 8200)
    assert table.base_bytes.dtype == np.int16
    assert len(table.base_bytes) == len(table.leading_space) == len(table.boundary) == 8200
    assert table.boundary[:4].all()  # pad, bos, eos, unk
    assert table.boundary[8192:].all()  # ids beyond the tokenizer
    assert not table.boundary[4:8192].any()
    assert not table.base_bytes[table.boundary].any()
    assert (table.base_bytes[4:260] == 1).all()  # byte pieces
    assert not table.leading_space[:260].any()
    processor = load_processor(published_model)
    the = processor.piece_to_id("▁the")
    assert (table.base_bytes[the], table.leading_space[the]) == (3, True)
    space = processor.piece_to_id("▁")
    assert (table.base_bytes[space], table.leading_space[space]) == (0, True)


@pytest.mark.parametrize(
    "text",
    [
        "The quick brown fox, 1234567 times!",
        "Grüße aus Köln — naïve café; «здравствуй» 日本語 🙂🇩🇪 ꙮ",
        "tokens<with>odd[brackets]and_underscores",
        "<s></s><unk><0x41>",  # the names of pieces are plain text here
    ],
)
@pytest.mark.parametrize("model", ["published_model", "small_model"])
def test_normalised_text_counts_its_utf8_bytes(model, text, request) -> None:
    assert scored_bytes(request.getfixturevalue(model), text) == len(text.encode())


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("  two  spaces\n\nand lines\t\tand tabs ", "two spaces and lines and tabs"),
        ("ﬁne Ａ①", "fine A1"),  # compatibility characters are folded
        ("zero\u200bwidth and\u00a0hard", "zero width and hard"),
        ("bell\x07 and nul", "bell and nul"),
        ("e\u0301", "é"),
    ],
)
def test_text_counts_as_the_tokenizer_normalises_it(published_model, text, normalised) -> None:
    assert (
        load_processor(published_model).decode(load_processor(published_model).encode(text))
        == normalised
    )
    assert scored_bytes(published_model, text) == len(normalised.encode())


def test_the_embedded_corpus_counts_its_bytes(small_model: Path, published_model: Path) -> None:
    """Its only surplus are line ends, which become single spaces: no byte is lost."""
    documents = [
        text for _, text in zip(range(40), read_documents(embedded_corpus()), strict=False)
    ]
    for model in (small_model, published_model):
        assert [scored_bytes(model, text) for text in documents] == [
            len(text.strip().encode()) for text in documents
        ]


def test_a_tokenizer_larger_than_the_vocabulary_is_refused(small_model: Path) -> None:
    with pytest.raises(TokenizerError, match=r"300 pieces .* vocabulary of 256; .* to 300 or more"):
        ByteTable.load(small_model, 256)


@pytest.mark.parametrize("content", [b"", b"not a model", None])
def test_what_is_no_tokenizer_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "tokenizer.model"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TokenizerError, match=r"tokenizer\.model: .*; name"):
        ByteTable.load(path, 1024)


def test_training_is_quiet_deterministic_and_has_the_challenges_settings(
    small_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    again = tmp_path / "elsewhere.model"
    train_tokenizer(iter(SENTENCES), 300, again)
    assert again.read_bytes() == small_model.read_bytes()
    processor = load_processor(again)
    assert capfd.readouterr() == ("", "")
    special = [processor.pad_id(), processor.bos_id(), processor.eos_id(), processor.unk_id()]
    assert special == [0, 1, 2, 3]
    assert processor.vocab_size() == 300
    assert processor.encode("In", out_type=str)[0] != "▁"  # no dummy prefix
    assert processor.encode("é", out_type=str) == ["<0xC3>", "<0xA9>"]  # byte fallback
    assert len(processor.encode("2024")) >= 4  # split digits


@pytest.mark.parametrize(
    ("sentences", "vocab_size", "complaint"),
    [
        (SENTENCES, 5000, r"no vocabulary of 5000 pieces; choose a vocabulary of at most \d+"),
        (SENTENCES, 261, r"choose a vocabulary of at least \d+"),
        ([], 300, "no text to train a tokenizer on"),
        (["", " "], 300, "no text to train a tokenizer on"),
    ],
)
def test_a_vocabulary_that_does_not_fit_the_text_names_one_that_does(
    tmp_path: Path, sentences: list[str], vocab_size: int, complaint: str
) -> None:
    with pytest.raises(TokenizerError, match=complaint):
        train_tokenizer(sentences, vocab_size, tmp_path / "tokenizer.model")
    assert not list(tmp_path.iterdir())
