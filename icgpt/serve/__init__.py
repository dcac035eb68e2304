"""HTTP services on one engine: `icgpt serve`. A canister writes, or the engine on this machine.

`app.build` makes the application of a backend and settings, `running.serve` puts it on ports, and
each file of `routes` answers one family of clients.
"""
