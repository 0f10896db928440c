//! The network without the units that training has silenced.

use super::{FormsAlong, Icnn, Weights};
use crate::error::Result;
use crate::host::{Array, Scalar};

/// An idle unit's output weight is at most this share of the largest of its layer.
const SILENT: f64 = 1e-3;
/// Points that are evaluated at a time.
const POINTS: usize = 64;

impl<T: Scalar> Icnn<T> {
    /// The network without those units of its last layer whose output weights, times the largest activation of the layer at
    /// the points `x` [n, d], sum to `negligible` at most: at those points w changes by no more. The Gibbs factor stays what
    /// it is where it is the head's.
    ///
    /// Output weights that the data have no use for fall without end, since they are softplus of what Adam moves. Units of
    /// the last layer feed nothing else. A unit that is merely inactive at the points stays, and so does a whole layer of
    /// them: it may matter elsewhere. Further off units grow as |x|², like the head.
    pub(crate) fn without_idle_units(&self, x: &[f64], negligible: f64) -> Result<Icnn<T>> {
        let (arch, weights) = (self.architecture(), self.weights());
        let (d, n) = (arch.dim, arch.units());
        let last = arch.layer(arch.widths.len() - 1);
        let Some(activation) = self.largest_activation(x) else { return Ok(self.clone()) };
        let output = weights.output.to_f64s();
        let largest = output[last.clone()].iter().fold(0.0f64, |largest, &u| largest.max(u));
        let mut units: Vec<usize> = last.clone().collect();
        units.sort_by(|&i, &j| output[i].total_cmp(&output[j]));
        let mut added = 0.0;
        let idle = units.iter().take_while(|&&unit| {
            added += output[unit] * activation;
            added <= negligible && output[unit] <= SILENT * largest
        });
        // A layer has one unit at least.
        let idle = idle.count().min(last.len() - 1);
        if idle == 0 {
            return Ok(self.clone());
        }
        let mut kept = units.split_off(idle);
        kept.sort_unstable();
        let units: Vec<usize> = (0..last.start).chain(kept.iter().copied()).collect();

        let mut lean = arch.clone();
        lean.widths[arch.widths.len() - 1] = kept.len();
        let forms = (0..=arch.rank).flat_map(|r| units.iter().map(move |unit| r * n + unit));
        let forms: Vec<usize> = forms.collect();
        let head = (1 + arch.rank) * n..arch.x_side_rows();
        let rows: Vec<usize> = forms.iter().copied().chain(head).collect();
        let along = weights.along.as_ref().map(|FormsAlong { forms: along, directions }| FormsAlong {
            forms: rows_of(along, &forms, directions.shape()[0]),
            directions: directions.clone(),
        });
        let of_last: Vec<usize> = kept.iter().map(|unit| unit - last.start).collect();
        let mut mixing = weights.mixing.clone();
        if let Some(into_last) = mixing.last_mut() {
            *into_last = columns(into_last, &of_last);
        }
        let weights = Weights {
            x_side: rows_of(&weights.x_side, &rows, d),
            along,
            diagonal: weights.diagonal.as_ref().map(|diagonal| rows_of(diagonal, &units, d)),
            mixing,
            bias: columns(&weights.bias, &units),
            output: columns(&weights.output, &units),
            ..weights.clone()
        };
        self.beside_the_same_head(lean, weights)
    }

    /// The largest |act(s)| of the last layer at the points `x` [n, d]; none without points, or where one is not finite.
    fn largest_activation(&self, x: &[f64]) -> Option<f64> {
        let (arch, mut largest) = (self.architecture(), None);
        let last = arch.layer(arch.widths.len() - 1);
        for some in x.chunks(POINTS * arch.dim) {
            for unit in
                self.active(some).to_f64s().chunks_exact(arch.units()).flat_map(|point| &point[last.clone()])
            {
                if !unit.is_finite() {
                    return None;
                }
                largest = Some(unit.abs().max(largest.unwrap_or(0.0)));
            }
        }
        largest
    }
}

fn rows_of<T: Scalar>(a: &Array<T>, rows: &[usize], d: usize) -> Array<T> {
    let a = a.rows_contiguous();
    let mut picked = Vec::with_capacity(rows.len() * d);
    rows.iter().filter_map(|&i| a.row(0, i)).for_each(|row| picked.extend_from_slice(row));
    Array::matrix(picked, rows.len(), d)
}

