//! A small NBD client (fixed newstyle, GO, simple replies) that lets a test
//! send what it likes, keep many requests in flight and see each answer.
//! Source: the NBD protocol document, "Newstyle negotiation", "Request message".

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// "NBDMAGIC".
pub const INIT_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// "IHAVEOPT".
pub const OPT_MAGIC: u64 = 0x4948_4156_454f_5054;
/// Starts every reply to an option.
pub const OPT_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Starts every request.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// Starts every simple reply.
pub const REPLY_MAGIC: u32 = 0x6744_6698;

/// `NBD_OPT_GO`.
pub const OPT_GO: u32 = 7;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const REP_ERROR: u32 = 1 << 31;
const INFO_EXPORT: u16 = 0;
/// `NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES`.
pub const CLIENT_FLAGS: u32 = 3;

/// `NBD_CMD_FLAG_FUA`.
pub const FUA: u16 = 1;

/// No operation may take longer (`P4`: 30 s), connecting included.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Command {
    /// `NBD_CMD_READ`.
    Read = 0,
    /// `NBD_CMD_WRITE`.
    Write = 1,
    /// `NBD_CMD_DISC`.
    Disconnect = 2,
    /// `NBD_CMD_FLUSH`.
    Flush = 3,
    /// `NBD_CMD_TRIM`.
    Trim = 4,
    /// `NBD_CMD_WRITE_ZEROES`.
    Zero = 6,
}

/// A connection in the transmission phase.
#[derive(Debug)]
pub struct Nbd {
    from: BufReader<TcpStream>,
    to: TcpStream,
    /// Bytes of the export.
    pub size: u64,
    /// Transmission flags.
    pub flags: u16,
    cookie: u64,
}

/// An option as it goes over the wire.
#[must_use]
pub fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let len = u32::try_from(data.len()).expect("a short option");
    [
        &OPT_MAGIC.to_be_bytes()[..],
        &number.to_be_bytes(),
        &len.to_be_bytes(),
        data,
    ]
    .concat()
}

/// The data of `GO` and `INFO` without information requests.
#[must_use]
pub fn go_data(export: &str) -> Vec<u8> {
    let len = u32::try_from(export.len()).expect("a short name");
    [&len.to_be_bytes()[..], export.as_bytes(), &[0, 0]].concat()
}

/// A request header as it goes over the wire.
#[must_use]
pub fn request(flags: u16, command: u16, cookie: u64, offset: u64, len: u32) -> Vec<u8> {
    let fields = [
        &REQUEST_MAGIC.to_be_bytes()[..],
        &flags.to_be_bytes(),
        &command.to_be_bytes(),
    ];
    [
        &fields.concat()[..],
        &cookie.to_be_bytes(),
        &offset.to_be_bytes(),
        &len.to_be_bytes(),
    ]
    .concat()
}

impl Nbd {
    /// Connects to 127.0.0.1 and enters transmission for `export`.
    ///
    /// # Errors
    /// When there is no server, or it refuses the export.
    pub fn open(port: u16, export: &str) -> Result<Self> {
        Self::open_within(port, export, TIMEOUT)
    }

    /// The same with another time after which a silent server has failed.
    ///
    /// # Errors
    /// When there is no server, it refuses the export, or says nothing for so long.
    pub fn open_within(port: u16, export: &str, patience: Duration) -> Result<Self> {
        let to = TcpStream::connect(("127.0.0.1", port)).context("NBD connect")?;
        to.set_nodelay(true)?;
        to.set_read_timeout(Some(patience))?;
        to.set_write_timeout(Some(TIMEOUT))?;
        let mut nbd = Self {
            from: BufReader::new(to.try_clone()?),
            to,
            size: 0,
            flags: 0,
            cookie: 0,
        };
        nbd.negotiate(export)
            .with_context(|| format!("NBD handshake for {export}"))?;
        Ok(nbd)
    }

