//! What the fuzz targets share.

pub mod bare;
pub mod model;
pub mod spoil;
pub mod start;
pub mod trap;
