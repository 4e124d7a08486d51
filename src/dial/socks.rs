//! A tunnel through a SOCKS proxy (RFC 1928), with a user and a password where they are given (RFC 1929).

use std::net::IpAddr;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_socks::tcp::Socks5Stream;
use tokio_socks::{Error as SocksError, TargetAddr};

use super::error::{DialError, Obstacle, ProxyReply};
use super::proxy::endpoint;
use super::stream::Observed;
use super::{CONNECT_TIMEOUT, Destination};
use crate::config::ProxyServer;

/// Asks the proxy at the other end of `tcp` for a tunnel. A name goes to the proxy as it is. What comes back is
/// the target's, and not a byte of that has been read.
pub(super) async fn open(
    tcp: TcpStream,
    destination: &Destination,
    proxy: &ProxyServer,
) -> Result<TcpStream, DialError> {
    let mut tcp = Observed::new(tcp);
    let target = match destination.host.parse::<IpAddr>() {
        Ok(address) => TargetAddr::Ip((address, destination.port).into()),
        Err(_) => TargetAddr::Domain(destination.host.as_str().into(), destination.port),
    };
    let asked = async {
        match &proxy.authorization {
            Some(authorization) => {
                let (user, password) = (&authorization.user, authorization.password.expose());
                let asked =
                    Socks5Stream::connect_with_password_and_socket(&mut tcp, target, user, password).await;
                asked.map(drop)
            }
            None => Socks5Stream::connect_with_socket(&mut tcp, target).await.map(drop),
        }
    };
    let ended = timeout(CONNECT_TIMEOUT, asked).await;
    match ended {
        Ok(Ok(())) => Ok(tcp.into_inner()),
        Ok(Err(error)) => Err(meaning(&error, destination, proxy)),
        // Its first words depend on nobody else, so that one who says nothing speaks something else.
        Err(_) if tcp.first_bytes().is_empty() => {
            Err(DialError::ProxyProtocol { proxy: endpoint(&proxy.host, proxy.port), kind: proxy.kind })
        }
        Err(_) => Err(DialError::TimedOut { endpoint: destination.endpoint(), after: CONNECT_TIMEOUT }),
    }
}

fn meaning(error: &SocksError, destination: &Destination, proxy: &ProxyServer) -> DialError {
    let shown = endpoint(&proxy.host, proxy.port);
    let behind =
        |problem| DialError::BehindProxy { proxy: shown.clone(), endpoint: destination.endpoint(), problem };
    let refused = |reply| DialError::ProxyRefused { proxy: shown.clone(), reply };
    let authentication = |credentials_sent| DialError::ProxyAuthRequired {
        proxy: shown.clone(),
        kind: proxy.kind,
        schemes: Vec::new(),
        credentials_sent,
    };
    match error {
        SocksError::GeneralSocksServerFailure => refused(ProxyReply::Socks(1)),
        SocksError::ConnectionNotAllowedByRuleset => refused(ProxyReply::Socks(2)),
        SocksError::NetworkUnreachable | SocksError::HostUnreachable => behind(Obstacle::Unreachable),
        SocksError::ConnectionRefused => behind(Obstacle::Refused),
        SocksError::TtlExpired => behind(Obstacle::TimedOut),
        SocksError::CommandNotSupported => refused(ProxyReply::Socks(7)),
        SocksError::AddressTypeNotSupported => refused(ProxyReply::Socks(8)),
        SocksError::UnknownError => refused(ProxyReply::SocksUnknown),
        SocksError::NoAcceptableAuthMethods => authentication(proxy.authorization.is_some()),
        SocksError::PasswordAuthFailure(_) | SocksError::AuthorizationRequired => authentication(true),
        // A user or a password that SOCKS cannot carry: empty, or over 255 bytes.
        SocksError::InvalidAuthValues(_) => authentication(false),
        // What remains is an answer out of form, or none.
        _ => DialError::ProxyProtocol { proxy: shown, kind: proxy.kind },
    }
}
