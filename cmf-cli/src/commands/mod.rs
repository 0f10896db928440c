//! The commands, one file each.

pub mod bench;
pub mod doctor;
#[cfg(feature = "train")]
pub mod export;
pub mod info;
pub mod inpaint;
pub mod plugin;
pub mod run;
pub mod sample;
pub mod sample_energy;
pub mod score;
#[cfg(feature = "train")]
pub mod train;
pub mod verify;
