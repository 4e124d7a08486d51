//! The way to a connected stream: lookup, policy, proxy, TCP, TLS, each with its facts.

use std::io;
use std::net::{IpAddr, SocketAddr};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::time::{Duration, Instant, sleep_until, timeout};
use tokio_rustls::client::TlsStream;

use super::error::Obstacle;
use super::names::{self, LookupError};
use super::stream::{Observed, Plain, StreamFacts, Tls, Transport};
use super::tls::{self, TlsFacts};
use super::{ADDRESS_TIMEOUT, Alpn, CONNECT_TIMEOUT, Destination, DialError, Parts, Stream};
use super::{proxy, socks, tunnel};
use crate::config::{ProxyKind, ProxyServer};
use crate::report::{Stage, StageLog};

/// How long an address gets before the next one is tried beside it (RFC 8305, section 5).
const STAGGER: Duration = Duration::from_millis(250);

/// Opens a connection; see [`super::Door::connect`].
pub(super) async fn connect(
    parts: &Parts,
    destination: &Destination,
    log: &StageLog,
) -> Result<Stream, DialError> {
    let chosen = proxy::choose(&parts.environment, destination).inspect_err(|_| {
        log.skip(Stage::Resolve);
        log.begin(Stage::Proxy);
    })?;
    let (transport, mut facts) = match &chosen {
        None => {
            let (tcp, peer) = connect_directly(parts, destination, log).await?;
            (Transport::Left(tcp), StreamFacts::new(peer))
        }
        Some(proxy) => connect_through(parts, destination, proxy, log).await?,
    };
    if !destination.tls {
        return Ok(Stream::Plain(Box::new(Plain { transport, facts })));
    }
    log.begin(Stage::Tls);
    let (tls, tls_facts) = handshake(parts, destination, transport, &mut facts, log).await?;
    facts.tls = Some(tls_facts);
    Ok(Stream::Tls(Box::new(Tls { tls, facts })))
}

/// The handshake with the server itself, recorded in the stage that runs.
async fn handshake(
    parts: &Parts,
    destination: &Destination,
    transport: Transport,
    facts: &mut StreamFacts,
    log: &StageLog,
) -> Result<(TlsStream<Observed<Transport>>, TlsFacts), DialError> {
    let verifier = parts.trust.verifier(destination.ca_file.as_deref()).await?;
    let own = match &destination.client_certificate {
        Some(files) => Some(parts.trust.own(files).await?),
        None => None,
    };
    if let Some(own) = &own {
        log.fact("client_certificate", own.facts.to_facts());
        facts.client_certificate = Some(own.facts.clone());
    }
    let peer =
        tls::Peer { host: &destination.host, endpoint: destination.endpoint(), alpn: destination.alpn };
    let shaken = tls::handshake(transport, &peer, verifier, own).await;
    let seen = shaken.as_ref().map_or_else(|failed| &failed.facts, |(_, facts)| facts);
    seen.record(log);
    shaken.map_err(|failed| failed.error).inspect_err(|error| match error {
        DialError::NotTls { first_bytes } => log.fact("first_bytes", first_bytes.as_str()),
        DialError::LegacyOnly => log.fact("versions_accepted", tls::VERSIONS.to_vec()),
        DialError::TlsFailed { alert: Some(alert) } => log.fact("alert", *alert),
        _ => {}
    })
}

pub(super) async fn connect_directly(
    parts: &Parts,
    destination: &Destination,
    log: &StageLog,
) -> Result<(TcpStream, SocketAddr), DialError> {
    log.begin(Stage::Resolve);
    let looked_up = parts.lookup.admitted(&destination.host, destination.rule).await;
    if let Err(DialError::AddressNotAllowed { address, .. }) = &looked_up {
        log.fact("refused_addresses", texts(&[*address]));
    }
    let addresses = looked_up?;
    log.fact("addresses", texts(&addresses.allowed));
    if !addresses.refused.is_empty() {
        log.fact("refused_addresses", texts(&addresses.refused));
    }

    log.begin(Stage::Connect);
    let race = Race::run(&addresses.allowed, destination.port).await;
    log.fact("attempts", race.attempts());
    let (tcp, peer) = race.outcome().map_err(|obstacle| failed(destination, obstacle))?;
    log.fact("address", peer.to_string());
    Ok((tcp, peer))
}

