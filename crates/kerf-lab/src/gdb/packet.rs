//! Packets of the gdb remote protocol: `$`, the text, `#` and its sum in two hexadecimal digits.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// A line to a debugger's stub.
pub(super) struct Line {
    stream: UnixStream,
    /// What has arrived and was not taken yet.
    arrived: Vec<u8>,
    /// The stub waits for the word that its last packet has come.
    owed: bool,
}

/// What has come down the line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// A packet.
    Packet(String),
    /// The other end is gone.
    End,
    /// Nothing, within the time.
    Nothing,
}

impl Line {
    pub(super) fn new(stream: UnixStream) -> Line {
        Line { stream, arrived: Vec::new(), owed: false }
    }

    /// Sends a packet, after the receipt for the last one that came.
    pub(super) fn send(&mut self, text: &str) -> io::Result<()> {
        let receipt = if self.owed { "+" } else { "" };
        self.owed = false;
        self.stream.write_all(format!("{receipt}${text}#{:02x}", sum(text.as_bytes())).as_bytes())
    }

    /// Asks a running machine to stop.
    pub(super) fn send_interrupt(&mut self) -> io::Result<()> {
        self.stream.write_all(&[3])
    }

    /// Waits for a packet.
    pub(super) fn receive(&mut self, patience: Duration) -> io::Result<Came> {
        let limit = Instant::now() + patience;
        loop {
            if let Some(packet) = self.take()? {
                self.owed = true;
                return Ok(Came::Packet(packet));
            }
            let left = limit.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Came::Nothing);
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(Came::End),
                Ok(count) => self.arrived.extend_from_slice(buffer.get(..count).unwrap_or_default()),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted => {}
                    io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => return Ok(Came::End),
                    _ => return Err(error),
                },
            }
        }
    }

    /// Takes the first whole packet out of what has arrived; receipts before it are passed over.
    fn take(&mut self) -> io::Result<Option<String>> {
        let Some(start) = self.arrived.iter().position(|byte| *byte == b'$') else {
            self.arrived.clear();
            return Ok(None);
        };
        let Some(length) = self.arrived.iter().skip(start).position(|byte| *byte == b'#') else { return Ok(None) };
        let end = start + length;
        let Some(digits) = self.arrived.get(end + 1..end + 3) else { return Ok(None) };
        let said = std::str::from_utf8(digits).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let text = self.arrived.get(start + 1..end).unwrap_or_default().to_vec();
        self.arrived.drain(..end + 3);
        match String::from_utf8(text) {
            Ok(text) if said == Some(sum(text.as_bytes())) => Ok(Some(text)),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "a packet's sum is wrong")),
        }
    }
}

fn sum(text: &[u8]) -> u8 {
    text.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(10);

    fn pair() -> (Line, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Line::new(ours), theirs)
    }

    #[test]
    fn packets_have_their_sum() {
        let (mut line, mut stub) = pair();
        line.send("m10,4").unwrap();
        let mut sent = [0; 9];
        stub.read_exact(&mut sent).unwrap();
        assert_eq!(&sent, b"$m10,4#2e");
    }

    #[test]
    fn a_receipt_goes_with_the_next_packet() {
        let (mut line, mut stub) = pair();
        stub.write_all(b"+$O").unwrap();
        assert_eq!(line.receive(SHORT).unwrap(), Came::Nothing);
        stub.write_all(b"K#9a+").unwrap();
        assert_eq!(line.receive(SHORT).unwrap(), Came::Packet("OK".into()));
        line.send("s").unwrap();
        let mut sent = [0; 6];
        stub.read_exact(&mut sent).unwrap();
        assert_eq!(&sent, b"+$s#73");
    }

    #[test]
    fn damage_and_the_end_are_seen() {
        let (mut line, mut stub) = pair();
        stub.write_all(b"$OK#9b").unwrap();
        assert!(line.receive(SHORT).is_err());
        drop(stub);
        assert_eq!(line.receive(SHORT).unwrap(), Came::End);
    }
}
