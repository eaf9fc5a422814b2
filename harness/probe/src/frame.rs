//! Length-prefixed frames over any byte stream.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::proto::MAX_FRAME;

/// Reads one frame; `None` at a clean end of the stream.
pub(crate) async fn read<R: AsyncRead + Unpin>(stream: &mut R) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match stream.read(&mut length[..1]).await? {
        0 => return Ok(None),
        _ => stream.read_exact(&mut length[1..]).await?,
    };
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_FRAME {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("frame of {length} bytes is too large"),
        ));
    }
    // Grows with what really arrives, so that a wrong length does not allocate much.
    let mut frame = Vec::with_capacity(length.min(1 << 20));
    let got = stream.take(length as u64).read_to_end(&mut frame).await?;
    if got < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(frame))
}

/// Puts the length in front of a frame.
pub(crate) fn encode(body: &[u8]) -> io::Result<Vec<u8>> {
    if body.len() > MAX_FRAME {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("frame of {} bytes is too large", body.len()),
        ));
    }
    let mut out = Vec::with_capacity(4 + body.len());
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    out.extend_from_slice(body);
    Ok(out)
}

/// Writes an encoded frame.
pub(crate) async fn write<W: AsyncWrite + Unpin>(stream: &mut W, encoded: &[u8]) -> io::Result<()> {
    stream.write_all(encoded).await?;
    stream.flush().await
}
