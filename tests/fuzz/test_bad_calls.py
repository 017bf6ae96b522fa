"""Bad calls, one a row: the call and how its error begins. Nothing is written, and nothing crashes.

Kinds that convolutions have crashed on elsewhere: negative sizes, steps of zero, products that overflow,
empty arrays, channels and groups that do not match, kernels beyond the input, wrong ranks, dtypes, masks and layouts,
memory that must not be written or that overlaps, numbers that are none, objects that are no arrays.
One table, so that a kind that is missing is seen.
"""

import ast
import re

import numpy as np
import pytest

import sparseconv

SENTINEL = np.float32(-7777)

TABLE = r"""
conv2d(ones(2, 3, 5, 6), w)
    ValueError: x: got shape (2, 3, 5, 6) (NCHW), expected 4 channels as the other operands have
conv2d(ones(2, 8, 5, 6), w)
    ValueError: x: got shape (2, 8, 5, 6) (NCHW), expected 4 channels as the other operands have
conv2d(ones(2, 16, 5, 6), w, groups=4)
    ValueError: groups: got 4, expected a divisor of the 6 out channels
conv2d(x, w, groups=2)
    ValueError: x: got shape (2, 4, 5, 6) (NCHW), expected 8 channels as the other operands have
conv2d(ones(2, 4, 2, 6), w)
    ValueError: weight: got a kernel that spans 3 (size 3, dilation 1) in spatial dimension 0, expected at most the
conv2d(ones(2, 4, 5, 0), w)
    ValueError: weight: got a kernel that spans 3 (size 3, dilation 1) in spatial dimension 1, expected at most the
conv2d(ones(2, 4, 0, 0), w)
    ValueError: weight: got a kernel that spans 3 (size 3, dilation 1) in spatial dimension 0, expected at most the
conv2d(x, w, dilation=(1, 3))
    ValueError: weight: got a kernel that spans 7 (size 3, dilation 3) in spatial dimension 1, expected at most the
conv2d(x, w, dilation=2**40)
    ValueError: weight: got a kernel that spans 2199023255553 (size 3, dilation 1099511627776) in spatial dimension
conv2d(x, w, dilation=2**62)
    ValueError: weight: got a kernel that spans 9223372036854775809 (size 3, dilation 4611686018427387904) in
conv2d(x, w, dilation=2**63 - 1)
    ValueError: weight: got a kernel that spans 18446744073709551615 (size 3, dilation 9223372036854775807) in
conv2d(x, w, padding=2**31)
    ValueError: result: got sizes whose product overflows int64
conv2d(x, w, padding=2**62)
    ValueError: result: got sizes whose product overflows int64
conv2d(x, w, padding=2**63)
    ValueError: result: got sizes whose product overflows int64
conv2d(x, w, padding=((0, 2**62), (0, 0)))
    ValueError: result: got sizes whose product overflows int64
conv2d(x, ones(6, 4, 8, 3), padding=1)
    ValueError: weight: got a kernel that spans 8 (size 8, dilation 1) in spatial dimension 0, expected at most the
conv2d(x, ones(6, 4, 0, 3))
    ValueError: weight: got shape (6, 4, 0, 3), expected no size of zero
conv2d(x, ones(0, 4, 3, 3))
    ValueError: weight: got shape (0, 4, 3, 3), expected no size of zero
conv2d(x, ones(6, 0, 3, 3))
    ValueError: weight: got shape (6, 0, 3, 3), expected no size of zero
conv2d(ones(2, 0, 5, 6), ones(6, 0, 3, 3))
    ValueError: weight: got shape (6, 0, 3, 3), expected no size of zero
conv2d(x, w, ones(5))
    ValueError: bias: got shape (5,), expected (6,)
conv2d(x, w, ones(6, 1))
    ValueError: bias: got 2 dimensions (shape (6, 1)), expected 1: (out channels,)
conv2d(x, w, ones(1))
    ValueError: bias: got shape (1,), expected (6,)
conv2d(x, w, ones(0))
    ValueError: bias: got shape (0,), expected (6,)
conv2d(x, w, 1.0)
    TypeError: bias: got float, expected an array
conv2d(x, w, [0.0] * 6)
    TypeError: bias: got list, expected an array
conv2d(x, w, b.astype(np.float64))
    TypeError: bias: got dtype float64, expected float32 as x has
conv2d(x, w, b.astype(np.int32))
    TypeError: bias: got dtype int32, expected float32 or float64
conv2d(x[0], w)
    ValueError: x: got 3 dimensions (shape (4, 5, 6)), expected 4: NCHW
conv2d(x[None], w)
    ValueError: x: got 5 dimensions (shape (1, 2, 4, 5, 6)), expected 4: NCHW
conv2d(np.float32(1), w)
    ValueError: x: got 0 dimensions (shape ()), expected 4: NCHW
conv2d(x, w[0])
    ValueError: weight: got 3 dimensions (shape (4, 3, 3)), expected 4: (out channels, in channels / groups,
conv2d(x, w[None])
    ValueError: weight: got 5 dimensions (shape (1, 6, 4, 3, 3)), expected 4: (out channels, in channels / groups,
conv2d(x, m)
    ValueError: weight: got 2 dimensions (shape (6, 4)), expected 4: (out channels, in channels / groups, *kernel);
conv2d(w, x)
    ValueError: weight: got a kernel that spans 5 (size 5, dilation 1) in spatial dimension 0, expected at most the
conv2d(None, w)
    TypeError: x: got NoneType, expected an array
conv2d(x, None)
    TypeError: weight: got NoneType, expected an array
conv2d(x.tolist(), w)
    TypeError: x: got list, expected an array
conv2d(x, w.tolist())
    TypeError: weight: got list, expected an array
conv2d('x', w)
    TypeError: x: got str, expected an array
conv2d(1.5, w)
    TypeError: x: got float, expected an array
conv2d(object(), w)
    TypeError: x: got object, expected an array
conv2d(x.astype(np.float64), w)
    TypeError: weight: got dtype float32, expected float64 as x has
conv2d(x, w.astype(np.float64))
    TypeError: weight: got dtype float64, expected float32 as x has
conv2d(x.astype(np.float16), w)
    TypeError: x: got dtype float16, expected float32 or float64
conv2d(x.astype(np.int8), w)
    TypeError: x: got dtype int8, expected float32 or float64
conv2d(x.astype(np.int64), w)
    TypeError: x: got dtype int64, expected float32 or float64
conv2d(x.astype(np.uint8), w)
    TypeError: x: got dtype uint8, expected float32 or float64
conv2d(x.astype(bool), w.astype(bool))
    TypeError: weight: got dtype bool, expected float32 or float64
conv2d(x.astype(bool), w.astype(np.float64))
    TypeError: weight: got dtype float64, expected float32 with an x of zeros and ones
conv2d(x.astype(bool), w, threshold=0.5)
    ValueError: threshold: got 0.5, expected 0 with an x of zeros and ones
conv2d(x.astype(bool), w, input_mask=x)
    ValueError: input_mask: got one with an x of zeros and ones, expected none
conv2d(x.astype(np.complex64), w)
    TypeError: x: got dtype complex64, expected float32 or float64
conv2d(x.astype(object), w)
    TypeError: x: got dtype object, expected float32 or float64
conv2d(x.astype('>f4'), w)
    TypeError: x: got dtype >f4, expected float32 or float64 in native byte order
conv2d(x.astype('S4'), w)
    TypeError: x: got dtype |S4, expected float32 or float64
conv2d(x.view([('value', 'f4')]), w)
    TypeError: x: got dtype [('value', '<f4')], expected float32 or float64
conv2d(x.astype('M8[s]'), w)
    TypeError: x: got dtype datetime64[s], expected float32 or float64
conv2d(np.ma.masked_array(x, x > 0), w)
    TypeError: x: got a masked array, expected an array without a mask
conv2d(Device(), w)
    TypeError: x: got an array on device (2, 0), expected one in CPU memory
conv2d(Broken(), w)
    TypeError: x: got Broken that cannot share its memory
conv2d(Liar(), w)
    TypeError: x: got Liar that cannot share its memory
conv2d(b'0123', w)
    TypeError: x: got dtype uint8, expected float32 or float64: if these are the bytes of floats, pass
conv2d(bytearray(960), w)
    TypeError: x: got dtype uint8, expected float32 or float64: if these are the bytes of floats, pass
conv2d({}, w)
    TypeError: x: got dict, expected an array
conv2d(iter(x), w)
    TypeError: x: got iterator, expected an array
conv2d(conv2d, w)
    TypeError: x: got function, expected an array
conv2d(compress(x), w)
    TypeError: x: got a CompressedArray, expected an array (sparseconv.decompress makes one); only the
conv2d(x, compress(w))
    TypeError: weight: got a CompressedArray, expected an array (sparseconv.decompress makes one); only the
conv2d(pack_weight(w), w)
    TypeError: x: got PackedWeight, expected an array
conv2d(x, pack_weight(w, groups=2))
    ValueError: weight: got a PackedWeight of 2 groups, expected 1, those of the call
conv2d(x, pack_weight(w), groups=2)
    ValueError: weight: got a PackedWeight of 1 groups, expected 2, those of the call
conv2d(x, pack_weight(ones(6, 3, 3, 3)))
    ValueError: x: got shape (2, 4, 5, 6) (NCHW), expected 3 channels as the other operands have
conv2d(x, pack_weight(w.astype(np.float64)))
    TypeError: weight: got dtype float64, expected float32 as x has
conv2d(x, w, layout='NHWC')
    ValueError: x: got shape (2, 4, 5, 6) (NHWC), expected 4 channels as the other operands have
conv2d(x, w, layout='NCHW16c')
    ValueError: x: got 4 dimensions (shape (2, 4, 5, 6)), expected 5: NCHW16c
conv2d(ones(2, 1, 5, 6, 8), w, layout='NCHW16c')
    ValueError: x: got shape (2, 1, 5, 6, 8), expected 16 as its last size (NCHW16c)
conv2d(ones(2, 2, 5, 6, 16), w, layout='NCHW16c')
    ValueError: x: got shape (2, 2, 5, 6, 16) (NCHW16c), expected 4 channels as the other operands have
conv2d(x, w, layout='NCDHW')
    ValueError: layout: got 'NCDHW', expected one of 'NCHW', 'NHWC', 'NCHW16c'
conv2d(x, w, layout='')
    ValueError: layout: got '', expected one of 'NCHW', 'NHWC', 'NCHW16c'
conv2d(x, w, layout=2)
    ValueError: layout: got 2, expected one of 'NCHW', 'NHWC', 'NCHW16c'
conv2d(x, w, layout=['NCHW'])
    ValueError: layout: got ['NCHW'], expected one of 'NCHW', 'NHWC', 'NCHW16c'
conv2d(x, w, skip='grad_output')
    ValueError: skip: got 'grad_output', expected one of 'auto', 'none', 'input', 'weight'
conv2d(x, w, skip='output')
    ValueError: output_mask: got None, expected a mask with skip='output'
conv2d(x, w, output_mask=np.ones(3, bool))
    ValueError: output_mask: got shape
conv2d(x, w, skip='')
    ValueError: skip: got '', expected one of 'auto', 'none', 'input', 'weight'
conv2d(x, w, skip=None)
    ValueError: skip: got None, expected one of 'auto', 'none', 'input', 'weight'
conv2d(x, w, skip=['input'])
    ValueError: skip: got ['input'], expected one of 'auto', 'none', 'input', 'weight'
conv2d(x, w, activation='gelu')
    ValueError: activation: got 'gelu', expected one of None, 'relu'
conv2d(x, w, activation='ReLU')
    ValueError: activation: got 'ReLU', expected one of None, 'relu'
conv2d(x, w, activation='')
    ValueError: activation: got '', expected one of None, 'relu'
conv2d(x, w, activation=1)
    ValueError: activation: got 1, expected one of None, 'relu'
conv2d(x, w, activation=np.maximum)
    ValueError: activation: got <ufunc 'maximum'>, expected one of None, 'relu'
conv2d(x, w, return_mask=True)
    ValueError: return_mask: got True without an activation, expected activation='relu' with it
conv2d(x, w, return_mask=1)
    TypeError: return_mask: got 1, expected True or False
conv2d(x, w, return_mask=None)
    TypeError: return_mask: got None, expected True or False
conv2d(x, w, return_mask='yes', activation='relu')
    TypeError: return_mask: got 'yes', expected True or False
conv2d(x, w, precision=None)
    ValueError: precision: got None, expected one of 'highest', 'high', 'medium'
conv2d(x, w, precision='float32')
    ValueError: precision: got 'float32', expected one of 'highest', 'high', 'medium'
conv2d(x, w, input_mask=x[:1])
    ValueError: input_mask: got shape (1, 4, 5, 6), expected (2, 4, 5, 6)
conv2d(x, w, input_mask=x[:, :2])
    ValueError: input_mask: got shape (2, 2, 5, 6), expected (2, 4, 5, 6)
conv2d(x, w, input_mask=x[0])
    ValueError: input_mask: got shape (4, 5, 6), expected (2, 4, 5, 6)
conv2d(x, w, input_mask=bits[:-1])
    ValueError: input_mask: got shape (29,), expected a bit mask of shape (30,) for (2, 4, 5, 6)
conv2d(x, w, input_mask=ones(2, 4, 5, 6).astype(np.uint8))
    ValueError: input_mask: got shape (2, 4, 5, 6), expected a bit mask of shape (30,) for (2, 4, 5, 6)
conv2d(x, w, input_mask=x.astype(np.float64))
    TypeError: input_mask: got dtype float64, expected float32, bool, or uint8 for a bit mask
conv2d(x, w, input_mask=x.astype(np.int32))
    TypeError: input_mask: got dtype int32, expected float32, float64, bool, or uint8 for a bit mask
conv2d(x, w, input_mask=True)
    TypeError: input_mask: got bool, expected an array
conv2d(x, w, input_mask=[1, 0])
    TypeError: input_mask: got list, expected an array
conv2d(x, w, input_mask=x, threshold=0.5)
    ValueError: threshold: got 0.5 with input_mask, expected 0 where a mask says what is zero
conv2d(x, w, input_mask=compress(g))
    ValueError: input_mask: got shape (18,), expected a bit mask of shape (30,) for (2, 4, 5, 6)
conv2d(x, w, threshold=-0.5)
    ValueError: threshold: got -0.5, expected a number from 0 to 3.4e+38, float32's largest
conv2d(x, w, threshold=-np.inf)
    ValueError: threshold: got -inf, expected a number from 0 to 3.4e+38, float32's largest
conv2d(x, w, threshold=True)
    TypeError: threshold: got True, expected a number
conv2d(x, w, threshold=10**400)
    ValueError: threshold: got 1000000
conv2d(x, w, threshold=1j)
    TypeError: threshold: got 1j, expected a number
conv2d(x, w, threshold=np.ones(2))
    TypeError: threshold: got array([1., 1.]), expected a number
conv2d(x, w, threshold=0.5, skip='none')
    ValueError: threshold: got 0.5 with skip='none', expected 0 where no operand is skipped
conv2d(x, w, stride=np.ones(2, int))
    TypeError: stride: got ndarray of shape (2,), expected a whole number or a tuple of them
conv2d(x, w, stride='same')
    TypeError: stride: got 'same', expected a whole number
conv2d(x, w, stride={1, 2})
    TypeError: stride: got {1, 2}, expected a whole number
conv2d(x, w, padding=np.ones(2, int))
    TypeError: padding: got ndarray of shape (2,), expected a whole number or a tuple of them
conv2d(x, w, padding='SAME')
    ValueError: padding: got 'SAME', expected 'same', 'valid' or numbers
conv2d(x, w, padding=((1, 1, 1), (1, 1, 1)))
    ValueError: padding: got ((1, 1, 1), (1, 1, 1)), expected one (before, after) pair for each of 2 dimensions
conv2d(x, w, padding=((1, 1), 1))
    ValueError: padding: got ((1, 1), 1), expected one (before, after) pair for each of 2 dimensions
conv2d(x, w, padding=(1, 1, 1, 1))
    ValueError: padding: got 4 numbers, expected 1 or 2, one per spatial dimension; (before, after) pairs are a
conv2d(x, w, padding=(1, None))
    TypeError: padding: got None, expected a whole number
conv2d(x, w, padding=((1, 1.5), (0, 0)))
    TypeError: padding: got 1.5, expected a whole number
conv2d(x, w, padding=True)
    TypeError: padding: got True, expected a whole number
conv2d(x, w, num_threads='2')
    TypeError: num_threads: got '2', expected a whole number or None
conv2d(x, w, num_threads=True)
    TypeError: num_threads: got True, expected a whole number or None
conv2d(x, w, num_threads=10**6)
    ValueError: num_threads: got 1000000, expected 1 to 1024
conv2d(x, w, num_threads=[2])
    TypeError: num_threads: got [2], expected a whole number or None
conv2d(x, w, out=ones(2, 6, 3, 5))
    ValueError: out: got shape (2, 6, 3, 5), expected (2, 6, 3, 4)
conv2d(x, w, out=ones(1, 6, 3, 4))
    ValueError: out: got shape (1, 6, 3, 4), expected (2, 6, 3, 4)
conv2d(x, w, out=ones(2, 3, 4, 6))
    ValueError: out: got shape (2, 3, 4, 6), expected (2, 6, 3, 4)
conv2d(x, w, out=y[0])
    ValueError: out: got shape (6, 3, 4), expected (2, 6, 3, 4)
conv2d(x, w, out=y.astype(np.float64))
    TypeError: out: got dtype float64, expected float32, the dtype of the inputs
conv2d(x, w, out=y.astype(np.float16))
    TypeError: out: got dtype float16, expected float32 or float64
conv2d(x, w, out=y.astype(np.int32))
    TypeError: out: got dtype int32, expected float32 or float64
conv2d(x, w, out=y.astype('>f4'))
    TypeError: out: got dtype >f4, expected float32 or float64 in native byte order
conv2d(x, w, out=read_only(y))
    ValueError: out: got a read-only array, expected a writable one
conv2d(x, w, out=y[..., ::-1])
    ValueError: out: got negative strides (288, 48, 16, -4), expected positive ones
conv2d(x, w, out=y[::-1])
    ValueError: out: got negative strides (-288, 48, 16, 4), expected positive ones
conv2d(x, w, out=np.broadcast_to(y[:1], y.shape))
    ValueError: out: got strides (0, 48, 16, 4), expected distinct, aligned elements
conv2d(x, w, out=overlapping(y))
    ValueError: out: got strides (288, 48, 16, 0), expected distinct, aligned elements
conv2d(x, w, out=unaligned(y))
    ValueError: out: got an address that is no multiple of 4, expected aligned elements
conv2d(x, w, out=[1.0])
    TypeError: out: got list, expected an array
conv2d(x, w, out=True)
    TypeError: out: got bool, expected an array
conv2d(x, w, out='y')
    TypeError: out: got str, expected an array
conv2d(x, w, out=Device())
    TypeError: out: got an array on device (2, 0), expected one in CPU memory
conv2d(x, w, out=b'0' * 576)
    ValueError: out: got a read-only array (bytes), expected a writable one (a NumPy array, or no out)
conv2d(x, w, out=np.ma.masked_array(y))
    TypeError: out: got a masked array, expected an array without a mask
conv2d(x, w, out=x.reshape(-1)[:144].reshape(y.shape))
    ValueError: out: got an array that overlaps x, expected memory of its own
conv2d(x, w, out=w.reshape(-1)[72:].reshape(y.shape))
    ValueError: out: got an array that overlaps weight, expected memory of its own
conv2d(x, w, y.reshape(-1)[:6], out=y)
    ValueError: out: got an array that overlaps bias, expected memory of its own
conv2d(x, w, input_mask=y.reshape(-1)[:60].reshape(2, 1, 5, 6), out=y)
    ValueError: out: got an array that overlaps input_mask, expected memory of its own
conv2d(endless(2**30, 1, 1, 1), endless(2**34, 1, 1, 1))
    ValueError: result: got sizes whose product overflows int64
conv2d_backward_data(g, w, (2, 4, 5))
    ValueError: input_shape: got (2, 4, 5), expected the 4 sizes of an array in NCHW
conv2d_backward_data(g, w, (2, 4, 5, 6, 1))
    ValueError: input_shape: got (2, 4, 5, 6, 1), expected the 4 sizes of an array in NCHW
conv2d_backward_data(g, w, ())
    ValueError: input_shape: got (), expected the 4 sizes of an array in NCHW
conv2d_backward_data(g, w, (3, 4, 5, 6))
    ValueError: grad_output: got shape (2, 6, 3, 4), expected (3, 6, 3, 4)
conv2d_backward_data(g, w, (2, 5, 5, 6))
    ValueError: input_shape: got shape (2, 5, 5, 6), expected (2, 4, 5, 6)
conv2d_backward_data(g, w, (2, 4, 6, 6))
    ValueError: grad_output: got shape (2, 6, 3, 4), expected (2, 6, 4, 4), which follows from input_shape, stride,
conv2d_backward_data(g, w, (2, 4, -5, 6))
    ValueError: input_shape: got -5, expected at least 0
conv2d_backward_data(g, w, (2, 4, 5.0, 6))
    TypeError: input_shape: got 5.0, expected a whole number
conv2d_backward_data(g, w, (2, 4, 2**62, 2**62))
    ValueError: x: got sizes whose product overflows int64
conv2d_backward_data(g, w, (2, 4, 2, 6))
    ValueError: weight: got a kernel that spans 3 (size 3, dilation 1) in spatial dimension 0, expected at most the
conv2d_backward_data(g, w, None)
    ValueError: input_shape: got None, expected the 4 sizes of an array in NCHW
conv2d_backward_data(g, w, 5)
    ValueError: input_shape: got 5, expected the 4 sizes of an array in NCHW
conv2d_backward_data(g, w, x)
    ValueError: input_shape: got ndarray, expected the 4 sizes of an array in NCHW
conv2d_backward_data(g, w, 'NCHW')
    ValueError: input_shape: got 'NCHW', expected the 4 sizes of an array in NCHW
conv2d_backward_data(ones(2, 5, 3, 4), w, x.shape)
    ValueError: grad_output: got shape (2, 5, 3, 4), expected (2, 6, 3, 4)
conv2d_backward_data(ones(2, 6, 3, 5), w, x.shape)
    ValueError: grad_output: got shape (2, 6, 3, 5), expected (2, 6, 3, 4), which follows from input_shape, stride,
conv2d_backward_data(g[:1], w, x.shape)
    ValueError: grad_output: got shape (1, 6, 3, 4), expected (2, 6, 3, 4)
conv2d_backward_data(g[0], w, x.shape)
    ValueError: grad_output: got 3 dimensions (shape (6, 3, 4)), expected 4: NCHW
conv2d_backward_data(g, w, x.shape, stride=2)
    ValueError: grad_output: got shape (2, 6, 3, 4), expected (2, 6, 2, 2), which follows from input_shape, stride,
conv2d_backward_data(g, w, x.shape, padding=1)
    ValueError: grad_output: got shape (2, 6, 3, 4), expected (2, 6, 5, 6), which follows from input_shape, stride,
conv2d_backward_data(g, w, (2, 16, 5, 6), groups=4)
    ValueError: groups: got 4, expected a divisor of the 6 out channels
conv2d_backward_data(g, w, x.shape, skip='input')
    ValueError: skip: got 'input', expected one of 'auto', 'none', 'grad_output', 'weight', 'output'
conv2d_backward_data(g, w, x.shape, skip='output')
    ValueError: output_mask: got None, expected a mask with skip='output'
conv2d_backward_data(g, w, x.shape, skip='output', output_mask=x, threshold=0.5)
    ValueError: threshold: got 0.5 with skip='output', expected 0 where no operand is skipped
conv2d_backward_data(g, w, x.shape, output_mask=x[:1])
    ValueError: output_mask: got shape (1, 4, 5, 6), expected (2, 4, 5, 6)
conv2d_backward_data(g, w, x.shape, output_mask=g)
    ValueError: output_mask: got shape (2, 6, 3, 4), expected (2, 4, 5, 6)
conv2d_backward_data(g, w, x.shape, output_mask=bits[:-1])
    ValueError: output_mask: got shape (29,), expected a bit mask of shape (30,) for (2, 4, 5, 6)
conv2d_backward_data(g, w, x.shape, output_mask=x.astype(np.int64))
    TypeError: output_mask: got dtype int64, expected float32, float64, bool, or uint8 for a bit mask
conv2d_backward_data(g, w, x.shape, output_mask=x.astype(np.float64))
    TypeError: output_mask: got dtype float64, expected float32, bool, or uint8 for a bit mask
conv2d_backward_data(g, w, x.shape, output_mask='relu')
    TypeError: output_mask: got str, expected an array
conv2d_backward_data(g, w, x.shape, grad_output_mask=x)
    ValueError: grad_output_mask: got shape (2, 4, 5, 6), expected (2, 6, 3, 4)
conv2d_backward_data(g, w, x.shape, grad_output_mask=g, threshold=0.1)
    ValueError: threshold: got 0.1 with grad_output_mask, expected 0 where a mask says what is zero
conv2d_backward_data(g, w, x.shape, out=g)
    ValueError: out: got shape (2, 6, 3, 4), expected (2, 4, 5, 6)
conv2d_backward_data(g, w, x.shape, out=read_only(x))
    ValueError: out: got a read-only array, expected a writable one
conv2d_backward_data(g, w, x.shape, output_mask=dx, out=dx)
    ValueError: out: got an array that overlaps output_mask, expected memory of its own
conv2d_backward_data(endless(2**31, 1, 1, 1), endless(1, 2**32, 1, 1), (2**31, 2**32, 1, 1))
    ValueError: x: got sizes whose product overflows int64
conv2d_backward_data(g.astype(np.float64), w, x.shape)
    TypeError: weight: got dtype float32, expected float64 as grad_output has
conv2d_backward_data(compress(g), w, x.shape)
    TypeError: grad_output: got a CompressedArray, expected an array (sparseconv.decompress makes one); only the
conv2d_backward_data(g, pack_weight(w, groups=2), x.shape)
    ValueError: weight: got a PackedWeight of 2 groups, expected 1, those of the call
conv2d_backward_weight(x, ones(3, 6, 3, 4), 3)
    ValueError: grad_output: got shape (3, 6, 3, 4), expected (2, 6, 3, 4)
conv2d_backward_weight(x, ones(2, 6, 4, 4), 3)
    ValueError: grad_output: got shape (2, 6, 4, 4), expected (2, 6, 3, 4), which follows from the shape of x,
conv2d_backward_weight(x, g, 2)
    ValueError: grad_output: got shape (2, 6, 3, 4), expected (2, 6, 4, 5), which follows from the shape of x,
conv2d_backward_weight(x, g, 0)
    ValueError: kernel_size: got 0, expected at least 1
conv2d_backward_weight(x, g, -3)
    ValueError: kernel_size: got -3, expected at least 1
conv2d_backward_weight(x, g, (3, 3, 3))
    ValueError: kernel_size: got 3 numbers, expected 1, 2 or a weight shape of 4 numbers
conv2d_backward_weight(x, g, (3, 0))
    ValueError: kernel_size: got 0, expected at least 1
conv2d_backward_weight(x, g, ())
    ValueError: kernel_size: got 0 numbers, expected 1, 2 or a weight shape of 4 numbers
conv2d_backward_weight(x, g, (6, 5, 3, 3))
    ValueError: x: got shape (2, 4, 5, 6) (NCHW), expected 5 channels as the other operands have
conv2d_backward_weight(x, g, (5, 4, 3, 3))
    ValueError: grad_output: got shape (2, 6, 3, 4), expected (2, 5, 3, 4)
conv2d_backward_weight(x, g, 3.0)
    TypeError: kernel_size: got 3.0, expected a whole number
conv2d_backward_weight(x, g, None)
    TypeError: kernel_size: got None, expected a whole number
conv2d_backward_weight(x, g, '3')
    TypeError: kernel_size: got '3', expected a whole number
conv2d_backward_weight(x, g, w)
    TypeError: kernel_size: got ndarray of shape (6, 4, 3, 3), expected a whole number
conv2d_backward_weight(x, g, 9)
    ValueError: weight: got a kernel that spans 9 (size 9, dilation 1) in spatial dimension 0, expected at most the
conv2d_backward_weight(x, g, 2**62)
    ValueError: weight: got a kernel that spans 4611686018427387904 (size 4611686018427387904, dilation 1) in
conv2d_backward_weight(x, g, 3, groups=4)
    ValueError: groups: got 4, expected a divisor of the 6 out channels
conv2d_backward_weight(x, g, 3, skip='weight')
    ValueError: skip: got 'weight', expected one of 'auto', 'none', 'input', 'grad_output'
conv2d_backward_weight(x, g, 3, skip='output')
    ValueError: skip: got 'output', expected one of 'auto', 'none', 'input', 'grad_output'
conv2d_backward_weight(x, g, 3, output_mask=x)
    ValueError: output_mask: got shape (2, 4, 5, 6), expected (6, 4, 3, 3)
conv2d_backward_weight(x, g, 3, output_mask=w[:, :1])
    ValueError: output_mask: got shape (6, 1, 3, 3), expected (6, 4, 3, 3)
conv2d_backward_weight(x, g, 3, output_mask=bits)
    ValueError: output_mask: got shape (30,), expected a bit mask of shape (27,) for (6, 4, 3, 3)
conv2d_backward_weight(x, g, 3, output_mask=w.astype(np.int32))
    TypeError: output_mask: got dtype int32, expected float32, float64, bool, or uint8 for a bit mask
conv2d_backward_weight(x, g, 3, input_mask=g)
    ValueError: input_mask: got shape (2, 6, 3, 4), expected (2, 4, 5, 6)
conv2d_backward_weight(x, g, 3, grad_output_mask=x)
    ValueError: grad_output_mask: got shape (2, 4, 5, 6), expected (2, 6, 3, 4)
conv2d_backward_weight(x, g, 3, grad_output_mask=bits)
    ValueError: grad_output_mask: got shape (30,), expected a bit mask of shape (18,) for (2, 6, 3, 4)
conv2d_backward_weight(x, g, 3, input_mask=x, threshold=0.5)
    ValueError: threshold: got 0.5 with input_mask, expected 0 where a mask says what is zero
conv2d_backward_weight(x, g, 3, out=w.astype(np.float64))
    TypeError: out: got dtype float64, expected float32, the dtype of the inputs
conv2d_backward_weight(x, g, 3, out=x.reshape(-1)[:216].reshape(w.shape))
    ValueError: out: got an array that overlaps x, expected memory of its own
conv2d_backward_weight(x, g.astype(np.float64), 3)
    TypeError: grad_output: got dtype float64, expected float32 as x has
conv2d_backward_weight(compress(x), compress(x), 3)
    ValueError: grad_output: got shape (2, 4, 5, 6), expected (2, 4, 3, 4), which follows from the shape of x,
conv2d_backward_weight(pack_weight(w), g, 3)
    TypeError: x: got PackedWeight, expected an array
conv2d_backward_weight(endless(1, 2**30, 1, 1), endless(1, 2**33, 1, 1), 1)
    ValueError: weight: got sizes whose product overflows int64
conv_transpose2d(g, w, padding='same')
    ValueError: padding: got 'same', expected numbers or 'valid' for a transposed convolution
conv_transpose2d(g, w, padding=3)
    ValueError: padding: got (3, 3) in spatial dimension 0, expected at most 5 in all, what the result has without
conv_transpose2d(g, w, padding=2**62)
    ValueError: padding: got (4611686018427387904, 4611686018427387904) in spatial dimension 0, expected at most 5
conv_transpose2d(g, w, output_padding=1)
    ValueError: output_padding: got 1, expected less than the larger of stride 1 and dilation 1
conv_transpose2d(g, w, output_padding=(2, 1), stride=2)
    ValueError: output_padding: got 2, expected less than the larger of stride 2 and dilation 1
conv_transpose2d(g, w, output_padding=-1)
    ValueError: output_padding: got -1, expected at least 0
conv_transpose2d(g, w, output_padding=(0, 0, 0))
    ValueError: output_padding: got 3 numbers, expected 1 or 2, one per spatial dimension
conv_transpose2d(g, w, output_padding=0.5)
    TypeError: output_padding: got 0.5, expected a whole number
conv_transpose2d(g, w, output_padding=None)
    TypeError: output_padding: got None, expected a whole number
conv_transpose2d(g, w, output_padding=2**63)
    ValueError: output_padding: got 9223372036854775808, expected less than the larger of stride 1 and dilation 1
conv_transpose2d(ones(2, 5, 3, 4), w)
    ValueError: x: got shape (2, 5, 3, 4) (NCHW), expected 6 channels as the other operands have
conv_transpose2d(g, w, b)
    ValueError: bias: got shape (6,), expected (4,)
conv_transpose2d(g, w, groups=4)
    ValueError: groups: got 4, expected a divisor of the 6 out channels
conv_transpose2d(g, w, skip='grad_output')
    ValueError: skip: got 'grad_output', expected one of 'auto', 'none', 'input', 'weight'
conv_transpose2d(g, w, stride=2**60)
    ValueError: x: got sizes whose product overflows int64
conv_transpose2d(g, w, dilation=2**62)
    ValueError: x: got sizes whose product overflows int64
conv_transpose2d(g, w, activation='tanh')
    ValueError: activation: got 'tanh', expected one of None, 'relu'
conv_transpose2d(g, w, return_mask=True)
    ValueError: return_mask: got True without an activation, expected activation='relu' with it
conv_transpose2d(g, w, input_mask=x)
    ValueError: input_mask: got shape (2, 4, 5, 6), expected (2, 6, 3, 4)
conv_transpose2d(g, w, out=x.astype(np.float64))
    TypeError: out: got dtype float64, expected float32, the dtype of the inputs
conv_transpose2d(g, w, layout='NHWC')
    ValueError: x: got shape (2, 6, 3, 4) (NHWC), expected 6 channels as the other operands have
conv_transpose2d(g, ones(6, 0, 3, 3))
    ValueError: weight: got shape (6, 0, 3, 3), expected no size of zero
conv_transpose2d(g, pack_weight(w, groups=3))
    ValueError: weight: got a PackedWeight of 3 groups, expected 1, those of the call
conv_transpose2d_backward_data(ones(2, 5, 5, 6), w, g.shape)
    ValueError: grad_output: got shape (2, 5, 5, 6) (NCHW), expected 4 channels as the other operands have
conv_transpose2d_backward_data(ones(2, 4, 6, 6), w, g.shape)
    ValueError: grad_output: got size 6 in spatial dimension 0, expected 5 for an input of size 3
conv_transpose2d_backward_data(x, w, (2, 5, 3, 4))
    ValueError: input_shape: got shape (2, 5, 3, 4), expected (2, 6, 3, 4)
conv_transpose2d_backward_data(x, w, (2, 6, 3))
    ValueError: input_shape: got (2, 6, 3), expected the 4 sizes of an array in NCHW
conv_transpose2d_backward_data(x, w, (1, 6, 3, 4))
    ValueError: input_shape: got shape (1, 6, 3, 4), expected (2, 6, 3, 4)
conv_transpose2d_backward_data(x, w, g.shape, padding='same')
    ValueError: padding: got 'same', expected numbers or 'valid' for a transposed convolution
conv_transpose2d_backward_data(x, w, g.shape, output_mask=x)
    ValueError: output_mask: got shape (2, 4, 5, 6), expected (2, 6, 3, 4)
conv_transpose2d_backward_data(x, w, g.shape, skip='output')
    ValueError: output_mask: got None, expected a mask with skip='output'
conv_transpose2d_backward_data(x, w, g.shape, out=x)
    ValueError: out: got shape (2, 4, 5, 6), expected (2, 6, 3, 4)
conv_transpose2d_backward_weight(ones(3, 6, 3, 4), x, 3)
    ValueError: grad_output: got shape (2, 4, 5, 6), expected (3, 4, 5, 6)
conv_transpose2d_backward_weight(g, x, 2)
    ValueError: grad_output: got size 5 in spatial dimension 0, expected 4 for an input of size 3
conv_transpose2d_backward_weight(g, x, (6, 4, 3))
    ValueError: kernel_size: got 3 numbers, expected 1, 2 or a weight shape of 4 numbers
conv_transpose2d_backward_weight(g, x, (5, 4, 3, 3))
    ValueError: x: got shape (2, 6, 3, 4), expected (2, 5, 3, 4)
conv_transpose2d_backward_weight(g, x, 3, padding='same')
    ValueError: padding: got 'same', expected numbers or 'valid' for a transposed convolution
conv_transpose2d_backward_weight(g, x, 3, output_mask=x)
    ValueError: output_mask: got shape (2, 4, 5, 6), expected (6, 4, 3, 3)
conv1d(x, w1)
    ValueError: x: got 4 dimensions (shape (2, 4, 5, 6)), expected 3: NCW
conv1d(x1, w)
    ValueError: weight: got 4 dimensions (shape (6, 4, 3, 3)), expected 3: (out channels, in channels / groups,
conv1d(x1, w1, padding=(1, 2))
    ValueError: padding: got 2 numbers, expected 1 or 1, one per spatial dimension; (before, after) pairs are a
conv1d(x1, w1, layout='NCHW')
    ValueError: layout: got 'NCHW', expected one of 'NCW', 'NWC', 'NCW16c'
conv1d(x1, w1, stride=(1, 1))
    ValueError: stride: got 2 numbers, expected 1 or 1, one per spatial dimension
conv1d(x1, w1, dilation=3)
    ValueError: weight: got a kernel that spans 7 (size 3, dilation 3) in spatial dimension 0, expected at most the
conv1d(x1[:, :, :2], w1)
    ValueError: weight: got a kernel that spans 3 (size 3, dilation 1) in spatial dimension 0, expected at most the
conv3d(x, w3)
    ValueError: x: got 4 dimensions (shape (2, 4, 5, 6)), expected 5: NCDHW
conv3d(x3, w)
    ValueError: weight: got 4 dimensions (shape (6, 4, 3, 3)), expected 5: (out channels, in channels / groups,
conv3d(x3, w3, padding=(1, 1))
    ValueError: padding: got 2 numbers, expected 1 or 3, one per spatial dimension
conv3d(x3, w3, layout='NHWC')
    ValueError: layout: got 'NHWC', expected one of 'NCDHW', 'NDHWC', 'NCDHW16c'
conv3d(x3, w3, stride=(1, 1))
    ValueError: stride: got 2 numbers, expected 1 or 3, one per spatial dimension
conv3d(x3, ones(6, 4, 2, 3, 3))
    ValueError: weight: got a kernel that spans 2 (size 2, dilation 1) in spatial dimension 0, expected at most the
linear(ones(5, 3), m)
    ValueError: x: got shape (5, 3), expected (5, 4)
linear(r, m.T)
    ValueError: x: got shape (5, 4), expected (5, 6); is the weight (in, out) (then pass weight.T)?
linear(r, m, ones(4))
    ValueError: bias: got shape (4,), expected (6,)
linear(r, ones(6, 4, 1))
    ValueError: weight: got 3 dimensions (shape (6, 4, 1)), expected 2: (out channels, in channels / groups,
linear(r, ones(6))
    ValueError: weight: got 1 dimensions (shape (6,)), expected 2: (out channels, in channels / groups, *kernel)
linear(np.float32(1).reshape(()), m)
    ValueError: x: got a scalar, expected (..., features)
linear(r, m, activation='sigmoid')
    ValueError: activation: got 'sigmoid', expected one of None, 'relu'
linear(r, m, skip='grad_output')
    ValueError: skip: got 'grad_output', expected one of 'auto', 'none', 'input', 'weight'
linear(r, m, precision=1)
    ValueError: precision: got 1, expected one of 'highest', 'high', 'medium'
linear(r, m, num_threads=0)
    ValueError: num_threads: got 0, expected 1 to 1024
linear(r, m, threshold=np.nan)
    ValueError: threshold: got nan, expected a number from 0 to 3.4e+38, float32's largest
linear(r, m, return_mask=True)
    ValueError: return_mask: got True without an activation, expected activation='relu' with it
linear(r, m, input_mask=ones(5, 6))
    ValueError: input_mask: got shape (5, 6), expected (5, 4)
linear(r, m, out=ones(5, 5))
    ValueError: out: got shape (5, 5), expected (5, 6)
linear(ones(2, 3, 4), m, out=ones(3, 2, 6).transpose(1, 0, 2))
    ValueError: out: got strides (24, 48, 4), expected dimensions before the last that lie in one row
linear(r, m, out=r)
    ValueError: out: got shape (5, 4), expected (5, 6)
linear(r.astype(np.float64), m)
    TypeError: weight: got dtype float32, expected float64 as x has
linear(r, ones(0, 4))
    ValueError: weight: got shape (0, 4), expected no size of zero
linear(r.tolist(), m)
    TypeError: x: got list, expected an array
linear(r, pack_weight(m, groups=2))
    ValueError: weight: got a PackedWeight of 2 groups, expected 1, those of the call
linear(endless(2**33, 1), endless(2**30, 1))
    ValueError: result: got sizes whose product overflows int64
linear_backward_data(ones(5, 5), m)
    ValueError: grad_output: got shape (5, 5), expected (5, 6)
linear_backward_data(q, m, skip='input')
    ValueError: skip: got 'input', expected one of 'auto', 'none', 'grad_output', 'weight', 'output'
linear_backward_data(q, m, skip='output')
    ValueError: output_mask: got None, expected a mask with skip='output'
linear_backward_data(q, m, output_mask=q)
    ValueError: output_mask: got shape (5, 6), expected (5, 4)
linear_backward_data(q, m, grad_output_mask=r)
    ValueError: grad_output_mask: got shape (5, 4), expected (5, 6)
linear_backward_data(q, ones(6))
    ValueError: weight: got 1 dimensions (shape (6,)), expected 2: (out channels, in channels / groups, *kernel)
linear_backward_data(q, m, out=ones(5, 6))
    ValueError: out: got shape (5, 6), expected (5, 4)
linear_backward_data(endless(2**33, 1), endless(1, 2**30))
    ValueError: x: got sizes whose product overflows int64
linear_backward_weight(ones(4, 4), q)
    ValueError: grad_output: got shape (5, 6), expected (4, 6)
linear_backward_weight(r, ones(5, 1, 6))
    ValueError: grad_output: got shape (5, 1, 6), expected (5, 6)
linear_backward_weight(r, q, skip='weight')
    ValueError: skip: got 'weight', expected one of 'auto', 'none', 'input', 'grad_output'
linear_backward_weight(r, q, output_mask=r)
    ValueError: output_mask: got shape (5, 4), expected (6, 4)
linear_backward_weight(r, q, out=ones(4, 6))
    ValueError: out: got shape (4, 6), expected (6, 4)
linear_backward_weight(r, q.astype(np.float64))
    TypeError: grad_output: got dtype float64, expected float32 as x has
linear_backward_weight(endless(1, 2**33), endless(1, 2**30))
    ValueError: weight: got sizes whose product overflows int64
grad_bias(g, layout='HW')
    ValueError: layout: got 'HW', expected 'NC' or a layout of 1d, 2d or 3d arrays
grad_bias(g, layout='NCW')
    ValueError: grad_output: got 4 dimensions (shape (2, 6, 3, 4)), expected 3: NCW
grad_bias(g, layout='NCHW16c')
    ValueError: grad_output: got 4 dimensions (shape (2, 6, 3, 4)), expected 5: NCHW16c
grad_bias(g, layout=None)
    ValueError: layout: got None, expected 'NC' or a layout of 1d, 2d or 3d arrays
grad_bias(ones(2, 3))
    ValueError: grad_output: got 2 dimensions (shape (2, 3)), expected 4: NCHW
grad_bias(g, num_threads=0)
    ValueError: num_threads: got 0, expected 1 to 1024
grad_bias(g, num_threads=2.0)
    TypeError: num_threads: got 2.0, expected a whole number or None
grad_bias(g, out=ones(5))
    ValueError: out: got shape (5,), expected (6,)
grad_bias(g, out=ones(6).astype(np.float64))
    TypeError: out: got dtype float64, expected float32, the dtype of the inputs
grad_bias(g, out=read_only(b))
    ValueError: out: got a read-only array, expected a writable one
grad_bias(q, layout='NC', out=q[0])
    ValueError: out: got an array that overlaps grad_output, expected memory of its own
grad_bias(None)
    TypeError: grad_output: got NoneType, expected an array
grad_bias(g.astype(np.int32))
    TypeError: grad_output: got dtype int32, expected float32 or float64
grad_bias(g.tolist())
    TypeError: grad_output: got list, expected an array
masks.nonzero_mask(x.astype(np.int32))
    TypeError: x: got dtype int32, expected float32 or float64
masks.nonzero_mask([1.0])
    TypeError: x: got list, expected an array
masks.nonzero_mask(None)
    TypeError: x: got NoneType, expected an array
masks.pack(x)
    TypeError: mask: got dtype float32, expected bool
masks.pack(bits)
    TypeError: mask: got dtype uint8, expected bool
masks.pack(None)
    TypeError: mask: got NoneType, expected an array
masks.unpack(bits, 5)
    ValueError: mask: got shape (30,), expected (1,)
masks.unpack(bits, (2, 4, 5, 7))
    ValueError: mask: got shape (30,), expected (35,)
masks.unpack(bits, -1)
    ValueError: shape: got -1, expected at least 0
masks.unpack(bits, (2, -4))
    ValueError: shape: got -4, expected at least 0
masks.unpack(bits, 2.5)
    TypeError: shape: got 2.5, expected a whole number
masks.unpack(bits, 'x')
    TypeError: shape: got 'x', expected a whole number
masks.unpack(bits, None)
    TypeError: shape: got None, expected a whole number
masks.unpack(bits, (2**40, 2**40))
    ValueError: mask: got shape (30,), expected (151115727451828646838272,)
masks.unpack(x, x.shape)
    TypeError: mask: got dtype float32, expected uint8
masks.unpack(bits[None], x.shape)
    ValueError: mask: got shape (1, 30), expected (30,)
masks.relu(x.astype(np.int32))
    TypeError: x: got dtype int32, expected float32 or float64
masks.relu(x, out=y)
    ValueError: out: got shape (2, 6, 3, 4), expected (2, 4, 5, 6)
masks.relu(x, out=x.astype(np.float64))
    TypeError: out: got dtype float64, expected float32, the dtype of the inputs
masks.relu(x, out=read_only(x))
    ValueError: out: got a read-only array, expected a writable one
masks.relu(x, out=x.T)
    ValueError: out: got shape (6, 5, 4, 2), expected (2, 4, 5, 6)
masks.relu(y, out=np.asfortranarray(y))
    ValueError: out: got strides (4, 8, 48, 144), expected a C-contiguous array
masks.relu(x.reshape(-1)[1:], out=x.reshape(-1)[:-1])
    ValueError: out: got an array that overlaps x, expected memory of its own
masks.density('x')
    TypeError: x: got str, expected an array
masks.density(x.astype(bool))
    TypeError: x: got dtype bool, expected float32 or float64
masks.vector_density(x, 0)
    ValueError: width: got 0, expected at least 1
masks.vector_density(x, -16)
    ValueError: width: got -16, expected at least 1
masks.vector_density(x, 1.5)
    TypeError: width: got 1.5, expected a whole number
masks.vector_density(x, None)
    TypeError: width: got None, expected a whole number
compress(x.astype(np.int32))
    TypeError: x: got dtype int32, expected float32 or float64
compress(None)
    TypeError: x: got NoneType, expected an array
compress([0.0, 1.0])
    TypeError: x: got list, expected an array
compress(x, num_threads=0)
    ValueError: num_threads: got 0, expected 1 to 1024
compress(compress(x))
    TypeError: x: got a CompressedArray, expected an array (sparseconv.decompress makes one); only the
decompress(x)
    TypeError: c: got ndarray, expected a CompressedArray, as sparseconv.compress gives
decompress(None)
    TypeError: c: got NoneType, expected a CompressedArray, as sparseconv.compress gives
decompress(compress(x), out=y)
    ValueError: out: got shape (2, 6, 3, 4), expected (2, 4, 5, 6)
decompress(compress(x), out=x.astype(np.float64))
    TypeError: out: got dtype float64, expected float32, the dtype of the inputs
decompress(compress(x), out=read_only(x))
    ValueError: out: got a read-only array, expected a writable one
decompress(compress(x), num_threads=-1)
    ValueError: num_threads: got -1, expected 1 to 1024
pack_weight(ones(6))
    ValueError: weight: got 1 dimensions (shape (6,)), expected 2 to 5
pack_weight(ones(1, 1, 1, 1, 1, 1))
    ValueError: weight: got 6 dimensions (shape (1, 1, 1, 1, 1, 1)), expected 2 to 5
pack_weight(ones(6, 0, 3, 3))
    ValueError: weight: got shape (6, 0, 3, 3), expected no size of zero
pack_weight(w, groups=4)
    ValueError: groups: got 4, expected a divisor of the weight's first size 6
pack_weight(w, groups=0)
    ValueError: groups: got 0, expected at least 1
pack_weight(w, groups=1.0)
    TypeError: groups: got 1.0, expected a whole number
pack_weight(w, mask=w[:1])
    ValueError: mask: got shape (1, 4, 3, 3), expected (6, 4, 3, 3)
pack_weight(w, mask=bits)
    ValueError: mask: got shape (30,), expected a bit mask of shape (27,) for (6, 4, 3, 3)
pack_weight(w, mask=w.astype(np.int32))
    TypeError: mask: got dtype int32, expected float32, float64, bool, or uint8 for a bit mask
pack_weight(w, mask=True)
    TypeError: mask: got bool, expected an array
pack_weight(w, threshold=-1)
    ValueError: threshold: got -1, expected a number from 0 to 3.4e+38, float32's largest
pack_weight(w, threshold=np.nan)
    ValueError: threshold: got nan, expected a number from 0 to 3.4e+38, float32's largest
pack_weight(w, threshold=np.inf)
    ValueError: threshold: got inf, expected a number from 0 to 3.4e+38, float32's largest
pack_weight(w, threshold='1')
    TypeError: threshold: got '1', expected a number
pack_weight(pack_weight(w))
    TypeError: weight: got a PackedWeight, expected an array
pack_weight(w.astype(np.float16))
    TypeError: weight: got dtype float16, expected float32 or float64
pack_weight(w.tolist())
    TypeError: weight: got list, expected an array
pack_weight(None)
    TypeError: weight: got NoneType, expected an array
pack_weight(w).update(ones(6, 4, 3, 2))
    ValueError: weight: got shape (6, 4, 3, 2), expected (6, 4, 3, 3)
pack_weight(w).update(w.astype(np.float64))
    TypeError: weight: got dtype float64, expected float32 as the packed weight has
pack_weight(w).update(w, threshold=-1)
    ValueError: threshold: got -1, expected a number from 0 to 3.4e+38, float32's largest
pack_weight(w).update(w, mask=w[0])
    ValueError: mask: got shape (4, 3, 3), expected (6, 4, 3, 3)
pack_weight(w).update(None)
    TypeError: weight: got NoneType, expected an array
pack_weight(w).update(pack_weight(w))
    TypeError: weight: got PackedWeight, expected an array
plan('conv4d', x, w)
    ValueError: operation: got 'conv4d', expected a convolution or linear function of sparseconv, or its name
plan('con2d', x, w)
    ValueError: operation: got 'con2d', expected a convolution or linear function of sparseconv, or its name
plan(x, w)
    TypeError: operation: got ndarray, expected a convolution or linear function of sparseconv, or its name, in
plan(np.dot, x, w)
    ValueError: operation: got 'dot', expected a convolution or linear function of sparseconv, or its name
plan(None)
    TypeError: operation: got NoneType, expected a convolution or linear function of sparseconv, or its name, in
plan('conv2d', x, w, stride=0)
    ValueError: stride: got 0, expected at least 1
plan('conv2d', x, w, out=read_only(y))
    ValueError: out: got a read-only array, expected a writable one
cpu.use_isa('sse')
    ValueError: isa: got 'sse', expected one of
cpu.set_num_threads(0)
    ValueError: num_threads: got 0, expected 1 to 1024
cpu.set_num_threads(1.5)
    TypeError: num_threads: got 1.5, expected a whole number or None
cpu.set_num_threads('2')
    TypeError: num_threads: got '2', expected a whole number or None
cpu.use_threads('tbb')
    ValueError: team: got 'tbb', expected one of ['own', 'openmp']
pruning.topk_mask(x, 1.0)
    ValueError: sparsity: got 1.0, expected at least 0 and less than 1
pruning.topk_mask(x, -0.1)
    ValueError: sparsity: got -0.1, expected at least 0 and less than 1
pruning.topk_mask(x, np.nan)
    ValueError: sparsity: got nan, expected at least 0 and less than 1
pruning.topk_mask(x, '0.5')
    TypeError: sparsity: got '0.5', expected a number
pruning.topk_mask(x, None)
    TypeError: sparsity: got None, expected a number
pruning.topk_mask(nan, 0.5)
    ValueError: x: got NaN, expected numbers that can be ordered
pruning.topk_mask(x.astype(np.int32), 0.5)
    TypeError: x: got dtype int32, expected float32 or float64
pruning.topk_mask(x, 0.5, num_threads=0)
    ValueError: num_threads: got 0, expected 1 to 1024
pruning.topk_threshold(x, 1)
    ValueError: sparsity: got 1, expected at least 0 and less than 1
pruning.topk_threshold(x, np.inf)
    ValueError: sparsity: got inf, expected at least 0 and less than 1
pruning.topk_threshold(nan, 0.5)
    ValueError: x: got NaN, expected numbers that can be ordered
pruning.topk_threshold([1.0], 0.5)
    TypeError: x: got list, expected an array
pruning.TopK(1.0)
    ValueError: sparsity: got 1.0, expected at least 0 and less than 1
pruning.TopK(0.5, 0)
    ValueError: period: got 0, expected at least 1
pruning.TopK(0.5, 1.5)
    TypeError: period: got 1.5, expected a whole number
pruning.TopK(0.5).mask(nan)
    ValueError: x: got NaN, expected numbers that can be ordered
pruning.TopK(0.5).threshold(None)
    TypeError: x: got NoneType, expected an array
pruning.channel_mask(b, 0.5)
    ValueError: weight: got 1 dimensions (shape (6,)), expected (K, C, *kernel)
pruning.channel_mask(w, 1.5)
    ValueError: sparsity: got 1.5, expected at least 0 and less than 1
pruning.channel_mask(w.astype(np.int32), 0.5)
    TypeError: weight: got dtype int32, expected float32 or float64
pruning.nm_mask(x, 3, 2)
    ValueError: n: got 3, expected at most m = 2
pruning.nm_mask(x, 0, 2)
    ValueError: n: got 0, expected at least 1
pruning.nm_mask(x, 1, 0)
    ValueError: m: got 0, expected at least 1
pruning.nm_mask(x, 1, 4)
    ValueError: m: got 4, expected a divisor of 6, the size of axis 3, or pad=True
pruning.nm_mask(x, 1, 2, axis=4)
    ValueError: axis: got 4, expected -4 to 3
pruning.nm_mask(x, 1, 2, axis=-5)
    ValueError: axis: got -5, expected at least -4
pruning.nm_mask(x, 1, 2, axis=0.5)
    TypeError: axis: got 0.5, expected a whole number
pruning.nm_mask(x, 1.0, 2)
    TypeError: n: got 1.0, expected a whole number
pruning.nm_mask(nan, 1, 2)
    ValueError: w: got NaN, expected numbers that can be ordered
pruning.nm_mask(np.float32(1).reshape(()), 1, 2)
    ValueError: w: got a scalar, expected at least one dimension
pruning.nm_mask(x, 1, 2, num_threads=0)
    ValueError: num_threads: got 0, expected 1 to 1024
pruning.transposable_nm_mask(x, 3, 2)
    ValueError: n: got 3, expected at most m = 2
pruning.transposable_nm_mask(ones(4, 5), 1, 2)
    ValueError: m: got 2, expected a divisor of 5, the number of columns, or pad=True
pruning.transposable_nm_mask(ones(4, 4), 1, 64)
    ValueError: m: got 64, expected at most 32
pruning.transposable_nm_mask(ones(4, 4), 1, 2, 'best')
    ValueError: method: got 'best', expected one of 'exact', 'greedy', 'entropy'
pruning.transposable_nm_mask(ones(4, 4) * np.inf, 1, 2)
    ValueError: w: got an infinity, expected finite numbers
pruning.transposable_nm_mask(b, 1, 2)
    ValueError: w: got 1 dimensions (shape (6,)), expected a matrix or (K, C, *kernel)
pruning.stochastic_prune(x, 1.0)
    ValueError: sparsity: got 1.0, expected at least 0 and less than 1
pruning.stochastic_prune(x, -1)
    ValueError: sparsity: got -1, expected at least 0 and less than 1
pruning.stochastic_prune(x, 0.5, rng='seed')
    TypeError: rng: got 'seed', expected None, a seed or a numpy.random.Generator
pruning.stochastic_prune(x, 0.5, rng=-1)
    ValueError: rng: got -1, expected None, a seed or a numpy.random.Generator
pruning.stochastic_prune(x, 0.5, out=y)
    ValueError: out: got shape (2, 6, 3, 4), expected (2, 4, 5, 6)
pruning.stochastic_prune(x, 0.5, out=read_only(x))
    ValueError: out: got a read-only array, expected a writable one
pruning.stochastic_prune(x, 0.5, out=x.astype(np.float64))
    TypeError: out: got dtype float64, expected float32, the dtype of the inputs
pruning.stochastic_prune(x, 0.5, num_threads=0)
    ValueError: num_threads: got 0, expected 1 to 1024
pruning.stochastic_prune(x.reshape(-1)[1:], 0.5, out=x.reshape(-1)[:-1])
    ValueError: out: got an array that overlaps g, expected memory of its own
pruning.stochastic_prune(x.astype(np.int32), 0.5)
    TypeError: g: got dtype int32, expected float32 or float64
pruning.GradientPruner(0.5, 0)
    ValueError: window: got 0, expected at least 1
pruning.GradientPruner(0.5, 1.5)
    TypeError: window: got 1.5, expected a whole number
pruning.GradientPruner(2, 1)
    ValueError: sparsity: got 2, expected at least 0 and less than 1
conv2d(x, w, stride=0)
    ValueError: stride: got 0, expected at least 1
conv2d(x, w, stride=-1)
    ValueError: stride: got -1, expected at least 1
conv2d(x, w, stride=(1, 0))
    ValueError: stride: got 0, expected at least 1
conv2d(x, w, stride=1.5)
    TypeError: stride: got 1.5, expected a whole number
conv2d(x, w, stride=None)
    TypeError: stride: got None, expected a whole number
conv2d(x, w, stride=True)
    TypeError: stride: got True, expected a whole number
conv2d(x, w, dilation=(2, -2))
    ValueError: dilation: got -2, expected at least 1
conv2d(x, w, dilation=())
    ValueError: dilation: got 0 numbers, expected 1 or 2, one per spatial dimension
conv2d(x, w, padding=((0, -1), (0, 0)))
    ValueError: padding: got -1, expected at least 0
conv2d(x, w, padding=0.5)
    TypeError: padding: got 0.5, expected a whole number
conv2d(x, w, padding=((1, 1),))
    ValueError: padding: got ((1, 1),), expected one (before, after) pair for each of 2 dimensions
conv2d(x, w, groups=-2)
    ValueError: groups: got -2, expected at least 1
conv2d(x, w, groups=5)
    ValueError: x: got shape (2, 4, 5, 6) (NCHW), expected 20 channels as the other operands have
conv2d(x, w, layout='nchw')
    ValueError: layout: got 'nchw', expected one of 'NCHW', 'NHWC', 'NCHW16c'
conv2d(x, w, layout='NC')
    ValueError: layout: got 'NC', expected one of 'NCHW', 'NHWC', 'NCHW16c'
conv2d(x, w, skip=1)
    ValueError: skip: got 1, expected one of 'auto', 'none', 'input', 'weight'
conv2d(x, w, num_threads=0)
    ValueError: num_threads: got 0, expected 1 to 1024
conv2d(x, w, num_threads=1.5)
    TypeError: num_threads: got 1.5, expected a whole number or None
conv2d(x, w, threshold=-1)
    ValueError: threshold: got -1, expected a number from 0 to 3.4e+38, float32's largest
conv2d(x, w, threshold=np.inf)
    ValueError: threshold: got inf, expected a number from 0 to 3.4e+38, float32's largest
conv2d(x, w, threshold=1e39)
    ValueError: threshold: got 1e+39, expected a number from 0 to 3.4e+38, float32's largest
conv2d(x, w, threshold=None)
    TypeError: threshold: got None, expected a number
conv2d_backward_data(g, w, x.shape, stride=0)
    ValueError: stride: got 0, expected at least 1
conv2d_backward_data(g, w, x.shape, stride=-1)
    ValueError: stride: got -1, expected at least 1
conv2d_backward_data(g, w, x.shape, stride=(1, 0))
    ValueError: stride: got 0, expected at least 1
conv2d_backward_data(g, w, x.shape, stride=(1, 2, 3))
    ValueError: stride: got 3 numbers, expected 1 or 2, one per spatial dimension
conv2d_backward_data(g, w, x.shape, stride='2')
    TypeError: stride: got '2', expected a whole number
conv2d_backward_data(g, w, x.shape, dilation=0)
    ValueError: dilation: got 0, expected at least 1
conv2d_backward_data(g, w, x.shape, dilation=2.0)
    TypeError: dilation: got 2.0, expected a whole number
conv2d_backward_data(g, w, x.shape, padding=-1)
    ValueError: padding: got -1, expected at least 0
conv2d_backward_data(g, w, x.shape, padding='full')
    ValueError: padding: got 'full', expected 'same', 'valid' or numbers
conv2d_backward_data(g, w, x.shape, padding=None)
    TypeError: padding: got None, expected a whole number
conv2d_backward_data(g, w, x.shape, groups=0)
    ValueError: groups: got 0, expected at least 1
conv2d_backward_data(g, w, x.shape, groups=1.0)
    TypeError: groups: got 1.0, expected a whole number
conv2d_backward_data(g, w, x.shape, layout='NCHW8c')
    ValueError: layout: got 'NCHW8c', expected one of 'NCHW', 'NHWC', 'NCHW16c'
conv2d_backward_data(g, w, x.shape, layout=None)
    ValueError: layout: got None, expected one of 'NCHW', 'NHWC', 'NCHW16c'
conv2d_backward_data(g, w, x.shape, skip='everything')
    ValueError: skip: got 'everything', expected one of 'auto', 'none', 'grad_output', 'weight', 'output'
conv2d_backward_data(g, w, x.shape, precision='low')
    ValueError: precision: got 'low', expected one of 'highest', 'high', 'medium'
conv2d_backward_data(g, w, x.shape, num_threads=-2**40)
    ValueError: num_threads: got -1099511627776, expected 1 to 1024
conv2d_backward_data(g, w, x.shape, num_threads=1025)
    ValueError: num_threads: got 1025, expected 1 to 1024
conv2d_backward_data(g, w, x.shape, threshold=np.nan)
    ValueError: threshold: got nan, expected a number from 0 to 3.4e+38, float32's largest
conv2d_backward_data(g, w, x.shape, threshold='0.5')
    TypeError: threshold: got '0.5', expected a number
conv2d_backward_data(g, w, x.shape, threshold=1.0, skip='none')
    ValueError: threshold: got 1.0 with skip='none', expected 0 where no operand is skipped
conv2d_backward_weight(x, g, w.shape, stride=0)
    ValueError: stride: got 0, expected at least 1
conv2d_backward_weight(x, g, w.shape, stride=-1)
    ValueError: stride: got -1, expected at least 1
conv2d_backward_weight(x, g, w.shape, stride=(1, 0))
    ValueError: stride: got 0, expected at least 1
conv2d_backward_weight(x, g, w.shape, stride=1.5)
    TypeError: stride: got 1.5, expected a whole number
conv2d_backward_weight(x, g, w.shape, stride=None)
    TypeError: stride: got None, expected a whole number
conv2d_backward_weight(x, g, w.shape, stride=True)
    TypeError: stride: got True, expected a whole number
conv2d_backward_weight(x, g, w.shape, dilation=(2, -2))
    ValueError: dilation: got -2, expected at least 1
conv2d_backward_weight(x, g, w.shape, dilation=())
    ValueError: dilation: got 0 numbers, expected 1 or 2, one per spatial dimension
conv2d_backward_weight(x, g, w.shape, padding=((0, -1), (0, 0)))
    ValueError: padding: got -1, expected at least 0
conv2d_backward_weight(x, g, w.shape, padding=0.5)
    TypeError: padding: got 0.5, expected a whole number
conv2d_backward_weight(x, g, w.shape, padding=((1, 1),))
    ValueError: padding: got ((1, 1),), expected one (before, after) pair for each of 2 dimensions
conv2d_backward_weight(x, g, w.shape, groups=-2)
    ValueError: groups: got -2, expected at least 1
conv2d_backward_weight(x, g, w.shape, groups=5)
    ValueError: x: got shape (2, 4, 5, 6) (NCHW), expected 20 channels as the other operands have
conv2d_backward_weight(x, g, w.shape, layout='nchw')
    ValueError: layout: got 'nchw', expected one of 'NCHW', 'NHWC', 'NCHW16c'
conv2d_backward_weight(x, g, w.shape, layout='NC')
    ValueError: layout: got 'NC', expected one of 'NCHW', 'NHWC', 'NCHW16c'
conv2d_backward_weight(x, g, w.shape, skip=1)
    ValueError: skip: got 1, expected one of 'auto', 'none', 'input', 'grad_output'
conv2d_backward_weight(x, g, w.shape, num_threads=0)
    ValueError: num_threads: got 0, expected 1 to 1024
conv2d_backward_weight(x, g, w.shape, num_threads=1.5)
    TypeError: num_threads: got 1.5, expected a whole number or None
conv2d_backward_weight(x, g, w.shape, threshold=-1)
    ValueError: threshold: got -1, expected a number from 0 to 3.4e+38, float32's largest
conv2d_backward_weight(x, g, w.shape, threshold=np.inf)
    ValueError: threshold: got inf, expected a number from 0 to 3.4e+38, float32's largest
conv2d_backward_weight(x, g, w.shape, threshold=1e39)
    ValueError: threshold: got 1e+39, expected a number from 0 to 3.4e+38, float32's largest
conv2d_backward_weight(x, g, w.shape, threshold=None)
    TypeError: threshold: got None, expected a number
conv_transpose2d(g, w, stride=0)
    ValueError: stride: got 0, expected at least 1
conv_transpose2d(g, w, stride=-1)
    ValueError: stride: got -1, expected at least 1
conv_transpose2d(g, w, stride=(1, 0))
    ValueError: stride: got 0, expected at least 1
conv_transpose2d(g, w, stride=(1, 2, 3))
    ValueError: stride: got 3 numbers, expected 1 or 2, one per spatial dimension
conv_transpose2d(g, w, stride='2')
    TypeError: stride: got '2', expected a whole number
conv_transpose2d(g, w, dilation=0)
    ValueError: dilation: got 0, expected at least 1
conv_transpose2d(g, w, dilation=2.0)
    TypeError: dilation: got 2.0, expected a whole number
conv_transpose2d(g, w, padding=-1)
    ValueError: padding: got -1, expected at least 0
conv_transpose2d(g, w, padding='full')
    ValueError: padding: got 'full', expected 'same', 'valid' or numbers
conv_transpose2d(g, w, padding=None)
    TypeError: padding: got None, expected a whole number
conv_transpose2d(g, w, groups=0)
    ValueError: groups: got 0, expected at least 1
conv_transpose2d(g, w, groups=1.0)
    TypeError: groups: got 1.0, expected a whole number
conv_transpose2d(g, w, layout='NCHW8c')
    ValueError: layout: got 'NCHW8c', expected one of 'NCHW', 'NHWC', 'NCHW16c'
conv_transpose2d(g, w, layout=None)
    ValueError: layout: got None, expected one of 'NCHW', 'NHWC', 'NCHW16c'
conv_transpose2d(g, w, skip='everything')
    ValueError: skip: got 'everything', expected one of 'auto', 'none', 'input', 'weight'
conv_transpose2d(g, w, precision='low')
    ValueError: precision: got 'low', expected one of 'highest', 'high', 'medium'
conv_transpose2d(g, w, num_threads=-2**40)
    ValueError: num_threads: got -1099511627776, expected 1 to 1024
conv_transpose2d(g, w, num_threads=1025)
    ValueError: num_threads: got 1025, expected 1 to 1024
conv_transpose2d(g, w, threshold=np.nan)
    ValueError: threshold: got nan, expected a number from 0 to 3.4e+38, float32's largest
conv_transpose2d(g, w, threshold='0.5')
    TypeError: threshold: got '0.5', expected a number
conv_transpose2d(g, w, threshold=1.0, skip='none')
    ValueError: threshold: got 1.0 with skip='none', expected 0 where no operand is skipped
conv_transpose2d_backward_data(x, w, g.shape, stride=0)
    ValueError: stride: got 0, expected at least 1
conv_transpose2d_backward_data(x, w, g.shape, stride=-1)
    ValueError: stride: got -1, expected at least 1
conv_transpose2d_backward_data(x, w, g.shape, stride=(1, 0))
    ValueError: stride: got 0, expected at least 1
conv_transpose2d_backward_data(x, w, g.shape, stride=1.5)
    TypeError: stride: got 1.5, expected a whole number
conv_transpose2d_backward_data(x, w, g.shape, stride=None)
    TypeError: stride: got None, expected a whole number
conv_transpose2d_backward_data(x, w, g.shape, stride=True)
    TypeError: stride: got True, expected a whole number
conv_transpose2d_backward_data(x, w, g.shape, dilation=(2, -2))
    ValueError: dilation: got -2, expected at least 1
conv_transpose2d_backward_data(x, w, g.shape, dilation=())
    ValueError: dilation: got 0 numbers, expected 1 or 2, one per spatial dimension
conv_transpose2d_backward_data(x, w, g.shape, padding=((0, -1), (0, 0)))
    ValueError: padding: got -1, expected at least 0
conv_transpose2d_backward_data(x, w, g.shape, padding=0.5)
    TypeError: padding: got 0.5, expected a whole number
conv_transpose2d_backward_data(x, w, g.shape, padding=((1, 1),))
    ValueError: padding: got ((1, 1),), expected one (before, after) pair for each of 2 dimensions
conv_transpose2d_backward_data(x, w, g.shape, groups=-2)
    ValueError: groups: got -2, expected at least 1
conv_transpose2d_backward_data(x, w, g.shape, groups=5)
    ValueError: grad_output: got shape (2, 4, 5, 6) (NCHW), expected 20 channels as the other operands have
conv_transpose2d_backward_data(x, w, g.shape, layout='nchw')
    ValueError: layout: got 'nchw', expected one of 'NCHW', 'NHWC', 'NCHW16c'
conv_transpose2d_backward_data(x, w, g.shape, layout='NC')
    ValueError: layout: got 'NC', expected one of 'NCHW', 'NHWC', 'NCHW16c'
conv_transpose2d_backward_data(x, w, g.shape, skip=1)
    ValueError: skip: got 1, expected one of 'auto', 'none', 'grad_output', 'weight', 'output'
conv_transpose2d_backward_data(x, w, g.shape, num_threads=0)
    ValueError: num_threads: got 0, expected 1 to 1024
conv_transpose2d_backward_data(x, w, g.shape, num_threads=1.5)
    TypeError: num_threads: got 1.5, expected a whole number or None
conv_transpose2d_backward_data(x, w, g.shape, threshold=-1)
    ValueError: threshold: got -1, expected a number from 0 to 3.4e+38, float32's largest
conv_transpose2d_backward_data(x, w, g.shape, threshold=np.inf)
    ValueError: threshold: got inf, expected a number from 0 to 3.4e+38, float32's largest
conv_transpose2d_backward_data(x, w, g.shape, threshold=1e39)
    ValueError: threshold: got 1e+39, expected a number from 0 to 3.4e+38, float32's largest
conv_transpose2d_backward_data(x, w, g.shape, threshold=None)
    TypeError: threshold: got None, expected a number
conv_transpose2d_backward_weight(g, x, w.shape, stride=0)
    ValueError: stride: got 0, expected at least 1
conv_transpose2d_backward_weight(g, x, w.shape, stride=-1)
    ValueError: stride: got -1, expected at least 1
conv_transpose2d_backward_weight(g, x, w.shape, stride=(1, 0))
    ValueError: stride: got 0, expected at least 1
conv_transpose2d_backward_weight(g, x, w.shape, stride=(1, 2, 3))
    ValueError: stride: got 3 numbers, expected 1 or 2, one per spatial dimension
conv_transpose2d_backward_weight(g, x, w.shape, stride='2')
    TypeError: stride: got '2', expected a whole number
conv_transpose2d_backward_weight(g, x, w.shape, dilation=0)
    ValueError: dilation: got 0, expected at least 1
conv_transpose2d_backward_weight(g, x, w.shape, dilation=2.0)
    TypeError: dilation: got 2.0, expected a whole number
conv_transpose2d_backward_weight(g, x, w.shape, padding=-1)
    ValueError: padding: got -1, expected at least 0
conv_transpose2d_backward_weight(g, x, w.shape, padding='full')
    ValueError: padding: got 'full', expected 'same', 'valid' or numbers
conv_transpose2d_backward_weight(g, x, w.shape, padding=None)
    TypeError: padding: got None, expected a whole number
conv_transpose2d_backward_weight(g, x, w.shape, groups=0)
    ValueError: groups: got 0, expected at least 1
conv_transpose2d_backward_weight(g, x, w.shape, groups=1.0)
    TypeError: groups: got 1.0, expected a whole number
conv_transpose2d_backward_weight(g, x, w.shape, layout='NCHW8c')
    ValueError: layout: got 'NCHW8c', expected one of 'NCHW', 'NHWC', 'NCHW16c'
conv_transpose2d_backward_weight(g, x, w.shape, layout=None)
    ValueError: layout: got None, expected one of 'NCHW', 'NHWC', 'NCHW16c'
conv_transpose2d_backward_weight(g, x, w.shape, skip='everything')
    ValueError: skip: got 'everything', expected one of 'auto', 'none', 'input', 'grad_output'
conv_transpose2d_backward_weight(g, x, w.shape, precision='low')
    ValueError: precision: got 'low', expected one of 'highest', 'high', 'medium'
conv_transpose2d_backward_weight(g, x, w.shape, num_threads=-2**40)
    ValueError: num_threads: got -1099511627776, expected 1 to 1024
conv_transpose2d_backward_weight(g, x, w.shape, num_threads=1025)
    ValueError: num_threads: got 1025, expected 1 to 1024
conv_transpose2d_backward_weight(g, x, w.shape, threshold=np.nan)
    ValueError: threshold: got nan, expected a number from 0 to 3.4e+38, float32's largest
conv_transpose2d_backward_weight(g, x, w.shape, threshold='0.5')
    TypeError: threshold: got '0.5', expected a number
conv_transpose2d_backward_weight(g, x, w.shape, threshold=1.0, skip='none')
    ValueError: threshold: got 1.0 with skip='none', expected 0 where no operand is skipped
conv1d(x1, w1, stride=0)
    ValueError: stride: got 0, expected at least 1
conv1d(x1, w1, groups=3)
    ValueError: x: got shape (2, 4, 6) (NCW), expected 12 channels as the other operands have
conv1d(x1, w1, num_threads=0)
    ValueError: num_threads: got 0, expected 1 to 1024
conv1d_backward_data(g1, w1, x1.shape, padding=-1)
    ValueError: padding: got -1, expected at least 0
conv1d_backward_data(g1, w1, x1.shape, skip='input')
    ValueError: skip: got 'input', expected one of 'auto', 'none', 'grad_output', 'weight', 'output'
conv1d_backward_data(g1, w1, x1.shape, padding=2**63)
    ValueError: result: got sizes whose product overflows int64
conv1d_backward_weight(x1, g1, w1.shape, dilation=0)
    ValueError: dilation: got 0, expected at least 1
conv1d_backward_weight(x1, g1, w1.shape, layout='NCHW')
    ValueError: layout: got 'NCHW', expected one of 'NCW', 'NWC', 'NCW16c'
conv1d_backward_weight(x1, g1, w1.shape, threshold=np.nan)
    ValueError: threshold: got nan, expected a number from 0 to 3.4e+38, float32's largest
conv_transpose1d(g1, w1, stride=0)
    ValueError: stride: got 0, expected at least 1
conv_transpose1d(g1, w1, num_threads=0)
    ValueError: num_threads: got 0, expected 1 to 1024
conv_transpose1d(g1, w1, stride=2**64)
    ValueError: x: got sizes whose product overflows int64
conv_transpose1d_backward_data(x1, w1, g1.shape, padding=-1)
    ValueError: padding: got -1, expected at least 0
conv_transpose1d_backward_data(x1, w1, g1.shape, skip='input')
    ValueError: skip: got 'input', expected one of 'auto', 'none', 'grad_output', 'weight', 'output'
conv_transpose1d_backward_data(x1, w1, g1.shape, padding=2**63)
    ValueError: grad_output: got size 6 in spatial dimension 0, expected none: padding is larger for an input of
conv_transpose1d_backward_weight(g1, x1, w1.shape, dilation=0)
    ValueError: dilation: got 0, expected at least 1
conv_transpose1d_backward_weight(g1, x1, w1.shape, layout='NCHW')
    ValueError: layout: got 'NCHW', expected one of 'NCW', 'NWC', 'NCW16c'
conv_transpose1d_backward_weight(g1, x1, w1.shape, threshold=np.nan)
    ValueError: threshold: got nan, expected a number from 0 to 3.4e+38, float32's largest
conv3d(x3, w3, stride=0)
    ValueError: stride: got 0, expected at least 1
conv3d(x3, w3, groups=3)
    ValueError: x: got shape (2, 4, 1, 5, 6) (NCDHW), expected 12 channels as the other operands have
conv3d(x3, w3, num_threads=0)
    ValueError: num_threads: got 0, expected 1 to 1024
conv3d_backward_data(g3, w3, x3.shape, padding=-1)
    ValueError: padding: got -1, expected at least 0
conv3d_backward_data(g3, w3, x3.shape, skip='input')
    ValueError: skip: got 'input', expected one of 'auto', 'none', 'grad_output', 'weight', 'output'
conv3d_backward_data(g3, w3, x3.shape, padding=2**63)
    ValueError: result: got sizes whose product overflows int64
conv3d_backward_weight(x3, g3, w3.shape, dilation=0)
    ValueError: dilation: got 0, expected at least 1
conv3d_backward_weight(x3, g3, w3.shape, layout='NCHW')
    ValueError: layout: got 'NCHW', expected one of 'NCDHW', 'NDHWC', 'NCDHW16c'
conv3d_backward_weight(x3, g3, w3.shape, threshold=np.nan)
    ValueError: threshold: got nan, expected a number from 0 to 3.4e+38, float32's largest
conv_transpose3d(g3, w3, stride=0)
    ValueError: stride: got 0, expected at least 1
conv_transpose3d(g3, w3, num_threads=0)
    ValueError: num_threads: got 0, expected 1 to 1024
conv_transpose3d(g3, w3, stride=2**64)
    ValueError: x: got sizes whose product overflows int64
conv_transpose3d_backward_data(x3, w3, g3.shape, padding=-1)
    ValueError: padding: got -1, expected at least 0
conv_transpose3d_backward_data(x3, w3, g3.shape, skip='input')
    ValueError: skip: got 'input', expected one of 'auto', 'none', 'grad_output', 'weight', 'output'
conv_transpose3d_backward_data(x3, w3, g3.shape, padding=2**63)
    ValueError: grad_output: got size 1 in spatial dimension 0, expected none: padding is larger for an input of
conv_transpose3d_backward_weight(g3, x3, w3.shape, dilation=0)
    ValueError: dilation: got 0, expected at least 1
conv_transpose3d_backward_weight(g3, x3, w3.shape, layout='NCHW')
    ValueError: layout: got 'NCHW', expected one of 'NCDHW', 'NDHWC', 'NCDHW16c'
conv_transpose3d_backward_weight(g3, x3, w3.shape, threshold=np.nan)
    ValueError: threshold: got nan, expected a number from 0 to 3.4e+38, float32's largest
grad_bias(g, layout=['NCHW'])
    ValueError: layout: got ['NCHW'], expected 'NC' or a layout of 1d, 2d or 3d arrays
linear(r, m, activation=['relu'])
    ValueError: activation: got ['relu'], expected one of None, 'relu'
conv1d(x1, w1, layout={})
    ValueError: layout: got {}, expected one of 'NCW', 'NWC', 'NCW16c'
"""
ROWS = re.findall(r"^(\S.*)\n    (\w+): (.*)$", TABLE, re.MULTILINE)


