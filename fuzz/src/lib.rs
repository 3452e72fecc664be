//! What the fuzz targets share: checksums made to agree, journals to damage and to forge, and a
//! model of the API.

pub mod checksum;
pub mod damage;
mod forge;
pub mod model;
pub mod run;
mod step;
