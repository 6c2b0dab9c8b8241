//! Publishing through a server API: `POST URL {"channel","data"}`, as a backend would.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use ureq::Agent;

use crate::error::Error;

/// Where publications go.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Endpoint {
    /// Publish through this server API instead of a WebSocket, such as http://127.0.0.1:9000/api/publish
    #[arg(long, value_name = "URL")]
    pub(crate) api: Option<String>,
    /// File with the key for it, sent as X-API-Key
    #[arg(long, value_name = "FILE", requires = "api")]
    pub(crate) api_key_file: Option<PathBuf>,
}

/// A server API that is published to, one request after the other on one connection.
pub(crate) struct Api {
    agent: Agent,
    url: String,
    key: Option<String>,
}

impl Api {
    /// None if the options do not ask for it. Errors: the key cannot be read.
    pub(crate) fn new(options: &Endpoint) -> Result<Option<Self>, Error> {
        let Some(url) = options.api.clone() else { return Ok(None) };
        let key = options.api_key_file.as_ref().map(std::fs::read_to_string).transpose();
        let key = key.map_err(Error::io("read --api-key-file"))?.map(|key| key.trim().to_owned());
        let config = Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(10)))
            .http_status_as_error(false)
            .build();
        Ok(Some(Self { agent: config.into(), url, key }))
    }

    /// Publishes once. Errors: what the server or the way to it says.
    pub(crate) fn publish(&self, channel: &str, data: &str) -> Result<(), Error> {
        let body = format!("{{\"channel\":\"{channel}\",\"data\":{data}}}");
        let mut request = self.agent.post(&self.url).header("Content-Type", "application/json");
        if let Some(key) = &self.key {
            request = request.header("X-API-Key", key);
        }
        let failed = |error: ureq::Error| Error::Refused(format!("{}: {error}", self.url));
        let mut response = request.send(body).map_err(failed)?;
        let text = response.body_mut().read_to_string().map_err(failed)?;
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        if response.status().as_u16() == 200 && answer.get("result").is_some() {
            return Ok(());
        }
        let start: String = text.chars().take(200).collect();
        Err(Error::Refused(format!("{} answered {}: {start}", self.url, response.status())))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    use super::*;

    /// Answers one request so, and returns what was asked.
    fn server(answer: &'static str) -> (String, JoinHandle<String>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}/api/publish", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut asked, mut bytes) = (String::new(), [0; 4_096]);
            while !asked.ends_with("\"}}") {
                let count = stream.read(&mut bytes).unwrap();
                assert!(count > 0, "{asked}");
                asked.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
            }
            stream.write_all(answer.as_bytes()).unwrap();
            asked
        });
        (url, thread)
    }

    fn published(answer: &'static str) -> (Result<(), Error>, String) {
        let (url, thread) = server(answer);
        let api = Api::new(&Endpoint { api: Some(url), api_key_file: None }).unwrap().unwrap();
        (api.publish("bench:7", "{\"a\":\"b\"}"), thread.join().unwrap())
    }

    #[test]
    fn a_publication_is_taken_or_the_refusal_is_told() {
        let (result, asked) = published("HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n{\"result\":{}}");
        result.unwrap();
        assert!(asked.starts_with("POST /api/publish HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("{\"channel\":\"bench:7\",\"data\":{\"a\":\"b\"}}"), "{asked}");
        for answer in [
            "HTTP/1.1 200 OK\r\ncontent-length: 24\r\n\r\n{\"error\":{\"code\":\"no!!\"}}",
            "HTTP/1.1 401 no!!\r\ncontent-length: 4\r\n\r\nno!!",
        ] {
            let text = published(answer).0.unwrap_err().to_string();
            assert!(text.contains("refused") && text.contains("no!!"), "{text}");
        }
    }
}
