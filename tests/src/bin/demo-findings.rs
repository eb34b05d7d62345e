//! Reads the summary of a recording of the demo server, as `polletto record --json` prints it, and prints what was found of
//! each of its faults. Fails if one was not.

use std::{
    io::{self, Read},
    process::ExitCode,
};

use polletto_tests::faults::Fault;
use serde_json::Value;

fn main() -> ExitCode {
    let mut summary = String::new();
    let read = io::stdin().read_to_string(&mut summary).map_err(|problem| problem.to_string());
    let summary: Value = match read.and_then(|_| serde_json::from_str(&summary).map_err(|problem| problem.to_string()))
    {
        Ok(summary) => summary,
        Err(problem) => {
            eprintln!("demo-findings: this is no summary: {problem}");
            return ExitCode::FAILURE;
        }
    };
    let mut missing = 0;
    for fault in Fault::all() {
        let kind = match &fault.waited_for {
            Some(wait) => format!("{} ({wait})", fault.kind),
            None => fault.kind.clone(),
        };
        let place = format!("{}:{}", fault.path().rsplit('/').next().unwrap_or_default(), fault.line());
        match fault.found(&summary) {
            Some(found) => println!(
                "  /{:<11} {:>4} × up to {:>5.1} ms  {kind:<27} {:<37} {place}",
                fault.endpoint,
                found["count"].as_u64().unwrap_or_default(),
                found["longest"]["duration_ns"].as_f64().unwrap_or_default() / 1e6,
                without_arguments(found["future"].as_str().unwrap_or_default()),
            ),
            None => {
                missing += 1;
                println!("  /{:<11} NOT FOUND: {kind} at {place}", fault.endpoint);
            }
        }
    }
    if missing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The end of a type's path, without what it is generic over: `part::{async}`.
fn without_arguments(future: &str) -> String {
    let mut depth = 0_usize;
    let mut plain = String::new();
    for letter in future.chars() {
        match letter {
            '<' => depth += 1,
            '>' => depth = depth.saturating_sub(1),
            _ if depth == 0 => plain.push(letter),
            _ => {}
        }
    }
    let is_name = |part: &&str| !part.starts_with('{');
    let parts: Vec<&str> = plain.split("::").collect();
    let last = parts.iter().rposition(is_name).unwrap_or_default();
    parts[last..].join("::")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_future_is_called_after_its_function() {
        for (future, expected) in [
            ("app::run::{async}", "run::{async}"),
            ("app::serve<a::B<c::D>,e::F>::{closure}::{async}", "serve::{closure}::{async}"),
            ("app::Hand", "Hand"),
            ("", ""),
        ] {
            assert_eq!(without_arguments(future), expected);
        }
    }
}
