"""Builds cython_layer: Cython finds sparseconv's declarations by itself, the C compiler its header by get_include()."""

from Cython.Build import cythonize
from setuptools import Extension, setup

import sparseconv

setup(
    name="cython_layer",
    ext_modules=cythonize(
        [Extension("cython_layer", ["cython_layer.pyx"], include_dirs=[sparseconv.get_include()])],
        build_dir="build",
    ),
)
