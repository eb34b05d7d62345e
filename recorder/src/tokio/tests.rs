//! Claims about programs that are made by hand.

mod code;
mod probes;
mod program;
mod vtable;
mod wakes;

use super::{example::*, *};
