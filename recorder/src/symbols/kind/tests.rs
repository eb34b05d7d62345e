use super::*;

const CARGO: &str = "/home/x/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f";

#[track_caller]
fn check_path(file: &str, kind: FrameKind, evidence: Evidence, origin: Option<&str>) {
    assert_eq!(kind_of("unknown_crate::run", Some(file)), Told { kind, evidence }, "of {file}");
    assert_eq!(origin_of(file), origin, "of {file}");
}

#[test]
fn the_places_of_cargo_and_rustc_tell_whose_code_it_is() {
    use FrameKind::{Crate, Runtime, RustStd};
    for (kind, prefix, rest) in [
        (RustStd, "/rustc/59807616e1fa2540724bfbac14d7976d7e4a3860/", "library/core/src/num/mod.rs"),
        (RustStd, "/rustc/59807616e1fa2540724bfbac14d7976d7e4a3860//", "library/std/src/rt.rs"),
        (RustStd, "/rust/deps/", "hashbrown-0.16.1/src/raw.rs"),
        (RustStd, "/home/x/.rustup/toolchains/stable/lib/rustlib/src/rust/", "library/std/src/rt.rs"),
        (RustStd, "/usr/src/rustc-1.63.0/library/", "alloc/src/vec/mod.rs"),
        (RustStd, "library/", "compiler-builtins/src/mem.rs"),
        (Runtime, &format!("{CARGO}/tokio-1.54.1/"), "src/runtime/task/mod.rs"),
        (Runtime, &format!("{CARGO}/async-task-4.7.1/"), "src/raw.rs"),
        (Crate, &format!("{CARGO}/tokio-util-0.7.18/"), "src/codec/framed.rs"),
        (Crate, &format!("{CARGO}/sha-1-0.10.0/"), "src/lib.rs"),
        (Crate, &format!("{CARGO}/zstd-sys-2.0.13+zstd.1.5.6/"), "src/lib.rs"),
        (Crate, &format!("{CARGO}/pack-1.0.0-alpha.1/"), "vendor/tokio/src/lib.rs"),
        (Crate, "/usr/local/cargo/registry/src/github.com-1ecc6299db9ec823/http-1.5.0/", "src/lib.rs"),
        (Runtime, "/home/x/.cargo/git/checkouts/tokio-0123456789abcdef/1a2b3c4/tokio/", "src/lib.rs"),
        (Crate, "/home/x/.cargo/git/checkouts/tokio-0123456789abcdef/1a2b3c4/tokio-util/", "src/lib.rs"),
        (Runtime, "/home/x/.cargo/git/checkouts/glommio-0123456789abcdef/1a2b3c4/", "src/lib.rs"),
        (Runtime, "/work/app/vendor/tokio/", "src/lib.rs"),
        (Crate, "/work/app/vendor/anything-1.2.3/", "lib.rs"),
    ] {
        check_path(&format!("{prefix}{rest}"), kind, Evidence::Path, Some(prefix));
    }
}

#[test]
fn other_rust_files_are_the_users_wherever_the_project_is() {
    for file in [
        "/home/x/app/src/main.rs",
        "/home/x/.cargo/work/app/src/main.rs",
        "/home/x/.cargo/registry/src/app/src/main.rs",
        "/home/x/registry/src/main.rs",
        "/home/x/vendor/main.rs",
        "/home/x/vendor/team/app/src/main.rs",
        "/home/x/library/core/src/main.rs",
        "/home/x/rustc/abcdef0/library/main.rs",
        "/home/x/git/checkouts/app/src/main.rs",
    ] {
        check_path(file, FrameKind::User, Evidence::Path, None);
    }
}

#[test]
fn an_unknown_crate_in_a_folder_called_vendor_is_a_guess() {
    check_path("/home/x/vendor/app/src/main.rs", FrameKind::Crate, Evidence::Guess, Some("/home/x/vendor/app/"));
    let both = "/home/x/vendor/app/vendor/mio/src/lib.rs";
    check_path(both, FrameKind::Runtime, Evidence::Path, Some("/home/x/vendor/app/vendor/mio/"));
}

#[test]
fn what_is_not_written_in_rust_is_native_and_of_no_origin() {
    for file in
        ["/usr/include/c++/12/bits/stl_vector.h", "/usr/include/c++/12/vector", "memcpy.S", "/vendor/zstd-1.0.0/a.c"]
    {
        check_path(file, FrameKind::Native, Evidence::Path, None);
    }
    check_path(&format!("{CARGO}/zstd-sys-2.0.13/zstd/lib/compress.c"), FrameKind::Native, Evidence::Path, None);
}

#[test]
fn a_file_at_no_known_place_leaves_it_to_the_name() {
    for file in ["src/runtime/mod.rs", "", "??", "<unknown>", "/t/build/tokio-0123456789abcdef/out/generated.rs"] {
        let told = kind_of("tokio::runtime::park", Some(file));
        assert_eq!(told, Told { kind: FrameKind::Runtime, evidence: Evidence::Name }, "of {file}");
        assert_eq!(origin_of(file), None);
    }
}

