//! The gradients of an update, and their mean over devices.

use burn::optim::GradientsParams;
use burn::prelude::*;
use burn::tensor::TensorData;
use burn::tensor::backend::AutodiffBackend;
use rayon::prelude::*;

use super::super::noise_control;
use super::super::parameters::Parameters;
use crate::error::{Error, Result};

/// What an update descends along.
pub(super) struct Slopes<B: AutodiffBackend> {
    /// The loss's gradients by group of parameters.
    pub groups: [GradientsParams; 3],
    /// The control's in the forms, in updates that measure it.
    pub control: Option<Tensor<B::InnerBackend, 2>>,
}

/// The same on the host, in the order of [`Parameters::groups`] with the control last; nothing where there is no gradient.
pub(super) struct Sent(Vec<Option<TensorData>>);

impl<B: AutodiffBackend> Slopes<B> {
    /// How far the control's factor was above the best, in updates that measure it: [1].
    pub fn correction(&self, parameters: &Parameters<B>) -> Option<Tensor<B::InnerBackend, 1>> {
        let whole = self.groups[0].get::<B::InnerBackend, 2>(parameters.forms.id)?;
        Some(noise_control::correction(whole, self.control.clone()?))
    }

    /// Waits for the device and takes them to the host.
    pub fn send(&mut self, parameters: &Parameters<B>) -> Result<Sent> {
        let mut all = Vec::new();
        for (group, ids) in self.groups.iter_mut().zip(parameters.groups()) {
            all.extend(ids.into_iter().map(|id| group.remove::<B::InnerBackend, 2>(id)));
        }
        all.push(self.control.take());
        let failed = |e: burn::tensor::backend::ExecutionError| Error::Engine {
            engine: "burn",
            message: e.to_string(),
        };
        let read =
            |a: Option<Tensor<B::InnerBackend, 2>>| a.map(|a| a.try_into_data().map_err(failed)).transpose();
        Ok(Sent(all.into_iter().map(read).collect::<Result<_>>()?))
    }

    /// What was sent, on the device of `parameters`.
    pub fn receive(sent: &Sent, parameters: &Parameters<B>) -> Self {
        let device = parameters.forms.val().device();
        let mut arrays = sent
            .0
            .iter()
            .map(|a| a.as_ref().map(|a| Tensor::<B::InnerBackend, 2>::from_data(a.clone(), &device)));
        let groups = parameters.groups().map(|ids| {
            let mut group = GradientsParams::new();
            for id in ids {
                if let Some(gradient) = arrays.next().flatten() {
                    group.register::<B::InnerBackend, 2>(id, gradient);
                }
            }
            group
        });
        Slopes { groups, control: arrays.next().flatten() }
    }
}

impl Sent {
    /// The mean of what devices with equal shares of an update have, added up in their order.
    pub fn mean(all: &[Sent]) -> Result<Sent> {
        let different = || Error::Invalid("devices differentiated different parameters".into());
        let Some(first) = all.first() else { return Err(different()) };
        let mean_of = |at: usize| -> Result<Option<TensorData>> {
            let Some(one) = first.0.get(at).ok_or_else(different)? else { return Ok(None) };
            let mut sum = vec![0.0f64; one.num_elements()];
            for sent in all {
                let array = sent.0.get(at).and_then(Option::as_ref).filter(|a| a.shape == one.shape);
                let numbers = array.ok_or_else(different)?.as_slice::<f32>();
                let numbers =
                    numbers.map_err(|e| Error::Engine { engine: "burn", message: format!("{e:?}") })?;
                sum.iter_mut().zip(numbers).for_each(|(sum, v)| *sum += f64::from(*v));
            }
            let mean: Vec<f32> = sum.into_iter().map(|v| (v / all.len() as f64) as f32).collect();
            Ok(Some(TensorData::new(mean, one.shape.clone())))
        };
        Ok(Sent((0..first.0.len()).into_par_iter().map(mean_of).collect::<Result<_>>()?))
    }
}
