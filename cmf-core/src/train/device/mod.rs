//! Runs whose updates devices compute: particles, conjugates, linear solves, loss and Adam steps stay on them.
//!
//! The inner loops are ordinary tensor code over the formulas, generic in Burn's backend, and take the same random
//! numbers in the same order as the host's ([`Trainer`](super::Trainer)), drawn from the seed by a thread beside. So a
//! seed gives one run, checkpoints go both ways, and on Burn's processor backend tests compare the two step by step.
//!
//! An update waits for the device once, for its figures, besides the looks of the linear solves at their residuals
//! (`solve.rs`), one eigenvalue in twenty updates, and for a Gibbs factor of the head a full head and, with a mixture, ∇w(y).
//!
//! Of several devices each has the parameters and an equal part of the data, particles and probes of every update; the
//! mean of their gradients goes through the host, for which each update waits, and each takes the same step. So the run is
//! that of one device, but for rounding and for solves that end by the residuals of a device's own rows.

mod agreement;
mod conjugate;
mod draws;
mod langevin;
mod metric;
mod replica;
mod slopes;
mod solve;
#[cfg(test)]
mod tests;
mod threads;

use std::borrow::Cow;
use std::path::Path;
use std::time::Instant;

use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use rand_chacha::ChaCha8Rng;

use super::activation::Activates;
use super::average::Average;
use super::checkpoint::{Late, Numbers, Packed, State, pack_amortiser};
use super::config::{Method, TrainConfig};
use super::noise_control;
use super::ops::{BurnOps, Precise, Ranked};
use super::solve_metric;
use super::source_mixture::{HeadLaw, RunSource};
use super::trainer::{LAMBDA_EVERY, draws_of, tuned};
use super::training::{Metrics, ReadRows, Training};
use crate::error::{Error, Result};
use crate::gaussian::QuadraticStart;
use crate::gibbs_start::GibbsStart;
use crate::icnn::formula::Formula;
use crate::icnn::{Architecture, FormsAlong, Icnn, Weights};
use crate::potential::Potential as HostPotential;
use crate::preconditioner::Preconditioner;
use draws::{Ahead, Moves, part};
use replica::{Begun, Moved, Now, Origin, Replica, Seen};
use slopes::Sent;
use threads::Threads;

/// The network on a device, at the weights of one update.
type Potential<'a, B> = Formula<'a, BurnOps<B>>;

fn ranked<B: Backend>(a: &Tensor<B, 2>) -> Ranked<B> {
    Ranked::Two(a.clone())
}

/// w and ∇w at the rows of `x`: [n, d] -> [n, 1], [n, d].
fn at<B: Activates>(w: &Potential<'_, B>, x: &Tensor<B, 2>) -> (Tensor<B, 2>, Tensor<B, 2>) {
    let (value, gradient) = w.value_and_gradient(&ranked(x));
    (value.matrix(), gradient.matrix())
}

/// The numbers of `a`, once the device has come to them.
fn read_single<B: Backend, const D: usize>(a: Tensor<B, D>) -> Result<Vec<f32>> {
    let failed = |message: String| Error::Engine { engine: "burn", message };
    let data = a.try_into_data().map_err(|e| failed(e.to_string()))?;
    data.convert::<f32>().to_vec().map_err(|e| failed(format!("{e:?}")))
}

/// The same in f64.
fn read<B: Backend, const D: usize>(a: Tensor<B, D>) -> Result<Vec<f64>> {
    Ok(read_single(a)?.into_iter().map(f64::from).collect())
}

/// The one number of `a`, once the device has come to it.
fn scalar<B: Backend>(a: Tensor<B, 1>) -> Result<f64> {
    Ok(read(a)?[0])
}

