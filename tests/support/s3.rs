//! moto on loopback: a server that speaks S3 and keeps everything in memory.

use serde_json::json;
use tempfile::TempDir;

use super::process::Child;
use super::python::Environment;

/// A running server with one empty bucket.
pub struct S3 {
    port: u16,
    bucket: String,
    // The order of these fields is the order in which they end.
    child: Child,
    _directory: TempDir,
}

impl S3 {
    /// Starts one with a bucket of this name.
    ///
    /// # Panics
    /// When Python is missing, its packages cannot be had, or it does not start.
    pub fn start(bucket: &str) -> Self {
        let environment = Environment::named("moto");
        let directory = tempfile::tempdir().expect("a private directory");
        let (child, port) = environment.serve("moto", &json!({"bucket": bucket}), directory.path());
        Self { port, bucket: bucket.to_owned(), child, _directory: directory }
    }

    /// What a program needs in its environment to use it.
    pub fn environment(&self) -> Vec<(String, String)> {
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        let variables = [
            ("AWS_ENDPOINT_URL", endpoint.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
        ];
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// The keys in the bucket, in their order.
    ///
    /// # Panics
    /// When the server does not answer.
    pub fn keys(&self) -> Vec<String> {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.port)).expect("moto");
        let request = format!(
            "GET /{}?list-type=2 HTTP/1.0\r\nHost: 127.0.0.1:{}\r\nAuthorization: AWS4-HMAC-SHA256 \
             Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=x\r\n\r\n",
            self.bucket, self.port
        );
        stream.write_all(request.as_bytes()).expect("moto");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("moto");
        assert!(answer.contains("ListBucketResult"), "{answer}\n{}", self.child.tail());
        let keys = answer.split("<Key>").skip(1);
        keys.map(|rest| rest.split("</Key>").next().unwrap_or_default().to_owned()).collect()
    }
}
