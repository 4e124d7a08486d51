use std::sync::Arc;

use reqwest::Method;

use super::rig::{HOST, Server, closed_port, door, names, ok, plain};
use crate::dial::{
    Destination, DialError, Door, HttpError, LookupError, Names, ProxyEnvironment, ResolverProblem,
};
use crate::policy::{AddressRefusal, AddressRule};
use crate::report::{Stage, StageLog, Status};

async fn connect_error(door: &Door, destination: &Destination) -> DialError {
    door.connect(destination, &StageLog::default()).await.map(|_| ()).unwrap_err()
}

/// The error of a request through the client of a destination.
pub(super) async fn request_error(door: &Door, destination: &Destination) -> DialError {
    let client = match door.client(destination).await {
        Ok(client) => client,
        Err(error) => return error,
    };
    match client.send(client.request(Method::GET, "/")).await {
        Err(HttpError::Dial(error)) => error,
        other => panic!("expected no connection, got {other:?}"),
    }
}

#[tokio::test]
async fn loopback_and_metadata_are_refused_before_a_socket_opens() {
    let server = Server::answering(ok("")).await;
    for (address, rule, refusal) in [
        ("127.0.0.1", AddressRule::Remote, AddressRefusal::Loopback),
        ("::ffff:127.0.0.1", AddressRule::Remote, AddressRefusal::Loopback),
        ("169.254.169.254", AddressRule::RemoteOrLoopback, AddressRefusal::LinkLocal),
        ("0.0.0.0", AddressRule::RemoteOrLoopback, AddressRefusal::NoHost),
    ] {
        for host in [HOST, address] {
            let door = Door::with_names(ProxyEnvironment::none(), names(&[&[address]]));
            let destination = Destination { host: host.into(), rule, ..plain(server.port()) };
            let expected = DialError::AddressNotAllowed {
                host: host.into(),
                address: address.parse().unwrap(),
                refusal,
            };
            assert_eq!(connect_error(&door, &destination).await, expected);
            assert_eq!(request_error(&door, &destination).await, expected);
            assert_eq!(expected.stage(), Stage::Resolve);
        }
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_name_that_changes_its_mind_is_shown_to_policy_again() {
    let server = Server::answering(ok("hello")).await;
    let names = names(&[&["127.0.0.1"], &["169.254.169.254"]]);
    let door = Door::with_names(ProxyEnvironment::none(), names);
    let destination = plain(server.port());
    let client = door.client(&destination).await.unwrap();
    let first = client.send(client.request(Method::GET, "/")).await.unwrap();
    assert_eq!(first.status(), 200);
    let refused = request_error(&door, &destination).await;
    assert!(
        matches!(refused, DialError::AddressNotAllowed { refusal: AddressRefusal::LinkLocal, .. }),
        "{refused}"
    );
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn of_several_addresses_only_the_allowed_are_dialled() {
    let server = Server::answering(ok("")).await;
    let names = names(&[&["169.254.169.254", "127.0.0.1"]]);
    let door = Door::with_names(ProxyEnvironment::none(), names);
    let log = StageLog::default();
    let stream = door.connect(&plain(server.port()), &log).await.unwrap();
    assert_eq!(stream.facts().peer, server.address);
    log.pass();
    let records = log.records();
    assert_eq!(records[0].facts["addresses"][0], "127.0.0.1");
    assert_eq!(records[0].facts["refused_addresses"][0], "169.254.169.254");
    assert_eq!(records[1].facts["address"], server.address.to_string());
    assert_eq!(records[1].facts["attempts"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn an_address_passes_the_stage_of_the_lookup_without_one() {
    let server = Server::answering(ok("")).await;
    let names = names(&[]);
    let door = Door::with_names(ProxyEnvironment::none(), Arc::clone(&names) as Arc<dyn Names>);
    let log = StageLog::default();
    let destination = Destination { host: "127.0.0.1".into(), ..plain(server.port()) };
    door.connect(&destination, &log).await.unwrap();
    log.pass();
    let seen: Vec<_> = log.records().iter().map(|record| (record.stage, record.status)).collect();
    assert_eq!(seen, [(Stage::Resolve, Status::Passed), (Stage::Connect, Status::Passed)]);
    assert!(names.asked.lock().unwrap().is_empty());
}

struct Broken(LookupError);

impl Names for Broken {
    fn addresses(&self, _: &str) -> Result<Vec<std::net::IpAddr>, LookupError> {
        Err(self.0)
    }
}

#[tokio::test]
async fn a_missing_name_and_a_silent_resolver_are_two_things() {
    let host = HOST.to_owned();
    let problem = ResolverProblem::Temporary;
    for (error, expected) in [
        (LookupError::NotFound, DialError::NameNotFound { host: host.clone() }),
        (LookupError::Failed(problem), DialError::ResolverFailed { host, problem }),
    ] {
        let door = Door::with_names(ProxyEnvironment::none(), Arc::new(Broken(error)));
        assert_eq!(connect_error(&door, &plain(1)).await, expected);
        assert_eq!(request_error(&door, &plain(1)).await, expected);
    }
}

#[tokio::test]
async fn the_systems_resolver_knows_this_host_and_no_invalid_name() {
    let server = Server::answering(ok("")).await;
    let door = Door::new(ProxyEnvironment::none());
    let destination = Destination { host: "localhost".into(), ..plain(server.port()) };
    door.connect(&destination, &StageLog::default()).await.unwrap();
    // Names below .invalid do not exist (RFC 6761); a host without any resolver may say so temporarily.
    let missing = Destination { host: "no-such-host.invalid".into(), ..destination };
    let error = connect_error(&door, &missing).await;
    assert_eq!(error.stage(), Stage::Resolve, "{error}");
}

#[tokio::test]
async fn a_port_without_a_listener_is_refused() {
    let destination = plain(closed_port().await);
    let expected = DialError::Refused { endpoint: destination.endpoint() };
    let log = StageLog::default();
    let error = door().connect(&destination, &log).await.map(|_| ()).unwrap_err();
    assert_eq!((&error, error.stage()), (&expected, Stage::Connect));
    log.fail_at(error.stage());
    let records = log.records();
    assert_eq!((records[1].stage, records[1].status), (Stage::Connect, Status::Failed));
    assert_eq!(records[1].facts["attempts"][0]["error"], "refused");
    assert_eq!(request_error(&door(), &destination).await, expected);
}
