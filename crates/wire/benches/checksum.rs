//! Checksums against a plain copy of the same bytes, which is the bound for copy-and-sum.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_main};
use millrace_wire::checksum::{copy_and_sum, sum};

/// A header, a header with options, small messages, one segment, a page, a super-segment.
const LENGTHS: [usize; 9] = [20, 32, 40, 64, 128, 256, 1460, 4096, 65536];

fn checksums(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("checksum");
    for len in LENGTHS {
        let src: Vec<u8> = (0..len).map(|i| (i * 31 + 7) as u8).collect();
        let mut dst = vec![0; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::new("copy_from_slice", len), |bencher| {
            bencher.iter(|| black_box(&mut dst[..]).copy_from_slice(black_box(&src)));
        });
        group.bench_function(BenchmarkId::new("copy_and_sum", len), |bencher| {
            bencher.iter(|| copy_and_sum(black_box(&mut dst), black_box(&src)));
        });
        group.bench_function(BenchmarkId::new("sum", len), |bencher| {
            bencher.iter(|| sum(black_box(&src)));
        });
    }
    group.finish();
}

// The macro makes a public function without documentation.
#[allow(missing_docs)]
mod group {
    use super::checksums;

    criterion::criterion_group!(benches, checksums);
}

criterion_main!(group::benches);
