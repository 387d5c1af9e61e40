//! Connections to etcd: which of the endpoints to use, and when to leave it.
//!
//! A connection is to one endpoint, and is used only after it has answered a linearizable read: then the member
//! runs, has a leader and is allowed to us. One that failed is dropped; the next is the first endpoint
//! that answers, so that no member that is down, hung or cut off holds up anybody for longer than it took to notice.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use etcd_client::{Channel, Client, ConnectOptions, GetOptions};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use super::failure::{Failure, root};
use super::keyspace::Keyspace;
use super::url::{MetaUrl, TlsFiles};
use crate::MetaError;

/// How long an endpoint may take to be connected to and answer its first read.
const PROBE: Duration = Duration::from_secs(2);
/// How long after one endpoint the next one is tried, too.
const STAGGER: Duration = Duration::from_millis(250);
/// How long after no endpoint answered all are tried again.
const RETRY: Duration = Duration::from_millis(100);
/// HTTP/2 pings while requests are under way; etcd's `--grpc-keepalive-min-time` forbids more than one in 5 s.
const PING: Duration = Duration::from_secs(6);
/// How long a ping may stay unanswered.
const PING_ANSWER: Duration = Duration::from_secs(3);
/// TCP's own keep-alive, for connections without requests.
const TCP_KEEPALIVE: Duration = Duration::from_secs(15);

/// The members of the etcd cluster as the address lists them.
pub(super) struct Endpoints {
    list: Vec<(String, Endpoint)>,
    options: ConnectOptions,
    /// A key to read that the cluster's user may read.
    probe: String,
}

/// A client that talks to one endpoint.
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) endpoint: usize,
}

impl Endpoints {
    /// Reads the TLS files; does not connect.
    pub(super) fn new(url: &MetaUrl, keyspace: &Keyspace) -> Result<Endpoints, MetaError> {
        let tls = url.tls.as_ref().map(tls_config).transpose()?;
        let list = url
            .endpoints()
            .map(|host| Ok((host.to_owned(), endpoint(host, tls.as_ref())?)));
        let options = ConnectOptions::new().with_require_leader(true);
        Ok(Endpoints {
            list: list.collect::<Result<_, _>>()?,
            options: match &url.user {
                None => options,
                Some((user, password)) => options.with_user(user, password).with_auto_token_refresh(true),
            },
            probe: keyspace.full(""),
        })
    }

    /// Connects to the first endpoint that answers, beginning with `first`; else says why each does not.
    pub(super) async fn race(self: &Arc<Self>, first: usize) -> Result<Connection, String> {
        let mut order = (0..self.list.len()).map(|step| (first + step) % self.list.len());
        let mut tries = JoinSet::new();
        let mut reasons = Vec::new();
        loop {
            if let Some(index) = order.next() {
                let endpoints = Arc::clone(self);
                tries.spawn(async move { endpoints.connect(index).await });
            } else if tries.is_empty() {
                return Err(reasons.join("; "));
            }
            match timeout(STAGGER, tries.join_next()).await {
                Ok(Some(Ok(Ok(connection)))) => return Ok(connection),
                Ok(Some(Ok(Err(why)))) => reasons.push(why),
                Ok(Some(Err(panicked))) => reasons.push(panicked.to_string()),
                Ok(None) | Err(_) => {}
            }
        }
    }

    async fn connect(&self, index: usize) -> Result<Connection, String> {
        let (host, endpoint) = &self.list[index];
        let answered = timeout(PROBE, self.probe(endpoint)).await;
        match answered.unwrap_or_else(|_| Err(format!("no answer within {} s", PROBE.as_secs()))) {
            Ok(client) => Ok(Connection {
                client,
                endpoint: index,
            }),
            Err(why) => Err(format!("{host}: {why}")),
        }
    }

