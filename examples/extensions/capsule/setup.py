"""Builds capsule_layer: of sparseconv it needs the header alone."""

from setuptools import Extension, setup

import sparseconv

setup(
    name="capsule_layer",
    ext_modules=[Extension("capsule_layer", ["capsule_layer.c"], include_dirs=[sparseconv.get_include()])],
)
