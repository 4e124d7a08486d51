//! Where the bytes of artifacts lie: a directory, or a bucket that speaks S3.

use std::fmt;
use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::aws::AmazonS3Builder;
use object_store::client::{ClientConfigKey, HttpClient, HttpConnector};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt, RetryConfig};

use crate::tls_client;

/// How long connecting to a bucket may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one request to a bucket may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// How often a request to a bucket is repeated, and how long that goes on.
const RETRIES: usize = 3;
const RETRY_TIMEOUT: Duration = Duration::from_secs(30);

/// The mode of the directory: nobody else reads what was delivered.
const DIRECTORY_MODE: u32 = 0o700;

/// A store that cannot be used. The text says the cause and what to do.
#[derive(Debug, thiserror::Error)]
pub enum LocationError {
    /// The URL is of no known form. It is not repeated, because somebody may have put a secret into it.
    #[error("it is file:PATH or s3://BUCKET[/PREFIX]; secrets of S3 stand in AWS_* variables")]
    Form,
    /// The directory cannot be made.
    #[error("{}: {source}; let this user make the directory and write there", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The settings of S3 do not go together.
    #[error("the settings of S3 cannot be used: {0}; see the AWS_* variables")]
    Bucket(#[source] object_store::Error),
    /// The directory cannot be used as a store.
    #[error("{}: {source}", path.display())]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: object_store::Error,
    },
}

/// Where the operator wants artifacts kept. Nothing is open yet.
#[derive(Debug, Clone)]
pub enum Location {
    /// In a directory.
    Directory(PathBuf),
    /// In a bucket, below a prefix that may be empty.
    Bucket {
        /// Its name.
        bucket: String,
        /// What stands before every key.
        prefix: String,
    },
}

impl Location {
    /// Reads `file:PATH` or `s3://BUCKET[/PREFIX]`.
    ///
    /// # Errors
    /// [`LocationError::Form`].
    pub fn parse(url: &str) -> Result<Self, LocationError> {
        let is_clean = |text: &str| !text.is_empty() && !text.chars().any(|c| c.is_control());
        if let Some(path) = url.strip_prefix("file:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if is_clean(path) { Ok(Self::Directory(path.into())) } else { Err(LocationError::Form) };
        }
        let place = url.strip_prefix("s3://").ok_or(LocationError::Form)?;
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if bucket.is_empty() || !bucket.chars().all(is_name) || prefix.contains(['?', '#', '@']) {
            return Err(LocationError::Form);
        }
        Ok(Self::Bucket { bucket: bucket.to_owned(), prefix: prefix.trim_matches('/').to_owned() })
    }

    /// Opens it. A directory is made where it is missing; of a bucket nothing is asked yet.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn open(&self) -> Result<Objects, LocationError> {
        match self {
            Self::Directory(path) => {
                let failed = |source| LocationError::Directory { path: path.clone(), source };
                DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path).map_err(failed)?;
                let path = path.canonicalize().map_err(failed)?;
                let unusable = |source| LocationError::Unusable { path: path.clone(), source };
                let store = LocalFileSystem::new_with_prefix(&path).map_err(unusable)?.with_fsync(true);
                Ok(Objects { store: Arc::new(store), directory: Some(path) })
            }
            Self::Bucket { bucket, prefix } => {
                let retry = RetryConfig {
                    max_retries: RETRIES,
                    retry_timeout: RETRY_TIMEOUT,
                    ..RetryConfig::default()
                };
                let store = AmazonS3Builder::from_env()
                    .with_bucket_name(bucket)
                    .with_retry(retry)
                    .with_http_connector(Connector)
                    .build()
                    .map_err(LocationError::Bucket)?;
                let store: Arc<dyn ObjectStore> = if prefix.is_empty() {
                    Arc::new(store)
                } else {
                    Arc::new(PrefixStore::new(store, prefix.as_str()))
                };
                Ok(Objects { store, directory: None })
            }
        }
    }
}

/// Makes the HTTP clients of S3, with the same TLS as everything else here.
#[derive(Debug)]
struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let generic = |source: Box<dyn std::error::Error + Send + Sync>| object_store::Error::Generic {
            store: "S3",
            source,
        };
        let is_http_allowed =
            options.get_config_value(&ClientConfigKey::AllowHttp).as_deref() == Some("true");
        let tls = tls_client::config(None).map_err(|error| generic(error.into()))?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(!is_http_allowed)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .user_agent(concat!("sortie-control/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| generic(error.into()))?;
        Ok(HttpClient::new(client))
    }
}