def ones(*shape):
    return np.ones(shape, np.float32)


def endless(*shape):
    """An array of any size in four bytes."""
    return np.broadcast_to(np.float32(0), shape)


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def overlapping(array):
    """Its elements lie on each other."""
    return np.lib.stride_tricks.as_strided(array, array.shape, (*array.strides[:-1], 0))


def unaligned(array):
    return np.ndarray(array.shape, array.dtype, bytearray(array.nbytes + 8), offset=1)


class Device:
    """An array that lives on a GPU, as far as DLPack says."""

    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self, **_):
        raise AssertionError("the data of a device must not be asked for")


class Broken:
    """An array interface that fails."""

    @property
    def __array_interface__(self):
        raise RuntimeError("broken")


class Liar:
    """An array interface without memory."""

    __array_interface__ = {"shape": (2, 4, 5, 6), "typestr": "<f4", "version": 3, "data": (0, False)}  # noqa: RUF012


def names():
    """What a row may use: the public functions, and arrays that fit together."""
    x, w, g = ones(2, 4, 5, 6), ones(6, 4, 3, 3), ones(2, 6, 3, 4)
    arrays = {"x": x, "w": w, "g": g, "b": ones(6), "y": ones(2, 6, 3, 4), "dx": ones(2, 4, 5, 6)}
    arrays |= {"x1": x[:, :, 0].copy(), "w1": w[:, :, 0].copy(), "g1": g[:, :, 0].copy()}
    arrays |= {"x3": x[:, :, None].copy(), "w3": w[:, :, None].copy(), "g3": g[:, :, None].copy()}
    arrays |= {"r": ones(5, 4), "m": ones(6, 4), "q": ones(5, 6)}
    arrays |= {"bits": np.full(30, 255, np.uint8), "nan": np.full((2, 4), np.nan, np.float32)}
    helpers = (ones, endless, read_only, overlapping, unaligned, Device, Broken, Liar)
    public = {name: getattr(sparseconv, name) for name in sparseconv.__all__}
    return arrays, public | {one.__name__: one for one in helpers} | {"np": np} | arrays


