//! Any bytes as what a browser asks of `polletto open`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use polletto::cli::{Answer, ORIGIN, Request};

fuzz_target!(|bytes: &[u8]| {
    // What is no text breaks the connection off.
    let Ok(Some(request)) = Request::read(bytes) else { return };
    if request.answer("/x.perfetto-trace") != Answer::TheFile {
        return;
    }
    let text = std::str::from_utf8(bytes).expect("it was read as text");
    assert!(text.trim_start().starts_with("GET"), "nothing else fetches");
    let headers = text.split('\n').skip(1).map_while(|line| line.split_once(':'));
    let values = |name: &str| {
        headers
            .clone()
            .filter(|header| header.0.eq_ignore_ascii_case(name))
            .map(|header| header.1.trim())
            .collect::<Vec<_>>()
    };
    assert!(matches!(values("host")[..], ["127.0.0.1:9001" | "localhost:9001"]), "this machine by its own name");
    assert!(matches!(values("origin")[..], [] | [ORIGIN]), "the UI alone");
});
