"""The ledger: virtual visitors and agents talk, and every message is accounted for afterwards.

``book`` is the accounting (pure), ``wire`` the HTTP client, ``channels`` the WebSocket client,
``cast`` the visitors and agents, ``target`` what may be spoken to, ``truth`` what is stored,
``report`` the table, the JSON and the plot, ``__main__`` the command line.
"""
