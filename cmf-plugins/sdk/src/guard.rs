//! The one guard of every call that crosses the boundary: pointers, lengths, panics, words for errors.

use std::any::Any;
use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::abi::{self, CmfError, ERROR_BYTES};
use crate::error::{Error, Result, Status};

/// Runs a function that was called from outside: an error becomes its code and words, a panic
/// `CMF_PANIC`. Nothing unwinds out of it. `error` is `None` where there is no place for words.
pub fn enter(error: Option<&mut CmfError>, run: impl FnOnce() -> Result<()>) -> i32 {
    let failure = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => return abi::OK,
        Ok(Err(e)) => e,
        Err(payload) => {
            let text = format!("panicked: {}", words(&*payload));
            // Leaked: what was thrown may panic again when it is dropped.
            std::mem::forget(payload);
            Error { status: Status::Panic, text }
        }
    };
    if let Some(error) = error {
        write_text(error, &failure.text);
    }
    failure.status.code()
}

/// What a panic said.
pub(crate) fn words(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("without words")
}

/// Copies as much of `text` as fits and ends it with NUL.
fn write_text(error: &mut CmfError, text: &str) {
    let mut end = text.len().min(ERROR_BYTES - 1);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    for (to, from) in error.text.iter_mut().zip(text.as_bytes()[..end].iter().chain([&0])) {
        // A NUL inside would only cut the text short.
        *to = *from as c_char;
    }
}

/// Calls a function of the other side with a fresh `cmf_error` and turns its answer into a result.
pub fn call(run: impl FnOnce(*mut CmfError) -> i32) -> Result<()> {
    let mut error = CmfError { text: [0; ERROR_BYTES] };
    let code = run(&mut error);
    if code == abi::OK {
        return Ok(());
    }
    // Not a CStr: the callee may have filled all bytes.
    let said: Vec<u8> = error.text.iter().take_while(|&&c| c != 0).map(|&c| c as u8).collect();
    let text = match String::from_utf8_lossy(&said).into_owned() {
        said if said.is_empty() => format!("error code {code} without words"),
        said => said,
    };
    Err(Error { status: Status::from_code(code), text })
}

/// The arrays of one call, borrowed from its caller. None that is written may share memory with another.
#[derive(Default)]
pub struct Arrays {
    /// Addresses of the first byte and past the last, and whether it is written; no call has more.
    taken: [(usize, usize, bool); 6],
    count: usize,
}

impl Arrays {
    /// Borrows `len` items to be read; NULL is accepted for none.
    ///
    /// # Safety
    /// `from` is NULL or points to `len` items that nobody writes for as long as `'a`, but for the call itself.
    pub unsafe fn read<'a, T>(&mut self, what: &str, from: *const T, len: Option<usize>) -> Result<&'a [T]> {
        match self.take(what, from, len, false)? {
            0 => Ok(&[]),
            // SAFETY: the caller's promise; alignment, size and overlaps were checked.
            len => Ok(unsafe { std::slice::from_raw_parts(from, len) }),
        }
    }

    /// Borrows `len` items to be written; NULL is accepted for none.
    ///
    /// # Safety
    /// `to` is NULL or points to `len` items that nobody touches for as long as `'a`, but for the call itself.
    pub unsafe fn write<'a, T>(&mut self, what: &str, to: *mut T, len: Option<usize>) -> Result<&'a mut [T]> {
        match self.take(what, to, len, true)? {
            0 => Ok(&mut []),
            // SAFETY: the caller's promise; alignment, size and overlaps were checked.
            len => Ok(unsafe { std::slice::from_raw_parts_mut(to, len) }),
        }
    }

    fn take<T>(&mut self, what: &str, at: *const T, len: Option<usize>, written: bool) -> Result<usize> {
        let len = checked(what, at, len)?;
        let (begin, end) = (at.addr(), at.addr().wrapping_add(len * size_of::<T>()));
        let shared = |&(b, e, w): &(usize, usize, bool)| begin < e && b < end && (written || w);
        if len > 0 && self.taken[..self.count].iter().any(shared) {
            return Err(Error::invalid(format!("{what}: overlaps another array of the call")));
        }
        self.taken[self.count] = (begin, end, written);
        self.count += 1;
        Ok(len)
    }
}

/// Where a struct or pointer of the caller's is to be written.
///
/// # Safety
/// `to` is NULL or points to room for a `T` that nobody else touches for as long as `'a`.
pub unsafe fn place<'a, T>(what: &str, to: *mut T) -> Result<&'a mut MaybeUninit<T>> {
    checked(what, to, Some(1))?;
    // SAFETY: the caller's promise; NULL and alignment were checked.
    Ok(unsafe { &mut *to.cast() })
}

