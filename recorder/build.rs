//! Compiles the kernel programs and hands the object file to the crate, which embeds it.
//!
//! They need a compiler for `bpfel-unknown-none` and a linker of their own. `cargo xtask build` installs both and
//! describes them in `target/ebpf-toolchain/`: `config.toml` is a cargo configuration, and `toolchain`, if present,
//! names the rustup toolchain to use it with.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

const TARGET: &str = "bpfel-unknown-none";
const OBJECT: &str = "polletto-ebpf";

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("polletto's kernel programs were not built: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let root = path_from_cargo("CARGO_MANIFEST_DIR")?.join("..");
    let out = path_from_cargo("OUT_DIR")?;
    let toolchain = root.join("target/ebpf-toolchain");
    for input in ["ebpf/src", "ebpf/build.rs", "ebpf/Cargo.toml", "ebpf/Cargo.lock", "common/src"] {
        println!("cargo::rerun-if-changed={}", root.join(input).display());
    }
    println!("cargo::rerun-if-changed={}", toolchain.join("config.toml").display());
    if !toolchain.join("config.toml").is_file() {
        return Err("their toolchain is not installed. Run `cargo xtask build` once: it installs it".to_owned());
    }
    compile(&root, &toolchain, &out.join("ebpf"))?;
    let object = out.join("ebpf").join(TARGET).join("release").join(OBJECT);
    fs::copy(&object, out.join("polletto-ebpf.o")).map_err(|error| format!("{}: {error}", object.display()))?;
    Ok(())
}

fn compile(root: &Path, toolchain: &Path, target_dir: &Path) -> Result<(), String> {
    let mut cargo = Command::new("cargo");
    // What this cargo told this script about its own compiler must not reach the other one.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("RUSTC") || name.starts_with("CARGO_") && name != "CARGO_HOME" || name == "RUSTFLAGS" {
            cargo.env_remove(name.as_ref());
        }
    }
    cargo.env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN");
    // Their own target says nothing of the machine whose registers they read.
    if let Some(arch) = env::var_os("CARGO_CFG_TARGET_ARCH") {
        cargo.env("AYA_BPF_TARGET_ARCH", arch);
    }
    if let Ok(name) = fs::read_to_string(toolchain.join("toolchain")) {
        cargo.env("RUSTUP_TOOLCHAIN", name.trim());
    }
    cargo
        .current_dir(root.join("ebpf"))
        .args(["build", "--release", "--locked", "--target", TARGET, "--config"])
        .arg(absolute(&toolchain.join("config.toml"))?)
        .arg("--target-dir")
        .arg(target_dir);
    let status = cargo.status().map_err(|error| format!("cargo did not start: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("cargo ended with {status}")) }
}

fn absolute(path: &Path) -> Result<PathBuf, String> {
    path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))
}

fn path_from_cargo(name: &str) -> Result<PathBuf, String> {
    env::var_os(name).map(PathBuf::from).ok_or_else(|| format!("{name} is not set: run this through cargo"))
}
