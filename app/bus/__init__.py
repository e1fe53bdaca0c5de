"""Events, locks and limits over Redis. Nothing here is needed for a message to be stored (P7)."""
