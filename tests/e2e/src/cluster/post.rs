//! The one HTTP request that is needed: a JSON document posted, a JSON document back.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// A member that is stopped accepts connections and never answers.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Posts `body` to 127.0.0.1.
///
/// # Errors
/// When there is no answer within a second, or it is not success, or not JSON.
pub fn post(port: u16, path: &str, body: &Value) -> Result<Value> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let body = body.to_string();
    // HTTP/1.0, so that the answer ends with the connection and is not chunked.
    write!(
        stream,
        "POST {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, text) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    ensure!(
        head.split(' ').nth(1) == Some("200"),
        "{path}: {}: {text}",
        head.lines().next().unwrap_or_default()
    );
    Ok(serde_json::from_str(text)?)
}
