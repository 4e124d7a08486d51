//! An answer that came compressed.

use std::io::Write;

use bytes::Bytes;
use flate2::write::GzDecoder;

use crate::dial::HttpError;
use crate::git::Error;

/// How much is unpacked at a time, so that an answer that claims to be huge grows by four megabytes at the most before
/// its bytes are counted.
const PIECE_BYTES: usize = 4096;

/// The state of unpacking one answer.
pub(super) struct Unpacked {
    decoder: GzDecoder<Vec<u8>>,
    /// What has come and was not unpacked yet.
    pub(super) packed: Bytes,
}

impl Default for Unpacked {
    fn default() -> Self {
        Self { decoder: GzDecoder::new(Vec::new()), packed: Bytes::new() }
    }
}

impl Unpacked {
    /// Unpacks the next piece of what has come; false where nothing is left of it.
    pub(super) fn more(&mut self, output: &mut Vec<u8>) -> Result<bool, Error> {
        if self.packed.is_empty() {
            return Ok(false);
        }
        let piece = &self.packed[..self.packed.len().min(PIECE_BYTES)];
        let taken = self.decoder.write(piece).map_err(|_| Error::Http(HttpError::Protocol))?;
        // Nothing is taken any more behind the end.
        self.packed = if taken == 0 { Bytes::new() } else { self.packed.slice(taken..) };
        // What is unpacked waits in the decoder otherwise.
        self.decoder.flush().map_err(|_| Error::Http(HttpError::Protocol))?;
        output.append(self.decoder.get_mut());
        Ok(true)
    }
}
