"""Batch planning and pooling of segments. test_extraction.py covers the encoder."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from utils.data.audio import Recording, Segment
from utils.errors import InputError
from utils.extraction.encoding import PieceMean, batches_by_length, batches_in_order, encode


def test_batches_keep_to_the_budget_and_take_at_least_one():
    lengths = [9, 5, 4, 4, 2, 1, 1]
    batches = [list(rows) for rows in batches_by_length(lengths, 8)]
    assert batches == [[0], [1], [2, 3], [4, 5, 6]]


def test_batches_in_order_keep_the_order_and_the_budget():
    """For recordings that must be answered in the order of the request."""
    seconds = [1, 4, 2, 2, 9, 1, 1, 1]
    segments = [Segment(Recording(Path(str(i)), 100 * each, 100), 0, 100 * each) for i, each in enumerate(seconds)]
    encoder = SimpleNamespace(cost=lambda length: length)
    batches = batches_in_order(segments, encoder, 8)
    assert [[segment.seconds for segment in batch] for batch in batches] == [[1, 4], [2, 2], [9], [1, 1, 1]]
    assert batches_in_order(segments, encoder, 12)[0] == segments[:3]
    assert [segment for batch in batches for segment in batch] == segments
    assert batches_in_order([], encoder, 8) == []


def test_segments_are_weighted_by_their_length():
    mean = PieceMean(missing=2)
    assert mean.add(np.float32([4, 0]), frames=1) is None
    assert np.array_equal(mean.add(np.float32([0, 8]), frames=3).embedding, [1, 6])


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError()], ids=str)
def test_a_batch_that_does_not_fit_names_the_option_to_lower(error):
    def encoder(batch):
        raise error

    with pytest.raises(InputError, match=r"^a batch does not fit into memory; lower --batch_seconds$"):
        encode(encoder, [1], "--batch_seconds")
