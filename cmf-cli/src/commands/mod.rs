//! The commands, one file each.

pub mod export;
pub mod info;
pub mod inpaint;
pub mod sample;
pub mod score;
#[cfg(feature = "train")]
pub mod train;
pub mod verify;
