//! Any text as a function's name and as a file's path.

#![no_main]

use libfuzzer_sys::fuzz_target;
use polletto::symbols::{Evidence, FrameKind, crate_of, demangle, kind_of, origin_of, short};

fuzz_target!(|texts: (&str, &str)| {
    let (mangled, file) = texts;
    let full = demangle(mangled);
    assert!(full.len() <= mangled.len().max(64 << 10));
    for function in [mangled, &full] {
        let label = short(function);
        assert_eq!(label.is_empty(), function.is_empty());
        crate_of(function);
        for file in [None, Some(file)] {
            assert_ne!(kind_of(function, file).kind, FrameKind::Kernel);
        }
    }
    if let Some(origin) = origin_of(file) {
        assert!(file.starts_with(origin) && origin.ends_with('/') && file.len() > origin.len());
        // All that is in it is of one kind.
        let kind = |file: &str| kind_of("", Some(file)).kind;
        assert_eq!(kind(file), kind(&format!("{origin}src/lib.rs")));
        assert!(kind_of("", Some(file)).evidence != Evidence::Name);
    }
});
