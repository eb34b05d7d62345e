//! Tells the programs which CPU they are compiled for: their own target, `bpfel`, does not.

use std::env;

fn main() {
    println!("cargo::rerun-if-env-changed=AYA_BPF_TARGET_ARCH");
    println!("cargo::rustc-check-cfg=cfg(bpf_target_arch, values(\"x86_64\", \"aarch64\"))");
    // aya-ebpf reads the same variable, and takes the machine's own CPU without it.
    let arch = env::var("AYA_BPF_TARGET_ARCH").unwrap_or_else(|_| env::consts::ARCH.to_owned());
    println!("cargo::rustc-cfg=bpf_target_arch=\"{arch}\"");
}