    fn negotiate(&mut self, export: &str) -> Result<()> {
        ensure!(
            self.u64()? == INIT_MAGIC && self.u64()? == OPT_MAGIC,
            "not a newstyle server"
        );
        let offered = self.u16()?;
        ensure!(offered & 3 == 3, "handshake flags {offered:#x}");
        let hello = [CLIENT_FLAGS.to_be_bytes().to_vec(), option(OPT_GO, &go_data(export))].concat();
        self.to.write_all(&hello)?;
        loop {
            ensure!(self.u64()? == OPT_REPLY_MAGIC, "bad magic of an option's reply");
            ensure!(self.u32()? == OPT_GO, "a reply to another option");
            let (kind, len) = (self.u32()?, self.u32()?);
            let data = self.bytes(usize::try_from(len)?)?;
            match kind {
                REP_ACK => return Ok(()),
                REP_INFO if data.len() == 12 && data[..2] == INFO_EXPORT.to_be_bytes() => {
                    self.size = u64::from_be_bytes(data[2..10].try_into()?);
                    self.flags = u16::from_be_bytes(data[10..12].try_into()?);
                }
                REP_INFO => {}
                kind if kind & REP_ERROR != 0 => {
                    bail!("refused with {kind:#x}: {}", String::from_utf8_lossy(&data))
                }
                kind => bail!("unknown reply {kind:#x}"),
            }
        }
    }

    fn bytes(&mut self, len: usize) -> Result<Vec<u8>> {
        let mut data = vec![0; len];
        self.from.read_exact(&mut data)?;
        Ok(data)
    }

    fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_be_bytes(self.bytes(2)?.try_into().expect("2 bytes")))
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.bytes(4)?.try_into().expect("4 bytes")))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_be_bytes(self.bytes(8)?.try_into().expect("8 bytes")))
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn send_raw(&mut self, data: &[u8]) -> Result<()> {
        Ok(self.to.write_all(data)?)
    }

    /// From now on the server has failed that says nothing for so long.
    ///
    /// # Errors
    /// When `patience` is zero.
    pub fn set_patience(&self, patience: Duration) -> Result<()> {
        Ok(self.to.set_read_timeout(Some(patience))?)
    }

    /// The connection itself.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        &self.to
    }

    /// The port of this end: how the server names this client.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn local_port(&self) -> Result<u16> {
        Ok(self.to.local_addr()?.port())
    }

    /// Sends a request and returns its cookie.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn send(&mut self, command: Command, flags: u16, offset: u64, len: u32, payload: &[u8]) -> Result<u64> {
        self.cookie += 1;
        let mut message = request(flags, command as u16, self.cookie, offset, len);
        message.extend_from_slice(payload);
        self.to.write_all(&message)?;
        Ok(self.cookie)
    }

    /// The next reply's cookie and error (0: success). Payload is left unread.
    ///
    /// # Errors
    /// When the connection is gone, or what comes is no simple reply.
    pub fn receive(&mut self) -> Result<(u64, u32)> {
        let magic = self.u32()?;
        ensure!(magic == REPLY_MAGIC, "{magic:#x} is no simple reply");
        let error = self.u32()?;
        Ok((self.u64()?, error))
    }

    /// One command and its answer: the error, 0 for success.
    ///
    /// # Errors
    /// When the connection is gone, or another request is answered.
    pub fn call(&mut self, command: Command, flags: u16, offset: u64, len: u32, payload: &[u8]) -> Result<u32> {
        let sent = self.send(command, flags, offset, len, payload)?;
        let (cookie, error) = self.receive()?;
        ensure!(cookie == sent, "answered {cookie}, asked {sent}");
        Ok(error)
    }

    fn must(&mut self, command: Command, flags: u16, offset: u64, len: u32, payload: &[u8]) -> Result<()> {
        let error = self.call(command, flags, offset, len, payload)?;
        ensure!(error == 0, "{command:?} {len} bytes at {offset}: error {error}");
        Ok(())
    }

    /// Reads.
    ///
    /// # Errors
    /// When the server refuses or is gone.
    pub fn read(&mut self, offset: u64, len: u32) -> Result<Vec<u8>> {
        self.must(Command::Read, 0, offset, len, &[])?;
        self.bytes(usize::try_from(len)?)
    }

    /// Writes.
    ///
    /// # Errors
    /// When the server refuses or is gone.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        self.must(Command::Write, 0, offset, u32::try_from(data.len())?, data)
    }

    /// Flushes.
    ///
    /// # Errors
    /// When the server refuses or is gone.
    pub fn flush(&mut self) -> Result<()> {
        self.must(Command::Flush, 0, 0, 0, &[])
    }

    /// Trims or zeroes.
    ///
    /// # Errors
    /// When the server refuses or is gone.
    pub fn clear(&mut self, command: Command, offset: u64, len: u32) -> Result<()> {
        self.must(command, 0, offset, len, &[])
    }
}
