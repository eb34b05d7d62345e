//! Claims about programs that are made by hand.

mod program;
mod vtable;
mod wakes;

use super::{example::*, *};
