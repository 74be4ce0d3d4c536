"""Eyes inside the network path: Millrace's own stacks, and the kernel's.

| module | what it shows |
|---|---|
| `processes`, `page`, `client` | Millrace processes: pages of counters and tables, and requests |

Read-only: nothing here changes a setting or a connection.
"""
