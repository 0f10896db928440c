//! The commands, one file each.

pub mod bench;
pub mod doctor;
pub mod eval;
#[cfg(feature = "train")]
pub mod export;
pub mod info;
pub mod inpaint;
pub mod plugin;
pub mod reproduce;
pub mod run;
pub mod sample;
pub mod sample_energy;
pub mod score;
pub mod solve_1d;
#[cfg(feature = "train")]
pub mod train;
pub mod verify;