def valid_results():
    """A result of each function that takes `out`."""
    calls = {"linear": "r, m", "linear_backward_data": "q, m", "linear_backward_weight": "r, q", "grad_bias": "g"}
    for ndim, (x, w, g) in {1: ("x1", "w1", "g1"), 2: ("x", "w", "g"), 3: ("x3", "w3", "g3")}.items():
        for base, first, last in ((f"conv{ndim}d", x, g), (f"conv_transpose{ndim}d", g, x)):
            calls[base] = f"{first}, {w}"
            calls[f"{base}_backward_data"] = f"{last}, {w}, {first}.shape"
            calls[f"{base}_backward_weight"] = f"{first}, {last}, {w}.shape"
    return {name: eval(f"{name}({arguments})", names()[1]) for name, arguments in calls.items()}


RESULTS = valid_results()


def failure(call, space, **more):
    """The exception of a call, to which keywords may be added."""
    tree = ast.parse(call, mode="eval")
    tree.body.keywords += [ast.keyword(name, ast.Name(name, ast.Load())) for name in more]
    code = compile(ast.fix_missing_locations(tree), "<row>", "eval")
    try:
        eval(code, space | more)
    except Exception as error:
        return error
    raise AssertionError("no error")


def test_the_table_is_large():
    assert len(ROWS) == TABLE.strip().count("\n") // 2 + 1 >= 400
    assert len({call for call, *_ in ROWS}) == len(ROWS)
    called = {re.match(r"[\w.]+", call).group() for call, *_ in ROWS}
    assert set(RESULTS) <= called


@pytest.mark.parametrize("call, error, message", ROWS, ids=[row[0] for row in ROWS])
def test_bad_call(call, error, message):
    arrays, space = names()
    before = {name: array.tobytes() for name, array in arrays.items()}
    raised = failure(call, space)
    assert type(raised).__name__ == error
    assert str(raised).startswith(message)
    assert re.match(r"\w+: got .*expected ", str(raised), re.DOTALL), "an argument, what was got, what was expected"
    function = re.match(r"\w+(?=\()", call)
    if function and function.group() in RESULTS and "out=" not in call:
        out = np.full_like(RESULTS[function.group()], SENTINEL)
        assert type(failure(call, space, out=out)) is type(raised)
        assert (out == SENTINEL).all()
    assert {name: array.tobytes() for name, array in arrays.items()} == before
