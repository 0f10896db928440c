//! What the binary interface costs: the same energy called statically and through the library.
#![allow(missing_docs)] // The macro of criterion makes a public function.

use std::path::PathBuf;

use cmf_plugin::Energy;
use cmf_plugins::host::{KindOfPlugin, Plugins, Search};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

/// This crate's dynamic library, which cargo builds beside the benchmark.
fn library() -> PathBuf {
    let name = format!("{}cmf_plugins{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let folder = std::env::current_exe().unwrap().parent().unwrap().to_path_buf();
    [folder.join(&name), folder.join("..").join(&name)].into_iter().find(|p| p.is_file()).unwrap()
}

fn energy(spec: &str) -> Box<dyn Energy> {
    let plugins = Plugins::find(Search::default()).unwrap();
    let found = plugins.resolve(KindOfPlugin::Energy, spec).unwrap();
    found.energy(&found.schema.complete("").unwrap()).unwrap()
}

fn boundary(c: &mut Criterion) {
    let mut group = c.benchmark_group("himmelblau");
    let named = format!("plugin:{}#himmelblau", library().display());
    for n in [1, 64, 4096] {
        let x: Vec<f64> = (0..2 * n).map(|i| (i % 13) as f64 - 6.0).collect();
        let (mut value, mut gradient) = (vec![0.0; n], vec![0.0; 2 * n]);
        for (way, spec) in [("static", "himmelblau"), ("dynamic", named.as_str())] {
            let energy = energy(spec);
            group.bench_function(BenchmarkId::new(way, n), |b| {
                b.iter(|| energy.value_and_gradient(&x, &mut value, &mut gradient).unwrap())
            });
        }
    }
    group.finish();
}

criterion_group!(benches, boundary);
criterion_main!(benches);
