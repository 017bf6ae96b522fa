"""The comparison behind ``sparseconv bench``: this library and a peer, layer by layer, in one process.

===============  ======================================================================
`layers`         one layer as text, and the sets of layers: networks, unusual shapes
`operands`       arrays for a layer, with zeros at random places
`activations`    arrays of a training step, in a file
`peers`          one pass of a layer, by this library and by those it is compared with
`measure`        times of both sides, taken in turn; memory kept from call to call
`report`         rows of text, means, a CSV file
`picture`        speed-up over sparsity, with matplotlib
`networks`       trained networks of other packages, on photos
`command`        the command line's options, and the run
===============  ======================================================================

The asv suite in bench/ is made of the same parts. torch is imported only when it is the peer.
"""
