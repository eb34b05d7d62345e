//! What recording needs of the running kernel and of who runs this.

use std::path::Path;

use anyhow::{Result, bail};

use super::Privilege;

/// The kernel's description of its own types.
const BTF: &str = "/sys/kernel/btf/vmlinux";

/// Checks that kernel programs can be loaded here. `polletto doctor` checks the rest, and better; this comes first
/// because no work of minutes should end in "there was no BPF".
pub fn ensure_access() -> Result<Privilege> {
    if !Path::new(BTF).exists() {
        bail!("{BTF} does not exist: recording needs a kernel of at least 5.17 with CONFIG_DEBUG_INFO_BTF=y");
    }
    Privilege::acquire("recording", "run this as root, or let sudo work without a password")
}
