//! Last words: which code from elsewhere was loaded when a fault ended the process.
//!
//! A library that is damaged inside, or a plugin with a mistake, dies without a word to the user, and with it the program
//! that loaded it. The fault itself stays: who runs the program sees the same signal, and gets the same core dump.

use std::path::Path;
#[cfg(unix)]
use std::sync::Mutex;
#[cfg(unix)]
use std::sync::atomic::{AtomicPtr, Ordering};

/// Has the process say on stderr, where a fault or an abort ends it, which libraries it had loaded by this crate.
///
/// It is for programs, since signals are the process's own; what handled them before goes on afterwards. On Unix alone.
pub fn name_libraries_on_fault() {
    #[cfg(unix)]
    unix::install();
}

/// What is said; null as long as nothing is loaded. A handler of signals may neither lock nor allocate.
#[cfg(unix)]
static LAST_WORDS: AtomicPtr<String> = AtomicPtr::new(std::ptr::null_mut());

/// Puts the library on the list, before it is loaded.
#[cfg(unix)]
pub(super) fn about_to_load(path: &Path) {
    static LOADED: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let mut loaded = LOADED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let name = path.display().to_string();
    if loaded.contains(&name) {
        return;
    }
    loaded.push(name);
    let words = format!(
        "error: a fault ended the program, which had loaded code from elsewhere: {}. If it is damaged, install it again; \
         `cmf-cli doctor` tries ONNX Runtime out, `cmf-cli plugin check` a plugin\n",
        loaded.join(", ")
    );
    // Those before are leaked, since a fault may be reading them; a process loads few libraries.
    LAST_WORDS.store(Box::leak(Box::new(words)), Ordering::Release);
}

#[cfg(not(unix))]
pub(super) fn about_to_load(_path: &Path) {}

#[cfg(unix)]
mod unix {
    use std::ffi::c_int;
    use std::mem::MaybeUninit;
    use std::sync::Once;
    use std::sync::atomic::Ordering;

    use libc::sigaction;

    use super::LAST_WORDS;

    const SIGNALS: [c_int; 5] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT];

    /// What handled each signal before, written once, before the handler can run.
    static mut BEFORE: [MaybeUninit<sigaction>; SIGNALS.len()] = [MaybeUninit::uninit(); SIGNALS.len()];

    pub fn install() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            for (i, signal) in SIGNALS.into_iter().enumerate() {
                // SAFETY: all zeros is a `sigaction`; the calls are as POSIX has them; `BEFORE` is written here alone, each
                // entry before the handler that reads it is set, and the handler does only what a handler may.
                unsafe {
                    let before = (&raw mut BEFORE[i]).cast::<sigaction>();
                    if libc::sigaction(signal, std::ptr::null(), before) != 0 {
                        continue;
                    }
                    let mut ours: sigaction = MaybeUninit::zeroed().assume_init();
                    ours.sa_sigaction = say as extern "C" fn(c_int) as usize;
                    // On the stack that Rust keeps for a thread whose own is full.
                    ours.sa_flags = libc::SA_ONSTACK;
                    libc::sigemptyset(&raw mut ours.sa_mask);
                    libc::sigaction(signal, &raw const ours, std::ptr::null_mut());
                }
            }
        });
    }

    /// Says it, and hands the signal on to what handled it before: a fault of memory comes again on return, with its address,
    /// which Rust asks whether a stack was full; others are sent again, since `kill` may have sent them.
    extern "C" fn say(signal: c_int) {
        // SAFETY: the words are never freed; `write`, `sigaction` and `raise` may be called here by POSIX; the entry of `BEFORE` was
        // written before this handler was set.
        unsafe {
            if let Some(words) = LAST_WORDS.load(Ordering::Acquire).as_ref() {
                libc::write(libc::STDERR_FILENO, words.as_ptr().cast(), words.len());
            }
            if let Some(i) = SIGNALS.iter().position(|&s| s == signal) {
                libc::sigaction(signal, (&raw const BEFORE[i]).cast::<sigaction>(), std::ptr::null_mut());
            }
            if signal != libc::SIGSEGV && signal != libc::SIGBUS {
                libc::raise(signal);
            }
        }
    }
}