fn columns<T: Scalar>(a: &Array<T>, columns: &[usize]) -> Array<T> {
    let (all, width) = (a.to_vec(), a.shape()[1]);
    let picked = all.chunks_exact(width).flat_map(|row| columns.iter().map(|&j| row[j])).collect();
    Array::matrix(picked, a.shape()[0], columns.len())
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::super::{Architecture, GibbsFactor, Head, initial_weights};
    use super::*;
    use crate::gaussian::Gaussian;
    use crate::ops::Activation;
    use crate::potential::Potential;
    use crate::sampler::standard_normals;

    const D: usize = 5;
    const NEGLIGIBLE: f64 = 0.05;

    /// A start whose units of the last layer have these output weights.
    fn network(widths: &[usize], rank: usize, diagonal: bool, outputs: &[f64]) -> Icnn<f64> {
        let activation = Activation::Softplus { beta: 1.0 };
        let arch = Architecture {
            dim: D,
            widths: widths.to_vec(),
            rank,
            diagonal,
            activation,
            head: Head::Full,
            gibbs: GibbsFactor::Whole,
        };
        let data = standard_normals(&mut ChaCha8Rng::seed_from_u64(1), 50 * D);
        let start = Gaussian::fit(&data, D, 0.1).unwrap().quadratic_start().unwrap();
        let mut weights = initial_weights(&arch, &start, 2).unwrap();
        let mut output = weights.output.to_vec();
        let first = output.len() - outputs.len();
        output[first..].copy_from_slice(outputs);
        weights.output = Array::matrix(output, 1, arch.units());
        Icnn::new(arch, weights).unwrap()
    }

    fn points() -> Vec<f64> {
        standard_normals(&mut ChaCha8Rng::seed_from_u64(3), 40 * D)
    }

    fn evaluated(w: &Icnn<f64>, x: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let (mut value, mut gradient) = (vec![0.0; x.len() / D], vec![0.0; x.len()]);
        w.value_and_gradient(x, &mut value, &mut gradient).unwrap();
        (value, gradient)
    }

    #[test]
    fn idle_units_go_and_what_they_added_is_negligible() {
        for (widths, rank, diagonal) in [(vec![4], 1, false), (vec![6, 4], 2, true), (vec![3, 5, 4], 1, true)]
        {
            let w = network(&widths, rank, diagonal, &[1e-5, 0.5, 1e-4, 0.3]);
            let x = points();
            let lean = w.without_idle_units(&x, NEGLIGIBLE).unwrap();
            let (before, gradient) = evaluated(&w, &x);
            let (after, lean_gradient) = evaluated(&lean, &x);
            assert_eq!(lean.architecture().widths.last(), Some(&2));
            assert_eq!(lean.architecture().widths.len(), widths.len());
            // Softplus is positive, and so is what was left out.
            assert!(before.iter().zip(&after).all(|(b, a)| b > a && b - a <= NEGLIGIBLE));
            // By the slopes of the forms, some tens, times 1.1e-4.
            assert!(gradient.iter().zip(&lean_gradient).all(|(b, a)| (b - a).abs() < 1e-2));
        }
    }

    #[test]
    fn networks_without_idle_units_stay_as_they_are() {
        let w = network(&[6, 4], 1, false, &[0.5, 0.2, 0.4, 0.3]);
        let lean = w.without_idle_units(&points(), NEGLIGIBLE).unwrap();
        assert_eq!(lean.architecture(), w.architecture());
        assert_eq!(evaluated(&lean, &points()), evaluated(&w, &points()));
    }

    /// Forms far below the bend of softplus, of units that are by no means silent.
    #[test]
    fn a_layer_that_is_inactive_at_the_points_stays() {
        let w = network(&[4], 1, false, &[0.5, 0.2, 1e-9, 0.3]);
        let weights = Weights { bias: Array::matrix(vec![-1e3; 4], 1, 4), ..w.weights().clone() };
        let quiet = Icnn::new(w.architecture().clone(), weights).unwrap();
        let lean = quiet.without_idle_units(&points(), NEGLIGIBLE).unwrap();
        assert_eq!(lean.architecture().units(), 3);
    }

    /// In as many pieces as there are points.
    #[test]
    fn any_number_of_points_may_tell() {
        let w = network(&[6, 4], 1, false, &[1e-9, 0.2, 0.4, 0.3]);
        let many = points().repeat(10);
        let [some, all] = [points(), many].map(|x| w.without_idle_units(&x, NEGLIGIBLE).unwrap());
        assert_eq!(some.architecture(), all.architecture());
        assert_eq!(all.architecture().widths, [6, 3]);
    }

    #[test]
    fn nothing_is_called_idle_where_no_activation_tells() {
        let w = network(&[6, 4], 1, false, &[1e-9; 4]);
        for x in [vec![], vec![1e300; D]] {
            assert_eq!(
                w.without_idle_units(&x, NEGLIGIBLE).unwrap().architecture(),
                w.architecture(),
                "{x:?}"
            );
        }
    }

    #[test]
    fn the_gibbs_factor_of_a_head_stays() {
        let w = network(&[4], 1, false, &[1e-9, 0.5, 0.2, 0.3]);
        let arch = Architecture { gibbs: GibbsFactor::Head, ..w.architecture().clone() };
        let w = Icnn::new(arch, w.weights().clone()).unwrap();
        let lean = w.without_idle_units(&points(), NEGLIGIBLE).unwrap();
        assert_eq!((lean.architecture().units(), lean.architecture().gibbs), (3, GibbsFactor::Head));
        let log_z = |w: &Icnn<f64>| w.gibbs().unwrap().log_z().unwrap();
        assert_eq!(log_z(&lean), log_z(&w));
    }

    #[test]
    fn a_layer_keeps_a_unit_and_a_share_that_is_not_negligible_stays() {
        let silent = network(&[6, 4], 1, false, &[0.0; 4]).without_idle_units(&points(), NEGLIGIBLE).unwrap();
        assert_eq!(silent.architecture().widths, [6, 1]);
        // Each is negligible alone, all of them together are not.
        let mut outputs = [1e-3; 41];
        outputs[7] = 2.0;
        let w = network(&[41], 1, false, &outputs);
        let lean = w.without_idle_units(&points(), NEGLIGIBLE).unwrap();
        let (before, after) = (evaluated(&w, &points()).0, evaluated(&lean, &points()).0);
        let kept = lean.architecture().units();
        assert!((2..41).contains(&kept), "{kept}");
        assert!(before.iter().zip(&after).all(|(b, a)| b - a <= NEGLIGIBLE));
    }
}
