//! What the fuzz targets share: checksums made to agree, journals to damage, and a model of the API.

pub mod checksum;
pub mod damage;
pub mod model;
pub mod run;
mod step;
