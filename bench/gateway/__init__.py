"""The gateway's bench: a load generator in C, the gateway, and its peers, in one sitting."""
