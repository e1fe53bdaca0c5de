"""The one machine of inventories/single, reached as the cluster's tests reach theirs."""

import os

os.environ.setdefault("DESKLINE_TEST_INVENTORY", "inventories/single")

# After the line above, because the inventory is chosen at import.
from tests.cluster.conftest import (
    base_url,
    bridge,
    inventory,
    machine,
)

__all__ = ["base_url", "bridge", "inventory", "machine"]
