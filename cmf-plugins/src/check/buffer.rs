//! Output arrays with canaries around them, which show writes past either end.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Fewest numbers on each side of an output. A large one has as many as itself: an overrun of a whole array too is
/// seen, and does no harm that hides it.
const MARGIN: usize = 512;
/// What stands there: a NaN that no arithmetic makes.
const CANARY: u64 = 0x7FF8_C0DE_CAFE_F00D;
/// What stands in the output before the call: another one.
const UNWRITTEN: u64 = 0x7FF8_DEAD_BEEF_0001;

/// An output of a plugin's function.
pub(super) struct Output {
    name: &'static str,
    margin: usize,
    all: Vec<f64>,
}

impl Output {
    pub(super) fn new(name: &'static str, len: usize) -> Output {
        let margin = len.max(MARGIN);
        let mut all = vec![f64::from_bits(CANARY); len + 2 * margin];
        all[margin..margin + len].fill(f64::from_bits(UNWRITTEN));
        Output { name, margin, all }
    }

    /// Where the plugin may write.
    pub(super) fn as_mut_ptr(&mut self) -> *mut f64 {
        self.all[self.margin..].as_mut_ptr()
    }

    /// What was written, once nothing was written elsewhere.
    pub(super) fn checked(&self) -> Result<&[f64], String> {
        let (before, rest) = self.all.split_at(self.margin);
        let (written, after) = rest.split_at(rest.len() - self.margin);
        let broken = |v: &f64| v.to_bits() != CANARY;
        let (name, len) = (self.name, written.len());
        if let Some(i) = after.iter().position(broken) {
            return Err(format!("wrote out of bounds: {} places past the end of {name} [{len}]", i + 1));
        }
        if let Some(i) = before.iter().rposition(broken) {
            let places = self.margin - i;
            return Err(format!("wrote out of bounds: {places} places before the start of {name} [{len}]"));
        }
        Ok(written)
    }

    /// As `checked`, once every place was written.
    pub(super) fn complete(&self) -> Result<&[f64], String> {
        let written = self.checked()?;
        match written.iter().position(|v| v.to_bits() == UNWRITTEN) {
            Some(i) => Err(format!("left place {i} of {} [{}] unwritten", self.name, written.len())),
            None => Ok(written),
        }
    }
}

/// n points in a box: [n, d].
pub(super) fn points(rng: &mut ChaCha8Rng, n: usize, low: &[f64], high: &[f64]) -> Vec<f64> {
    let row = |rng: &mut ChaCha8Rng| -> Vec<f64> {
        low.iter().zip(high).map(|(l, h)| l + (h - l) * rng.random::<f64>()).collect()
    };
    (0..n).flat_map(|_| row(rng)).collect()
}
