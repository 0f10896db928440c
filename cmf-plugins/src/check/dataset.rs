//! Checks of data sets.

use std::time::{Duration, Instant};

use cmf_plugin::abi::CmfDatasetFactory;
use cmf_plugin::{DataSet, Schema, Split, Status, call};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::buffer::Output;
use super::{Check, Suite, close, eight_threads, offered};
use crate::host::{Library, Offer, Offered, PluginDataSet, explained};

const SPLITS: [Split; 2] = [Split::Train, Split::HeldOut];
/// Opening may take long: after this much time fewer than 1000 lives will do.
const LIVES: Duration = Duration::from_secs(3);

pub(super) fn check(suite: &mut Suite, library: &Library, offer: &Offer) {
    let Some(factory) = library.datasets() else { return };
    let parameters = Schema::parse(&offer.parameters).map_err(|e| e.text).and_then(|s| suite.parameters(&s));
    let mut opened = None;
    suite.check("shape, rows and pixel range", |_| {
        let parameters = parameters?;
        let data = PluginDataSet::new(factory, offered(offer, &parameters)).map_err(|e| e.text)?;
        let note = format!("{:?}, {:?} rows", data.shape(), SPLITS.map(|s| data.rows(s)));
        opened = Some((data, parameters));
        Ok(note)
    });
    let Some((data, parameters)) = opened else { return };
    suite.check("rows alone and in batches", |rng| rows(factory, &data, rng));
    suite.check("wrong rows and lengths", |_| misuse(factory, &data));
    suite.check("opened and closed 1000 times", |_| {
        let (begin, mut n) = (Instant::now(), 0);
        while n < 1000 && (n < 3 || begin.elapsed() < LIVES) {
            PluginDataSet::new(factory, offered(offer, &parameters)).map_err(|e| e.text)?;
            n += 1;
        }
        Ok(match n {
            1000 => String::new(),
            n => format!("only {n} times: opening is slow, and {} seconds were up", LIVES.as_secs()),
        })
    });
    suite.check("eight threads at once", |_| {
        let d = data.shape().dim();
        let indices: Vec<usize> = (0..data.rows(Split::Train).min(32)).collect();
        let mut want = vec![0.0; indices.len() * d];
        data.read(Split::Train, &indices, &mut want).map_err(|e| e.text)?;
        eight_threads(|| {
            let mut out = vec![0.0; want.len()];
            for _ in 0..50 {
                data.read(Split::Train, &indices, &mut out).map_err(|e| e.text)?;
                close("rows with other threads at work", &out, &want, 0.0)?;
            }
            Ok(String::new())
        })
    });
    suite.check("unknown names", |_| {
        match PluginDataSet::new(factory, Offered { name: "no-such-data-set", ..offered(offer, &parameters) })
        {
            Ok(_) => Err("opened a data set of a name that it does not offer, expected CMF_INVALID".into()),
            Err(e) if e.status == Status::Invalid => Ok(String::new()),
            Err(e) => Err(format!("answered {:?} ({e}), expected CMF_INVALID", e.status)),
        }
    });
}

/// Reads rows through the raw function, the output between canaries.
fn read(
    factory: &CmfDatasetFactory,
    data: &PluginDataSet,
    split: u32,
    rows: &[usize],
    d: usize,
) -> Result<Output, cmf_plugin::Error> {
    let f = factory.read.ok_or_else(|| cmf_plugin::Error::failed("read is NULL"))?;
    let mut out = Output::new("out", rows.len() * d);
    let at = out.as_mut_ptr();
    // SAFETY: the object is live and the arrays have the lengths that are said.
    call(|error| unsafe { f(data.object(), split, rows.len(), rows.as_ptr(), d, at, error) })
        .map_err(|e| explained("", e))?;
    Ok(out)
}

fn rows(factory: &CmfDatasetFactory, data: &PluginDataSet, rng: &mut ChaCha8Rng) -> Check {
    let d = data.shape().dim();
    for (code, split) in (0..).zip(SPLITS) {
        let n = data.rows(split);
        let mut indices: Vec<usize> = (0..14).map(|_| rng.random_range(0..n)).collect();
        indices.extend([0, n - 1]);
        let all = read(factory, data, code, &indices, d).map_err(|e| e.text)?;
        let all = all.complete()?;
        if let Some(v) = all.iter().find(|v| !v.is_finite()) {
            return Err(format!("gave {v} in {split:?}, expected finite numbers"));
        }
        for (i, want) in indices.iter().zip(all.chunks_exact(d)) {
            let alone = read(factory, data, code, &[*i], d).map_err(|e| e.text)?;
            close(&format!("row {i} of {split:?} alone and in a batch"), alone.complete()?, want, 0.0)?;
        }
        read(factory, data, code, &[], d)
            .map_err(|e| format!("no rows: answered an error ({e}), expected CMF_OK"))?;
    }
    Ok(String::new())
}

fn misuse(factory: &CmfDatasetFactory, data: &PluginDataSet) -> Check {
    let (d, n) = (data.shape().dim(), data.rows(Split::Train));
    for (what, split, row, d) in [
        ("a row past the end", 0, n, d),
        ("a row far past the end", 0, usize::MAX / 2, d),
        ("a split that does not exist", 7, 0, d),
        ("another row length", 0, 0, d + 1),
    ] {
        match read(factory, data, split, &[row], d) {
            Ok(_) => return Err(format!("accepted {what}, expected CMF_INVALID")),
            Err(e) if e.status == Status::Invalid => {}
            Err(e) => return Err(format!("{what}: answered {:?} ({e}), expected CMF_INVALID", e.status)),
        }
    }
    Ok(String::new())
}
