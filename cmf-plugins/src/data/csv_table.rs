//! A table of numbers in a comma-separated file, one example a line.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use cmf_core::{Error, Result};

use super::memory::{InMemory, Values, every_tenth};
use super::{Opened, Shape};

/// Opens a table; a first line without any number in it is a header. Every tenth row is held out.
///
/// Fields may be quoted; empty lines do not count as rows.
pub(super) fn open(path: &Path) -> Result<Opened> {
    let file = File::open(path).map_err(|e| Error::file(path, e))?;
    let mut values: Vec<f64> = Vec::new();
    let mut dim = None;
    let mut may_be_header = true;
    for (number, text) in (1..).zip(BufReader::new(file).lines()) {
        let text = text.map_err(|e| Error::file(path, format!("line {number}: {e}")))?;
        let text = text.trim_start_matches('\u{feff}').trim();
        if text.is_empty() {
            continue;
        }
        let fields: Vec<&str> = text.split(',').map(|f| f.trim().trim_matches('"')).collect();
        if std::mem::take(&mut may_be_header) && fields.iter().all(|f| f.parse::<f64>().is_err()) {
            continue;
        }
        let dim = *dim.get_or_insert(fields.len());
        if fields.len() != dim {
            let message = format!("line {number}: found {} columns, expected {dim}", fields.len());
            return Err(Error::file(path, message));
        }
        for (column, field) in (1..).zip(fields) {
            let value = field.parse().ok().filter(|v: &f64| v.is_finite()).ok_or_else(|| {
                let found = format!("line {number}, column {column}: found {field:?}");
                Error::file(path, format!("{found}, expected a finite number"))
            })?;
            values.push(value);
        }
    }
    let dim = dim.unwrap_or(1);
    let n = values.len() / dim;
    if n < 2 {
        return Err(Error::file(path, format!("found {n} rows of numbers, expected at least 2")));
    }
    let (train, held_out) = every_tenth(n);
    let shape = Shape::Vector { dim };
    Ok(InMemory { shape, pixel_range: None, values: Values::F64(values), train, held_out }.opened())
}

#[cfg(test)]
mod tests {
    use super::super::Split;
    use super::super::tests::{all, error};
    use super::*;

    fn opened(text: &str) -> Result<Opened> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        std::fs::write(&path, text).unwrap();
        open(&path)
    }

    #[test]
    fn reads_numbers_with_and_without_a_header() {
        for text in
            ["1, 2\n3,4e-1\n-5,6\n", "x,\"y, z\"\n1,2\n\n\"3\",0.4\r\n -5 , 6", "\u{feff}1,2\n3,.4\n-5,+6"]
        {
            let opened = opened(text).unwrap();
            assert_eq!(opened.data.shape(), Shape::Vector { dim: 2 });
            assert_eq!(all(opened.data.as_ref(), Split::Train), [1.0, 2.0, 3.0, 0.4], "{text:?}");
            assert_eq!(all(opened.data.as_ref(), Split::HeldOut), [-5.0, 6.0]);
        }
    }

    #[test]
    fn what_is_no_number_is_named_by_line_and_column() {
        for (text, words) in [
            ("a,b\n1,2\n3,x\n", "line 3, column 2: found \"x\", expected a finite number"),
            ("1,b\n1,2\n", "line 1, column 2: found \"b\""),
            ("1,2\n,2\n", "line 2, column 1: found \"\""),
            ("1,2\nNaN,2\n", "line 2, column 1: found \"NaN\""),
            ("1,2\n1,1e999\n", "line 2, column 2: found \"1e999\""),
            ("1,2\n\n1,2,3\n", "line 3: found 3 columns, expected 2"),
            ("a,b\n1,2\n", "found 1 rows of numbers, expected at least 2"),
            ("a,b\n", "found 0 rows"),
            ("a,b\nc,d\n", "line 2, column 1: found \"c\""),
            ("", "found 0 rows"),
        ] {
            let e = error(opened(text));
            assert!(e.contains("a.csv: ") && e.contains(words), "{e}");
        }
    }

    #[test]
    fn text_that_is_not_utf8_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        std::fs::write(&path, b"1,2\n1,\xff\n").unwrap();
        let e = error(open(&path));
        assert!(e.contains("a.csv: line 2: ") && e.contains("UTF-8"), "{e}");
    }
}
