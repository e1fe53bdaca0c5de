"""The domain: accounts, inboxes, visitors, conversations, messages. Knows no HTTP."""
