"""The columns and the table of headers in what people work with: NumPy, pandas, polars, pyarrow."""

from __future__ import annotations

import dpkt
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import millrace

from . import corpus
from .conftest import udp

FRAMES = [udp(number % 5, bytes(number), port=53 + number % 2) for number in range(50)]


@pytest.fixture
def headers() -> np.ndarray:
    return millrace.Batch(FRAMES, timestamp=1_700_000_000_000_000_000).headers()


def test_numpy_counts_bytes_of_each_port(headers: np.ndarray) -> None:
    ports, place = np.unique(headers["destination_port"], return_inverse=True)
    sums = np.bincount(place, weights=headers["length"])
    lengths = [len(frame) for frame in FRAMES]
    assert dict(zip(ports.tolist(), sums.tolist(), strict=True)) == {
        53: sum(lengths[::2]),
        54: sum(lengths[1::2]),
    }
    times = headers["timestamp"].view("datetime64[ns]")
    assert str(times[0]) == "2023-11-14T22:13:20.000000000"


def test_pandas_takes_the_table(headers: np.ndarray) -> None:
    frame = pd.DataFrame(headers)
    assert list(frame.columns) == list(headers.dtype.names or ())
    flows = frame.groupby(["source_port", "destination_port"])["payload_length"].sum()
    assert flows.loc[(1024, 53)] == sum(range(0, 50, 10))
    assert frame["fragment"].dtype == bool
    assert (frame.groupby("flow_hash")["source_port"].nunique() == 1).all()


def test_polars_takes_the_table(headers: np.ndarray) -> None:
    frame = pl.DataFrame(headers)
    assert frame.columns == list(headers.dtype.names or ())
    busiest = frame.group_by("source_port").agg(pl.col("length").sum()).sort("source_port")
    assert busiest["source_port"].to_list() == [1024, 1025, 1026, 1027, 1028]
    assert frame["source_ipv4"].unique().to_list() == [0x0A000001]


def test_pyarrow_takes_the_table_and_the_columns(headers: np.ndarray) -> None:
    table = pa.table({name: headers[name] for name in headers.dtype.names or ()})
    assert table.num_rows == 50
    assert table["source_port"].to_pylist() == headers["source_port"].tolist()
    batch = millrace.Batch(FRAMES)
    lengths = pa.array(batch.length)
    assert lengths.to_pylist() == [len(frame) for frame in FRAMES]
    # Not a copy: where the column is.
    assert lengths.buffers()[1].address == batch.length.__array_interface__["data"][0]


def test_headers_say_what_dpkt_says() -> None:
    """An independent reader of packets, on frames that are whole."""
    frames = [frame for frame in corpus.frames(400, 7) if len(frame) >= 60]
    headers = millrace.Batch(frames).headers()
    compared = 0
    for frame, row in zip(frames, headers, strict=True):
        try:
            ethernet = dpkt.ethernet.Ethernet(frame)
        except (dpkt.UnpackError, IndexError, AttributeError):
            continue
        packet = ethernet.data
        if len(getattr(ethernet, "vlan_tags", ())) > 1 or not isinstance(
            packet, dpkt.ip.IP | dpkt.ip6.IP6
        ):
            continue
        if row["ip_version"] != packet.v:
            continue  # damaged, and not for us to read
        assert row["source_mac"] == int.from_bytes(ethernet.src)
        assert row["destination_mac"] == int.from_bytes(ethernet.dst)
        if isinstance(packet, dpkt.ip.IP):
            assert row["source_ipv4"] == int.from_bytes(packet.src)
            assert row["destination_ipv4"] == int.from_bytes(packet.dst)
            assert (row["ttl"], row["traffic_class"]) == (packet.ttl, packet.tos)
            assert row["protocol"] == packet.p
        else:
            whole = int(row["source_ipv6_high"]) << 64 | int(row["source_ipv6_low"])
            assert whole == int.from_bytes(packet.src)
            assert row["ttl"] == packet.hlim
        upper = packet.data
        if isinstance(upper, dpkt.tcp.TCP) and row["tcp_flags"]:
            assert row["source_port"] == upper.sport
            assert row["destination_port"] == upper.dport
            assert (row["tcp_seq"], row["tcp_ack"]) == (upper.seq, upper.ack)
            assert row["tcp_flags"] & 0xFF == upper.flags & 0xFF
            assert row["tcp_window"] == upper.win
            compared += 1
        elif isinstance(upper, dpkt.udp.UDP) and row["source_port"]:
            assert row["source_port"] == upper.sport
            assert row["destination_port"] == upper.dport
            compared += 1
    assert compared > 100
