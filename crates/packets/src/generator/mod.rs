//! Generated traffic: packets made of a template, some of whose fields vary, sent at a pace.
//!
//! A [`Template`] renders one packet after the other, with right lengths and checksums; a
//! [`Generator`] sends them by a port. Whether and when they arrive, a [`crate::meter::Meter`] tells
//! from the [`stamp`] in each.

mod layout;
pub mod pace;
pub(crate) mod run;
pub mod stamp;
pub mod template;
pub mod values;

pub use pace::Pace;
pub use run::{Generator, Plan, Sent};
pub use stamp::Stamp;
pub use template::{Field, Template, Wrong};
pub use values::Values;
