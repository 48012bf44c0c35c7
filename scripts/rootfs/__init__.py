"""Executes the Dockerfiles' own steps in a scratch folder, without an engine, and runs what they make
(`make images-check`).

    .dockerignore ─▶ context ─▶ stages: a copy of the base, then every step ─▶ image: root and settings
                                                  ─▶ looked at: libraries, tools, parts, what its uid may write
                                                  ─▶ started as its uid with a read-only root: a stream, a SIGTERM
"""
