"""The machines are those of tests/cluster, reached in the same way."""

from tests.cluster.conftest import base_url, bridge, inventory, machine, primary, replica

__all__ = ["base_url", "bridge", "inventory", "machine", "primary", "replica"]
