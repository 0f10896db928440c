//! The host's model as a potential of the core, so that a task can use the core's algorithms.

use std::sync::Arc;

use cmf_core::head_factor::HeadFactor;
use cmf_core::mixture::Mixture;
use cmf_core::potential::{check_contraction, check_hessian, check_hvp, check_value_and_gradient};
use cmf_core::{Potential, Result, SecondOrder};
use cmf_plugin::{Host, Law};

use crate::error::{core_error, plugin_error};

/// w of the host.
pub(super) struct HostPotential<'a> {
    host: &'a dyn Host,
    dim: usize,
    gibbs: Option<HeadFactor>,
}

impl<'a> HostPotential<'a> {
    pub(super) fn new(host: &'a dyn Host) -> cmf_plugin::Result<Self> {
        let dim = host.model()?.shape.dim();
        let head = host.head_factor()?.map(|(centre, precision)| HeadFactor::new(precision, centre));
        let gibbs = match (head.transpose().map_err(plugin_error)?, mixture(host, Law::Source, dim)?) {
            (Some(head), Some(mixture)) => Some(head.with_mixture(Arc::new(mixture)).map_err(plugin_error)?),
            (head, _) => head,
        };
        Ok(HostPotential { host, dim, gibbs })
    }
}

/// The mixture of the host's model in this law, for points of dimension `d`.
pub(super) fn mixture(host: &dyn Host, law: Law, d: usize) -> cmf_plugin::Result<Option<Mixture>> {
    host.mixture(law)?.map(|numbers| Mixture::from_numbers(&numbers, d)).transpose().map_err(plugin_error)
}

impl Potential for HostPotential<'_> {
    fn dim(&self) -> usize {
        self.dim
    }

    fn value_and_gradient(&self, x: &[f64], value: &mut [f64], gradient: &mut [f64]) -> Result<()> {
        check_value_and_gradient(self.dim, x, value, gradient)?;
        self.host.value_and_gradient(x, value, gradient).map_err(core_error)
    }

    fn hvp(&self, x: &[f64], v: &[f64], hv: &mut [f64]) -> Result<()> {
        check_hvp(self.dim, x, v, hv)?;
        self.host.hvp(x, v, hv).map_err(core_error)
    }

    fn gibbs(&self) -> Option<&HeadFactor> {
        self.gibbs.as_ref()
    }
}

impl SecondOrder for HostPotential<'_> {
    fn hessian(&self, x: &[f64], hessian: &mut [f64]) -> Result<()> {
        check_hessian(self.dim, x, hessian)?;
        self.host.hessian(x, hessian).map_err(core_error)
    }

    fn hessian_contraction(&self, x: &[f64], m: &[f64], out: &mut [f64]) -> Result<()> {
        check_contraction(self.dim, x, m, out)?;
        self.host.contraction(x, m, out).map_err(core_error)
    }
}
