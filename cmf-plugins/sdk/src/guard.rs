//! The one guard of every call that crosses the boundary: pointers, lengths, panics, words for errors.

use std::any::Any;
use std::ffi::{CStr, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::abi::{self, CmfError, ERROR_BYTES};
use crate::error::{Error, Result, Status};

/// Runs a function that was called from outside: an error becomes its code and words, a panic
/// `CMF_PANIC`. Nothing unwinds out of it. `error` is `None` where there is no place for words.
pub fn enter(error: Option<&mut CmfError>, run: impl FnOnce() -> Result<()>) -> i32 {
    let failure = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => return abi::OK,
        Ok(Err(e)) => e,
        Err(payload) => Error { status: Status::Panic, text: format!("panicked: {}", words(&*payload)) },
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

/// Borrows `len` items that the caller owns; NULL is accepted for none.
///
/// # Safety
/// `from` is NULL or points to `len` items that nobody writes for as long as `'a`.
pub unsafe fn slice<'a, T>(what: &str, from: *const T, len: Option<usize>) -> Result<&'a [T]> {
    match checked(what, from, len)? {
        0 => Ok(&[]),
        // SAFETY: the caller's promise; alignment and size were checked.
        len => Ok(unsafe { std::slice::from_raw_parts(from, len) }),
    }
}

/// Borrows `len` items that the caller owns, to be written; NULL is accepted for none.
///
/// # Safety
/// `from` is NULL or points to `len` items that nobody else touches for as long as `'a`.
pub unsafe fn slice_mut<'a, T>(what: &str, from: *mut T, len: Option<usize>) -> Result<&'a mut [T]> {
    match checked(what, from, len)? {
        0 => Ok(&mut []),
        // SAFETY: the caller's promise; alignment and size were checked.
        len => Ok(unsafe { std::slice::from_raw_parts_mut(from, len) }),
    }
}

/// The length, once the pointer can be that of a slice; `None` is a product that overflowed.
fn checked<T>(what: &str, from: *const T, len: Option<usize>) -> Result<usize> {
    let fits = |len: &usize| len.checked_mul(size_of::<T>()).is_some_and(|b| b <= isize::MAX as usize);
    let len = len.filter(fits).ok_or_else(|| Error::invalid(format!("{what}: too many numbers")))?;
    if len > 0 && (from.is_null() || !from.is_aligned()) {
        let found = if from.is_null() { "NULL" } else { "a pointer that is not aligned" };
        return Err(Error::invalid(format!("{what}: expected {len} items, found {found}")));
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
    // SAFETY: the caller's promise.
    unsafe { from.as_ref() }.ok_or_else(|| Error::invalid(format!("{what}: found NULL")))
}
