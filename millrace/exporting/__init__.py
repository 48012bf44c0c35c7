"""From a trained model to a version's folder that a worker serves.

    source ── choose ──► Source ── plan ──► packages, room
                            └── build ──► graph, keys, parity ──► model.yaml, card, sums ──► worker's check ──► rename

What is written stays under a hidden name until all of it is in order, on the disk and judged equal to the original.
docs/export.md explains it to those who export.
"""