/// The weights without their graph.
pub(super) fn inner_weights<B: AutodiffBackend>(
    arch: &Architecture,
    weights: &Weights<Ranked<B>>,
) -> Result<Weights<Ranked<B::InnerBackend>>> {
    // `build` asks in the order of `named`.
    let mut all = weights.named(arch).into_iter();
    let without_graph = |t: &Ranked<B>| Ranked::Two(t.clone().matrix().inner());
    let inner = Weights::build(arch, |name, _| match all.next() {
        Some((found, _, t)) if found == name => Ok(without_graph(t)),
        _ => Err(Error::Invalid(format!("no array {name}"))),
    })?;
    let along = weights.along.as_ref().map(|along| FormsAlong {
        forms: without_graph(&along.forms),
        directions: without_graph(&along.directions),
    });
    Ok(Weights { along, ..inner })
}

/// A run on one device or several.
pub(super) struct DeviceTrainer<B: AutodiffBackend> {
    config: TrainConfig,
    start: QuadraticStart,
    /// One a device, with the same parameters.
    replicas: Vec<Replica<B>>,
    threads: Threads,
    /// The Hessian's mean over data when it was last looked at, empty before.
    mean_hessian: Vec<f64>,
    /// As the last update left it.
    rng: ChaCha8Rng,
    ahead: Ahead,
    lambda: f64,
    langevin_step: f64,
    kappa: f64,
    damping: f64,
    /// With its mixture kept by the host.
    source: RunSource,
    update: usize,
    seconds: f64,
}

/// Fails if `n` devices cannot share the updates of a run.
fn shareable(config: &TrainConfig, n: usize) -> Result<()> {
    if n == 0 {
        return Err(Error::Invalid("no device to compute on".into()));
    }
    if n > 1 && config.amortise {
        return Err(Error::Invalid("an amortiser learns on one device, found several".into()));
    }
    for (what, rows) in [("batch", config.batch), ("number of particles", config.particles)] {
        if !rows.is_multiple_of(n) {
            return Err(Error::Invalid(format!(
                "a {what} of {rows} cannot be shared out evenly over {n} devices; expected a multiple of {n}"
            )));
        }
    }
    Ok(())
}

impl<B: AutodiffBackend<InnerBackend: Precise> + Activates> DeviceTrainer<B> {
    /// Goes on from a state on `devices`. Fails for runs that learn from an energy, which the host evaluates, if the
    /// devices cannot share the updates, and if their gradients and Hessian products are not the host's.
    pub(super) fn from_state(state: State, devices: Vec<B::Device>) -> Result<Self> {
        let State { config, start, learned, numbers, late } = state;
        let Late { damping, langevin_step, kappa, mean_hessian, source } = late;
        if matches!(config.method, Method::Energy { .. }) {
            return Err(Error::Invalid(
                "energies, their Hessians' factors and least-squares steps are computed by the processor"
                    .into(),
            ));
        }
        let n = devices.len();
        shareable(&config, n)?;
        let gibbs = GibbsStart::new(&start)?;
        let kept = solve_metric::kept(&mean_hessian)?;
        let origin = Origin {
            config: &config,
            start: &start,
            gibbs: &gibbs,
            learned: &learned,
            numbers: &numbers,
            solve_metric: kept.as_ref().unwrap_or(&gibbs.covariance),
        };
        let threads = Threads::new(n)?;
        let replicas = threads
            .each(devices.into_iter().enumerate(), |(i, device)| Replica::new(origin, device, i, n))?;
        Ok(DeviceTrainer {
            source: RunSource::load(source, config.architecture.dim)?,
            replicas,
            threads,
            mean_hessian,
            config,
            start,
            rng: numbers.rng,
            ahead: Ahead::default(),
            lambda: numbers.lambda,
            langevin_step,
            kappa,
            damping,
            update: numbers.update,
            seconds: numbers.seconds,
        })
    }

    /// The averaged weights, in the order of [`Weights::named`].
    fn averaged(&self) -> Result<Vec<Vec<f32>>> {
        self.replicas[0].average.iter().map(|a| read_single(a.clone())).collect()
    }

    /// An array of which each device has a part.
    fn gathered(&self, part: impl Fn(&Replica<B>) -> &Tensor<B::InnerBackend, 2> + Sync) -> Result<Vec<f64>> {
        Ok(self.threads.each(&self.replicas, |replica| read(part(replica).clone()))?.concat())
    }

