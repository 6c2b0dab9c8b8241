//! Backends that answer, and backends that do everything else: over real sockets.
#![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]
use std::future::Future;
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::{HeaderMap, StatusCode};
use tidegate_relay::Secret;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::settings::EndpointSettings;

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a backend does with a request.
enum Act {
    /// Answers with this status and body.
    Answer(u16, String),
    /// Agrees, and closes the connection without having announced it.
    Last,
    /// Says nothing, and keeps the connection.
    Hang,
    /// Closes the connection.
    Close,
}

/// A backend: what it was asked, as text.
struct Backend {
    address: std::net::SocketAddr,
    asked: Rc<Mutex<Vec<String>>>,
}

impl Backend {
    /// Acts upon the nth request (counted from 0) as `act` says.
    async fn start(act: impl Fn(usize) -> Act + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Rc::new(Mutex::new(Vec::new()));
        let (seen, act) = (Rc::clone(&asked), Rc::new(act));
        tokio::task::spawn_local(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::task::spawn_local(serve(socket, Rc::clone(&seen), Rc::clone(&act)));
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    fn settings(&self) -> EndpointSettings {
        EndpointSettings {
            name: "main".to_owned(),
            url: format!("http://{}/questions?a=1", self.address).parse().unwrap(),
            timeout: Duration::from_secs(5),
            concurrency: 4,
            queue: 4,
            max_response_bytes: 4096,
            headers: HeaderMap::new(),
            forward_headers: Vec::new(),
            ca: None,
            secret: None,
        }
    }
}

async fn serve(mut socket: TcpStream, seen: Rc<Mutex<Vec<String>>>, act: Rc<impl Fn(usize) -> Act>) {
    let mut buffer = Vec::new();
    loop {
        let (head, length) = loop {
            let text = String::from_utf8_lossy(&buffer).to_lowercase();
            if let Some(end) = text.find("\r\n\r\n") {
                let length = text
                    .split("content-length: ")
                    .nth(1)
                    .map_or("0", |rest| rest.split('\r').next().unwrap());
                break (end + 4, length.parse::<usize>().unwrap());
            }
            if socket.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        };
        while buffer.len() < head + length {
            if socket.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let request = String::from_utf8_lossy(&buffer[..head + length]).into_owned();
        buffer.drain(..head + length);
        let number = {
            let mut seen = seen.lock().unwrap();
            seen.push(request);
            seen.len() - 1
        };
        match act(number) {
            Act::Answer(status, body) => {
                let head = format!(
                    "HTTP/1.1 {status} X\r\nlocation: /elsewhere\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                if socket.write_all(format!("{head}{body}").as_bytes()).await.is_err() {
                    return;
                }
            }
            Act::Last => {
                let answer = format!("HTTP/1.1 200 X\r\ncontent-length: {}\r\n\r\n{GRANT}", GRANT.len());
                let _ = socket.write_all(answer.as_bytes()).await;
                return;
            }
            Act::Hang => std::future::pending().await,
            Act::Close => return,
        }
    }
}

/// Runs a test on a runtime like a worker's.
fn on_a_worker<F: Future<Output = ()>>(test: F) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    runtime.block_on(local.run_until(async { tokio::time::timeout(PATIENCE, test).await.unwrap() }));
}

struct Asking {
    caller: Caller,
    metrics: Arc<Metrics>,
}

fn asking(settings: EndpointSettings) -> Asking {
    let metrics = Arc::new(Metrics::new().unwrap());
    let settings = ProxySettings { endpoints: vec![settings], ..ProxySettings::default() };
    let proxy = Arc::new(Proxy::new(&settings, &metrics).unwrap());
    Asking { caller: Caller::new(proxy), metrics }
}

impl Asking {
    async fn ask(&self, kind: Kind) -> Result<Decision, Failure> {
        let question = Question { method: "m".to_owned(), ..Question::default() };
        self.caller.ask(0, kind, Codec::Json, &question, &None).await
    }

    fn shown(&self, line: &str) -> bool {
        self.metrics.render().lines().any(|each| each == line)
    }
}

fn granted(result: &Result<Decision, Failure>) -> bool {
    matches!(result, Ok(Decision::Granted(_)))
}

const GRANT: &str = r#"{"result":{}}"#;

#[test]
fn a_question_is_one_post_with_its_headers_and_the_connection_serves_the_next() {
    on_a_worker(async {
        let backend = Backend::start(|_| Act::Answer(200, GRANT.to_owned())).await;
        let mut settings = backend.settings();
        settings.headers.insert("authorization", "Bearer node".parse().unwrap());
        settings.secret = Some(Secret::new("secret".to_owned()));
        let asking = asking(settings);
        for _ in 0..3 {
            assert!(granted(&asking.ask(Kind::Rpc).await));
        }
        let asked = backend.asked.lock().unwrap();
        assert_eq!(asked.len(), 3);
        for request in asked.iter() {
            assert!(request.starts_with("POST /questions?a=1 HTTP/1.1\r\n"), "{request}");
            for header in [
                "content-type: application/json\r\n",
                "authorization: Bearer node\r\n",
                "traceparent: 00-",
                "x-request-id: ",
                "x-tidegate-signature: t=",
                "host: 127.0.0.1:",
            ] {
                assert!(request.contains(header), "{header} is not in {request}");
            }
        }
        assert!(asking.shown("tidegate_proxy_requests_total{kind=\"rpc\",result=\"granted\"} 3"));
        assert!(asking.shown("tidegate_proxy_seconds_count{kind=\"rpc\"} 3"));
        assert!(asking.shown("tidegate_proxy_in_flight 0"));
    });
}

#[test]
fn a_redirect_is_not_followed_and_no_status_but_200_decides_anything() {
    on_a_worker(async {
        for status in [201, 204, 301, 302, 307, 400, 401, 404, 429, 500, 503] {
            let body = if status == 204 { "" } else { GRANT };
            let backend = Backend::start(move |_| Act::Answer(status, body.to_owned())).await;
            let answer = asking(backend.settings()).ask(Kind::Connect).await;
            let expected = StatusCode::from_u16(status).unwrap();
            assert!(
                matches!(answer, Err(Failure::Status(status)) if status == expected),
                "{status}: {answer:?}"
            );
            assert_eq!(backend.asked(), 1, "{status}");
        }
    });
}

#[test]
fn an_answer_that_is_too_large_is_not_read_to_its_end() {
    on_a_worker(async {
        let backend = Backend::start(|_| Act::Answer(200, " ".repeat(64 << 20) + GRANT)).await;
        let answer = asking(backend.settings()).ask(Kind::Rpc).await;
        assert!(matches!(answer, Err(Failure::Unusable(_))), "{answer:?}");
    });
}

#[test]
fn who_says_nothing_is_given_up_in_time() {
    on_a_worker(async {
        let backend = Backend::start(|_| Act::Hang).await;
        let timeout = Duration::from_millis(200);
        let asking = asking(EndpointSettings { timeout, ..backend.settings() });
        let began = Instant::now();
        for kind in Kind::ALL {
            let answer = asking.ask(kind).await;
            assert!(matches!(answer, Err(Failure::Timeout)), "{answer:?}");
        }
        assert!(began.elapsed() >= timeout * 4 && began.elapsed() < timeout * 12, "{:?}", began.elapsed());
        assert_eq!(backend.asked(), 4, "a question that may be at work is not asked again");
        assert!(asking.shown("tidegate_proxy_in_flight 0"));
    });
}

#[test]
fn what_changes_nothing_is_asked_twice_and_what_may_have_happened_is_not() {
    on_a_worker(async {
        for kind in Kind::ALL {
            let act = |number| if number == 0 { Act::Close } else { Act::Answer(200, GRANT.to_owned()) };
            let backend = Backend::start(act).await;
            let answer = asking(backend.settings()).ask(kind).await;
            if kind.may_repeat() {
                assert!(granted(&answer), "{kind:?}: {answer:?}");
                assert_eq!(backend.asked(), 2);
            } else {
                assert!(matches!(answer, Err(Failure::Broken(_))), "{kind:?}: {answer:?}");
                assert_eq!(backend.asked(), 1);
            }
        }
        // Twice, and not more often.
        let backend = Backend::start(|_| Act::Close).await;
        assert!(asking(backend.settings()).ask(Kind::Connect).await.is_err());
        assert_eq!(backend.asked(), 2);
    });
}

#[test]
fn a_backend_that_closes_resting_connections_is_asked_on_others() {
    on_a_worker(async {
        let backend = Backend::start(|_| Act::Last).await;
        let asking = asking(backend.settings());
        for kind in [Kind::Connect, Kind::Subscribe].repeat(25) {
            let answer = asking.ask(kind).await;
            assert!(granted(&answer), "{answer:?}");
        }
        assert!(asking.shown("tidegate_proxy_requests_total{kind=\"connect\",result=\"granted\"} 25"));
    });
}

#[test]
fn where_nothing_could_be_sent_any_question_is_asked_again() {
    on_a_worker(async {
        let backend = Backend::start(|_| Act::Answer(200, GRANT.to_owned())).await;
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        drop(taken);
        let url = format!("http://{address}/").parse().unwrap();
        let asking = asking(EndpointSettings { url, ..backend.settings() });
        let answer = asking.ask(Kind::Rpc).await;
        assert!(matches!(answer, Err(Failure::Unreachable(_))), "{answer:?}");
        // Both tries were told to the breaker, the question was counted once.
        assert!(asking.shown("tidegate_proxy_requests_total{kind=\"rpc\",result=\"unreachable\"} 1"));
    });
}

#[test]
fn as_many_as_may_ask_and_wait_do_and_the_next_is_told_at_once() {
    on_a_worker(async {
        let backend = Backend::start(|_| Act::Hang).await;
        let asking = Rc::new(asking(EndpointSettings { timeout: PATIENCE, ..backend.settings() }));
        let done = Rc::new(AtomicUsize::new(0));
        for _ in 0..8 {
            let (asking, done) = (Rc::clone(&asking), Rc::clone(&done));
            tokio::task::spawn_local(async move {
                let _ = asking.ask(Kind::Rpc).await;
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        while backend.asked() < 4 {
            tokio::task::yield_now().await;
        }
        for _ in 0..100 {
            let began = Instant::now();
            let answer = asking.ask(Kind::Rpc).await;
            assert!(matches!(answer, Err(Failure::Busy)), "{answer:?}");
            assert!(began.elapsed() < Duration::from_secs(1));
        }
        assert_eq!(backend.asked(), 4, "no more than the endpoint's concurrency at once");
        assert_eq!(done.load(Ordering::Relaxed), 0);
        assert!(asking.shown("tidegate_proxy_in_flight 4"));
    });
}

#[test]
fn a_backend_that_fails_is_left_alone_and_asked_again_when_it_is_well() {
    on_a_worker(async {
        let well = Rc::new(AtomicUsize::new(0));
        let is_well = Rc::clone(&well);
        let backend = Backend::start(move |_| match is_well.load(Ordering::Relaxed) {
            0 => Act::Answer(500, String::new()),
            _ => Act::Answer(200, GRANT.to_owned()),
        })
        .await;
        let asking = asking(backend.settings());
        for _ in 0..20 {
            assert!(matches!(asking.ask(Kind::Rpc).await, Err(Failure::Status(_))));
        }
        assert!(asking.shown("tidegate_proxy_breaker_open 1"));
        for _ in 0..100 {
            assert!(matches!(asking.ask(Kind::Rpc).await, Err(Failure::Open)));
        }
        assert_eq!(backend.asked(), 20, "nobody asks while it is open");
        well.store(1, Ordering::Relaxed);
        let mut answered = 0;
        while asking.shown("tidegate_proxy_breaker_open 1") {
            answered += usize::from(granted(&asking.ask(Kind::Rpc).await));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(answered, 3, "probes");
        assert!(granted(&asking.ask(Kind::Rpc).await));
    });
}

#[test]
fn methods_and_namespaces_find_their_backend() {
    let routes = ProxySettings {
        rpc: vec![("billing.admin.".to_owned(), 2), ("billing.".to_owned(), 1), (String::new(), 0)],
        connect: Some(3),
        subscribe: [("chat".to_owned(), 4)].into(),
        ..ProxySettings::default()
    };
    let proxy = Proxy::new(&routes, &Arc::new(Metrics::new().unwrap())).unwrap();
    for (method, endpoint) in [("billing.admin.x", 2), ("billing.pay", 1), ("billing", 0), ("", 0)] {
        assert_eq!(proxy.route(Kind::Rpc, method, ""), Some(endpoint), "{method}");
    }
    assert_eq!(proxy.route(Kind::Connect, "", ""), Some(3));
    assert_eq!(proxy.route(Kind::Subscribe, "", "chat"), Some(4));
    assert_eq!(proxy.route(Kind::Subscribe, "", "news"), None);
    assert_eq!(proxy.route(Kind::Publish, "", "chat"), None);
}

#[test]
fn a_session_keeps_what_some_backend_wants_and_no_more_than_it_may() {
    let endpoint = |headers: &[&str]| EndpointSettings {
        name: "main".to_owned(),
        url: "http://127.0.0.1/".parse().unwrap(),
        timeout: Duration::from_secs(1),
        concurrency: 1,
        queue: 1,
        max_response_bytes: 1024,
        headers: HeaderMap::new(),
        forward_headers: headers.iter().map(|name| headers::name(name).unwrap()).collect(),
        ca: None,
        secret: None,
    };
    let endpoints = vec![endpoint(&["cookie", "x-a"]), endpoint(&["authorization", "cookie"])];
    let routes = ProxySettings { endpoints, ..ProxySettings::default() };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let proxy = Proxy::new(&routes, &Arc::new(Metrics::new().unwrap())).unwrap();
    let given: [(&str, &[u8]); 3] = [("cookie", b"a=1"), ("authorization", b"b"), ("x-other", b"c")];
    let kept = proxy.keep(given.into_iter()).unwrap().unwrap();
    let headers = headers::of(&HeaderMap::new(), &proxy.wanted, &Some(kept), uuid::Uuid::nil());
    assert_eq!(headers.get("cookie").unwrap(), "a=1");
    assert_eq!(headers.get("authorization").unwrap(), "b");
    assert!(headers.get("x-other").is_none());
    assert!(proxy.keep([("x-other", &b"c"[..])].into_iter()).unwrap().is_none());
    let large = vec![b'x'; MAX_KEPT];
    assert_eq!(proxy.keep([("cookie", &large[..])].into_iter()), Err(TooMany));
}
