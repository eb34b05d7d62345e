//! Claims about programs that are made by hand.

mod code;
mod hostile;
mod probes;

use super::*;
use crate::tokio::{examine, example::*};
