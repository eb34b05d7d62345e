//! Whose code a frame is.

mod crates;
mod place;

#[cfg(test)]
mod tests;

use std::fmt;

use self::place::Place;
use super::{
    names::{crates_of, has_arguments},
    request::Function,
};

/// Whose code a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// The program's own.
    User,
    /// Rust's standard library, and the crates that it is built with.
    RustStd,
    /// What polls tasks: tokio, smol and their like.
    Runtime,
    /// Any other crate that the program depends on.
    Crate,
    /// Not written in Rust.
    Native,
    /// The kernel's. Addresses tell which those are: [`kind_of`] never says so.
    Kernel,
}

impl FrameKind {
    /// All of them, in the order in which they are declared.
    pub const ALL: [FrameKind; 6] = [
        FrameKind::User,
        FrameKind::RustStd,
        FrameKind::Runtime,
        FrameKind::Crate,
        FrameKind::Native,
        FrameKind::Kernel,
    ];

    /// The name that a trace has for it. Queries rely on these: they don't change.
    pub const fn name(self) -> &'static str {
        match self {
            FrameKind::User => "user",
            FrameKind::RustStd => "rust std",
            FrameKind::Runtime => "runtime",
            FrameKind::Crate => "crate",
            FrameKind::Native => "native",
            FrameKind::Kernel => "kernel",
        }
    }
}

impl fmt::Display for FrameKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// What a kind was told from; better evidence is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Evidence {
    /// Nothing speaks for another kind. Not enough to blame anybody's code.
    Guess,
    /// The function's name: a crate that is known by its name, or a form that only another language has.
    Name,
    /// The file that it was written in.
    Path,
}

/// A kind, and how well it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Whose code it is.
    pub kind: FrameKind,
    /// What says so.
    pub evidence: Evidence,
}

/// Whose code a function is, by its full name and the file that it was written in.
///
/// A file's path is the better witness: cargo and rustc have places of their own for all that is not the program's. See
/// [`origin_of`] for those, and for the projects that could be taken for one of them. An absolute path of a `.rs` file
/// outside of them is the user's.
///
/// Without a file, or with one whose path is relative to an unknown place, the crates in the name decide: that of the
/// function's path, for a method that of its type, and where this is a parameter, a primitive or one of the standard
/// library, that of the trait. Hence `<alloc::boxed::Box<S> as tower::Service<R>>::call` is of `tower`.
///
/// No list has all crates. One that is not known by its name is either the program's own or somebody else's, and
/// nothing in the name tells which. Such a function is [`User`](FrameKind::User), since code that is hidden by mistake is
/// not looked for, and its evidence is [`Guess`](Evidence::Guess). Who knows more, such as the crate of the program's
/// `main` or a function of the same crate with a path, can compare [`crate_of`] and do better. Names without any path,
/// such as those of C, are [`Native`](FrameKind::Native); a Rust function with `#[no_mangle]` is not told from them.
pub fn kind_of(function: &str, file: Option<&str>) -> Told {
    let Some(file) = file.filter(|file| place::is_known(file)) else { return kind_by_name(function) };
    if !place::is_rust(file) {
        return Told { kind: FrameKind::Native, evidence: Evidence::Path };
    }
    match Place::of(file) {
        Some(place) => place.told,
        // Build scripts of dependencies also write there.
        None if file.starts_with('/') && !place::is_generated(file) => {
            Told { kind: FrameKind::User, evidence: Evidence::Path }
        }
        None => kind_by_name(function),
    }
}

/// The folder, with its slash, of a package that stands among dependencies and is none: a program was made of it, as
/// `cargo install` does it. Told from what the compiler was given, as debug information has it: dependencies are
/// libraries, and programs begin in `main.rs` or in a file of `src/bin`.
pub fn built_package(unit: &str) -> Option<&str> {
    let (root, _codegen_unit) = unit.split_once("/@/")?;
    let folder = package_of(root).and(origin_of(root))?;
    let file = &root[folder.len()..];
    let is_program = file.starts_with("src/bin/") || file.rsplit('/').next() == Some("main.rs");
    is_program.then_some(folder)
}

