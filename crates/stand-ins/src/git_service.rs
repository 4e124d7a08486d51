//! Git over HTTP: hands a request to `git http-backend` and streams both ways, without keeping a pack in memory.

use std::io;
use std::path::Path;
use std::process::Stdio;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::response::Response;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::task::JoinSet;
use tokio_util::io::{ReaderStream, StreamReader};

use crate::repository::git;
use crate::site::{Site, path_and_query, query_value, respond};

/// How many bytes of headers a CGI program may write.
const MAX_CGI_HEADER_BYTES: u64 = 16 * 1024;

/// What a client wants of a repository, as the end of a path says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum GitRequest {
    /// `info/refs`
    Advertisement,
    /// `git-upload-pack`
    UploadPack,
    /// `git-receive-pack`
    ReceivePack,
}

impl GitRequest {
    /// Finds it in the last parts of a path.
    pub(crate) fn from_segments(rest: &[&str]) -> Option<Self> {
        match rest {
            ["info", "refs"] => Some(Self::Advertisement),
            ["git-upload-pack"] => Some(Self::UploadPack),
            ["git-receive-pack"] => Some(Self::ReceivePack),
            _ => None,
        }
    }
}

/// Serves one request for the bare repository in `directory`. Who asks has been settled before.
pub(crate) async fn serve(
    site: &Site,
    directory: &Path,
    wanted: GitRequest,
    user: &str,
    request: Request,
) -> Response {
    let allowed = match wanted {
        GitRequest::Advertisement => {
            request.method() == Method::GET
                && query_value(request.uri(), "service").as_deref() == Some("git-upload-pack")
        }
        GitRequest::UploadPack => request.method() == Method::POST,
        GitRequest::ReceivePack => false,
    };
    if !allowed {
        return respond(
            StatusCode::FORBIDDEN,
            "text/plain",
            "Only fetching over the smart protocol is served.\n",
        );
    }
    let path = path_and_query(request.uri()).to_owned();
    match run(directory, wanted, user, request).await {
        Ok(answer) => into_response(site, &path, wanted, answer),
        Err(error) => {
            tracing::warn!(%error, "git http-backend failed");
            respond(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", "git http-backend failed\n")
        }
    }
}

/// The answer of the CGI program: its headers, and the rest still to be read.
struct CgiAnswer {
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    running: RunningCgi,
}

/// The program while it writes. Dropping this kills it and ends the pump.
struct RunningCgi {
    output: ReaderStream<BufReader<ChildStdout>>,
    child: Child,
    pump: JoinSet<io::Result<u64>>,
}

async fn run(directory: &Path, wanted: GitRequest, user: &str, request: Request) -> io::Result<CgiAnswer> {
    let mut child = start(directory, wanted, user, &request)?;
    let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(io::Error::from(io::ErrorKind::BrokenPipe));
    };
    // The program may answer before it has read everything, so that writing must not hold up reading.
    let mut pump = JoinSet::new();
    pump.spawn(feed(request.into_body(), stdin));
    let mut output = BufReader::new(stdout);
    let (status, headers) = read_headers(&mut output).await?;
    Ok(CgiAnswer { status, headers, running: RunningCgi { output: ReaderStream::new(output), child, pump } })
}

fn start(directory: &Path, wanted: GitRequest, user: &str, request: &Request) -> io::Result<Child> {
    let suffix = match wanted {
        GitRequest::Advertisement => "/info/refs",
        GitRequest::UploadPack => "/git-upload-pack",
        GitRequest::ReceivePack => "/git-receive-pack",
    };
    let mut command = git();
    command
        .args(["-c", "http.receivepack=false", "-c", "http.getanyfile=false"])
        .args(["-c", "uploadpack.allowFilter=true", "-c", "uploadpack.allowReachableSHA1InWant=true"])
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", directory)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", suffix)
        .env("REQUEST_METHOD", request.method().as_str())
        .env("QUERY_STRING", request.uri().query().unwrap_or_default())
        .env("REMOTE_USER", user)
        .env("REMOTE_ADDR", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    for (name, variable) in [
        (CONTENT_TYPE, "CONTENT_TYPE"),
        (CONTENT_LENGTH, "CONTENT_LENGTH"),
        (CONTENT_ENCODING, "HTTP_CONTENT_ENCODING"),
        (HeaderName::from_static("git-protocol"), "GIT_PROTOCOL"),
    ] {
        if let Some(value) = request.headers().get(&name).and_then(|value| value.to_str().ok()) {
            command.env(variable, value);
        }
    }
    command.spawn()
}

async fn feed(body: Body, mut stdin: ChildStdin) -> io::Result<u64> {
    let mut reader = StreamReader::new(body.into_data_stream().map_err(io::Error::other));
    let copied = tokio::io::copy(&mut reader, &mut stdin).await?;
    stdin.shutdown().await?;
    Ok(copied)
}

async fn read_headers(
    output: &mut BufReader<ChildStdout>,
) -> io::Result<(StatusCode, Vec<(HeaderName, HeaderValue)>)> {
    let mut status = StatusCode::OK;
    let mut headers = Vec::new();
    let mut limited = output.take(MAX_CGI_HEADER_BYTES);
    loop {
        let mut line = Vec::new();
        if limited.read_until(b'\n', &mut line).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        let line = line.trim_ascii();
        if line.is_empty() {
            return Ok((status, headers));
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"status") {
            status = StatusCode::from_bytes(value.get(..3).unwrap_or_default()).map_err(io::Error::other)?;
        } else {
            let name = HeaderName::from_bytes(name).map_err(io::Error::other)?;
            headers.push((name, HeaderValue::from_bytes(value).map_err(io::Error::other)?));
        }
    }
}

fn into_response(site: &Site, path: &str, wanted: GitRequest, answer: CgiAnswer) -> Response {
    let output = stream_output(answer.running);
    let body = match wanted {
        GitRequest::UploadPack => site.faults.shape_pack(path, output),
        GitRequest::Advertisement | GitRequest::ReceivePack => Body::from_stream(output),
    };
    let mut response = Response::new(body);
    *response.status_mut() = answer.status;
    response.headers_mut().extend(answer.headers);
    response
}

fn stream_output(running: RunningCgi) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::unfold(Some(running), |running| async {
        let mut running = running?;
        if let Some(piece) = running.output.next().await {
            return Some((piece, Some(running)));
        }
        // What ended is awaited, so that no process is left behind; a client that went away mid-way only ends the pump.
        running.pump.abort_all();
        while running.pump.join_next().await.is_some() {}
        // A failure of git has been told inside of its protocol, as web servers leave it, too.
        match running.child.wait().await {
            Ok(_) => None,
            Err(error) => Some((Err(error), None)),
        }
    })
}
