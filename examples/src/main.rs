//! Embeds the runtime: opens a model file, fills a hole, and says how likely the result is.
//!
//! Run it in the repository's root: `cargo run --release -p cmf-examples`

use std::ops::ControlFlow;

use cmf_core::density::exact_log_density;
use cmf_core::inpaint::{Hole, Mode};
use cmf_core::onnx::{ModelFile, TractModel};
use cmf_core::{Error, Result};

fn main() -> Result<()> {
    let file = ModelFile::open("models/mnist.onnx")?;
    let missing = |what: &str| Error::Invalid(format!("the model does not state {what}"));
    let metadata = file.metadata().ok_or_else(|| missing("its properties"))?;
    let gaussian = metadata.gaussian.as_ref().ok_or_else(|| missing("the data's mean and covariance"))?;
    let log_z = metadata.log_z.ok_or_else(|| missing("log Z"))?;
    let w = TractModel::load(&file)?;

    // The mean digit with its lower half hidden.
    let y = gaussian.mean.clone();
    let hidden: Vec<usize> = (y.len() / 2..y.len()).collect();
    let mixture = metadata.data_mixture.as_deref();
    let hole = Hole::new(gaussian, &y, &hidden)?.with_mixture(gaussian, mixture)?;
    let completion = Mode::default().complete(&w, &hole, &mut |_| ControlFlow::Continue(()))?;

    let density = exact_log_density(&w, log_z.value, &completion.filled)?;
    println!("log-density {:.1} nats (log Z ± {:.2})", density.value[0], log_z.standard_error);
    for row in completion.filled.chunks(28) {
        println!("{}", row.iter().map(|v| if *v > 0.5 { '#' } else { '.' }).collect::<String>());
    }
    Ok(())
}