#[test]
fn a_program_that_was_made_of_a_package_among_dependencies_is_its_own() {
    let unit = |file: &str| format!("{CARGO}/{file}/@/app.0123456789abcdef-cgu.03");
    for program in ["app-1.2.0/src/main.rs", "app-1.2.0/src/bin/serve.rs", "app-1.2.0/crates/core/main.rs"] {
        assert_eq!(built_package(&unit(program)), Some(&*format!("{CARGO}/app-1.2.0/")), "{program}");
    }
    let library = unit("app-1.2.0/src/lib.rs");
    let at_home = "/home/user/app/src/main.rs/@/app.0123456789abcdef-cgu.0".to_owned();
    let of_std = "/rustc/59807616e1fa2540724bfbac14d7976d7e4a3860/library/std/src/main.rs/@/std.1-cgu.0".to_owned();
    let of_c = format!("{CARGO}/app-1.2.0/src/main.rs");
    for other in [library, at_home, of_std, of_c, String::new()] {
        assert_eq!(built_package(&other), None, "{other}");
    }

    let told = |file: &str, is_of_built_package| {
        Function { name: "app::run".into(), file: Some(format!("{CARGO}/{file}")), line: None, is_of_built_package }
            .told()
    };
    assert_eq!(told("app-1.2.0/src/lib.rs", true), Told { kind: FrameKind::User, evidence: Evidence::Path });
    assert_eq!(told("app-1.2.0/src/lib.rs", false).kind, FrameKind::Crate);
    assert_eq!(told("app-1.2.0/native/a.c", true).kind, FrameKind::Native, "as everywhere");
}

#[test]
fn without_a_file_the_crates_in_the_name_decide() {
    use self::Evidence::{Guess, Name};
    use FrameKind::{Crate, Native, Runtime, RustStd, User};
    for (function, name, kind, evidence) in [
        ("std::rt::lang_start", Some("std"), RustStd, Name),
        ("tokio::runtime::Runtime::block_on", Some("tokio"), Runtime, Name),
        ("<futures_executor::Park>::park", Some("futures_executor"), Runtime, Name),
        ("hyper::proto::h1::dispatch", Some("hyper"), Crate, Name),
        ("tokio_util::codec::read", Some("tokio_util"), Crate, Name),
        ("__rustc::__rust_dealloc", Some("__rustc"), RustStd, Name),
        ("<async_net::tcp::TcpStream as futures_io::AsyncRead>::poll_read", Some("async_net"), Runtime, Name),
        ("<async_fs::File>::open::{closure#0}", Some("async_fs"), Runtime, Name),
        ("<async_process::Child>::status", Some("async_process"), Runtime, Name),
        ("async_lock::mutex::Mutex<T>::acquire_slow", Some("async_lock"), Crate, Name),
        ("parking::Inner::park", Some("parking"), Crate, Name),
        ("hashbrown::raw::RawTable<T>::find", Some("hashbrown"), RustStd, Guess),
        ("my_app::routes::upload", Some("my_app"), User, Guess),
        ("<my_app::A as tower::Service<R>>::call", Some("my_app"), User, Guess),
        ("<alloc::boxed::Box<S> as tower::Service<R>>::call", Some("tower"), Crate, Name),
        ("<T as my_app::Trait>::run", Some("my_app"), User, Guess),
        ("<T as core::convert::Into<U>>::into", Some("core"), RustStd, Name),
        ("<alloc::vec::Vec<T> as core::ops::Drop>::drop", Some("core"), RustStd, Name),
        ("<alloc::vec::Vec<T>>::push", Some("alloc"), RustStd, Name),
        ("<[u8]>::sort", Some("core"), RustStd, Name),
        ("__rust_alloc", None, RustStd, Name),
        ("poll<app::A, app::B>", None, User, Guess),
        ("memcpy", None, Native, Name),
        ("std::vector<int>::push_back(int const&)", None, Native, Name),
        ("{virtual override thunk({offset(-8)}, node::A::run())}", None, Native, Name),
        ("", None, Native, Name),
    ] {
        assert_eq!(crate_of(function), name, "of {function}");
        assert_eq!(kind_of(function, None), Told { kind, evidence }, "of {function}");
    }
}

#[test]
fn kinds_have_the_names_that_queries_know() {
    let names = FrameKind::ALL.map(|kind| kind.to_string());
    assert_eq!(names, ["user", "rust std", "runtime", "crate", "native", "kernel"]);
}

#[test]
fn better_evidence_is_greater() {
    assert!(Evidence::Path > Evidence::Name && Evidence::Name > Evidence::Guess);
}

#[test]
fn places_in_dependencies_are_told_from_their_crate_on() {
    let registry = "/home/a/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/hyper-util-0.1.21/src/rt/tokio.rs";
    assert_eq!(short_file(registry), "hyper-util-0.1.21/src/rt/tokio.rs");
    assert_eq!(short_file("src/main.rs"), "src/main.rs");
}

#[test]
fn a_file_is_told_in_one_way_however_it_was_compiled() {
    for (told, paths) in [
        (
            "src/main.rs",
            &["/home/user/app/src/main.rs", "app/src/main.rs", "src/main.rs", "/usr/src/app/src/main.rs"][..],
        ),
        ("src/bin/server/tests.rs", &["/home/user/app/src/bin/server/tests.rs", "src/bin/server/tests.rs"]),
        ("tests/all.rs", &["/home/user/app/tests/all.rs", "tests/all.rs"]),
        ("main.rs", &["/tmp/main.rs", "main.rs"]),
        (
            "axum-0.8.9/src/serve/mod.rs",
            &["/home/user/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/axum-0.8.9/src/serve/mod.rs"],
        ),
        (
            "library/core/src/cmp.rs",
            &[
                "/rustc/59807616e1fa2540724bfbac14d7976d7e4a3860/library/core/src/cmp.rs",
                "/home/user/.rustup/toolchains/stable/lib/rustlib/src/rust/library/core/src/cmp.rs",
            ],
        ),
        ("", &[""]),
    ] {
        for path in paths {
            assert_eq!(super::told_file(path), told, "{path}");
            assert_eq!(super::told_place(&format!("{path}:7")), format!("{told}:7"));
        }
    }
}
