//! What the machine's processes are.
