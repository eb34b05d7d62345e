//! Claims about programs that are made by hand.

mod code;
mod probes;
mod program;
mod vtable;

use super::{example::*, *};
