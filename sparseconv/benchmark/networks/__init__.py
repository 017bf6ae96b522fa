"""Trained networks that other packages carry, on real photos: ``sparseconv bench --network``.

======================================  ============================================================================
`packages`                              files of installed packages, which are not imported; nothing is downloaded
`hdf5_file`, `ncnn_file`, `onnx_file`   readers of weights, which do not trust their files
`photos`                                the two photos that scikit-learn carries
`trained`                               a network with images and a loss; parts that the networks share
`hed`, `srmd`, `open_nsfw`              the networks as PyTorch models
`record`                                what each convolution reads in a training step
`comparison`                            layer by layer and as a whole, against PyTorch
`table`                                 rows of text, and a CSV file
======================================  ============================================================================

PyTorch is imported by the networks, `trained`, `record` and `comparison`.
"""

NAMES = ("hed", "srmd", "srmd_x3", "srmd_x4", "srmdnf_x2", "srmdnf_x3", "srmdnf_x4", "open_nsfw")