/// The length, once the pointer can be that of a slice; `None` is a product that overflowed.
fn checked<T>(what: &str, from: *const T, len: Option<usize>) -> Result<usize> {
    let fits = |len: &usize| len.checked_mul(size_of::<T>()).is_some_and(|b| b <= isize::MAX as usize);
    let len = len.filter(fits).ok_or_else(|| Error::invalid(format!("{what}: too many numbers")))?;
    if len > 0 && (from.is_null() || !from.is_aligned()) {
        let found = if from.is_null() { "NULL" } else { "a pointer that is not aligned" };
        return Err(Error::invalid(format!("{what}: expected room for {len}, found {found}")));
    }
    Ok(len)
}

/// Longest text that is read across the boundary.
const MOST_TEXT: usize = 1 << 20;

/// Copies text of the other side.
///
/// # Safety
/// `from` is NULL or points to bytes that end in NUL.
pub unsafe fn text_of(what: &str, from: *const c_char) -> Result<String> {
    if from.is_null() {
        return Err(Error::invalid(format!("{what}: expected text, found NULL")));
    }
    // SAFETY: the caller's promise.
    let bytes = unsafe { CStr::from_ptr(from) }.to_bytes();
    if bytes.len() > MOST_TEXT {
        return Err(Error::invalid(format!("{what}: {} bytes of text are too many", bytes.len())));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Error::invalid(format!("{what}: is not UTF-8")))?;
    Ok(text.to_string())
}

/// The reference behind a pointer that must not be NULL.
///
/// # Safety
/// `from` is NULL or points to a live `T` for as long as `'a`.
pub unsafe fn object<'a, T>(what: &str, from: *const T) -> Result<&'a T> {
    checked(what, from, Some(1))?;
    // SAFETY: the caller's promise; NULL and alignment were checked.
    Ok(unsafe { &*from })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(run: impl FnOnce() -> Result<()>) -> (i32, String) {
        let mut code = 0;
        let said = call(|error| {
            // SAFETY: `call` gives a live struct.
            code = enter(unsafe { error.as_mut() }, run);
            code
        });
        (code, said.err().map_or(String::new(), |e| e.text))
    }

    #[test]
    fn errors_and_panics_become_codes_with_words() {
        assert_eq!(said(|| Ok(())), (abi::OK, String::new()));
        assert_eq!(said(|| Err(Error::unsupported("no"))), (abi::UNSUPPORTED, "no".into()));
        assert_eq!(said(|| panic!("at {}", 3)), (abi::PANIC, "panicked: at 3".into()));
        assert_eq!(said(|| std::panic::panic_any(3)), (abi::PANIC, "panicked: without words".into()));
        // Long words are cut between characters, and end in NUL.
        let (_, text) = said(|| Err(Error::failed("é".repeat(600))));
        assert_eq!(text, "é".repeat(511));
    }

    #[test]
    fn what_panics_again_when_dropped_does_not_leave_either() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("again");
            }
        }
        assert_eq!(said(|| std::panic::panic_any(Bomb)).0, abi::PANIC);
    }

    #[test]
    fn pointers_and_lengths_are_checked() {
        let mut a = [1.0_f64, 2.0, 3.0];
        let at = a.as_mut_ptr().cast_const();
        let null = std::ptr::null::<f64>();
        let odd = at.cast::<u8>().wrapping_add(1).cast::<f64>();
        // SAFETY: `at` has 3 numbers; what is wrong is refused before it is touched.
        unsafe {
            assert_eq!(Arrays::default().read("x", at, Some(3)).unwrap(), [1.0, 2.0, 3.0]);
            assert!(Arrays::default().read("x", null, Some(0)).unwrap().is_empty());
            for (from, len, words) in [
                (null, Some(2), "x: expected room for 2, found NULL"),
                (odd, Some(2), "x: expected room for 2, found a pointer that is not aligned"),
                (at, None, "x: too many numbers"),
                (at, Some(usize::MAX / 8), "x: too many numbers"),
            ] {
                assert_eq!(Arrays::default().read("x", from, len).unwrap_err().text, words);
            }
            assert!(place("info", std::ptr::null_mut::<f64>()).is_err());
            assert!(object("energy", null).is_err());
        }
    }

    #[test]
    fn arrays_that_are_written_overlap_nothing() {
        let mut a = [0.0_f64; 6];
        let at = a.as_mut_ptr();
        // SAFETY: all lie in `a`, and no two slices that are handed out share a number and are both used.
        unsafe {
            let mut arrays = Arrays::default();
            arrays.read("x", at, Some(3)).unwrap();
            arrays.read("v", at, Some(3)).unwrap();
            assert_eq!(
                arrays.write("hv", at.add(2), Some(3)).unwrap_err().text,
                "hv: overlaps another array of the call"
            );
            arrays.write("hv", at.add(3), Some(3)).unwrap();
            assert!(arrays.read("m", at.add(5), Some(1)).is_err());
            assert!(arrays.write("none", at, Some(0)).unwrap().is_empty());
        }
    }
}
