//! Models of energies in the plane, learned by the command's own defaults, against quadrature.
#![cfg(feature = "train")]
#![allow(missing_docs)]

mod common;

use std::path::Path;

use cmf_core::Potential;
use cmf_core::density::exact_log_density;
use cmf_core::energy::Domain;
use cmf_core::onnx::ModelFile;
use cmf_plugins::host::{EnergyPotential, KindOfPlugin, Plugins, Search};
use common::{folder, run};

/// Share of the mass that is called the bulk.
const BULK: f64 = 0.95;
/// Cells a side of the grid: 0.06 and less, a fifth of the narrowest standard deviation here.
const SIDE: usize = 200;

/// The mean of |log ρ_w - log ρ| over the cells of the smallest region that holds the bulk of ρ, in nats.
fn bulk_error(name: &str, model: &Path) -> f64 {
    let found = Plugins::find(Search::default()).unwrap().resolve(KindOfPlugin::Energy, name).unwrap();
    let energy = found.energy(&found.schema.complete("{}").unwrap()).unwrap();
    let (low, high) = energy.domain();
    let domain = Domain { low, high };
    let energy = EnergyPotential::new(energy).unwrap();
    let points = domain.grid(SIDE);
    let (mut value, mut gradient) = (vec![0.0; points.len() / 2], vec![0.0; points.len()]);
    energy.value_and_gradient(&points, &mut value, &mut gradient).unwrap();
    let log_cell = domain.log_volume() - 2.0 * (SIDE as f64).ln();
    let log_z = value.iter().map(|e| (log_cell - e).exp()).sum::<f64>().ln();

    let file = ModelFile::open(model).unwrap();
    let w = file.network().unwrap().cast::<f64>().unwrap();
    let density = exact_log_density(&w, file.metadata().unwrap().log_z.unwrap().value, &points).unwrap();
    let mut order: Vec<usize> = (0..value.len()).collect();
    order.sort_by(|&a, &b| value[a].total_cmp(&value[b]));
    let (mut mass, mut sum, mut cells) = (0.0, 0.0, 0);
    for i in order {
        mass += (log_cell - value[i] - log_z).exp();
        sum += (density.value[i] + value[i] + log_z).abs();
        cells += 1;
        if mass >= BULK {
            break;
        }
    }
    sum / f64::from(cells)
}

#[test]
fn densities_of_four_energies_are_those_of_quadrature() {
    for name in ["himmelblau", "three-hump-camel", "styblinski-tang", "ring"] {
        let folder = folder();
        run(folder.path(), &format!("train --energy {name} --look-every 300 --out run --quiet")).ok();
        let error = bulk_error(name, &folder.path().join("run/model.onnx"));
        println!("{name}: {error:.4} nats");
        // The bar of the project; log Z alone is known to about 0.01.
        assert!(error < 0.1, "{name}: {error} nats on the bulk");
    }
}
