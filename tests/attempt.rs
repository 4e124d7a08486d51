//! An agent that holds an attempt and does nothing about it, for tests of what an attempt may do.

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use sortie::artifact::{Delivery, Uploader};
use sortie::config::{Proxy, Server};
use sortie::dial::{Alpn, Destination, Door, ProxyEnvironment};
use sortie::enroll::enroll;
use sortie::identity::{AgentKey, Identity};
use sortie::policy::AddressRule;
use sortie::remote_url::RemoteUrl;
use sortie::secret::Secret;
use sortie::session::Profile;
use sortie_protocol::identity::hello_payload;
use sortie_protocol::message::{AgentMessage, ControlMessage, Hello};
use sortie_protocol::{AttemptId, decode, encode};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::support::control_plane::ControlPlane;
use crate::support::process::{START_LIMIT, wait_until};

/// An agent with a running attempt.
pub(crate) struct RunningAttempt {
    /// The attempt.
    pub id: AttemptId,
    /// Its agent's way for artifacts.
    pub uploader: Uploader,
    /// Held, because the attempt ends with its session.
    _socket: Wire,
}

type Wire = WebSocketStream<TcpStream>;

impl RunningAttempt {
    /// Enrolls an agent that reaches the control plane at this port, posts a task for it and starts that.
    ///
    /// # Panics
    /// When a step fails.
    pub(crate) async fn start(control_plane: &ControlPlane, port: u16) -> Self {
        let base = RemoteUrl::parse(&format!("http://127.0.0.1:{port}")).unwrap();
        let door = Arc::new(Door::new(ProxyEnvironment::none()));
        let destination = Destination {
            alpn: Alpn::Http1,
            rule: AddressRule::RemoteOrLoopback,
            proxy: Proxy::Direct,
            ..Destination::for_url(&base, &Server::new("control-plane", None, base.clone()))
        };
        let key = AgentKey::generate().unwrap();
        let token = Secret::new(control_plane.enrollment_token(&[], 1));
        let profile = Profile { name: "deliverer".into(), tags: vec![], max_tasks: 1 };
        let enrolled = enroll(&door, &destination, &base, &token, &key, &profile).await.unwrap();
        let identity = Identity { agent_id: enrolled.agent_id, control_plane: base.to_string(), key };
        let mut socket = open(port, &identity).await;
        send(&mut socket, AgentMessage::Credit { slots: 1 }).await;
        let task = json!({
            "kind": "connection-test", "url": "https://git.example/a",
            "selector": {"all": ["name:deliverer"]}, "run_seconds": 600,
        });
        let task = control_plane.post_task(&task);
        let ControlMessage::Offer(offer) = receive(&mut socket).await else { panic!("an offer is due") };
        let id = offer.attempt;
        send(&mut socket, AgentMessage::Accept(id.clone())).await;
        send(&mut socket, AgentMessage::Start(id.clone())).await;
        wait_until("the attempt runs", START_LIMIT, || control_plane.task(&task)["state"] == "running");
        let uploader = Uploader::new(door, destination, base, &identity);
        Self { id, uploader, _socket: socket }
    }

    /// A delivery of this attempt.
    pub(crate) fn delivery(&self, file_name: &str) -> Delivery {
        Delivery {
            task_id: self.id.task_id.clone(),
            attempt: self.id.attempt,
            file_name: file_name.to_owned(),
            media_type: "application/zstd",
        }
    }
}

async fn open(port: u16, identity: &Identity) -> Wire {
    let mut request = format!("ws://127.0.0.1:{port}/agent/v1").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "sortie.v1".parse().unwrap());
    // A peer of the control plane of a test, and no part of the agent.
    #[allow(clippy::disallowed_methods)]
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    let ControlMessage::Challenge(challenge) = receive(&mut socket).await else {
        panic!("a challenge is due")
    };
    let (origin, agent_id) = (&identity.control_plane, &identity.agent_id);
    let payload = hello_payload(origin, &challenge.session, &challenge.nonce, agent_id);
    let hello = Hello {
        agent_id: agent_id.clone(),
        origin: origin.clone(),
        signature: identity.key.sign(&payload),
        name: "deliverer".to_owned(),
        version: "0.1.0".to_owned(),
        os: "linux".to_owned(),
        arch: "x86_64".to_owned(),
        tags: vec![],
        max_tasks: 1,
        running: vec![],
        unacknowledged: vec![],
        lost: vec![],
    };
    send(&mut socket, AgentMessage::Hello(hello)).await;
    let ControlMessage::Welcome(_) = receive(&mut socket).await else { panic!("a welcome is due") };
    socket
}

async fn send(socket: &mut Wire, message: AgentMessage) {
    socket.send(Message::text(encode(&message).unwrap())).await.unwrap();
}

async fn receive(socket: &mut Wire) -> ControlMessage {
    loop {
        match socket.next().await.expect("the session goes on").expect("a message") {
            Message::Text(text) => return decode(&text).unwrap(),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("an unexpected frame: {other:?}"),
        }
    }
}
