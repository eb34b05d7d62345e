//! Claims about programs that are made by hand.

mod vtable;

use super::{example::*, *};
