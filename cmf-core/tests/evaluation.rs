//! The evaluation against POT and scikit-learn: tests/peers/make_evaluation.py wrote the numbers.

use cmf_core::evaluation::{Mmd, precision_recall, sliced_wasserstein};
use cmf_core::sinkhorn::Sinkhorn;
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    d: usize,
    x: Vec<f64>,
    y: Vec<f64>,
    epsilon: f64,
    transport: f64,
    sinkhorn_divergence: f64,
    directions: Vec<f64>,
    sliced_wasserstein: f64,
    bandwidth: f64,
    mmd_squared: f64,
    neighbours: usize,
    precision: f64,
    recall: f64,
}

fn cases() -> Vec<Case> {
    let text = include_str!("golden/evaluation.json");
    let fixture: Fixture = serde_json::from_str(text).unwrap();
    assert_eq!(fixture.cases.len(), 3);
    fixture.cases
}

#[test]
fn sinkhorn_divergences_are_those_of_pot() {
    for c in cases() {
        let solver = Sinkhorn { tolerance: 1e-6, max_iterations: 20_000, ..Sinkhorn::new(c.epsilon) };
        let transport = solver.transport(&c.x, &c.y, c.d).unwrap();
        let divergence = solver.divergence(&c.x, &c.y, c.d).unwrap();
        assert!(transport.converged && divergence.converged, "{transport:?} {divergence:?}");
        // Costs and exponentials are f32: some 1e-6 of the cost, also in the divergence, where costs cancel.
        let rounding = 2e-6 * c.transport;
        assert!((transport.value - c.transport).abs() < rounding, "{} {}", transport.value, c.transport);
        let gap = (divergence.value - c.sinkhorn_divergence).abs();
        assert!(gap < 2.0 * rounding, "{} {}", divergence.value, c.sinkhorn_divergence);
    }
}

#[test]
fn sliced_distances_are_those_of_pot() {
    for c in cases() {
        let found = sliced_wasserstein(&c.x, &c.y, c.d, &c.directions).unwrap();
        assert!((found / c.sliced_wasserstein - 1.0).abs() < 1e-12, "{found} {}", c.sliced_wasserstein);
    }
}

#[test]
fn kernel_distances_are_those_of_scikit_learn() {
    for c in cases() {
        let found = Mmd { bandwidth: c.bandwidth }.squared(&c.x, &c.y, c.d).unwrap();
        // Sums of thousands of kernels of size 1, in f64, that cancel.
        assert!((found - c.mmd_squared).abs() < 1e-13, "{found} {}", c.mmd_squared);
    }
}

#[test]
fn precision_and_recall_are_those_of_scikit_learn() {
    for c in cases() {
        let found = precision_recall(&c.y, &c.x, c.d, c.neighbours).unwrap();
        // Counts: equal unless a distance ties with a radius.
        assert_eq!((found.precision, found.recall), (c.precision, c.recall));
    }
}
