//! The upgrade service: where a connection stops being HTTP.
//!
//! actix-http gives every request that asks for an upgrade, and every CONNECT, to this service together with the raw
//! stream. The request runs through a second instance of the same App as any other; if the App left a [`Takeover`],
//! the 101 is written and the socket goes to the worker, else the answer is written and the connection closed.
//!
//! Bytes that the client sent behind its handshake are in the stream's read buffer and go along.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use actix_codec::{Encoder as _, Framed, FramedParts};
use actix_http::body::{self, BodySize, MessageBody};
use actix_http::h1::{Codec, Message};
use actix_http::{Request, Response, StatusCode};
use actix_service::Service;
use actix_web::dev::ServiceResponse;
use actix_web::{HttpMessage as _, HttpResponse};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::handshake::{Takeover, Upgradable};
use super::stream::Stream;
use super::worker::{Adoption, Worker};

/// How large an answer that is not a 101 may be; ours are a line.
const MAX_ANSWER: usize = 64 * 1024;

/// How long a refused client may take to read its answer.
const LINGER: Duration = Duration::from_secs(1);

/// Runs one upgrade request through the App and takes the socket over.
pub(super) async fn upgrade<S, B>(
    app: Rc<S>,
    worker: Rc<RefCell<Worker>>,
    (request, framed): (Request, Framed<Stream, Codec>),
    deadline: Duration,
) -> Result<(), actix_web::Error>
where
    S: Service<Request, Response = ServiceResponse<B>, Error = actix_web::Error>,
    B: MessageBody,
{
    let mut parts = framed.into_parts();
    request.extensions_mut().insert(Upgradable);
    let response = timeout(deadline, app.call(request)).await.map_err(io_error)??;
    let takeover = response.request().extensions_mut().remove::<Takeover>();
    let (_, response) = response.into_parts();
    match takeover {
        Some(takeover) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            let (response, _) = response.into_parts();
            encode(&mut parts, response.into(), BodySize::None)?;
            timeout(deadline, write(&mut parts)).await.map_err(io_error)??;
            adopt(&worker, parts, takeover).map_err(io_error)
        }
        _ => timeout(deadline, refuse(parts, response)).await.map_err(io_error)?,
    }
}

fn adopt(worker: &RefCell<Worker>, parts: FramedParts<Stream, Codec>, takeover: Takeover) -> io::Result<()> {
    let Takeover { permit, opening, kept, echo } = takeover;
    let (transport, plaintext) = parts.io.into_transport()?;
    let mut pipelined = parts.read_buf.to_vec();
    pipelined.extend_from_slice(&plaintext);
    worker.borrow_mut().adopt(Adoption { transport, opening, permit, kept, pipelined, echo })
}

/// Writes an answer that is not a 101, then closes.
async fn refuse<B: MessageBody>(
    mut parts: FramedParts<Stream, Codec>,
    response: HttpResponse<B>,
) -> Result<(), actix_web::Error> {
    let (response, body) = response.into_parts();
    let mut response = Response::from(response);
    let answer = match body::to_bytes_limited(body, MAX_ANSWER).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) | Err(_) => bytes::Bytes::new(),
    };
    response.head_mut().set_connection_type(actix_http::ConnectionType::Close);
    encode(&mut parts, response, BodySize::Sized(answer.len() as u64))?;
    parts.write_buf.extend_from_slice(&answer);
    write(&mut parts).await?;
    parts.io.shutdown().await?;
    // Closing while the client still sends would reset the connection and could take the answer with it.
    let mut rest = [0; 1024];
    let drained = async { while parts.io.read(&mut rest).await.is_ok_and(|size| size > 0) {} };
    let _ = timeout(LINGER, drained).await;
    Ok(())
}

fn encode(
    parts: &mut FramedParts<Stream, Codec>,
    response: Response<()>,
    size: BodySize,
) -> Result<(), actix_web::Error> {
    Ok(parts.codec.encode(Message::Item((response, size)), &mut parts.write_buf)?)
}

async fn write(parts: &mut FramedParts<Stream, Codec>) -> Result<(), actix_web::Error> {
    parts.io.write_all(&parts.write_buf).await?;
    parts.io.flush().await?;
    parts.write_buf.clear();
    Ok(())
}

fn io_error(error: impl Into<io::Error>) -> actix_web::Error {
    actix_web::Error::from(error.into())
}