async fn connect_through(
    parts: &Parts,
    destination: &Destination,
    proxy: &ProxyServer,
    log: &StageLog,
) -> Result<(Transport, StreamFacts), DialError> {
    let shown = proxy::endpoint(&proxy.host, proxy.port);
    // A name goes to the proxy as it is; an address needs no lookup to be judged.
    if let Ok(address) = destination.host.parse::<IpAddr>() {
        log.begin(Stage::Resolve);
        names::admit(&destination.host, &[address], destination.rule)?;
    } else {
        log.skip(Stage::Resolve);
    }
    log.begin(Stage::Proxy);
    log.fact("proxy", shown.as_str());
    log.fact("kind", proxy.kind.as_str());
    log.fact("authentication", proxy.authorization.as_ref().map(|_| authentication(proxy.kind)));
    let unreachable = |problem| DialError::ProxyUnreachable { proxy: shown.clone(), problem };
    // The proxy is the operator's own word, so that no rule about addresses applies to it.
    let addresses = parts.lookup.addresses(&proxy.host).await.map_err(|error| {
        unreachable(match error {
            LookupError::NotFound => Obstacle::NameNotFound,
            LookupError::Failed(_) => Obstacle::ResolverFailed,
        })
    })?;
    let race = Race::run(&addresses, proxy.port).await;
    log.fact("attempts", race.attempts());
    let (tcp, peer) = race.outcome().map_err(unreachable)?;
    log.fact("address", peer.to_string());

    let mut facts = StreamFacts { proxy: Some(shown.clone()), ..StreamFacts::new(peer) };
    let target = destination.endpoint();
    let transport = match proxy.kind {
        ProxyKind::Http => {
            let mut tcp = tcp;
            tunnel::open(&mut tcp, &target, proxy, log).await?;
            Transport::Left(tcp)
        }
        ProxyKind::Https => {
            let (mut tls, tls_facts) = shake_hands_with_proxy(parts, destination, proxy, tcp, log).await?;
            facts.proxy_tls = Some(tls_facts);
            tunnel::open(&mut tls, &target, proxy, log).await?;
            Transport::Right(Box::new(tls))
        }
        ProxyKind::Socks5 => {
            let opened = socks::open(tcp, destination, proxy).await;
            match &opened {
                Err(DialError::ProxyRefused { reply, .. }) => log.fact("reply", reply.to_string()),
                Err(DialError::BehindProxy { problem, .. }) => log.fact("reply", code(*problem)),
                _ => {}
            }
            if let Err(error @ DialError::BehindProxy { .. }) = opened {
                // The proxy did its work; what it met is the target's.
                log.begin(Stage::Connect);
                log.fact("through", shown.as_str());
                return Err(error);
            }
            Transport::Left(opened?)
        }
    };
    log.begin(Stage::Connect);
    log.fact("through", shown.as_str());
    Ok((transport, facts))
}

/// TLS with the proxy itself; its facts are one fact of the stage that runs.
async fn shake_hands_with_proxy(
    parts: &Parts,
    destination: &Destination,
    proxy: &ProxyServer,
    tcp: TcpStream,
    log: &StageLog,
) -> Result<(TlsStream<Observed<TcpStream>>, TlsFacts), DialError> {
    let endpoint = proxy::endpoint(&proxy.host, proxy.port);
    let of_proxy = |cause| DialError::ProxyTls { proxy: endpoint.clone(), cause: Box::new(cause) };
    let verifier = parts.trust.verifier(destination.proxy_ca_file.as_deref()).await.map_err(of_proxy)?;
    // Nothing is announced: a proxy that chose HTTP/2 could not be asked for a tunnel by HTTP/1.1.
    let peer = tls::Peer { host: &proxy.host, endpoint: endpoint.clone(), alpn: Alpn::None };
    let shaken = tls::handshake(tcp, &peer, verifier, None).await;
    let seen = shaken.as_ref().map_or_else(|failed| &failed.facts, |(_, facts)| facts);
    log.fact("tls", seen.to_facts());
    shaken.map_err(|failed| of_proxy(failed.error))
}

