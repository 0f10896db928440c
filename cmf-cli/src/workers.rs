//! Independent jobs shared out to the processor's cores, their results heard in order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use cmf_core::{Error, Result};
use rayon::ThreadPoolBuilder;

/// Runs the jobs `0..jobs`, `most` at a time at most, and has `hear` told each result on this thread in the jobs' order.
///
/// Each job has its share of the threads to itself: what it computes in parallel neither waits for another job
/// nor takes up its work. An error of `hear` lets running jobs end, starts no others and is returned.
pub fn in_order<R: Send>(
    jobs: usize,
    most: usize,
    run: impl Fn(usize) -> R + Sync,
    mut hear: impl FnMut(usize, R) -> Result<()>,
) -> Result<()> {
    let threads = rayon::current_num_threads();
    let workers = threads.min(most).min(jobs);
    if workers <= 1 {
        return (0..jobs).try_for_each(|job| hear(job, run(job)));
    }
    let pools = (0..workers)
        .map(|_| ThreadPoolBuilder::new().num_threads(threads / workers).build())
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(|e| Error::Invalid(format!("threads cannot be started: {e}")))?;
    let next = AtomicUsize::new(0);
    let (run, next) = (&run, &next);
    thread::scope(|scope| {
        let (sender, results) = mpsc::channel();
        for pool in pools {
            let sender = sender.clone();
            scope.spawn(move || {
                loop {
                    let job = next.fetch_add(1, Ordering::Relaxed);
                    if job >= jobs || sender.send((job, pool.install(|| run(job)))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let (mut early, mut turn) = (BTreeMap::new(), 0);
        // Dropped with an error of `hear`: the workers' next message then fails, which ends them.
        for (job, result) in results {
            early.insert(job, result);
            while let Some(result) = early.remove(&turn) {
                hear(turn, result)?;
                turn += 1;
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_threads<R: Send>(threads: usize, run: impl FnOnce() -> R + Send) -> R {
        ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(run)
    }

    #[test]
    fn results_come_in_order_and_no_more_run_at_once_than_may() {
        for (threads, most) in [(1, 8), (4, 1), (4, 3), (4, 100)] {
            let (running, peak) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let heard = with_threads(threads, || {
                let mut heard = Vec::new();
                let run = |job: usize| {
                    peak.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    // Early jobs take longer, so that later ones overtake them.
                    thread::sleep(std::time::Duration::from_millis(20 - job as u64));
                    running.fetch_sub(1, Ordering::SeqCst);
                    job * job
                };
                in_order(20, most, run, |job, square| {
                    heard.push((job, square));
                    Ok(())
                })
                .unwrap();
                heard
            });
            assert_eq!(heard, (0..20).map(|job| (job, job * job)).collect::<Vec<_>>());
            assert!(peak.into_inner() <= threads.min(most));
        }
    }

    #[test]
    fn an_error_of_the_hearer_ends_the_work() {
        for threads in [1, 3] {
            let ran = AtomicUsize::new(0);
            let run = |_| ran.fetch_add(1, Ordering::SeqCst);
            let hear = |_, _| Err(Error::Interrupted);
            let end = with_threads(threads, || in_order(1_000_000, threads, run, hear));
            assert!(matches!(end, Err(Error::Interrupted)));
            assert!(ran.into_inner() < 1_000_000);
        }
    }
}
