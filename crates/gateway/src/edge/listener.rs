//! The public port: binds, accepts, serves HTTP until the upgrade.
//!
//! Not here: what becomes of a socket before HTTP ([`super::reception`]), how newcomers share a worker's thread with
//! its connections ([`super::turnstile`]).

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix_http::{HttpService, KeepAlive, Protocol, Request};
use actix_rt::net::TcpStream;
use actix_server::Server;
use actix_service::{Service, ServiceFactory, fn_factory, fn_service, map_config};
use actix_web::dev::AppConfig;
use actix_web::{App, web};
use socket2::{Domain, Socket, Type};
use tidegate_hub::{Policy, Shard};
use tidegate_relay::WorkerId;

use super::handshake::{self, Gate};
use super::rate::Rate;
use super::reception::Reception;
use super::stream::Stream;
use super::takeover;
use super::tls::Material;
use super::turnstile::Turnstile;
use super::worker::{Common, Worker};
use crate::inbox::Inbox;
use crate::join::Inbound;
use crate::settings::Limits;

/// Connections that wait for the accept; the kernel cuts it to net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// HTTP connections of one worker at once that have not been upgraded yet; beyond, accepting waits.
const MAX_HTTP: usize = 25_000;

/// What the public port needs.
pub(crate) struct Public {
    pub(crate) gate: web::Data<Gate>,
    pub(crate) common: Arc<Common>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) tls: Option<Material>,
    /// One for each worker.
    pub(crate) inboxes: Vec<Inbox<Inbound>>,
    /// Counts the workers that serve.
    pub(crate) running: Arc<AtomicUsize>,
}

/// Binds a listening socket.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Starts the workers of the public port.
pub(crate) fn serve(listener: TcpListener, public: Public) -> io::Result<Server> {
    let workers = public.inboxes.len();
    let tls = public.tls.map(|Material { config, tickets }| {
        if let Some(tickets) = tickets {
            actix_rt::spawn(async move { tickets.follow().await });
        }
        config
    });
    let (settings, metrics) = (&public.common.settings, &public.common.metrics);
    let Limits { accept_rate, accept_burst, handshake_timeout, .. } = settings.limits;
    let rate = Rate::new(accept_rate, accept_burst, handshake_timeout, metrics.connections_waiting.clone());
    let admission = Arc::clone(&public.gate.admission);
    let edge = Arc::new(Edge {
        rate: Arc::new(rate),
        reception: Reception::new(admission, &settings.limits, tls, Arc::clone(metrics)),
        gate: public.gate,
        common: public.common,
        policy: public.policy,
        inboxes: Mutex::new(public.inboxes.into_iter().enumerate().collect()),
        running: public.running,
    });
    let server = Server::build()
        .workers(workers)
        .backlog(BACKLOG as u32)
        .max_concurrent_connections(MAX_HTTP)
        .disable_signals()
        .listen("public", listener, move || {
            let edge = Arc::clone(&edge);
            fn_factory(move || Arc::clone(&edge).start())
        })?
        .run();
    Ok(server)
}

/// What the accept paths of all workers share.
struct Edge {
    gate: web::Data<Gate>,
    common: Arc<Common>,
    policy: Arc<Policy>,
    rate: Arc<Rate>,
    reception: Reception,
    /// Inboxes of workers that have not started yet.
    inboxes: Mutex<VecDeque<(usize, Inbox<Inbound>)>>,
    running: Arc<AtomicUsize>,
}

impl Edge {
    /// Starts a worker on this thread and makes its service.
    async fn start(
        self: Arc<Self>,
    ) -> Result<impl Service<TcpStream, Response = (), Error = (), Future: 'static> + 'static, ()> {
        let waiting = self.inboxes.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        // A worker that died cannot be replaced: its inbox went with it.
        let (index, inbox) = waiting.ok_or(())?;
        let id = WorkerId(u8::try_from(index).map_err(|_| ())?);
        let shard = Shard::new(Arc::clone(&self.policy));
        let worker = Worker::start(id, Arc::clone(&self.common), shard, inbox)
            .map_err(|error| tracing::error!(%error, worker = index, "failed to start a worker"))?;
        let running = Arc::clone(&self.running);
        let service = self.service(worker).await?;
        running.fetch_add(1, Ordering::AcqRel);
        Ok(service)
    }

    /// The service of one accepted socket.
    async fn service(
        self: Arc<Self>,
        worker: Rc<std::cell::RefCell<Worker>>,
    ) -> Result<impl Service<TcpStream, Response = (), Error = (), Future: 'static> + 'static, ()> {
        let deadline = self.common.settings.limits.handshake_timeout;
        let app = |gate: web::Data<Gate>| {
            let app = App::new().app_data(gate).configure(handshake::routes);
            map_config(app, |()| AppConfig::default())
        };
        // The same App again, for requests that ask for an upgrade.
        let upgrades = Rc::new(app(self.gate.clone()).new_service(()).await?);
        let upgrade = fn_service(move |upgrade: (Request, _)| {
            takeover::upgrade(Rc::clone(&upgrades), Rc::clone(&worker), upgrade, deadline)
        });
        let http = HttpService::<Stream, _, _>::build()
            // One request a connection, and the stream's own deadline over all of it: actix's timers watch the first head
            // and idle connections only, which leaves the second head to take as long as it likes.
            .keep_alive(KeepAlive::Disabled)
            .client_request_timeout(Duration::ZERO)
            .client_disconnect_timeout(Duration::ZERO)
            .upgrade(upgrade)
            .finish(app(self.gate.clone()));
        let http =
            Rc::new(ServiceFactory::<(Stream, Protocol, Option<SocketAddr>)>::new_service(&http, ()).await?);
        let turnstile = Turnstile::start(Arc::clone(&self.rate), deadline);
        let edge = self;
        Ok(fn_service(move |socket: TcpStream| {
            let (edge, http, paced) = (Arc::clone(&edge), Rc::clone(&http), Rc::clone(&turnstile));
            turnstile.pace(async move {
                let peer = socket.peer_addr().ok();
                let Some(stream) = edge.reception.receive(socket, &paced).await else { return Err(()) };
                // What goes wrong from here is between one client and us. In a box, because who waits should not hold the
                // room that HTTP takes.
                Box::pin(http.call((stream, Protocol::Http1, peer))).await.map_err(|error| {
                    tracing::debug!(%error, "an HTTP connection ended early");
                })
            })
        }))
    }
}
