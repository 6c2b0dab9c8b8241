//! The baseline: what a team would write with actix-ws as its guide shows, to compare with.
//!
//! A `Session` and a stream for each connection, a task that waits for what comes first, a broadcast channel for each
//! channel of the protocol, an interval for pings. It speaks as much of Centrifuge v2 in JSON as the scenarios need:
//! connect, subscribe, publish, ping. It has none of what a gateway needs beside (limits, deadlines, a drain, a relay),
//! so it is a floor for what this design costs. It uses the system's allocator and actix-web's defaults.
//!
//! The same publications can be polled for, with and without waiting.

mod channels;
mod polling;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::web::{Data, Payload, get};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, rt};
use actix_ws::{Closed, Message, MessageStream, Session};
use clap::Args;
use futures_util::StreamExt;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::time::{MissedTickBehavior, interval};

use self::channels::Channels;
use crate::error::Error;

/// How often a client is pinged, and how long it may be silent: as the gateway's defaults.
const PING: Duration = Duration::from_secs(25);
const SILENCE: Duration = Duration::from_secs(33);

/// How long a connection that polls may rest between two requests: actix-web's 5 s would have slow ones connect anew
/// each time.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// Options.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Where to listen; the path is /connection/websocket
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8100")]
    pub(crate) listen: SocketAddr,
    /// Worker threads; by default one for each processor
    #[arg(long, value_name = "N")]
    pub(crate) workers: Option<usize>,
    /// Serve TLS with this certificate (PEM, the whole chain)
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<PathBuf>,
    /// The certificate's key (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Command<'a> {
    #[serde(default)]
    id: u32,
    #[serde(borrow)]
    connect: Option<&'a RawValue>,
    subscribe: Option<Subscribe>,
    #[serde(borrow)]
    publish: Option<Publish<'a>>,
}

#[derive(Deserialize)]
struct Subscribe {
    channel: String,
}

#[derive(Deserialize)]
struct Publish<'a> {
    channel: String,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// Serves until a signal.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    let channels = Data::new(Channels::default());
    let mut server = HttpServer::new(move || {
        App::new()
            .app_data(channels.clone())
            .route("/connection/websocket", get().to(upgrade))
            .configure(polling::routes)
    })
    .backlog(4_096)
    .keep_alive(KEEP_ALIVE)
    .shutdown_timeout(1);
    if let Some(workers) = options.workers {
        server = server.workers(workers);
    }
    let server = match (&options.cert, &options.key) {
        (Some(cert), Some(key)) => server.bind_rustls_0_23(options.listen, tls(cert, key)?),
        _ => server.bind(options.listen),
    };
    let server = server.map_err(Error::io("listen"))?;
    rt::System::new().block_on(server.run()).map_err(Error::io("serve"))
}

fn tls(cert: &Path, key: &Path) -> Result<ServerConfig, Error> {
    let failed =
        |file: &Path, why: &dyn std::fmt::Display| Error::Asked(format!("{}: {why}", file.display()));
    let chain = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| failed(cert, &error))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| failed(key, &error))?;
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, secret))
        .map_err(|error| failed(cert, &error))
}

async fn upgrade(
    request: HttpRequest,
    body: Payload,
    channels: Data<Channels>,
) -> actix_web::Result<HttpResponse> {
    let (response, session, stream) = actix_ws::handle(&request, body)?;
    rt::spawn(async move {
        // The only way it fails is that the client is gone.
        let _ = connection(session, stream, channels).await;
    });
    Ok(response)
}

async fn connection(
    mut session: Session,
    mut stream: MessageStream,
    channels: Data<Channels>,
) -> Result<(), Closed> {
    let mut pings = interval(PING);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings.reset();
    let mut heard = Instant::now();
    let mut subscription: Option<Receiver<Arc<str>>> = None;
    loop {
        let publication = async {
            match &mut subscription {
                Some(subscription) => subscription.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = stream.next() => {
                heard = Instant::now();
                match message {
                    Some(Ok(Message::Text(text))) => {
                        for line in text.lines() {
                            answer(line, &mut session, &channels, &mut subscription).await?;
                        }
                    }
                    Some(Ok(Message::Ping(payload))) => session.pong(&payload).await?,
                    Some(Ok(Message::Close(reason))) => {
                        let _ = session.close(reason).await;
                        return Ok(());
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return Ok(()),
                }
            }
            published = publication => match published {
                Ok(message) => session.text(&*message).await?,
                // It was too slow and lost some: the next one follows. The bench sees the hole.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => subscription = None,
            },
            _ = pings.tick() => {
                if heard.elapsed() > SILENCE {
                    let _ = session.close(None).await;
                    return Ok(());
                }
                session.text("{}").await?;
            }
        }
    }
}

/// One command.
async fn answer(
    line: &str,
    session: &mut Session,
    channels: &Channels,
    subscription: &mut Option<Receiver<Arc<str>>>,
) -> Result<(), Closed> {
    // A pong.
    if line == "{}" {
        return Ok(());
    }
    let Ok(command) = serde_json::from_str::<Command<'_>>(line) else {
        return session.text(r#"{"error":{"code":107,"message":"bad request"}}"#).await;
    };
    let id = command.id;
    if command.connect.is_some() {
        let reply = r#"{"client":"baseline","version":"0","ping":25,"pong":true}"#;
        session.text(format!("{{\"id\":{id},\"connect\":{reply}}}")).await
    } else if let Some(Subscribe { channel }) = command.subscribe {
        *subscription = Some(channels.subscribe(channel));
        session.text(format!("{{\"id\":{id},\"subscribe\":{{}}}}")).await
    } else if let Some(Publish { channel, data }) = command.publish {
        channels.publish(channel, data.get());
        session.text(format!("{{\"id\":{id},\"publish\":{{}}}}")).await
    } else {
        session
            .text(format!("{{\"id\":{id},\"error\":{{\"code\":104,\"message\":\"method not found\"}}}}"))
            .await
    }
}
