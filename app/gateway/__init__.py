"""The gateway: the Pusher Channels protocol over WebSocket, fed by Redis pub/sub."""
