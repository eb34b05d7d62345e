use std::time::{Duration, Instant};

use super::super::{MANGLED_BYTES, crates_of, demangle, short};

/// Generous: each of these takes a few milliseconds without optimization.
const SOON: Duration = Duration::from_secs(2);

#[test]
fn a_name_that_would_become_gigabytes_stays_mangled() {
    let start = Instant::now();
    assert_eq!(
        demangle(&doubled_rust(2)),
        "a::<((), ()), (((), ()), ((), ())), ((((), ()), ((), ())), (((), ()), ((), ())))>"
    );
    assert!(demangle(&doubled_c_plus_plus(2)).starts_with("f(std::pair<int, int>, std::pair<std::pair<int, int>, "));
    for name in [doubled_rust(30), doubled_c_plus_plus(30)] {
        assert_eq!(demangle(&name), name.as_str());
    }
    assert!(start.elapsed() < SOON);
}

/// Each tuple has the one before it twice.
fn doubled_rust(levels: u32) -> String {
    let mut name = "_RIC1aTuuE".to_owned();
    let mut before = 4;
    for _ in 0..levels {
        let reference = format!("B{}_", base_62(before));
        before = name.len() - "_R".len();
        name.push_str(&format!("T{reference}{reference}E"));
    }
    name + "E"
}

/// Each pair has the one before it twice.
fn doubled_c_plus_plus(levels: usize) -> String {
    let mut name = "_Z1fSt4pairIiiE".to_owned();
    for level in 0..levels {
        let before = base_36(level);
        name.push_str(&format!("S_IS{before}_S{before}_E"));
    }
    name
}

#[test]
fn a_name_that_is_nested_too_deeply_stays_mangled() {
    for levels in [1_000, MANGLED_BYTES - 100, 1_000_000] {
        for (before, behind) in [("_RINvC1a1f", "E"), ("_RMC1a", ""), ("_Z1f", "i")] {
            for nested in ["R", "P", "S", "F"] {
                let name = format!("{before}{}u{behind}", nested.repeat(levels));
                assert_eq!(demangle(&name), name.as_str());
            }
        }
    }
}

#[test]
fn a_short_name_takes_time_in_proportion_to_the_full_one() {
    let start = Instant::now();
    for piece in [
        "<",
        "(",
        "[",
        "{",
        ">",
        ")",
        "a::",
        "<a as ",
        "<<",
        "&",
        "(&",
        "[(",
        "'",
        "\"",
        "\\\"",
        "'\\",
        "operator ",
        "operator<",
        "::operator ",
        "{virtual override thunk(",
        "a<b>::",
        "a() ",
        "{a}::",
        "<impl ",
        "dyn ",
        "for<",
        " for ",
        ".1",
        ".cold",
        ", ",
        "'a ",
        "é",
        "a(",
        " <",
        "a as ",
    ] {
        for (before, behind) in
            [("", ""), ("<", "> as b>::c"), ("a::<impl ", "> for b>::c"), ("{virtual override thunk(", ")}")]
        {
            let name = format!("{before}{}{behind}", piece.repeat(100_000 / piece.len()));
            assert!(!short(&name).is_empty());
            crates_of(&name);
        }
    }
    assert!(start.elapsed() < SOON * 5);
}

fn base_62(number: usize) -> String {
    digits(number - 1, b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
}

fn base_36(number: usize) -> String {
    digits(number, b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")
}

fn digits(mut number: usize, digits: &[u8]) -> String {
    let mut text = Vec::new();
    while number > 0 || text.is_empty() {
        text.insert(0, digits[number % digits.len()]);
        number /= digits.len();
    }
    String::from_utf8(text).unwrap()
}
