"""Reusable code without stages and competitions, in rooms; each imports only the rooms below it.

    report          one HTML page a competition, one file a section
    submission      the organiser's file: filled in, checked, scored, sent; the lab book
    training        one phase: loop, checkpoints, log
    ensemble        members aligned, averaged, combined by a second level, scored
    runs            one fold of one run: its job, what is missing, its predictions
    networks        image and patient networks
    folds           leak-free, stratified splits
    images          any file -> prepared image -> views -> batches
    raw             what the organiser sent: tables, archives, bytes
    artifacts       what stages hand over: paths, files, tables, labels, provenance
    config          a competition's values: task, run, target
    losses, pesg, metrics     the mathematics: imports nothing of the project
    runtime         errors, command line, device, claims, worker processes

`tests/test_layers.py` holds every import to this order.
"""
