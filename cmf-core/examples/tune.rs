//! tuning
use cmf_core::density::exact_log_density;
use cmf_core::gaussian::Gaussian;
use cmf_core::icnn::Architecture;
use cmf_core::normaliser::AnnealedImportance;
use cmf_core::ops::Activation;
use cmf_core::train::{TrainConfig, Trainer, inner};
use rand::SeedableRng;
struct M(Vec<u8>);
impl M {
    fn read(&self, idx: &[usize], out: &mut [f64]) -> cmf_core::Result<()> {
        for (o, &i) in out.chunks_exact_mut(784).zip(idx) {
            for (o, &b) in o.iter_mut().zip(&self.0[i * 784..]) {
                *o = b as f64 / 255.0;
            }
        }
        Ok(())
    }
}
fn main() {
    let args: std::collections::HashMap<String, String> = std::env::args()
        .skip(1)
        .map(|a| {
            let (k, v) = a.split_once('=').unwrap();
            (k.into(), v.into())
        })
        .collect();
    let f = |k: &str, d: f64| args.get(k).map_or(d, |v| v.parse().unwrap());
    let load = |n: &str| M(std::fs::read(format!("/tmp/mn/{n}")).unwrap()[16..].to_vec());
    let (train, test) = (load("train-images-idx3"), load("t10k-images-idx3"));
    let mut y = vec![0.0; 60000 * 784];
    train.read(&(0..60000).collect::<Vec<_>>(), &mut y).unwrap();
    let g = Gaussian::fit(&y, 784, 0.1).unwrap();
    drop(y);
    let widths: Vec<usize> =
        args.get("widths").map_or("256,256,256", |v| v).split(',').map(|v| v.parse().unwrap()).collect();
    let activation = if args.contains_key("elu") {
        Activation::Elu
    } else {
        Activation::Softplus { beta: f("beta", 1.0) }
    };
    let config = TrainConfig {
        architecture: Architecture {
            dim: 784,
            widths,
            rank: f("rank", 1.0) as usize,
            diagonal: args.contains_key("diagonal"),
            activation,
        },
        sigma: 0.1,
        updates: f("updates", 300.0) as usize,
        conjugate_updates: f("cmf", 0.0) as usize,
        batch: f("batch", 128.0) as usize,
        particles: f("particles", 128.0) as usize,
        langevin_steps: f("lsteps", 3.0) as usize,
        langevin_step: f("c", 0.4),
        conjugate_steps: f("conj", 5.0) as usize,
        solve_tolerance: f("tol", 5e-3),
        solve_steps: 30,
        learning_rate: f("lr", 1e-2),
        learning_rate_positive: f("lrp", 1e-1),
        learning_rate_head: f("lrh", 1e-3),
        final_rate: 0.02,
        warm_up: 20,
        betas: (f("b1", 0.9), f("b2", 0.99)),
        average: f("ema", 0.97),
        seed: 0,
    };
    let every = f("every", 100.0) as usize;
    let mut t = if let Some(p) = args.get("load") {
        Trainer::load(p.as_ref()).unwrap()
    } else {
        Trainer::new(config.clone(), &g).unwrap()
    };
    let n = f("n", 100.0) as usize;
    let mut held = vec![0.0; n * 784];
    test.read(&(0..n).collect::<Vec<_>>(), &mut held).unwrap();
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(5);
    for (h, z) in held.iter_mut().zip(inner::normal(&mut rng, n * 784)) {
        *h += 0.1 * z;
    }
    println!("gaussian {:.1}", g.log_density(&held).unwrap().iter().sum::<f64>() / n as f64);
    let mut wall = std::time::Instant::now();
    let mut worst = 0.0f64;
    while t.updates_done() < config.updates {
        let m = t.step(60000, |i, o| train.read(i, o)).unwrap();
        worst = worst.max(m.residual);
        if m.update % every == 0 || m.update == config.updates {
            let net = t.network().unwrap();
            let z = AnnealedImportance {
                chains: 32,
                temperatures: f("temps", 60.0) as usize,
                leapfrog: 3,
                seed: 1,
            }
            .log_z(&net, t.start(), &mut |_| true)
            .unwrap();
            let r = exact_log_density(&net, z.value, &held).unwrap();
            let mean = r.value.iter().sum::<f64>() / n as f64;
            println!(
                "{} {:.1}s nats {:.1} logz {:.1}+-{:.2} ess {:.0} lambda {:.2} res {:.4} spread {:.1} wall {:.0}",
                m.update,
                m.seconds,
                mean,
                z.value,
                z.standard_error,
                z.effective_sample_size,
                m.lambda_max,
                worst,
                m.particle_spread,
                wall.elapsed().as_secs_f64()
            );
            worst = 0.0;
            wall = std::time::Instant::now();
            if let Some(p) = args.get("save") {
                t.save(p.as_ref()).unwrap();
            }
        }
    }
}