/// What the store of objects did not do.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The object is not there.
    #[error("an object is missing")]
    Missing,
    /// The disk or the quota is full.
    #[error("there is no space left")]
    Full,
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

impl From<object_store::Error> for ObjectError {
    fn from(error: object_store::Error) -> Self {
        if matches!(error, object_store::Error::NotFound { .. }) {
            return Self::Missing;
        }
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(cause) = next {
            let kind = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
            if let Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge) = kind {
                return Self::Full;
            }
            next = cause.source();
        }
        Self::Failed(error.to_string())
    }
}

/// The objects of all artifacts. Clones share it.
#[derive(Clone)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    /// The directory, where it is one.
    directory: Option<PathBuf>,
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Objects").field("directory", &self.directory).finish_non_exhaustive()
    }
}

fn key(id: &str, number: u32) -> Path {
    Path::from(format!("{id}/{number}"))
}

impl Objects {
    /// Writes a part, in the place of one of the same number. It is durable when this returns.
    ///
    /// # Errors
    /// Why it is not there.
    pub async fn put(&self, id: &str, number: u32, bytes: Bytes) -> Result<(), ObjectError> {
        self.store.put(&key(id, number), bytes.into()).await?;
        Ok(())
    }

    /// Reads a piece of a part.
    ///
    /// # Errors
    /// Why it could not be read.
    pub async fn read(
        &self,
        id: &str,
        number: u32,
        range: std::ops::Range<u64>,
    ) -> Result<Bytes, ObjectError> {
        let wanted = range.end - range.start;
        let bytes = self.store.get_range(&key(id, number), range).await?;
        // A part that lost its end must not shift what comes after it.
        if bytes.len() as u64 == wanted { Ok(bytes) } else { Err(ObjectError::Missing) }
    }

    /// Removes every part of an artifact. None being there is as good.
    ///
    /// # Errors
    /// Why something may be left.
    pub async fn remove(&self, id: &str, numbers: &[u32]) -> Result<(), ObjectError> {
        if let Some(directory) = &self.directory {
            return remove_directory(directory, id).await;
        }
        for number in numbers {
            match self.store.delete(&key(id, *number)).await.map_err(ObjectError::from) {
                Ok(()) | Err(ObjectError::Missing) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Removes the directory of one artifact, with what a write left in it that was cut off.
async fn remove_directory(root: &FilePath, id: &str) -> Result<(), ObjectError> {
    match tokio::fs::remove_dir_all(root.join(id)).await {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(ObjectError::Failed(error.to_string())),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_read_and_nothing_else() {
        let directory = |url: &str| match Location::parse(url) {
            Ok(Location::Directory(path)) => path,
            other => panic!("{url}: {other:?}"),
        };
        assert_eq!(directory("file:/var/lib/a"), PathBuf::from("/var/lib/a"));
        assert_eq!(directory("file:///var/lib/a"), PathBuf::from("/var/lib/a"));
        assert_eq!(directory("file:artifacts"), PathBuf::from("artifacts"));
        let Location::Bucket { bucket, prefix } = Location::parse("s3://b-1/x/y/").unwrap() else {
            panic!("a bucket")
        };
        assert_eq!((bucket.as_str(), prefix.as_str()), ("b-1", "x/y"));
        for bad in ["", "file:", "/var/lib", "s3:b", "s3://", "s3://key:secret@b/p", "gs://b", "s3://b/p?x"] {
            assert!(matches!(Location::parse(bad), Err(LocationError::Form)), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_part_lies_in_the_directory_until_it_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("artifacts");
        let objects = Location::Directory(root.clone()).open().unwrap();
        objects.put("artifact_a", 1, Bytes::from_static(b"first")).await.unwrap();
        objects.put("artifact_a", 1, Bytes::from_static(b"again")).await.unwrap();
        assert_eq!(objects.read("artifact_a", 1, 1..4).await.unwrap(), "gai");
        assert!(matches!(objects.read("artifact_a", 1, 3..9).await, Err(ObjectError::Missing)));
        assert!(matches!(objects.read("artifact_a", 2, 0..1).await, Err(ObjectError::Missing)));
        for _ in 0..2 {
            objects.remove("artifact_a", &[1]).await.unwrap();
        }
        assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0);
    }
}
