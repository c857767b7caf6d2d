//! Safe spans: where the effects of a constant's value live (papers: *Xkernel*, 3.5.1). A switch to another value waits until a
//! thread is outside them.

mod follow;
pub(crate) mod lines;
mod objects;
mod program;
mod region;
mod steps;
mod thin;
mod variables;
mod whole;

use kerf_image::Image;

use crate::entry::{Entry, SafeSpan};
use crate::error::ConstError;

pub(crate) use program::joined;
pub use thin::ThinSlices;
pub use variables::Variables;
pub use whole::WholeFunctions;

/// A way to find safe spans. What follows from a value by control, not by data, would be another one.
pub trait Analysis {
    /// The safe spans of an entry, whose critical spans lie in this image. Each critical span belongs to exactly one.
    ///
    /// # Errors
    /// If the image does not hold the entry's code.
    fn safe_spans(&self, image: &Image, entry: &Entry) -> Result<Vec<SafeSpan>, ConstError>;
}
