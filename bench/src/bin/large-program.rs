//! A server that answers one request and has much code, so that its debug information is as large as that of real ones.

use axum::{Router, routing::get};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (engine, pattern) = (wasmtime::Engine::default(), regex::Regex::new(r"(\w+)@(\w+)\.com")?);
    let module = wasmtime::Module::new(&engine, r#"(module (func (export "f") (result i32) i32.const 1))"#)?;
    let answer = serde_json::json!({ "exports": module.exports().count(), "matches": pattern.is_match("a@b.com") });
    let text = serde_json::to_string(&answer)?;
    let server = Router::new().route("/", get(|| async move { text }));
    axum::serve(tokio::net::TcpListener::bind("127.0.0.1:0").await?, server).await?;
    Ok(())
}
