//! The built-in data sets as a plugin offers them.

use std::path::Path;

use cmf_plugin::{DataSet, Entry, Parameters, Result, Shape, Split};

use super::{Opened, open};

/// The built-in data sets, by name.
pub static DATASETS: [Entry<dyn DataSet>; 10] = [
    from_path("mnist", "The four idx files of MNIST, gzipped or not", |p| at_path("mnist", p)),
    from_path("images", "A folder of images of one size, grey or RGB", |p| at_path("images", p)),
    from_path("npy", "A NumPy array [n, d], [n, h, w] or [n, h, w, c]", |p| at_path("npy", p)),
    from_path("csv", "A table of numbers, one example a line", |p| at_path("csv", p)),
    generated("circles", "2D toy: two concentric circles of radius 2 and 4", |p| drawn("circles", p)),
    generated("s-curve", "2D toy: a thin S", |p| drawn("s-curve", p)),
    generated("checkerboard", "2D toy: 8 of 16 squares, uniform", |p| drawn("checkerboard", p)),
    generated("scaled-rotated-s-curve", "2D toy: the S, halved in height and turned", |p| {
        drawn("scaled-rotated-s-curve", p)
    }),
    generated("diagonal-checkerboard", "2D toy: the checkerboard, turned", |p| {
        drawn("diagonal-checkerboard", p)
    }),
    generated("eight-gaussians", "2D toy: eight Gaussians on a circle of radius 5", |p| {
        drawn("eight-gaussians", p)
    }),
];

type Create = fn(&Parameters) -> Result<Box<dyn DataSet>>;

const fn from_path(name: &'static str, about: &'static str, create: Create) -> Entry<dyn DataSet> {
    let parameters = r#"{"type":"object","properties":{
        "path":{"type":"string","description":"The file or folder"}},"required":["path"]}"#;
    Entry { name, about, parameters, create }
}

const fn generated(name: &'static str, about: &'static str, create: Create) -> Entry<dyn DataSet> {
    let parameters = r#"{"type":"object","properties":{
        "seed":{"type":"integer","description":"Seed of the points","default":0,"minimum":0}}}"#;
    Entry { name, about, parameters, create }
}

fn at_path(name: &str, p: &Parameters) -> Result<Box<dyn DataSet>> {
    let path = p.text("path")?;
    Ok(Box::new(Licensed(open(name, Some(Path::new(path)), 0).map_err(crate::plugin_error)?)))
}

fn drawn(name: &str, p: &Parameters) -> Result<Box<dyn DataSet>> {
    Ok(Box::new(Licensed(open(name, None, p.seed("seed")?).map_err(crate::plugin_error)?)))
}

/// A data set that says its licence itself.
struct Licensed(Opened);

impl DataSet for Licensed {
    fn shape(&self) -> Shape {
        self.0.data.shape()
    }

    fn pixel_range(&self) -> Option<(f64, f64)> {
        self.0.data.pixel_range()
    }

    fn rows(&self, split: Split) -> usize {
        self.0.data.rows(split)
    }

    fn read(&self, split: Split, rows: &[usize], out: &mut [f64]) -> Result<()> {
        self.0.data.read(split, rows, out)
    }

    fn licence(&self) -> Option<&str> {
        self.0.licence.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::super::builtins;
    use super::*;

    #[test]
    fn entries_are_the_registry_in_its_order() {
        let names: Vec<&str> = DATASETS.iter().map(|e| e.name).collect();
        assert_eq!(names, builtins().map(|b| b.name).collect::<Vec<_>>());
    }
}
