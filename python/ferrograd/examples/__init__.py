"""Short programs that show what the library does: ``python -m ferrograd.examples.NAME``.

1. `xor`: a network by hand, trained with a loop of one's own.
2. `digits`: the `Trainer`, and reports on what it trained.
3. `mnist`: the same on MNIST, from files.
4. `circle`: a model that is no network.
5. `optimizer_paths`: optimizers on a saddle and in a valley.
6. `custom_op`: a function with a derivative of one's own.
7. `random_dag`: a randomly wired network.
8. `tabular`: the estimators in a pipeline of scikit-learn.

Each prints what it finds. Pictures are written only where ``--out FOLDER`` asks for them.
"""