    async fn probe(&self, endpoint: &Endpoint) -> Result<Client, String> {
        let channel = endpoint.connect().await.map_err(|error| root(&error))?;
        let described = |error| Failure::from(error).into_error().to_string();
        let mut client = Client::from_channel(Channel::Tonic(channel), Some(self.options.clone()))
            .await
            .map_err(described)?;
        let key_only = GetOptions::new().with_keys_only();
        client
            .get(self.probe.as_str(), Some(key_only))
            .await
            .map_err(described)?;
        Ok(client)
    }
}

fn endpoint(host: &str, tls: Option<&ClientTlsConfig>) -> Result<Endpoint, MetaError> {
    let unusable = |error: tonic::transport::Error| MetaError::Unavailable(format!("{host}: {}", root(&error)));
    let scheme = if tls.is_some() { "https" } else { "http" };
    let endpoint = Endpoint::from_shared(format!("{scheme}://{host}"))
        .map_err(unusable)?
        .connect_timeout(PROBE)
        .tcp_keepalive(Some(TCP_KEEPALIVE))
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(PING_ANSWER)
        .keep_alive_while_idle(false);
    match tls {
        None => Ok(endpoint),
        Some(tls) => endpoint.tls_config(tls.clone()).map_err(unusable),
    }
}

fn tls_config(files: &TlsFiles) -> Result<ClientTlsConfig, MetaError> {
    let config = match &files.ca {
        None => ClientTlsConfig::new().with_native_roots(),
        Some(ca) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(ca)?)),
    };
    match &files.identity {
        None => Ok(config),
        Some((cert, key)) => Ok(config.identity(Identity::from_pem(read(cert)?, read(key)?))),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, MetaError> {
    std::fs::read(path).map_err(|error| MetaError::Unavailable(format!("{}: {error}", path.display())))
}

/// The connection that all requests share.
pub(super) struct Pool {
    endpoints: Arc<Endpoints>,
    current: Mutex<Option<Arc<Connection>>>,
    /// Held by whoever connects, so that others wait for the result.
    connecting: tokio::sync::Mutex<()>,
    /// Why no endpoint answered the last time.
    reason: Mutex<String>,
    /// Where to begin.
    first: AtomicUsize,
}

impl Pool {
    pub(super) fn new(endpoints: Arc<Endpoints>) -> Pool {
        Pool {
            endpoints,
            current: Mutex::new(None),
            connecting: tokio::sync::Mutex::new(()),
            reason: Mutex::new("no endpoint answers".to_owned()),
            // Spreads the processes of a machine over the endpoints.
            first: AtomicUsize::new(usize::try_from(std::process::id()).unwrap_or(0)),
        }
    }

    /// The connection, made anew if there is none, within `wait`.
    pub(super) async fn get(&self, wait: Duration) -> Result<Arc<Connection>, MetaError> {
        if let Some(connection) = self.current() {
            return Ok(connection);
        }
        let made = timeout(wait, self.connect()).await;
        made.map_err(|_| MetaError::Unavailable(lock(&self.reason).clone()))
    }

    fn current(&self) -> Option<Arc<Connection>> {
        lock(&self.current).clone()
    }

    async fn connect(&self) -> Arc<Connection> {
        let _turn = self.connecting.lock().await;
        loop {
            if let Some(connection) = self.current() {
                return connection;
            }
            match self.endpoints.race(self.first.load(Ordering::Relaxed)).await {
                Ok(connection) => {
                    let connection = Arc::new(connection);
                    *lock(&self.current) = Some(Arc::clone(&connection));
                    return connection;
                }
                Err(why) => {
                    *lock(&self.reason) = why;
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Gives up a connection that did not work; the next will be to another endpoint if one answers.
    pub(super) fn failed(&self, connection: &Arc<Connection>, why: &str) {
        let mut current = lock(&self.current);
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, connection)) {
            tracing::debug!(endpoint = connection.endpoint, why, "leaving an endpoint of etcd");
            self.first.store(connection.endpoint + 1, Ordering::Relaxed);
            *current = None;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
