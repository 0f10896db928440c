//! A thread for each of several devices, so that they work at the same time.

use std::sync::{Mutex, PoisonError};

use rayon::ThreadPool;

use crate::error::{Error, Result};

/// One thread a device, always the same: what a thread asks of a GPU goes through a queue of its own.
pub(super) struct Threads(Option<ThreadPool>);

impl Threads {
    /// For `n` devices.
    pub fn new(n: usize) -> Result<Self> {
        if n == 1 {
            return Ok(Threads(None));
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build();
        let pool = pool.map_err(|e| Error::Invalid(format!("no threads for {n} devices: {e}")))?;
        Ok(Threads(Some(pool)))
    }

    /// `f` of each device's input, at the same time; of one device, on the caller's thread. Fails with the first of the devices
    /// that fail, once all have ended.
    pub fn each<I: Send, R: Send>(
        &self,
        inputs: impl IntoIterator<Item = I>,
        f: impl Fn(I) -> Result<R> + Sync,
    ) -> Result<Vec<R>> {
        let Some(pool) = &self.0 else { return inputs.into_iter().map(f).collect() };
        let inputs: Vec<_> = inputs.into_iter().map(|input| Mutex::new(Some(input))).collect();
        let outputs = pool.broadcast(|thread| {
            let input = inputs.get(thread.index())?;
            // Each thread takes its own input, once: nothing is left half done in it.
            let input = input.lock().unwrap_or_else(PoisonError::into_inner).take()?;
            Some(f(input))
        });
        outputs.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::thread;

    use super::*;

    #[test]
    fn each_input_has_a_thread_of_its_own_which_stays_the_same() {
        let threads = Threads::new(3).unwrap();
        let ask = || threads.each([10, 20, 30], |i| Ok((i, thread::current().id()))).unwrap();
        let (first, again) = (ask(), ask());
        assert_eq!(first, again);
        assert_eq!(first.iter().map(|(i, _)| *i).collect::<Vec<_>>(), [10, 20, 30]);
        assert_eq!(first.iter().map(|(_, id)| id).collect::<HashSet<_>>().len(), 3);
    }

    #[test]
    fn an_error_of_one_is_the_error_of_all() {
        let threads = Threads::new(2).unwrap();
        let failed = threads.each([1, 2], |i| if i == 2 { Err(Error::Invalid("two".into())) } else { Ok(i) });
        assert!(failed.unwrap_err().to_string().contains("two"));
    }
}