    /// λ_max over the first rows of all parts, by the first device.
    fn look_at_lambda(&mut self, now: Now<'_>, begun: &[Begun<B>]) -> Result<()> {
        let parts = || self.replicas.iter().zip(begun);
        let all = match self.replicas.len() {
            1 => None,
            _ => Some(self.threads.each(parts(), |(of, begun)| read(of.probed(begun).clone()))?.concat()),
        };
        let (first, all) = (self.replicas.iter_mut().zip(begun).take(1), all.as_deref());
        let look = |(replica, begun): (&mut Replica<B>, _)| replica.look_at_lambda(now, begun, all);
        self.lambda = self.threads.each(first, look)?[0];
        Ok(())
    }

    /// As the host's; the devices average, and the processor inverts.
    fn look_at_hessian(&mut self, moved: &[Moved<B>]) -> Result<()> {
        let looks = || moved.iter().filter_map(|moved| moved.mean_hessian.as_ref());
        let all: usize = looks().map(|(points, _)| points).sum();
        let Some((_, first)) = looks().next() else { return Ok(()) };
        let mut mean = vec![0.0; first.len()];
        for (points, part) in looks() {
            let share = *points as f64 / all as f64;
            mean.iter_mut().zip(part).for_each(|(sum, v)| *sum += share * v);
        }
        if let Some(metric) = Preconditioner::of_mean_hessian(&mean)? {
            self.mean_hessian = mean;
            self.threads.each(&mut self.replicas, |replica| replica.solve_in(&metric))?;
        }
        Ok(())
    }

    /// The head's law and what its mixture adds to ∇V at all rows, where the update wants it. The host inverts the head, a
    /// factor of d³/3 operations that tensors do not have, and has its mixture.
    fn law_of_head(&mut self, moved: &[Moved<B>]) -> Result<Option<HeadLaw>> {
        let Some(first) = moved.first().filter(|moved| moved.wants_head(&self.config)) else {
            return Ok(None);
        };
        let arch = &self.config.architecture;
        let known = || first.head(arch).map(Cow::Owned);
        let image = || Ok(self.threads.each(moved, Moved::image)?.concat());
        self.source.law_of_head(arch.head, known, image).map(Some)
    }
}

impl<B: AutodiffBackend<InnerBackend: Precise> + Activates> Training for DeviceTrainer<B> {
    fn config(&self) -> &TrainConfig {
        &self.config
    }

    fn updates_done(&self) -> usize {
        self.update
    }

    fn start(&self) -> &QuadraticStart {
        &self.start
    }

    fn network(&self) -> Result<Icnn<f32>> {
        let average = Average::from_arrays(self.config.architecture.clone(), self.averaged()?);
        self.source.placed_in(average.network()?)
    }

    fn particles(&self) -> Result<Vec<f64>> {
        match self.network()?.gibbs() {
            Some(head) => draws_of(head, &self.config),
            None => self.gathered(|replica| &replica.particles),
        }
    }

