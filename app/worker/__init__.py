"""Background jobs: relaying the outbox, purging expired sessions."""
