"""A page in the browser on which a small network is watched while it trains: ``ferrograd playground``.

The page talks to this package by a small HTTP interface, on the loopback address only. Requests and answers
are JSON; any other program on this machine may use it too.

========================  ===========================================================================
``GET /``                 The page, one HTML file.
``GET /api/state``        Everything that can be seen: settings, points, curves and pictures. With
                          ``?since=V`` only ``{"version": V}`` while nothing is new.
``POST /api/data``        One of ``{"set": "moons", "n_samples": 200, "noise": 0.1, "seed": 0,
                          "n_classes": 2}`` (all but ``set`` may be missing), ``{"add": [x, y, class]}``,
                          ``{"remove": [x, y]}`` (the nearest point), ``{"clear": true}``,
                          ``{"csv": "text"}`` (rows of two numbers and a class; a heading may come first).
``POST /api/network``     Any of ``hidden`` (widths), ``activation``, ``seed``, which start from new weights;
                          ``loss``, ``optimizer``, ``lr``, ``l2``, ``batch_size``, which go on with these.
``POST /api/run``         ``{"action": "start"}``, with ``"speed"`` (epochs per second, null for as many as
                          the engine makes); ``"pause"``; ``"step"`` (one epoch); ``"reset"``.
========================  ===========================================================================

A POST is answered by the new state, an error by ``{"error": "what was expected, and what came"}``: 400 for
content, 403 for another Host or Origin, 404, 405, 411 and 413 for a body without length or above 1 MiB, 415
for another type than ``application/json``. After an error everything is as it was.

In the pictures of the state, ``boundary`` holds for each place of a square lattice (rows from the top of
``data.view``, which is left, right, bottom, top) the class and the strength 0 to 255 of its lead; ``layers``
for each neuron a picture of every second place, where 128 is zero; ``hidden`` what the last hidden layer
makes of lines of the plane, upright ones first, and of the points, as 16-bit integers, units last, 32767 for
``largest``. All of it is base64.
"""