/// The part of a path that makes it another's than the user's, with its last slash: all files that begin with it are of
/// one kind, but for those that are not Rust, of which this says nothing.
///
/// | path | kind |
/// | --- | --- |
/// | `/rustc/HASH/`, `/rust/deps/`, `…/rustlib/src/rust/`, `…/rustc-VERSION/library/` | `rust std` |
/// | `…/registry/src/INDEX-HASH/CRATE-VERSION/` | `crate` or `runtime` |
/// | `…/git/checkouts/REPOSITORY-HASH/COMMIT/`, up to the crate's folder | `crate` or `runtime` |
/// | `…/vendor/CRATE-VERSION/`, `…/vendor/CRATE/` if `src` follows | `crate` or `runtime` |
///
/// A folder `.cargo` decides nothing, nor does `registry` alone: only the hashes that cargo appends do. So a project in
/// `~/.cargo/work/` is its user's. `vendor` is a word that anyone may use, and a user's own crate in
/// `vendor/CRATE/src/` can't be told from a copy that `cargo vendor` made: [`kind_of`] calls this a
/// [`Guess`](Evidence::Guess), unless the crate is known by its name. `vendor/main.rs` and `vendor/a/b/src/main.rs` are
/// the user's.
pub fn origin_of(file: &str) -> Option<&str> {
    Place::of(file).filter(|_| place::is_rust(file)).map(|place| place.prefix)
}

/// `hyper-util-0.1.21/src/rt/tokio.rs` of a dependency's path, `library/core/src/cmp.rs` of the standard library's; others as
/// they are.
pub fn short_file(file: &str) -> String {
    let Some(origin) = origin_of(file) else { return file.to_owned() };
    if package_of(file).is_none() {
        return file[origin.len()..].to_owned();
    }
    let folder = origin.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    format!("{folder}/{}", &file[origin.len()..])
}

/// A source file as people are told of it, wherever that is: of a dependency [`short_file`], of others what follows the package's
/// folder. The same file has the same name then, however it was compiled: debug information has absolute paths, and what stands in
/// stripped programs is relative to the package's folder, or to that of its workspace.
///
/// | path | told |
/// | --- | --- |
/// | `/home/user/app/src/main.rs`, `app/src/main.rs`, `src/main.rs` | `src/main.rs` |
/// | `/home/user/app/tests/all.rs` | `tests/all.rs` |
/// | `/tmp/main.rs`, `main.rs` | `main.rs` |
pub fn told_file(file: &str) -> String {
    /// Where cargo looks for a package's sources.
    const FOLDERS: [&str; 4] = ["/src/", "/tests/", "/examples/", "/benches/"];
    if origin_of(file).is_some() {
        return short_file(file);
    }
    // So that a relative path's first folder is like any other.
    let path = format!("/{file}");
    let of_package = path.rfind(FOLDERS[0]).or_else(|| FOLDERS[1..].iter().find_map(|folder| path.find(folder)));
    let begin = of_package.or_else(|| path.rfind('/')).unwrap_or_default();
    path[begin + 1..].to_owned()
}

/// The same of `file:line`.
pub fn told_place(place: &str) -> String {
    match place.rsplit_once(':') {
        Some((file, line)) => format!("{}:{line}", told_file(file)),
        None => told_file(place),
    }
}

/// The package that a file is of, as its folder is called: `sqlx-core`. None for the user's files and those of the
/// standard library.
pub fn package_of(file: &str) -> Option<&str> {
    Place::of(file)?.package
}

/// The crate that decides where no file is known. None for functions of other languages.
pub fn crate_of(function: &str) -> Option<&str> {
    if has_arguments(function) {
        return None;
    }
    let crates = crates_of(function);
    let foreign = crates.of_type.filter(|name| !crates::is_std(name));
    let primitive = crates.of_primitive.then_some("core");
    foreign.or(crates.of_trait).or(crates.of_type).or(primitive)
}

impl Function {
    /// Whose code it is, as [`kind_of`] says of all but the package that was built.
    pub fn told(&self) -> Told {
        if self.is_of_built_package && self.file.as_deref().is_some_and(place::is_rust) {
            return Told { kind: FrameKind::User, evidence: Evidence::Path };
        }
        kind_of(&self.name, self.file.as_deref())
    }
}

fn kind_by_name(function: &str) -> Told {
    let (kind, evidence) = match crate_of(function) {
        Some(name) => crates::kind_of_crate(name),
        None if is_of_rust_itself(function) => (FrameKind::RustStd, Evidence::Name),
        // Generics that are written out, in a name that lacks its path: only Rust's debug information has both.
        None if function.ends_with('>') && !has_arguments(function) => (FrameKind::User, Evidence::Guess),
        None => (FrameKind::Native, Evidence::Name),
    };
    Told { kind, evidence }
}

/// Symbols of the standard library that other crates are linked by.
fn is_of_rust_itself(function: &str) -> bool {
    ["__rust", "__rdl_", "__rg_", "rust_begin_unwind", "rust_eh_personality", "rust_panic"]
        .iter()
        .any(|beginning| function.starts_with(beginning))
}
