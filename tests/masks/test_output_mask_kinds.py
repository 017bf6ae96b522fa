"""What is an `output_mask` of backward_data and what is none: errors, tensors, masks that the package makes."""

import numpy as np
import pytest
from cases import FEW_CASES, call, prepared
from comparisons import assert_exact
from output_masks import CANARY, KINDS, NAME, SKIPS, as_kind, forward_input, masked, nhwc_memory, times_mask

import sparseconv as sc


def ones(*shape):
    return np.ones(shape, np.float32)


FUNCTIONS = {
    "conv1d_backward_data": (ones(2, 6, 3), ones(6, 4, 3), (2, 4, 5)),
    "conv2d_backward_data": (ones(2, 6, 3, 4), ones(6, 4, 3, 3), (2, 4, 5, 6)),
    "conv3d_backward_data": (ones(2, 6, 3, 4, 2), ones(6, 4, 3, 3, 1), (2, 4, 5, 6, 2)),
    "conv_transpose1d_backward_data": (ones(2, 4, 5), ones(6, 4, 3), (2, 6, 3)),
    "conv_transpose2d_backward_data": (ones(2, 4, 5, 6), ones(6, 4, 3, 3), (2, 6, 3, 4)),
    "conv_transpose3d_backward_data": (ones(2, 4, 5, 6, 2), ones(6, 4, 3, 3, 1), (2, 6, 3, 4, 2)),
    "linear_backward_data": (ones(5, 6), ones(6, 4)),
}
BAD_MASKS = {  # from a right one; the exception and what its message says was expected
    "list": (lambda mask: mask.tolist(), TypeError, "list.*expected an array"),
    "tuple": (lambda mask: (1, 0), TypeError, "tuple.*expected an array"),
    "number": (lambda mask: 1.0, TypeError, "float.*expected an array"),
    "float64": (lambda mask: mask.astype(np.float64), TypeError, "float64, expected float32, bool"),
    "float16": (lambda mask: mask.astype(np.float16), TypeError, "float16, expected float32"),
    "int32": (lambda mask: mask.astype(np.int32), TypeError, "int32, expected float32"),
    "int8": (lambda mask: mask.astype(np.int8), TypeError, "int8, expected float32"),
    "object": (lambda mask: mask.astype(object), TypeError, "object, expected float32"),
    "big-endian": (lambda mask: mask.astype(">f4"), TypeError, "expected float32"),
    "masked": (lambda mask: np.ma.masked_array(mask), TypeError, "masked array, expected"),
    "rank": (lambda mask: mask[..., None], ValueError, r"shape \(.*, expected \("),
    "flat": (lambda mask: mask.ravel(), ValueError, r"shape \(.*, expected \("),
    "short": (lambda mask: mask[..., :-1] != 0, ValueError, r"shape \(.*, expected \("),
    "one for all": (lambda mask: mask[:1], ValueError, r"shape \(.*, expected \("),
    "bytes": (lambda mask: mask.astype(np.uint8), ValueError, r"shape \(.*, expected a bit mask of shape \(\d+,\)"),
    "few bits": (lambda mask: bits_of(mask)[:-1], ValueError, r"shape \(.*, expected a bit mask of shape \(\d+,\)"),
    "more bits": (lambda mask: np.r_[bits_of(mask), 1].astype("B"), ValueError, "expected a bit mask of shape"),
    "bits in rows": (lambda mask: bits_of(mask)[None], ValueError, "expected a bit mask of shape"),
}


def bits_of(mask):
    return as_kind(mask, "bits")


@pytest.mark.parametrize("kind", BAD_MASKS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_bad_mask(name, kind):
    function, arrays = getattr(sc, name), FUNCTIONS[name]
    make, error, message = BAD_MASKS[kind]
    whole = function(*arrays)
    out = np.full_like(whole, CANARY)
    for options in ({}, {"skip": "output"}, {"skip": "none"}, {"out": out}):
        with pytest.raises(error, match=rf"(?s)^output_mask: got .*{message}"):
            function(*arrays, output_mask=make(ones(*whole.shape)), **options)
    assert (out == CANARY).all()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_output_cannot_be_skipped_without_a_mask(name):
    function, arrays = getattr(sc, name), FUNCTIONS[name]
    out = np.full_like(function(*arrays), CANARY)
    for more in ({}, {"output_mask": None}):
        with pytest.raises(ValueError, match=r"^output_mask: got None, expected a mask with skip='output'"):
            function(*arrays, skip="output", out=out, **more)
    assert (out == CANARY).all()
    wide = [array.astype(np.float64) if isinstance(array, np.ndarray) else array for array in arrays]
    with pytest.raises(ValueError, match=r"^output_mask: got None"):
        function(*wide, skip="output")
    with pytest.raises(TypeError, match=r"^output_mask: got dtype float32, expected float64, bool"):
        function(*wide, output_mask=ones(*out.shape))


def test_masks_of_torch():
    """Tensors are masks like arrays, also channels last."""
    torch = pytest.importorskip("torch")
    case = FEW_CASES[0]
    first, second, floats, expected = masked(case, 0.5)
    tensor = torch.from_numpy(floats.copy())
    tensors = {
        "float": tensor,
        "bool": tensor != 0,
        "channels last": (tensor != 0).contiguous(memory_format=torch.channels_last),
        "bits": torch.from_numpy(as_kind(floats, "bits")),
    }
    for kind, mask in tensors.items():
        for skip in SKIPS:
            assert_exact(call(sc, case, NAME, first, second, skip=skip, output_mask=mask), expected, kind)
    with pytest.raises(TypeError, match=r"^output_mask: "):
        call(sc, case, NAME, first, second, output_mask=tensor.double())


def test_masks_of_the_package():
    """What `masks` makes of an activation is a mask."""
    case = FEW_CASES[0]
    first, second, floats, expected = masked(case, 0.5)
    floats = np.where(np.isfinite(floats), floats, np.float32(1))
    for bits in (sc.masks.nonzero_mask(floats), sc.masks.pack(floats != 0), sc.masks.relu(np.abs(floats))[1]):
        for mask in (bits, memoryview(bits), bits.tobytes()):
            assert_exact(call(sc, case, NAME, first, second, skip="output", output_mask=mask), expected)


def test_nothing_kept_stands_for_another_mask(isa):
    """The same call with masks of every kind, with none, and with other words, one after the other."""
    case = FEW_CASES[0]
    first, second, whole = prepared(case, NAME, 0.3)
    results = {"none": (None, whole)}
    for number, kind in enumerate(KINDS):
        floats = forward_input(case.x_shape, 0.5, number)
        results[kind] = (as_kind(floats, kind), times_mask(whole, floats))
    channels_last = nhwc_memory(results["bool"][0])
    results["bool, channels last"] = (channels_last, results["bool"][1])
    results["another bool"] = (~results["bool"][0], whole - results["bool"][1])
    for _ in range(2):
        for kind, (mask, expected) in results.items():
            for skip in SKIPS:
                if mask is not None or skip != "output":
                    assert_exact(call(sc, case, NAME, first, second, skip=skip, output_mask=mask), expected, kind)
