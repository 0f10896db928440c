//! SHA-256 in hexadecimal, by which data, libraries and models are recognised.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// Of these bytes.
pub fn sha256(bytes: &[u8]) -> String {
    hexadecimal(Sha256::new_with_prefix(bytes))
}

/// Of what `hash` has been fed.
pub(crate) fn hexadecimal(hash: Sha256) -> String {
    hash.finalize().iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
