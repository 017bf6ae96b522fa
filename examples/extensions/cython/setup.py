"""Builds cython_layer. Cython finds declarations in the folder of the package, the C compiler the header."""

from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

import sparseconv

setup(
    name="cython_layer",
    ext_modules=cythonize(
        [Extension("cython_layer", ["cython_layer.pyx"], include_dirs=[sparseconv.get_include()])],
        build_dir="build",
        include_path=[str(Path(sparseconv.__file__).parents[1])],  # Cython does not look where `pip install -e` points
    ),
)
