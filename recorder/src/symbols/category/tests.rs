use std::{env, fs, path::Path};

use super::*;

fn function(name: &str, file: Option<&str>) -> Function {
    Function { name: name.to_owned(), file: file.map(str::to_owned), line: Some(1), ..Function::default() }
}

/// A function and its file.
type Frame<'a> = (&'a str, Option<&'a str>);

/// What a callstack is about, of functions and their files, the innermost first.
fn about(categories: &Categories, stack: &[Frame<'_>]) -> Option<String> {
    let functions: Vec<Function> = stack.iter().map(|(name, file)| function(name, *file)).collect();
    categories.of_callstack(&functions).map(|category| categories.name(category).to_owned())
}

/// Where cargo has a crate's file.
fn registry(file: &str) -> String {
    format!("/home/a/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/{file}")
}

const OWN: Frame<'_> = ("app::serve", Some("/home/a/app/src/main.rs"));

#[test]
fn the_file_that_is_built_in_can_be_followed() {
    let categories = Categories::read(BUILT_IN).expect("it can be read");
    let names: Vec<&str> = categories.names.iter().map(|name| &**name).collect();
    let expected = "logging dns database compression serialization crypto file network lock allocation";
    assert_eq!(names.join(" "), expected);
}

/// The package of SQL has its patterns from the same file. After a change there, write them with
/// `POLLETTO_WRITE=1 cargo test -p polletto --lib category`.
#[test]
fn the_package_of_sql_has_the_patterns_of_the_file() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/sql/polletto/patterns.sql");
    let expected = Categories::default().sql();
    if env::var_os("POLLETTO_WRITE").is_some() {
        fs::write(&path, &expected).expect("it can be written");
    }
    let present = fs::read_to_string(&path).expect("it is there");
    assert!(present == expected, "write it with `POLLETTO_WRITE=1 cargo test -p polletto --lib category`");
}

#[test]
fn code_is_about_what_the_programs_own_has_called() {
    let (json, alloc, inflate) = (
        registry("serde_json-1.0.1/src/ser.rs"),
        registry("x-1.0.0/src/lib.rs"),
        registry("miniz_oxide-0.8.0/src/a.rs"),
    );
    let sqlx = registry("sqlx-core-0.8.0/src/net.rs");
    let std_file = "/rustc/59807616e0000000000000000000000000000000/library/std/src/fs.rs";
    let malloc = ("__libc_malloc", None);
    let cases: [(&[Frame<'_>], Option<&str>); 12] = [
        (&[malloc, ("to_string", Some(&json)), OWN], Some("serialization")),
        (&[malloc, ("push", Some(&alloc)), OWN], Some("allocation")),
        (&[("find", Some(&inflate)), OWN], Some("compression")),
        (&[("__libc_pread64", None), ("read", Some(std_file)), OWN], Some("file")),
        (&[("__GI___poll", None), ("send", None), ("getaddrinfo", None), OWN], Some("dns")),
        (&[("ring_core_0_17_8_bn_mul_mont", None), ("run", Some(&sqlx)), OWN], Some("database")),
        (&[("std::io::stdio::_print", None), OWN], Some("logging")),
        (&[("<sha2::Sha256 as digest::Update>::update", None), ("app::hash", None)], Some("crypto")),
        (&[("core::ptr::drop_in_place", None), OWN], None),
        // What called the program's own code is not what it does.
        (&[OWN, ("run", Some(&sqlx))], None),
        // Without files nobody knows whose code it is.
        (&[("app::work", None), ("<sqlx::Pool as app::Run>::run", None)], Some("database")),
        (&[], None),
    ];
    let categories = Categories::default();
    for (stack, expected) in cases {
        assert_eq!(about(&categories, stack).as_deref(), expected, "{stack:?}");
    }
}

#[test]
fn people_add_categories_and_patterns() {
    let own = "templates crate:my-templates function:app::render* # ours\n\ndatabase function:app::store::*\n";
    let categories = Categories::with(own).expect("it can be read");
    let templates = registry("my_templates-1.0.0/src/lib.rs");
    let json = registry("serde_json-1.0.1/src/ser.rs");
    let stack = [("escape", Some(&*json)), ("fill", Some(&*templates)), OWN];
    assert_eq!(about(&categories, &stack).as_deref(), Some("templates"));
    assert_eq!(about(&categories, &[("app::store::get", None)]).as_deref(), Some("database"));
    assert_eq!(about(&categories, &stack[..1]).as_deref(), Some("serialization"));
    // It ranks as it did.
    assert_eq!(about(&categories, &[("app::store::get", None), ("log::log", None)]).as_deref(), Some("logging"));
    let sql = categories.sql();
    assert!(sql.contains("(0, 'templates', 'crate', 'my_templates')"), "{sql}");
}

#[test]
fn a_line_that_cant_be_followed_is_told() {
    for (text, line) in [
        ("lock", 1),
        ("# lock\n\nlock # crate:x", 3),
        ("lock crate:", 1),
        ("lock crate", 1),
        ("lock krate:x", 1),
        ("lo'ck crate:x", 1),
        ("a crate:b\ncrate:b a", 2),
        ("a\0 crate:b", 1),
        ("a function:b\0c", 1),
        (&format!("a function:{}", "b".repeat(1001)), 1),
    ] {
        assert_eq!(Categories::with(text).expect_err(text).line, line, "{text:?}");
    }
    let many = "a crate:b\n".repeat(MAX_PATTERNS + 1);
    assert_eq!(Categories::read(&many).expect_err("too many").line, MAX_PATTERNS + 1);
}

#[test]
fn a_star_stands_for_anything() {
    let matches = |text: &str, name: &str| {
        Pattern::read(&format!("function:{text}"), "a".into()).expect("a pattern").matches(name)
    };
    for (pattern, name, expected) in [
        ("free", "free", true),
        ("free", "freed", false),
        ("*free", "__libc_free", true),
        ("*free", "free_list", false),
        ("a*b*c", "a-b-b-c", true),
        ("a*b*c", "a-c-b", false),
        ("*", "", true),
        ("*a*", "", false),
        ("<*serde*>::*", "<x as serde::S>::f", true),
    ] {
        assert_eq!(matches(pattern, name), expected, "{pattern} and {name}");
    }
    // Takes no longer than their lengths, multiplied.
    assert!(!matches(&"*a".repeat(500), &"b".repeat(40_000)));
    let pattern = Pattern::read("function:<[u8]>::?*'", "a".into()).expect("a pattern");
    assert_eq!(pattern.glob(), "<[[]u8]>::[?]*'");
}
