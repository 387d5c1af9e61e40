//! A small iSCSI initiator (RFC 7143) that keeps several commands under way and sees each answer. It logs in in one
//! step, sends all data of a write with the command (immediate data), and answers the target's pings while it waits.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::iscsi::{HEADER, Pdu, login, opcode};

/// No session may take longer to get no answer when nobody says so.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Most bytes of a write: what a target takes as immediate data if nothing was agreed (RFC 7143, 13.12).
pub const LONGEST_WRITE: usize = 8192;
/// Bytes of a block.
const BLOCK: u64 = 512;
/// A tag that names no command or ping.
const NO_TAG: [u8; 4] = [0xff; 4];
/// Opcodes of a target.
const NOP_IN: u8 = 0x20;
const RESPONSE: u8 = 0x21;
const DATA_IN: u8 = 0x25;
/// Flags of a command: final, read, write, simple task.
const FINAL_SIMPLE: u8 = 0x81;
const READ: u8 = 0x40;
const WRITE: u8 = 0x20;
/// SCSI command codes (SBC-4).
const TEST_UNIT_READY: u8 = 0x00;
const READ_16: u8 = 0x88;
const WRITE_16: u8 = 0x8a;
/// A new session reports what happened before it (unit attention) at most so often.
const ATTENTIONS: usize = 3;
/// The tag of commands that are sent one at a time; writes have tags of the caller.
const OWN_TAG: u32 = 0x7fff_ffff;

/// A session with LUN 0 of one target.
#[derive(Debug)]
pub struct Initiator {
    from: BufReader<TcpStream>,
    to: TcpStream,
    command: u32,
    expected_status: u32,
}

/// The end of a command.
#[derive(Debug)]
struct Answer {
    tag: u32,
    /// SCSI status; 0 is good.
    status: u8,
    data: Vec<u8>,
}

fn word(header: &[u8; HEADER], at: usize) -> u32 {
    u32::from_be_bytes(header[at..at + 4].try_into().expect("4 bytes"))
}

/// The command block of a 16-byte read or write.
fn transfer(code: u8, at: u64, len: usize) -> Result<[u8; 16]> {
    let mut cdb = [0; 16];
    cdb[0] = code;
    cdb[2..10].copy_from_slice(&(at / BLOCK).to_be_bytes());
    let blocks = u64::try_from(len)? / BLOCK;
    cdb[10..14].copy_from_slice(&u32::try_from(blocks)?.to_be_bytes());
    Ok(cdb)
}

impl Initiator {
    /// Logs in to an image's target at 127.0.0.1 as the initiator `name`; a server has failed that says nothing for
    /// as long as `patience`.
    ///
    /// # Errors
    /// When there is no server, or it refuses.
    pub fn open(port: u16, image: &str, name: &str, patience: Duration) -> Result<Self> {
        let to = TcpStream::connect(("127.0.0.1", port)).context("iSCSI connect")?;
        to.set_nodelay(true)?;
        to.set_write_timeout(Some(WRITE_TIMEOUT))?;
        to.set_read_timeout(Some(patience))?;
        let mut session = Self {
            from: BufReader::new(to.try_clone()?),
            to,
            command: 1,
            expected_status: 0,
        };
        session.login(image, name)?;
        for _ in 0..ATTENTIONS {
            session.command(OWN_TAG, FINAL_SIMPLE, 0, &[TEST_UNIT_READY], &[])?;
            if session.next_answer(patience)?.status == 0 {
                return Ok(session);
            }
        }
        bail!("the unit does not become ready")
    }

    fn login(&mut self, image: &str, name: &str) -> Result<()> {
        let target = format!("iqn.2026-11.io.trivet:{}", image.replace('/', ":"));
        let initiator = format!("iqn.2026-11.io.trivet.test:{name}");
        let keys = [
            ("InitiatorName", initiator.as_str()),
            ("SessionType", "Normal"),
            ("TargetName", target.as_str()),
        ];
        self.to.write_all(&login(&keys).bytes())?;
        let (header, _) = self.pdu()?;
        ensure!(
            header[0] == opcode::LOGIN_RESPONSE,
            "{:#x} is no login response",
            header[0]
        );
        ensure!(header[36..38] == [0; 2], "login refused with {:?}", &header[36..38]);
        ensure!(header[1] & 0x80 != 0, "the login is not over");
        self.expected_status = word(&header, 24).wrapping_add(1);
        Ok(())
    }

