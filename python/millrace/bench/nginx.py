"""The arm `nginx`: one process without logs, the body from memory, connections kept."""

from __future__ import annotations

from pathlib import Path


def configuration(address: str, port: int, size: int) -> str:
    """An nginx.conf; all that nginx writes stays below the prefix it is started with."""
    body = "".join(chr(ord("a") + at % 26) for at in range(size))
    return f"""\
# A single process stays who it is; only its folders would be given away, which a user namespace
# refuses.
user root;
daemon off;
master_process off;
worker_processes 1;
pid nginx.pid;
error_log stderr crit;
events {{
    use epoll;
    worker_connections 4096;
    multi_accept on;
}}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    default_type text/plain;
    server_tokens off;
    tcp_nodelay on;
    keepalive_timeout 3600;
    keepalive_requests 1000000000;
    server {{
        listen {address}:{port} backlog=4096;
        location / {{
            return 200 "{body}";
        }}
    }}
}}
"""


def command(folder: Path, address: str, port: int, size: int) -> list[str]:
    """Write the configuration into `folder` and give the command that serves with it."""
    (folder / "nginx.conf").write_text(configuration(address, port, size))
    return ["nginx", "-p", str(folder), "-e", "stderr", "-c", "nginx.conf"]
