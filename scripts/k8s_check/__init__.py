"""Checks deploy/k8s without a cluster: `make k8s-check`.

Every overlay is rendered, and every component over the base alone. What comes out is held against Kubernetes' schemas
and those of the custom resources' authors (an unknown field is an error), given to checkov, and held against this
project's own conventions (conventions.py): those that no schema knows, because they concern two places at once.
"""
