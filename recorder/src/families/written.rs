//! Types of futures as people read them.

use crate::symbols::{brackets, short as short_path};

/// What stands around a closure that may block: Tokio's type, and the function of the crate `blocking`.
pub const BLOCKING: [&str; 2] = ["tokio::runtime::blocking::task::BlockingTask", "blocking::unblock"];

/// What stands around a future and says nothing of it.
const WRAPPERS: [&str; 9] = [
    BLOCKING[0],
    BLOCKING[1],
    "core::pin::Pin",
    "alloc::boxed::Box",
    "tracing::instrument::Instrumented",
    "tracing::instrument::WithDispatch",
    "futures_util::abortable::Abortable",
    "futures_util::future::future::catch_unwind::CatchUnwind",
    "tokio::task::coop::unconstrained::Unconstrained",
];

/// Types that are inside of others without a name for them are followed so deep.
const LEVELS: usize = 8;

/// What is between the brackets of `NAME<A, B>` or `NAME::<A,B>`. None if those are not as many.
pub fn arguments<const N: usize>(name: &str) -> Option<[&str; N]> {
    let open = name.find('<')?;
    let (inner, end) = brackets::inside(name, open);
    if end != name.len() {
        return None;
    }
    let mut arguments = [""; N];
    let mut rest = Some(inner);
    for argument in &mut arguments {
        let (first, others) = match brackets::split_once(rest?, ",") {
            Some((first, others)) => (first, Some(others)),
            None => (rest?, None),
        };
        *argument = first.trim();
        rest = others;
    }
    (rest.is_none() && arguments.iter().all(|argument| !argument.is_empty())).then_some(arguments)
}

/// `PATH<A>` as `PATH`. What is generic stands last in the names of types.
pub fn without_arguments(of_type: &str) -> &str {
    of_type.find('<').filter(|&at| at > 0).map_or(of_type, |at| of_type[..at].trim_end_matches("::"))
}

/// The function that a task for blocking code runs.
pub fn inside_of_blocking(of_type: &str) -> &str {
    match arguments::<1>(of_type) {
        Some([inner]) if BLOCKING.contains(&without_arguments(of_type)) => inner,
        _ => of_type,
    }
}

/// The whole type, with blocks and closures as the short name has them, and numbers.
///
/// | compiler | full |
/// | --- | --- |
/// | `app::run::{async_fn_env#0}<T>` | `app::run::{async}<T>` |
/// | `app::run::{async_fn#0}::{async_block_env#2}` | `app::run::{async}::{async#2}` |
/// | `app::run::{closure_env#1}` | `app::run::{closure#1}` |
/// | `app::run::{{closure}}` | `app::run::{async}` |
pub fn full(of_type: &str) -> String {
    let mut out = readable(of_type);
    // Symbols call the body of an `async fn` a closure. A closure is no future, so this is none.
    if !of_type.contains("_env#")
        && let Some((before, last)) = out.rsplit_once("::")
        && last.starts_with("{closure")
        && last.ends_with('}')
    {
        out = format!("{before}::{}", last.replacen("closure", "async", 1));
    }
    out
}

fn readable(of_type: &str) -> String {
    let mut out = String::with_capacity(of_type.len());
    let mut rest = of_type;
    while let Some(open) = rest.find('{') {
        out.push_str(&rest[..open]);
        let end = rest[open..].find('}').map_or(rest.len(), |end| open + end + 1);
        let end = end + rest[end..].bytes().take_while(|&byte| byte == b'}').count();
        write_braced(&mut out, &rest[open..end]);
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

fn write_braced(out: &mut String, braced: &str) {
    let inner = braced.trim_start_matches('{').trim_end_matches('}');
    let (kind, number) = inner.split_once('#').map_or((inner, None), |(kind, number)| (kind, Some(number)));
    let (kind, number) = match kind.strip_suffix("_env").unwrap_or(kind) {
        "async_fn" => ("async", None),
        "async_block" | "async_closure" => ("async", number),
        kind => (kind, number),
    };
    out.push('{');
    out.push_str(kind);
    if let Some(number) = number {
        out.push('#');
        out.push_str(number);
    }
    out.push('}');
}

/// What fits on a slice: of what is inside of boxes and the like. A future around a block is named with that. Of a function that
/// may block, debug information tells no more than what it takes and returns.
pub fn short(of_type: &str) -> String {
    short_within(of_type, LEVELS)
}

fn short_within(of_type: &str, levels: usize) -> String {
    let mut inner = of_type;
    for _ in 0..LEVELS {
        let path = without_arguments(inner);
        let Some(open) = inner.find('<').filter(|_| WRAPPERS.contains(&path)) else { break };
        inner = first_argument(inner, open);
    }
    if inner.starts_with("dyn ") || inner.starts_with("(dyn ") {
        return "dyn Future".to_owned();
    }
    if inner.starts_with("fn(") {
        return inner.to_owned();
    }
    // What blocks may be a closure.
    let name = short_path(&if inside_of_blocking(of_type) == of_type { full(inner) } else { readable(inner) });
    match inner.find('<').filter(|&at| at > 0 && inner.ends_with('>')) {
        Some(open) if levels > 0 && first_argument(inner, open).ends_with('}') => {
            format!("{name}<{}>", short_within(first_argument(inner, open), levels - 1))
        }
        _ => name,
    }
}

/// Of those that begin with the bracket at `open`.
fn first_argument(of_type: &str, open: usize) -> &str {
    let arguments = brackets::inside(of_type, open).0;
    brackets::split_once(arguments, ",").map_or(arguments, |(first, _)| first).trim()
}
