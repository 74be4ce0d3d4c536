"""What wrk prints, and wrk itself against a server of the standard library."""

from __future__ import annotations

import shutil
import sys

import pytest

from millrace.bench import wrk
from millrace.lab import Lab, LabError

PRINTED = """\
Running 1s test @ http://192.0.2.2:80/
  1 threads and 64 connections
{"duration_us": 2000000, "requests": 5000, "p50_us": 64, "p99_us": 211, "max_us": 900, \
"connect": 1, "read": 2, "write": 3, "status": 4, "timeout": 5}
"""

SERVER = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200 if self.path == "/" else 404)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *words):
        pass
http.server.ThreadingHTTPServer(("", 80), Handler).serve_forever()
"""


def test_the_line_is_found_and_errors_are_summed() -> None:
    load = wrk.parse(PRINTED)
    assert load == wrk.Load(seconds=2.0, requests=5000, p50_us=64, p99_us=211, errors=15)
    assert load.requests_per_s == 2500


def test_output_without_figures_is_shown() -> None:
    with pytest.raises(LabError, match="unable to connect"):
        wrk.parse("unable to connect to 192.0.2.2:80 Connection refused\n")


@pytest.mark.networks
@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_wrk_runs_for_a_part_of_a_second_and_counts_what_fails(lab: Lab) -> None:
    client, server = lab.host("client"), lab.host("server")
    wire = lab.wire(client, server)
    process = server.popen([sys.executable, "-c", SERVER])
    patience = ["--retry", "50", "--retry-connrefused", "--retry-max-time", "30"]
    client.run(["curl", "-s", *patience, "--retry-delay", "0", f"http://{wire.b.ip}/"])
    good = wrk.run(
        client, f"http://{wire.b.ip}/", connections=2, keepalive=True, seconds=0.4, core=None
    )
    assert good.requests > 0
    assert good.errors == 0
    assert 0 < good.p50_us <= good.p99_us
    bad = wrk.run(
        client, f"http://{wire.b.ip}/no", connections=1, keepalive=False, seconds=0.4, core=None
    )
    assert bad.errors >= bad.requests > 0
    process.kill()
