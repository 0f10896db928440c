//! Plugins that panic: an energy when it is evaluated, a data set when it is opened, a task when it runs.

use cmf_plugin::{DataSet, Energy, Entry, Host, Result, Task};

struct Panics;

impl Energy for Panics {
    fn dim(&self) -> usize {
        2
    }
    fn domain(&self) -> (Vec<f64>, Vec<f64>) {
        (vec![-1.0; 2], vec![1.0; 2])
    }
    fn value_and_gradient(&self, x: &[f64], _value: &mut [f64], _gradient: &mut [f64]) -> Result<()> {
        if x.is_empty() { Ok(()) } else { panic!("the sky fell") }
    }
}

impl Task for Panics {
    fn run(&self, host: &dyn Host) -> Result<()> {
        panic!("the floor opened under seed {}", host.seed())
    }
}

const NONE: &str = "";

cmf_plugin::export! {
    energies: [Entry { name: "panics", about: "Panics", parameters: NONE, create: |_| Ok(Box::new(Panics) as Box<dyn Energy>) }],
    datasets: [Entry { name: "panics", about: "Panics", parameters: NONE, create: |_| -> Result<Box<dyn DataSet>> { panic!("no data today") } }],
    tasks: [Entry { name: "panics", about: "Panics", parameters: NONE, create: |_| Ok(Box::new(Panics) as Box<dyn Task>) }],
}
