//! Crates that are known by their names.

use super::{Evidence, FrameKind};

/// Those that come with the compiler, and are not to be had elsewhere.
const STD: [&str; 12] = [
    "__rustc",
    "alloc",
    "compiler_builtins",
    "core",
    "panic_abort",
    "panic_unwind",
    "proc_macro",
    "std",
    "std_detect",
    "stdarch",
    "test",
    "unwind",
];

/// What the standard library is built with. A program may also have its own.
const BELOW_STD: [&str; 6] = ["addr2line", "adler2", "gimli", "hashbrown", "miniz_oxide", "rustc_demangle"];

/// What polls tasks, and waits for their events, timers and blocking calls.
const RUNTIMES: [&str; 22] = [
    "actix_rt",
    "async_executor",
    "async_fs",
    "async_global_executor",
    "async_io",
    "async_net",
    "async_process",
    "async_signal",
    "async_std",
    "async_task",
    "blocking",
    "compio_driver",
    "compio_runtime",
    "embassy_executor",
    "futures_executor",
    "glommio",
    "mio",
    "monoio",
    "polling",
    "smol",
    "tokio",
    "tokio_uring",
];

/// What async programs are made of. Only where no path is known does it matter whether one is missing.
const WELL_KNOWN: [&str; 106] = [
    "actix_http",
    "actix_web",
    "ahash",
    "aho_corasick",
    "anyhow",
    "arc_swap",
    "async_broadcast",
    "async_channel",
    "async_lock",
    "async_stream",
    "async_trait",
    "atomic_waker",
    "aws_lc_rs",
    "axum",
    "axum_core",
    "base64",
    "bincode",
    "bitflags",
    "bytes",
    "chrono",
    "clap",
    "clap_builder",
    "concurrent_queue",
    "crossbeam",
    "crossbeam_channel",
    "crossbeam_deque",
    "crossbeam_epoch",
    "crossbeam_queue",
    "crossbeam_utils",
    "dashmap",
    "diesel",
    "either",
    "env_logger",
    "event_listener",
    "event_listener_strategy",
    "fastrand",
    "flate2",
    "flume",
    "futures",
    "futures_channel",
    "futures_core",
    "futures_io",
    "futures_lite",
    "futures_sink",
    "futures_timer",
    "futures_util",
    "getrandom",
    "h2",
    "h3",
    "http",
    "http_body",
    "http_body_util",
    "httparse",
    "hyper",
    "hyper_rustls",
    "hyper_util",
    "indexmap",
    "itertools",
    "itoa",
    "jemallocator",
    "kv_log_macro",
    "lazy_static",
    "libc",
    "lock_api",
    "log",
    "matchit",
    "memchr",
    "nix",
    "num_bigint",
    "once_cell",
    "openssl",
    "parking",
    "parking_lot",
    "parking_lot_core",
    "pin_project_lite",
    "piper",
    "prost",
    "quinn",
    "quinn_proto",
    "rand",
    "rand_core",
    "rayon",
    "rayon_core",
    "redis",
    "regex",
    "regex_automata",
    "regex_syntax",
    "reqwest",
    "ring",
    "rustix",
    "rustls",
    "ryu",
    "serde",
    "serde_core",
    "serde_json",
    "sharded_slab",
    "slab",
    "smallvec",
    "socket2",
    "sqlx_core",
    "tokio_rustls",
    "tokio_util",
    "tonic",
    "tower",
    "tracing",
    "waker_fn",
];

/// More of [`WELL_KNOWN`], of names that begin alike.
const FAMILIES: [&str; 9] =
    ["tokio_", "tower_", "tracing_", "serde_", "futures_", "sqlx_", "opentelemetry", "actix_", "windows_"];

pub(super) fn is_std(name: &str) -> bool {
    STD.contains(&name)
}

/// The kind of a crate as the code has it, with `_`.
pub(super) fn kind_of_crate(name: &str) -> (FrameKind, Evidence) {
    if is_std(name) {
        (FrameKind::RustStd, Evidence::Name)
    } else if BELOW_STD.contains(&name) {
        (FrameKind::RustStd, Evidence::Guess)
    } else if RUNTIMES.contains(&name) {
        (FrameKind::Runtime, Evidence::Name)
    } else if is_well_known(name) {
        (FrameKind::Crate, Evidence::Name)
    } else {
        (FrameKind::User, Evidence::Guess)
    }
}

/// The kind of a dependency as cargo has it, with `-` or `_`.
pub(super) fn kind_of_dependency(package: &str) -> FrameKind {
    if RUNTIMES.contains(&package.replace('-', "_").as_str()) { FrameKind::Runtime } else { FrameKind::Crate }
}

/// True for packages that nobody's own has the name of.
pub(super) fn is_published(package: &str) -> bool {
    let name = package.replace('-', "_");
    RUNTIMES.contains(&name.as_str()) || BELOW_STD.contains(&name.as_str()) || is_well_known(&name)
}

fn is_well_known(name: &str) -> bool {
    WELL_KNOWN.contains(&name) || FAMILIES.iter().any(|beginning| name.starts_with(beginning))
}
