//! Any text as a file of categories, and as names of functions and files that are compared with it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use polletto::symbols::{Categories, Function};

fuzz_target!(|texts: (&str, &str, Option<&str>)| {
    let (text, name, file) = texts;
    let Ok(categories) = Categories::with(text) else { return };
    let function = Function { name: name.to_owned(), file: file.map(str::to_owned), ..Function::default() };
    let about = categories.of_function(&function);
    // What is alone is about the same as its callstack.
    assert_eq!(categories.of_callstack([&function]), about);
    if let Some(category) = about {
        assert!(!categories.name(category).is_empty());
    }
    // Nothing in a pattern ends the text that it stands in.
    let sql = categories.sql();
    assert!(!sql.contains('\0') && sql.matches('\'').count() % 2 == 0);
});
