"""The time of a layer on paper: from multiply-adds, zeros and bytes. The command is in `__main__.py`.

    time = sum over what a kernel does of (how often) x (cycles each) / clock

`calls.py` asks the library which kernel and which blocks it would take on a CPU of `processors.py`. `rows.py` and
`gradient.py` count how often the loops of these kernels do what they do, and say how many cycles each is expected to
take. `fitting.py` fits the cycles to the times that `stored.py` reads, and predicts. `errors.py` leaves layers out of
the fit and looks how well they are predicted. `scaling.py` extrapolates to many cores and machines.
docs/cost_model.md has the results.

Three things were tried and did not lower the errors on unseen layers. Words were weighed by the chance that they have
another number of bits than the one before. Words in rows of one tap had a constant of their own: of ResNet-50, fitted
to other networks on Zen 4, 78% of cells were within 15% instead of 91%. What oneDNN writes between two of our calls was
counted into what L3 has to hold.
"""
