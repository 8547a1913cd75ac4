//! Shared by the fuzz targets.

pub mod bare;
pub mod model;
pub mod spoil;
pub mod start;
pub mod trap;
