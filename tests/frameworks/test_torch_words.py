"""Words of the wrong type in sparseconv.torch: errors that name the argument, what was got and what was expected."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import sparseconv.torch as sct  # noqa: E402


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ({"threshold": "a"}, TypeError, r"threshold: got 'a', expected a number"),
        ({"num_threads": "a"}, TypeError, r"num_threads: got 'a'"),
        ({"num_threads": 2.0}, TypeError, r"num_threads: got 2\.0"),
        ({"num_threads": 0}, ValueError, r"num_threads: got 0"),
        ({"input_is_relu": "yes"}, TypeError, r"input_is_relu: got 'yes'"),
        ({"input_is_relu": 3}, TypeError, r"input_is_relu: got 3"),
        ({"skip": None}, TypeError, r"skip: got None"),
        ({"groups": 1.5}, TypeError, r"groups: got 1\.5"),
        ({"groups": 0}, ValueError, r"groups: got 0"),
        ({"stride": 1.5}, TypeError, r"stride: got 1\.5"),
        ({"dilation": None}, TypeError, r"dilation: got None"),
        ({"padding": {}}, TypeError, r"padding: got \{\}"),
    ],
    ids=str,
)
def test_words_of_the_wrong_type(words, error, message):
    x, weight = torch.ones(1, 4, 6, 6), torch.ones(4, 4, 3, 3)
    with pytest.raises(error, match=message):
        sct.conv2d(x, weight, **words)


def test_whole_numbers_of_numpy_are_numbers():
    x, weight = torch.ones(1, 4, 6, 6), torch.ones(4, 4, 3, 3)
    got = sct.conv2d(x, weight, stride=np.int64(2), padding=np.int32(1))
    assert torch.equal(got, torch.nn.functional.conv2d(x, weight, stride=2, padding=1))
