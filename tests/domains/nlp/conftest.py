import pytest
import torch


class Bytes:
    """Every byte is a token; 256 ends a text."""

    vocab_size, end = 257, 256

    def encode(self, text):
        return list(text.encode())

    def bytes_of(self, ids):
        return bytes(each for each in ids if each < 256)


@pytest.fixture
def byte_tokenizer():
    return Bytes()


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
