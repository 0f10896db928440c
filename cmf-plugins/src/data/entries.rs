//! The built-in data sets as a plugin offers them.

use cmf_plugin::{DataSet, Entry, Parameters, Result, Shape, Split};

use super::synthetic_faces::SyntheticFaces;
use super::{Opened, open_with};

/// The built-in data sets, by name.
pub static DATASETS: [Entry<dyn DataSet>; 12] = [
    from_path("mnist", "The four idx files of MNIST, gzipped or not", |p| opened("mnist", p)),
    from_path("images", "A folder of images of one size, grey or RGB", |p| opened("images", p)),
    Entry {
        name: "cartoonset",
        about: "Google's Cartoon Set, cartoonset10k.tgz or its folder, scaled, over white",
        parameters: r#"{"type":"object","properties":{
            "path":{"type":"string","description":"The .tgz file or the folder"},
            "side":{"type":"integer","description":"Pixels along a side","default":32,"minimum":8,"maximum":64}},
            "required":["path"]}"#,
        create: |p| opened("cartoonset", p),
    },
    from_path("npy", "A NumPy array [n, d], [n, h, w] or [n, h, w, c]", |p| opened("npy", p)),
    from_path("csv", "A table of numbers, one example a line", |p| opened("csv", p)),
    Entry {
        name: "synthetic-faces",
        about: "Cartoon faces drawn from a seed, in the manner of the Cartoon Set",
        parameters: r#"{"type":"object","properties":{
            "rows":{"type":"integer","description":"Faces to learn from; a tenth as many are held out",
                "default":10000,"minimum":1,"maximum":100000},
            "side":{"type":"integer","description":"Pixels along a side","default":32,"minimum":8,"maximum":64},
            "seed":{"type":"integer","description":"Seed of the faces","default":0,"minimum":0}}}"#,
        create: |p| Ok(Box::new(synthetic_faces(p)?)),
    },
    generated("circles", "2D toy: two concentric circles of radius 2 and 4", |p| opened("circles", p)),
    generated("s-curve", "2D toy: a thin S", |p| opened("s-curve", p)),
    generated("checkerboard", "2D toy: 8 of 16 squares, uniform", |p| opened("checkerboard", p)),
    generated("scaled-rotated-s-curve", "2D toy: the S, halved in height and turned", |p| {
        opened("scaled-rotated-s-curve", p)
    }),
    generated("diagonal-checkerboard", "2D toy: the checkerboard, turned", |p| {
        opened("diagonal-checkerboard", p)
    }),
    generated("eight-gaussians", "2D toy: eight Gaussians on a circle of radius 5", |p| {
        opened("eight-gaussians", p)
    }),
];

/// The faces that parameters ask for, none of them drawn yet.
pub(super) fn synthetic_faces(p: &Parameters) -> Result<SyntheticFaces> {
    Ok(SyntheticFaces { rows: p.count("rows")?, side: p.count("side")?, seed: p.seed("seed")? })
}

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

fn opened(name: &str, p: &Parameters) -> Result<Box<dyn DataSet>> {
    Ok(Box::new(Licensed(open_with(name, p).map_err(crate::plugin_error)?)))
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
