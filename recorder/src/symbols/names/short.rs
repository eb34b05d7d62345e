//! A name that fits on a slice.

use super::{brackets, path::Path, types};

/// What compilers append to the name of a part or a copy of a function. A number may follow.
const CLONES: [&str; 9] = ["cold", "constprop", "hot", "isra", "llvm", "lto_priv", "part", "unlikely", "warm"];

/// The readable form of a full name: the function and what it is in, without generics, arguments and traits.
///
/// | full | short |
/// | --- | --- |
/// | `tokio::runtime::park::CachedParkThread::block_on::<F>` | `CachedParkThread::block_on` |
/// | `<alloc::vec::Vec<T, A> as core::ops::drop::Drop>::drop` | `Vec::drop` |
/// | `app::routes::upload::{async_fn#0}` | `upload::{async}` |
/// | `<app::Server as tower::Service<R>>::call::{{closure}}` | `Server::call::{closure}` |
/// | `std::vector<int, std::allocator<int> >::push_back(int const&)` | `vector::push_back` |
///
/// Closures and blocks stand behind their function, which then says enough without its module; two levels of them are
/// kept. Mangled names, legacy and v0, call the body of an `async fn` a closure, so only debug information leads to
/// `{async}`.
///
/// Different functions may have the same short name, which says nothing of identity. What is no name of Rust or C++
/// stays as it is. Takes time in proportion to the name's length.
pub fn short(full: &str) -> String {
    let name = without_clones(target_of_thunk(full));
    let mut out = String::with_capacity(40);
    if let Some(path) = Path::of_function(name) {
        write(&mut out, &path);
    }
    if out.is_empty() { full.to_owned() } else { out }
}

fn write(out: &mut String, path: &Path<'_>) {
    let inside_function = path.inner[1].is_some();
    if let Some(function) = path.function {
        if let Some(parent) = path.parent.filter(|parent| parent.is_type() || !inside_function) {
            parent.write(out);
            out.push_str("::");
        }
        function.write(out);
    }
    types::write_inner(out, path);
}

/// `name.part.0.cold` as `name`: they were one function when somebody wrote it.
fn without_clones(name: &str) -> &str {
    let (mut whole, mut rest) = (name, name);
    while let Some((before, suffix)) = rest.rsplit_once('.').filter(|(before, _)| !before.is_empty()) {
        let number = !suffix.is_empty() && suffix.bytes().all(|byte| byte.is_ascii_hexdigit());
        if CLONES.contains(&suffix) {
            whole = before;
        } else if !number {
            break;
        }
        rest = before;
    }
    whole
}

/// The function that `{virtual override thunk({offset(-8)}, FUNCTION)}` jumps to.
fn target_of_thunk(name: &str) -> &str {
    let thunk = name.strip_prefix("{virtual override thunk(").and_then(|inner| inner.strip_suffix(")}"));
    let Some(mut target) = thunk else { return name };
    while let Some(("offset" | "virtual offset", _)) = brackets_name(target) {
        let behind = &target[brackets::end_of(target, 0)..];
        target = behind.strip_prefix(", ").unwrap_or(behind);
    }
    target
}

/// `{NAME(…` as its name.
fn brackets_name(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix('{')?.split_once('(')
}
