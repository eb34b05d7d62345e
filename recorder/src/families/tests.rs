//! How futures are written.

use super::{NameTier, by_futures, by_places, written};

#[test]
fn futures_are_written_without_what_only_compilers_know() {
    for (of_type, full, short) in [
        ("app::run::{async_fn_env#0}<app::T<u8>>", "app::run::{async}<app::T<u8>>", "run::{async}"),
        ("app::run::{async_fn#0}::{async_block_env#2}", "app::run::{async}::{async#2}", "run::{async}::{async}"),
        ("app::run::{{closure}}", "app::run::{async}", "run::{async}"),
        ("app::run::{{closure}}::{{closure}}", "app::run::{closure}::{async}", "run::{closure}::{async}"),
        ("app::run::<u8>::{closure#0}", "app::run::<u8>::{async#0}", "run::{async}"),
        ("<app::Server>::run::{closure#0}", "<app::Server>::run::{async#0}", "Server::run::{async}"),
        ("app::{impl#1}::run::{async_fn_env#0}", "app::{impl#1}::run::{async}", "run::{async}"),
        (
            "tokio::runtime::blocking::task::BlockingTask<app::run::{async_fn#0}::{closure_env#1}>",
            "tokio::runtime::blocking::task::BlockingTask<app::run::{async}::{closure#1}>",
            "run::{async}::{closure}",
        ),
        (
            "tokio::runtime::blocking::task::BlockingTask<app::run::{{closure}}>",
            "tokio::runtime::blocking::task::BlockingTask<app::run::{closure}>",
            "run::{closure}",
        ),
        (
            "tokio::runtime::blocking::task::BlockingTask<fn() -> u64>",
            "tokio::runtime::blocking::task::BlockingTask<fn() -> u64>",
            "fn() -> u64",
        ),
        ("blocking::unblock<app::run::{{closure}}>", "blocking::unblock<app::run::{closure}>", "run::{closure}"),
        (
            "core::pin::Pin<alloc::boxed::Box<(dyn core::future::future::Future<Output=u8> + core::marker::Send), A>>",
            "core::pin::Pin<alloc::boxed::Box<(dyn core::future::future::Future<Output=u8> + core::marker::Send), A>>",
            "dyn Future",
        ),
        (
            "tracing::instrument::Instrumented<app::f::{async_fn_env#0}>",
            "tracing::instrument::Instrumented<app::f::{async}>",
            "f::{async}",
        ),
        ("hyper::server::conn::Connection<I, S>", "hyper::server::conn::Connection<I, S>", "conn::Connection"),
        ("app::Hand", "app::Hand", "app::Hand"),
        ("{", "{}", "{}"),
        ("", "", ""),
    ] {
        assert_eq!(written::full(of_type), full);
        assert_eq!(written::short(of_type), short, "of {of_type}");
    }
}

#[test]
fn arguments_are_as_many_as_are_asked_for() {
    assert_eq!(written::arguments("poll<a::B<C, D>, fn(E) -> F>"), Some(["a::B<C, D>", "fn(E) -> F"]));
    assert_eq!(written::arguments("::<A,B>"), Some(["A", "B"]));
    assert_eq!(written::arguments::<2>("poll<A>"), None);
    assert_eq!(written::arguments::<1>("poll<A, B>"), None);
    assert_eq!(written::arguments::<1>("poll<A>.cold"), None);
    for broken in ["", "<", ">", "poll<", "poll<>", "poll<,>", "poll<A"] {
        assert_eq!(written::arguments::<2>(broken), None, "{broken}");
    }
}

#[test]
fn a_block_is_written_where_the_only_one_stands_that_its_code_polls() {
    let block = |line| ("src/main.rs".to_owned(), line);
    let [one, several] = [vec![block(7)], vec![block(7), block(9)]];
    for (futures, blocks, expected) in [
        (&["app::run::{{closure}}"][..], &one, Some(block(7))),
        (&["app::run::{async_fn_env#0}<u8>"], &one, Some(block(7))),
        (&["app::run::{{closure}}"], &several, None),
        (&["app::run::{{closure}}"], &Vec::new(), None),
        (&["app::run::{{closure}}", "app::walk::{{closure}}"], &one, None),
        (&["app::Hand"], &one, None),
    ] {
        let mut name = by_futures(futures, NameTier::DropGlue).unwrap();
        name.add_place(blocks);
        assert_eq!(name.place, expected, "{futures:?}, {blocks:?}");
    }
}

#[test]
fn places_of_several_blocks_are_all_told() {
    let places = |lines: &[u32]| lines.iter().map(|&line| ("a.rs".to_owned(), line)).collect::<Vec<_>>();
    let named = |lines: &[u32]| by_places(&places(lines)).map(|name| (name.full, name.ambiguous, name.place));
    assert_eq!(named(&[1]), Some(("a.rs:1".to_owned(), false, Some(("a.rs".to_owned(), 1)))));
    assert_eq!(named(&[1, 3]), Some(("a.rs:1 | a.rs:3".to_owned(), true, None)));
    assert_eq!(named(&[1, 2, 3, 4]), None);
    assert_eq!(named(&[]), None);
}

#[test]
fn names_in_a_trace_stay_what_they_are() {
    let names = NameTier::ALL.map(NameTier::name);
    assert_eq!(names, ["dwarf", "symbol", "drop-glue", "location", "vtable"]);
}
