use std::borrow::Cow;

use super::super::demangle;

#[track_caller]
fn check(cases: &[(&str, &str)]) {
    for (mangled, expected) in cases {
        assert_eq!(demangle(mangled), *expected, "of {mangled}");
    }
}

#[test]
fn rust_names_lose_their_hashes() {
    check(&[
        ("_ZN4axum4util17PercentDecodedStr3new17h3db9504cbfcee62aE", "axum::util::PercentDecodedStr::new"),
        (
            "_RINvMNtCsgEmfK2I1SDS_4core3stre18trim_start_matchesReECsgY6Mt91CT9J_14rustc_demangle",
            "<str>::trim_start_matches::<&str>",
        ),
        (
            "_RINvMNtCsgEmfK2I1SDS_4core5sliceSh11copy_withinINtNtNtB5_3ops5range14RangeInclusivejEECsfEOYDRpO4Ta_11miniz_oxide",
            "<[u8]>::copy_within::<core::ops::range::RangeInclusive<usize>>",
        ),
    ]);
}

#[test]
fn c_plus_plus_names_keep_their_arguments() {
    check(&[
        (
            "_ZNSt6vectorI11uv_dirent_sSaIS0_EE17_M_default_appendEm",
            "std::vector<uv_dirent_s, std::allocator<uv_dirent_s> >::_M_default_append(unsigned long)",
        ),
        ("_ZN4llvm3fooEv", "llvm::foo()"),
    ]);
}

#[test]
fn c_names_are_as_they_were_and_are_not_copied() {
    for name in [
        "memcpy",
        "main",
        "",
        "_",
        "_start",
        "R",
        "RSA_new",
        "ZN3foo3barE",
        "__ZN3foo3barE",
        "foo.cold",
        "a@plt",
        "@",
        "@@V",
    ] {
        assert!(matches!(demangle(name), Cow::Borrowed(same) if same == name), "of {name}");
    }
    assert!(matches!(demangle("memcpy@@GLIBC_2.14"), Cow::Borrowed("memcpy")));
}

#[test]
fn versions_and_the_numbers_of_promoted_functions_are_dropped() {
    check(&[
        ("memcpy@GLIBC_2.2.5", "memcpy"),
        ("memcpy@@GLIBC_2.14", "memcpy"),
        ("_ZNSo3putEc@@GLIBCXX_3.4", "std::ostream::put(char)"),
        ("static_function.llvm.1234", "static_function"),
        ("static_function.llvm.1234.cold", "static_function.cold"),
        ("name.llvm.x", "name.llvm.x"),
        (
            "_ZN4axum5serve17handle_connection28_$u7b$$u7b$closure$u7d$$u7d$28_$u7b$$u7b$closure$u7d$$u7d$17hd3d36394c2e21c3bE.llvm.18338006549367276931",
            "axum::serve::handle_connection::{{closure}}::{{closure}}",
        ),
        ("_ZN4core3foo17h0123456789abcdefE.llvm.123.cold", "core::foo.cold"),
    ]);
}

#[test]
fn parts_of_a_function_keep_their_mark() {
    check(&[
        ("_ZN4llvm3fooEv.cold", "llvm::foo() (.cold)"),
        ("_ZN4llvm3fooEv.isra.0.cold", "llvm::foo() (.isra.0.cold)"),
        ("_ZN4core3foo17h0123456789abcdefE.cold", "core::foo.cold"),
        ("_RNvC6_123foo3bar.cold", "123foo::bar.cold"),
    ]);
}
