"""`ferrograd bench`: training steps beside numpy, scikit-learn, JAX and PyTorch, as ratios within one run.

`problem` says what is trained, `peers` how each library trains it, `worker` is the process of one library,
`process` and `compare` drive the workers from outside, `sweep` draws shapes, `report` and `chart` show what
came out. Nothing here is loaded by ``import ferrograd``.
"""
