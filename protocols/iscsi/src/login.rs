//! The login phase (RFC 7143 6.3): security and operational stages, up to the reply that opens full feature phase.
//!
//! Authentication is `AuthMethod=None` only. A login that is refused says why by status class and detail (11.13.5).

use bytes::{Bytes, BytesMut};

use crate::Targets;
use crate::negotiate::{MAX_RECEIVE, Negotiation};
use crate::pdu::{Bhs, Pdu, opcode};
use crate::text::{MAX_TEXT, pairs, put};

/// Status class and detail of a refused login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal(pub(crate) u16);

impl Refusal {
    const INITIATOR_ERROR: Self = Self(0x0200);
    const AUTHENTICATION: Self = Self(0x0201);
    const NOT_FOUND: Self = Self(0x0203);
    const VERSION: Self = Self(0x0205);
    const MISSING: Self = Self(0x0207);
    const SESSION_TYPE: Self = Self(0x0209);
    const NO_SESSION: Self = Self(0x020A);
    const INVALID_REQUEST: Self = Self(0x020B);
}

/// Longest iSCSI name (RFC 7143 4.2.7.1).
const MAX_NAME: usize = 223;
/// Stages as in CSG and NSG.
const SECURITY: u8 = 0;
const OPERATIONAL: u8 = 1;
const FULL_FEATURE: u8 = 3;

/// A login under way.
#[derive(Debug, Default)]
pub(crate) struct Login {
    pub(crate) negotiation: Negotiation,
    /// What the first PDU fixed; none before it.
    begun: Option<Begun>,
    /// Text of a request that continues.
    text: BytesMut,
    /// The names have been seen and the target found.
    led: bool,
    /// MaxRecvDataSegmentLength has been declared.
    declared: bool,
    pub(crate) initiator: Option<String>,
    pub(crate) target_name: Option<String>,
    pub(crate) discovery: bool,
    pub(crate) target: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Begun {
    itt: u32,
    isid: [u8; 6],
    stage: u8,
}

/// A reply that continues the login, or ends it.
#[derive(Debug)]
pub(crate) struct Answer {
    /// T, CSG and NSG.
    pub(crate) flags: u8,
    pub(crate) text: Bytes,
    /// Full feature phase follows.
    pub(crate) full: bool,
}

impl Login {
    /// Handles one login request.
    pub(crate) fn step(&mut self, pdu: &Pdu, targets: &dyn Targets) -> Result<Answer, Refusal> {
        let stage = self.check(&pdu.bhs)?;
        if self.text.len() + pdu.data.len() > MAX_TEXT {
            return Err(Refusal::INITIATOR_ERROR);
        }
        self.text.extend_from_slice(&pdu.data);
        if pdu.bhs.continues() {
            return Ok(Answer {
                flags: stage << 2,
                text: Bytes::new(),
                full: false,
            });
        }
        let text = std::mem::take(&mut self.text);
        let mut out = BytesMut::with_capacity(512);
        for (key, value) in pairs(&text).map_err(|_| Refusal::INITIATOR_ERROR)? {
            self.note(key, value)?;
            self.negotiation
                .answer(key, value, &mut out)
                .map_err(|_| Refusal::INITIATOR_ERROR)?;
        }
        if !self.led {
            self.lead(targets, &mut out)?;
        }
        if stage == OPERATIONAL && !self.declared {
            self.declared = true;
            put(&mut out, "MaxRecvDataSegmentLength", &MAX_RECEIVE.to_string());
        }
        Ok(self.transit(&pdu.bhs, stage, out.freeze()))
    }

    /// The initiator session id.
    pub(crate) fn isid(&self) -> [u8; 6] {
        self.begun.map_or([0; 6], |begun| begun.isid)
    }

    /// Checks the header against the RFC and against the login so far, and says the stage.
    fn check(&mut self, bhs: &Bhs) -> Result<u8, Refusal> {
        let (stage, next) = (bhs.flags() >> 2 & 3, bhs.flags() & 3);
        if bhs.0[3] > 0 {
            return Err(Refusal::VERSION);
        }
        if bhs.field(14) != [0; 2] {
            return Err(Refusal::NO_SESSION);
        }
        let begun = *self.begun.get_or_insert(Begun {
            itt: bhs.itt(),
            isid: bhs.field(8),
            stage,
        });
        let same = begun.itt == bhs.itt() && begun.isid == bhs.field(8) && begun.stage == stage;
        let transit = match (bhs.is_final(), bhs.continues()) {
            (true, true) => false,
            (true, false) => next > stage && (next == OPERATIONAL || next == FULL_FEATURE),
            _ => true,
        };
        if same && transit && stage <= OPERATIONAL {
            Ok(stage)
        } else {
            Err(Refusal::INVALID_REQUEST)
        }
    }

    /// Takes the keys that name things. Some initiators repeat them; they must not change.
    fn note(&mut self, key: &str, value: &str) -> Result<(), Refusal> {
        match key {
            "InitiatorName" => name(&mut self.initiator, value),
            "TargetName" => name(&mut self.target_name, value),
            "SessionType" => match value {
                "Normal" if !self.led || !self.discovery => Ok(()),
                "Discovery" if !self.led || self.discovery => {
                    self.discovery = true;
                    Ok(())
                }
                _ => Err(Refusal::SESSION_TYPE),
            },
            "AuthMethod" if !value.split(',').any(|method| method == "None") => Err(Refusal::AUTHENTICATION),
            _ => Ok(()),
        }
    }

    /// Ends the first request: the names must be there.
    fn lead(&mut self, targets: &dyn Targets, out: &mut BytesMut) -> Result<(), Refusal> {
        if self.initiator.is_none() {
            return Err(Refusal::MISSING);
        }
        if !self.discovery {
            let wanted = self.target_name.as_deref().ok_or(Refusal::MISSING)?;
            self.target = Some(targets.find(wanted).ok_or(Refusal::NOT_FOUND)?.id);
            let portal = targets.portal();
            let group = portal.rsplit(',').next().unwrap_or("1");
            put(out, "TargetPortalGroupTag", group);
        }
        self.led = true;
        Ok(())
    }

    /// Follows the initiator to the next stage if it asks.
    fn transit(&mut self, bhs: &Bhs, stage: u8, text: Bytes) -> Answer {
        if !bhs.is_final() {
            return Answer {
                flags: stage << 2,
                text,
                full: false,
            };
        }
        let next = bhs.flags() & 3;
        if let Some(begun) = &mut self.begun {
            begun.stage = next;
        }
        debug_assert!(stage == SECURITY || next == FULL_FEATURE);
        Answer {
            flags: 0x80 | stage << 2 | next,
            text,
            full: next == FULL_FEATURE,
        }
    }
}

fn name(slot: &mut Option<String>, value: &str) -> Result<(), Refusal> {
    if value.is_empty() || value.len() > MAX_NAME || slot.as_deref().is_some_and(|own| own != value) {
        return Err(Refusal::INITIATOR_ERROR);
    }
    slot.get_or_insert_with(|| value.to_owned());
    Ok(())
}

/// A login response's header, without status.
pub(crate) fn response(request: &Bhs, flags: u8, tsih: u16) -> Bhs {
    Bhs::new(opcode::LOGIN_RESPONSE, flags)
        .set(8, request.field::<6>(8))
        .set(14, tsih.to_be_bytes())
        .put(16, request.itt())
}
