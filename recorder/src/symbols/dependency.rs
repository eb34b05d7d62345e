//! Whose code a callstack is in that leads through none of the program's own.
//!
//! What happens there is one thing, however many functions of its libraries are inlined into each other: a response that is
//! compressed in a poll of the server's library is in another of them whenever it is looked at. So the crate tells where that
//! is. `tools/sql/polletto/code.sql` tells it alike.

use super::{FrameKind, Function, crate_of, package_of};

/// A function that is neither the program's own nor of the standard library, and its crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency<'f> {
    /// As the code has it, with `_`.
    pub krate: String,
    /// The function.
    pub function: &'f Function,
}

/// Of a callstack, the innermost first: the first function of a crate that the program depends on, and of what polls its tasks
/// only if there is no other.
pub fn dependency_of<'f>(functions: impl IntoIterator<Item = &'f Function>) -> Option<Dependency<'f>> {
    let mut of_runtime = None;
    for function in functions {
        let file = function.file.as_deref();
        let kind = function.told().kind;
        let by_name = || crate_of(&function.name).filter(|_| kind != FrameKind::Native);
        let Some(krate) = file.and_then(package_of).or_else(by_name) else { continue };
        let dependency = || Dependency { krate: krate.replace('-', "_"), function };
        match kind {
            FrameKind::Crate | FrameKind::Native => return Some(dependency()),
            FrameKind::Runtime => of_runtime = of_runtime.or_else(|| Some(dependency())),
            FrameKind::User | FrameKind::RustStd | FrameKind::Kernel => {}
        }
    }
    of_runtime
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGISTRY: &str = "/home/user/.cargo/registry/src/index.crates.io-6f17d22bba15001f";

    fn function(name: &str, file: Option<&str>) -> Function {
        let file = file.map(|file| file.replace('~', REGISTRY));
        Function { name: name.to_owned(), file, line: Some(7), ..Function::default() }
    }

    #[test]
    fn a_callstack_is_in_the_innermost_crate_that_is_not_the_runtime() {
        let std = || function("core::slice::copy", Some("/rustc/59807616e1fa/library/core/src/slice/mod.rs"));
        let tokio = || function("tokio::runtime::task::poll", Some("~/tokio-1.54.1/src/runtime/task/mod.rs"));
        let zstd = || function("ZSTD_compressBlock", Some("~/zstd-sys-2.0.16+zstd.1.5.7/zstd/lib/compress/zstd.c"));
        let deflate = || function("miniz_oxide::deflate::compress", Some("~/miniz_oxide-0.8.9/src/deflate/core.rs"));
        let hyper = || function("hyper::proto::h1::poll", None);
        let libc = || function("__memcpy_avx", None);
        for (callstack, expected) in [
            (vec![std(), deflate(), hyper(), tokio()], Some("miniz_oxide")),
            (vec![libc(), zstd(), deflate()], Some("zstd_sys")),
            (vec![tokio(), hyper(), deflate()], Some("hyper")),
            (vec![libc(), std(), tokio()], Some("tokio")),
            (vec![libc(), std()], None),
            (vec![function("app::serve", None)], None),
        ] {
            assert_eq!(dependency_of(&callstack).map(|of| of.krate).as_deref(), expected, "{callstack:?}");
        }
    }
}
