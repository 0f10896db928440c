//! Points as files: .npy for programs, .csv for people.

use std::io::Write;
use std::path::Path;

use cmf_core::Result;
use cmf_core::files::write_atomically;

/// Writes `x` [n, d] as a NumPy array of little-endian f64.
pub fn write_npy(path: &Path, x: &[f64], d: usize) -> Result<()> {
    use npyz::WriterBuilder;
    write_atomically(path, |file| {
        let shape = [(x.len() / d) as u64, d as u64];
        let mut writer = npyz::WriteOptions::new().default_dtype().shape(&shape).writer(file).begin_nd()?;
        writer.extend(x)?;
        writer.finish()
    })
}

/// Writes `x` [n, header.len()] as text under a line of column names.
pub fn write_table(path: &Path, header: &[&str], x: &[f64]) -> Result<()> {
    write_atomically(path, |file| {
        writeln!(file, "{}", header.join(","))?;
        write_rows(file, x, header.len())
    })
}

/// Writes `x` [n, d] as text: a row of numbers separated by commas for each point, no header.
pub fn write_csv(path: &Path, x: &[f64], d: usize) -> Result<()> {
    write_atomically(path, |file| write_rows(file, x, d))
}

fn write_rows(file: &mut impl Write, x: &[f64], d: usize) -> std::io::Result<()> {
    for row in x.chunks_exact(d) {
        // `{}` prints the shortest text that reads back as the same f64.
        let cells: Vec<String> = row.iter().map(f64::to_string).collect();
        writeln!(file, "{}", cells.join(","))?;
    }
    Ok(())
}
