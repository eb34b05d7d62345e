//! Claims about programs that are made by hand.

mod code;
mod program;
mod vtable;

use super::{example::*, *};