/// How a user and a password are shown to a proxy.
fn authentication(kind: ProxyKind) -> &'static str {
    match kind {
        ProxyKind::Http | ProxyKind::Https => "basic",
        ProxyKind::Socks5 => "password",
    }
}

/// An obstacle on the way to a destination as a failed connection.
pub(super) fn failed(destination: &Destination, obstacle: Obstacle) -> DialError {
    let endpoint = destination.endpoint();
    match obstacle {
        Obstacle::Refused => DialError::Refused { endpoint },
        Obstacle::TimedOut => DialError::TimedOut { endpoint, after: CONNECT_TIMEOUT },
        Obstacle::Unreachable => DialError::Unreachable { endpoint },
        Obstacle::Reset => DialError::Reset { endpoint, during_tls: false },
        Obstacle::Socket(kind) => DialError::Socket { endpoint, kind },
        Obstacle::NameNotFound => DialError::NameNotFound { host: destination.host.clone() },
        Obstacle::ResolverFailed => DialError::ResolverFailed {
            host: destination.host.clone(),
            problem: super::ResolverProblem::Permanent,
        },
    }
}

/// An error of a socket's by its meaning.
pub(super) fn obstacle(kind: io::ErrorKind) -> Obstacle {
    match kind {
        io::ErrorKind::ConnectionRefused => Obstacle::Refused,
        io::ErrorKind::TimedOut => Obstacle::TimedOut,
        io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::AddrNotAvailable => Obstacle::Unreachable,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => {
            Obstacle::Reset
        }
        kind => Obstacle::Socket(kind),
    }
}