    /// The connection itself.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        &self.to
    }

    /// Sends a write of at most [`LONGEST_WRITE`] bytes, whole blocks, that is answered under this tag.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn write(&mut self, tag: u32, at: u64, data: &[u8]) -> Result<()> {
        ensure!(
            data.len() <= LONGEST_WRITE && tag != OWN_TAG,
            "{} bytes, tag {tag:#x}",
            data.len()
        );
        let cdb = transfer(WRITE_16, at, data.len())?;
        self.command(tag, FINAL_SIMPLE | WRITE, u32::try_from(data.len())?, &cdb, data)
    }

    /// The tag of the next write that is done; `patience` is how long that may take.
    ///
    /// # Errors
    /// When it takes longer, the command failed, or the connection is gone.
    pub fn written(&mut self, patience: Duration) -> Result<u32> {
        let answer = self.next_answer(patience)?;
        ensure!(
            answer.status == 0,
            "a write ended with SCSI status {:#x}",
            answer.status
        );
        Ok(answer.tag)
    }

    /// Reads whole blocks; nothing else may be under way.
    ///
    /// # Errors
    /// As for [`Initiator::written`].
    pub fn read(&mut self, at: u64, len: u32, patience: Duration) -> Result<Vec<u8>> {
        let cdb = transfer(READ_16, at, usize::try_from(len)?)?;
        self.command(OWN_TAG, FINAL_SIMPLE | READ, len, &cdb, &[])?;
        let answer = self.next_answer(patience)?;
        ensure!(answer.status == 0, "a read ended with SCSI status {:#x}", answer.status);
        ensure!(
            answer.data.len() == usize::try_from(len)?,
            "{} bytes were read",
            answer.data.len()
        );
        Ok(answer.data)
    }

    fn command(&mut self, tag: u32, flags: u8, expected: u32, cdb: &[u8], data: &[u8]) -> Result<()> {
        let pdu = Pdu::new(opcode::COMMAND, flags, self.command)
            .set(16, &tag.to_be_bytes())
            .set(20, &expected.to_be_bytes())
            .set(28, &self.expected_status.to_be_bytes())
            .set(32, cdb)
            .data(data);
        self.command = self.command.wrapping_add(1);
        Ok(self.to.write_all(&pdu.bytes())?)
    }

    /// Waits for the end of a command, with the data that came before it.
    fn next_answer(&mut self, patience: Duration) -> Result<Answer> {
        let until = Instant::now() + patience;
        let mut data = Vec::new();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            self.to.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            let (header, segment) = self.pdu()?;
            let answer = |data| Answer {
                tag: word(&header, 16),
                status: header[3],
                data,
            };
            match header[0] {
                NOP_IN => self.pong(&header)?,
                DATA_IN => {
                    data.extend(segment);
                    // Bit S: it has the status.
                    if header[1] & 1 != 0 {
                        return Ok(answer(data));
                    }
                }
                RESPONSE => {
                    ensure!(header[2] == 0, "iSCSI response {:#x}", header[2]);
                    return Ok(answer(data));
                }
                other => bail!("PDU {other:#x} from the target"),
            }
        }
    }

    /// Answers a ping of the target, if it asks for that.
    fn pong(&mut self, ping: &[u8; HEADER]) -> Result<()> {
        if ping[20..24] == NO_TAG {
            return Ok(());
        }
        let pong = Pdu::new(0x40 | opcode::NOP_OUT, 0x80, self.command)
            .set(8, &ping[8..16])
            .set(16, &NO_TAG)
            .set(20, &ping[20..24])
            .set(28, &self.expected_status.to_be_bytes());
        Ok(self.to.write_all(&pong.bytes())?)
    }

    /// The next PDU, header and data; notes its status number.
    fn pdu(&mut self) -> Result<([u8; HEADER], Vec<u8>)> {
        let mut header = [0; HEADER];
        self.from.read_exact(&mut header)?;
        ensure!(header[4] == 0, "an additional header");
        let len = usize::try_from(u32::from_be_bytes([0, header[5], header[6], header[7]]))?;
        let mut data = vec![0; len.next_multiple_of(4)];
        self.from.read_exact(&mut data)?;
        data.truncate(len);
        let has_status = header[0] == RESPONSE || header[0] == DATA_IN && header[1] & 1 != 0;
        if has_status {
            self.expected_status = word(&header, 24).wrapping_add(1);
        }
        Ok((header, data))
    }
}

#[cfg(test)]
mod tests {
    use super::{READ_16, transfer};

    #[test]
    fn names_blocks() {
        let cdb = transfer(READ_16, 0x1234 * 512, 8192).unwrap();
        assert_eq!(cdb, [0x88, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34, 0, 0, 0, 16, 0, 0]);
    }
}
