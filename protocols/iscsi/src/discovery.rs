//! Text requests (RFC 7143 11.10): SendTargets (appendix C), in as many PDUs as either side needs.

use bytes::{Bytes, BytesMut};

use crate::Targets;
use crate::connection::{CloseReason, Connection, Io, Reject};
use crate::negotiate::is_login_key;
use crate::pdu::{Bhs, NO_TAG, Pdu, opcode};
use crate::text::{MAX_TEXT, TextError, pairs, put};
use crate::wire::Stat;

/// Target transfer tag of a text exchange that goes on; there is one at a time.
const TEXT_TAG: u32 = 0x8000_0001;

/// A text exchange: a request that continues, or what is left of a reply.
#[derive(Debug, Default)]
pub(crate) struct TextExchange {
    request: BytesMut,
    reply: Bytes,
}

impl Connection {
    /// A text request.
    pub(crate) fn text(&mut self, pdu: &Pdu, io: &mut Io<'_>) -> Result<(), CloseReason> {
        let bhs = &pdu.bhs;
        match bhs.word20() {
            NO_TAG => self.text = TextExchange::default(),
            TEXT_TAG => {}
            _ => {
                self.reject(bhs, Reject::InvalidField, io.out);
                return Ok(());
            }
        }
        if bhs.is_final() && bhs.continues() {
            self.reject(bhs, Reject::Protocol, io.out);
            return Ok(());
        }
        if !self.text.reply.is_empty() {
            self.reply_text(bhs, io.out);
            return Ok(());
        }
        if self.text.request.len() + pdu.data.len() > MAX_TEXT {
            return Err(TextError::TooLong.into());
        }
        self.text.request.extend_from_slice(&pdu.data);
        if !bhs.continues() {
            let request = std::mem::take(&mut self.text.request);
            self.text.reply = self.text_answers(&request, io.targets)?;
        }
        self.reply_text(bhs, io.out);
        Ok(())
    }

    /// Sends as much of the reply as one PDU takes; the initiator asks for the rest.
    fn reply_text(&mut self, bhs: &Bhs, out: &mut Vec<Bytes>) {
        let length = self.text.reply.len().min(self.parameters.max_send as usize);
        let data = self.text.reply.split_to(length);
        let more = !self.text.reply.is_empty();
        let (flags, tag) = match (more, bhs.is_final()) {
            (true, _) => (0x40, TEXT_TAG),
            (false, false) => (0, TEXT_TAG),
            (false, true) => (0x80, NO_TAG),
        };
        let reply = Bhs::new(opcode::TEXT_RESPONSE, flags)
            .set(8, bhs.lun())
            .put(16, bhs.itt())
            .put(20, tag);
        self.wire.send(reply, Stat::Take, &[data], out);
    }

    fn text_answers(&mut self, request: &[u8], targets: &dyn Targets) -> Result<Bytes, CloseReason> {
        let mut out = BytesMut::new();
        let mut asked = false;
        for (key, value) in pairs(request)? {
            match key {
                // Once: the answer may be long.
                "SendTargets" if asked => return Err(TextError::TooLong.into()),
                "SendTargets" => {
                    asked = true;
                    self.send_targets(value, targets, &mut out);
                }
                "MaxRecvDataSegmentLength" => {
                    self.parameters.declare(value, &mut out);
                }
                _ if is_login_key(key) => put(&mut out, key, "Reject"),
                _ => put(&mut out, key, "NotUnderstood"),
            }
        }
        Ok(out.freeze())
    }

    /// All targets in a discovery session only; in a normal one its own, which is also what an empty value asks for.
    fn send_targets(&self, value: &str, targets: &dyn Targets, out: &mut BytesMut) {
        let portal = targets.portal();
        let record = |out: &mut BytesMut, name: &str| {
            put(out, "TargetName", name);
            put(out, "TargetAddress", &portal);
        };
        let discovery = self.target.is_none();
        match value {
            "All" | "" if discovery => targets.each(&mut |name| record(out, name)),
            "All" => put(out, "SendTargets", "Reject"),
            "" => record(out, &self.target_name),
            name => {
                let visible = discovery || name == self.target_name;
                if visible && targets.find(name).is_some() {
                    record(out, name);
                }
            }
        }
    }
}