    fn step(&mut self, of: usize, read_rows: &ReadRows<'_>) -> Result<Metrics> {
        let clock = Instant::now();
        self.mix_source(of, read_rows, &mut |_| true)?;
        let n = self.replicas.len();
        let config = self.config.clone();
        let draws = self.ahead.next(&config, self.update, of, &self.rng)?;
        let y = draws.rows.read(config.sigma, read_rows)?;
        let (update, kappa, rng) = (self.update, self.kappa, draws.rng.clone());
        let moving = !matches!(draws.moves, Moves::Nothing);
        let by_langevin = matches!(draws.moves, Moves::Langevin(_));
        let parts = draws.shared_out(y, n);
        let mut now = Now { config: &config, update, langevin_step: self.langevin_step, kappa };

        let begun = self.replicas.iter_mut().zip(parts);
        let begun = self.threads.each(begun, |(replica, part)| replica.begin(now, part))?;
        if update.is_multiple_of(LAMBDA_EVERY) {
            self.look_at_lambda(now, &begun)?;
        }
        if update == 0 && moving {
            now.langevin_step = config.langevin_step / self.lambda;
        }
        let moved = self.replicas.iter_mut().zip(begun);
        let moved = self.threads.each(moved, |(replica, begun)| replica.move_points(now, begun))?;

        self.look_at_hessian(&moved)?;
        let law = self.law_of_head(&moved)?;
        let laws = (0..n).map(|i| law.as_ref().map(|law| (law, part(&law.along, i, n))));
        let sloped = self.replicas.iter_mut().zip(moved).zip(laws);
        let sloped = self.threads.each(sloped, |((replica, moved), law)| {
            let mut sloped = replica.differentiate(now, moved, law)?;
            let sent = (n > 1).then(|| sloped.send()).transpose()?;
            Ok((sloped, sent))
        })?;
        let (sloped, sent): (Vec<_>, Vec<_>) = sloped.into_iter().unzip();
        let sent: Vec<Sent> = sent.into_iter().flatten().collect();
        let mean = (n > 1).then(|| Sent::mean(&sent)).transpose()?;
        let seen = self.replicas.iter_mut().zip(sloped);
        let seen = self.threads.each(seen, |(replica, sloped)| replica.descend(now, sloped, mean.as_ref()));
        if seen.is_err() {
            // With what one of them could not finish none may go on.
            self.replicas.iter_mut().for_each(|replica| replica.parameters = None);
        }
        let seen = seen?;

        let Seen { conjugate_residual, guess_residual, solve_residual, correction, rate, .. } = seen[0];
        let accepted = seen.iter().map(|seen| seen.accepted).sum::<f64>() / n as f64;
        let worst = |first: Option<f64>, of: fn(&Seen) -> Option<f64>| {
            first.map(|first| seen.iter().filter_map(of).fold(first, f64::max))
        };
        let conjugate_residual = worst(conjugate_residual, |seen| seen.conjugate_residual);
        let solve_residual = worst(solve_residual, |seen| seen.solve_residual);
        self.kappa = noise_control::corrected(kappa, correction);
        self.langevin_step = match by_langevin {
            true => tuned(&config, now.langevin_step, accepted),
            false => now.langevin_step,
        };
        self.update += 1;
        self.rng = rng;
        self.seconds += clock.elapsed().as_secs_f64();
        Ok(Metrics {
            update: self.update,
            seconds: self.seconds,
            objective: if config.objective(update).0 { "likelihood" } else { "conjugate" },
            lambda_max: self.lambda,
            residual: solve_residual.or(conjugate_residual).unwrap_or_default(),
            guess_residual,
            acceptance: accepted,
            rate,
            deviation: None,
        })
    }

    fn mix_source(
        &mut self,
        of: usize,
        read: &ReadRows<'_>,
        hear: &mut dyn FnMut(f64) -> bool,
    ) -> Result<()> {
        let at = (&self.config, self.update);
        self.source.mix(at, &self.start, &self.replicas[0].parameters, (of, read), hear)
    }

    fn step_on_energy(&mut self, _: &dyn HostPotential) -> Result<Metrics> {
        Err(Error::Invalid("this run learns from samples, not from an energy".into()))
    }

    fn save(&self, path: &Path) -> Result<()> {
        let first = &self.replicas[0];
        let state = State {
            config: self.config.clone(),
            start: self.start.clone(),
            learned: Packed::new(&first.parameters, &first.optimisers)?,
            numbers: Numbers {
                average: self.averaged()?,
                rng: self.rng.clone(),
                particles: self.gathered(|replica| &replica.particles)?,
                conjugates: self.gathered(|replica| &replica.conjugates)?,
                amortiser: pack_amortiser(&first.amortiser)?,
                power: read(first.power.clone())?,
                lambda: self.lambda,
                update: self.update,
                seconds: self.seconds,
            },
            late: Late {
                damping: self.damping,
                langevin_step: self.langevin_step,
                kappa: self.kappa,
                mean_hessian: self.mean_hessian.clone(),
                source: self.source.save(),
            },
        };
        state.write(path)
    }
}
