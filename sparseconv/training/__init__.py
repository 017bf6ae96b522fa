"""The training demo behind ``sparseconv train``: a small network whose zeros are skipped, on NumPy and this library.

===============  ======================================================================
`network`        layers with forward and backward passes, loss, optimiser, the network
`train`          the training loop; `run` is the whole demo
`measure`        time and zeros of every convolution of a training step
`record`         the operands of a training step, for ``sparseconv bench``
`report`         terminal table, report.json, report.png
===============  ======================================================================
"""