fn texts(addresses: &[IpAddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

/// One address that was tried.
struct Attempt {
    address: SocketAddr,
    began: Instant,
    ended: Option<(Duration, Option<Obstacle>)>,
}

/// Tries addresses one beside the other (RFC 8305): the first connection that comes about is taken.
struct Race {
    attempts: Vec<Attempt>,
    winner: Option<(TcpStream, SocketAddr)>,
    ended_in_time: bool,
}

impl Race {
    async fn run(addresses: &[IpAddr], port: u16) -> Self {
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let mut waiting = interleaved(addresses).into_iter();
        let mut race = Self { attempts: Vec::new(), winner: None, ended_in_time: true };
        let mut running = FuturesUnordered::new();
        let mut next_start = Instant::now();
        loop {
            if Instant::now() >= next_start
                && let Some(address) = waiting.next()
            {
                let address = SocketAddr::new(address, port);
                let number = race.attempts.len();
                race.attempts.push(Attempt { address, began: Instant::now(), ended: None });
                running.push(async move { (number, connect_one(address).await) });
                next_start = Instant::now() + STAGGER;
            }
            tokio::select! {
                Some((number, outcome)) = running.next() => match outcome {
                    Ok(tcp) => {
                        race.end(number, None);
                        race.winner = Some((tcp, race.attempts[number].address));
                        return race;
                    }
                    Err(obstacle) => {
                        race.end(number, Some(obstacle));
                        next_start = Instant::now();
                    }
                },
                () = sleep_until(next_start), if waiting.len() > 0 => {}
                () = sleep_until(deadline), if !running.is_empty() => {
                    race.ended_in_time = false;
                    return race;
                }
                else => return race,
            }
        }
    }

    fn end(&mut self, number: usize, obstacle: Option<Obstacle>) {
        if let Some(attempt) = self.attempts.get_mut(number) {
            attempt.ended = Some((attempt.began.elapsed(), obstacle));
        }
    }

    /// Every attempt as a fact. One that the winner made superfluous has neither time nor error.
    fn attempts(&self) -> Vec<serde_json::Value> {
        let fact = |attempt: &Attempt| {
            let (took, error) = match &attempt.ended {
                Some((took, obstacle)) => (Some(*took), obstacle.map(code)),
                None if self.ended_in_time => (None, None),
                None => (Some(attempt.began.elapsed()), Some(code(Obstacle::TimedOut))),
            };
            let milliseconds = took.map(|took| (took.as_secs_f64() * 1e6).round() / 1e3);
            serde_json::json!({"address": attempt.address.ip().to_string(), "ms": milliseconds, "error": error})
        };
        self.attempts.iter().map(fact).collect()
    }

    /// The connection, or the obstacle that says most: an answer says more than silence.
    fn outcome(self) -> Result<(TcpStream, SocketAddr), Obstacle> {
        let rank = |obstacle: &Obstacle| match obstacle {
            Obstacle::Refused => 0,
            Obstacle::Reset => 1,
            Obstacle::TimedOut => 2,
            Obstacle::Socket(_) => 3,
            _ => 4,
        };
        let missing = if self.ended_in_time { None } else { Some(Obstacle::TimedOut) };
        let seen = self.attempts.iter().filter_map(|attempt| attempt.ended.as_ref()?.1).chain(missing);
        let worst = seen.min_by_key(rank).unwrap_or(Obstacle::Unreachable);
        self.winner.ok_or(worst)
    }
}

#[allow(clippy::disallowed_methods, reason = "this is the door: policy has judged the address")]
async fn connect_one(address: SocketAddr) -> Result<TcpStream, Obstacle> {
    let connected = timeout(ADDRESS_TIMEOUT, TcpStream::connect(address)).await;
    let tcp = connected.map_err(|_| Obstacle::TimedOut)?.map_err(|error| obstacle(error.kind()))?;
    // Small messages, such as a handshake's, must not wait for each other.
    tcp.set_nodelay(true).map_err(|error| obstacle(error.kind()))?;
    Ok(tcp)
}

/// The addresses with the two families in turn, in the resolver's order and beginning with its first.
fn interleaved(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let first_is_v6 = addresses.first().is_some_and(IpAddr::is_ipv6);
    let (mut one, mut other): (Vec<_>, Vec<_>) =
        addresses.iter().copied().partition(|address| address.is_ipv6() == first_is_v6);
    one.reverse();
    other.reverse();
    let mut ordered = Vec::with_capacity(addresses.len());
    while !one.is_empty() || !other.is_empty() {
        ordered.extend(one.pop());
        ordered.extend(other.pop());
    }
    ordered
}

fn code(obstacle: Obstacle) -> &'static str {
    match obstacle {
        Obstacle::Refused => "refused",
        Obstacle::TimedOut => "timed_out",
        Obstacle::Unreachable => "unreachable",
        Obstacle::Reset => "reset",
        Obstacle::NameNotFound => "name_not_found",
        Obstacle::ResolverFailed => "resolver_failed",
        Obstacle::Socket(io::ErrorKind::PermissionDenied) => "permission_denied",
        Obstacle::Socket(_) => "other",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_families_take_turns_beginning_with_the_resolvers_first() {
        let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        let sorted = interleaved(&parse(&["::1", "::2", "::3", "10.0.0.1", "10.0.0.2"]));
        assert_eq!(sorted, parse(&["::1", "10.0.0.1", "::2", "10.0.0.2", "::3"]));
        assert_eq!(interleaved(&parse(&["10.0.0.1", "::1"])), parse(&["10.0.0.1", "::1"]));
    }

    #[tokio::test]
    async fn the_second_address_is_taken_where_the_first_refuses() {
        let listener = tokio::net::TcpListener::bind("127.0.0.2:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let addresses = ["127.0.0.3", "127.0.0.2"].map(|text| text.parse().unwrap());
        let race = Race::run(&addresses, port).await;
        let attempts = race.attempts();
        assert_eq!(attempts[0]["error"], "refused");
        assert_eq!(attempts[1]["error"], serde_json::Value::Null);
        assert_eq!(race.outcome().unwrap().1.ip(), addresses[1]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_says_more_than_silence_and_time_is_bounded() {
        let ended = |obstacle| Some((Duration::ZERO, Some(obstacle)));
        let attempt =
            |ended| Attempt { address: "192.0.2.1:1".parse().unwrap(), began: Instant::now(), ended };
        let attempts = vec![attempt(ended(Obstacle::Unreachable)), attempt(ended(Obstacle::TimedOut))];
        let race = Race { attempts, winner: None, ended_in_time: true };
        assert_eq!(race.outcome().unwrap_err(), Obstacle::TimedOut);
        let attempts = vec![attempt(ended(Obstacle::Refused)), attempt(None)];
        let race = Race { attempts, winner: None, ended_in_time: false };
        assert_eq!(race.attempts()[1]["error"], "timed_out");
        assert_eq!(race.outcome().unwrap_err(), Obstacle::Refused);
    }
}
