//! Operational parameters and how each key is negotiated (RFC 7143 chapter 13).

use bytes::BytesMut;

use crate::text::{number, put};

/// Data segments that this side takes (MaxRecvDataSegmentLength that it declares), bytes.
pub(crate) const MAX_RECEIVE: u32 = 262_144;
/// Data segments that either side takes before it has declared anything, and in login.
pub(crate) const DEFAULT_RECEIVE: u32 = 8192;
/// Most bytes of a burst that this side agrees to.
const MAX_BURST: u32 = (1 << 24) - 1;
/// Most unsolicited bytes of a command that this side agrees to.
const MAX_FIRST_BURST: u32 = 262_144;
/// The least that the three lengths may be (RFC 7143 13.12 to 13.14).
const MIN_LENGTH: u32 = 512;
/// The most that they may be.
const MAX_LENGTH: u32 = (1 << 24) - 1;

/// What was agreed on; starts with the defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parameters {
    /// Data segments that the initiator takes, bytes.
    pub(crate) max_send: u32,
    /// MaxBurstLength, bytes.
    pub(crate) max_burst: u32,
    /// FirstBurstLength, bytes.
    pub(crate) first_burst: u32,
    /// InitialR2T: all data but immediate data must be asked for.
    pub(crate) initial_r2t: bool,
    /// ImmediateData.
    pub(crate) immediate_data: bool,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            max_send: DEFAULT_RECEIVE,
            max_burst: 262_144,
            first_burst: 65_536,
            initial_r2t: true,
            immediate_data: true,
        }
    }
}

impl Parameters {
    /// MaxRecvDataSegmentLength of the initiator: declared, so only an impossible one is answered.
    pub(crate) fn declare(&mut self, value: &str, out: &mut BytesMut) {
        match number(value).filter(|n| (MIN_LENGTH..=MAX_LENGTH).contains(n)) {
            Some(value) => self.max_send = value,
            None => put(out, "MaxRecvDataSegmentLength", "Reject"),
        }
    }
}

/// How a negotiated key's result comes about.
#[derive(Clone, Copy)]
enum Rule {
    /// A list: we know only this value.
    Only(&'static str),
    /// Both must say Yes; we do.
    And(Option<fn(&mut Parameters, bool)>),
    /// One must say Yes; we say No, or Yes.
    Or(bool, Option<fn(&mut Parameters, bool)>),
    /// The smaller number; ours, and the range.
    Min {
        ours: u32,
        from: u32,
        to: u32,
        set: Option<fn(&mut Parameters, u32)>,
    },
    /// The larger number, at most this.
    Max { to: u32 },
    /// Not ours to agree to.
    Reject,
}

/// The keys that are negotiated, once each per login.
const RULES: &[(&str, Rule)] = &[
    ("HeaderDigest", Rule::Only("None")),
    ("DataDigest", Rule::Only("None")),
    ("AuthMethod", Rule::Only("None")),
    ("InitialR2T", Rule::Or(false, Some(|p, value| p.initial_r2t = value))),
    ("ImmediateData", Rule::And(Some(|p, value| p.immediate_data = value))),
    ("DataPDUInOrder", Rule::Or(true, None)),
    ("DataSequenceInOrder", Rule::Or(true, None)),
    ("IFMarker", Rule::And(None)),
    ("OFMarker", Rule::And(None)),
    ("MaxBurstLength", length(MAX_BURST, |p, value| p.max_burst = value)),
    (
        "FirstBurstLength",
        length(MAX_FIRST_BURST, |p, value| p.first_burst = value),
    ),
    (
        "MaxConnections",
        Rule::Min {
            ours: 1,
            from: 1,
            to: 65_535,
            set: None,
        },
    ),
    (
        "MaxOutstandingR2T",
        Rule::Min {
            ours: 1,
            from: 1,
            to: 65_535,
            set: None,
        },
    ),
    (
        "ErrorRecoveryLevel",
        Rule::Min {
            ours: 0,
            from: 0,
            to: 2,
            set: None,
        },
    ),
    (
        "DefaultTime2Retain",
        Rule::Min {
            ours: 0,
            from: 0,
            to: 3600,
            set: None,
        },
    ),
    ("DefaultTime2Wait", Rule::Max { to: 3600 }),
    (
        "iSCSIProtocolLevel",
        Rule::Min {
            ours: 1,
            from: 0,
            to: 31,
            set: None,
        },
    ),
    ("TaskReporting", Rule::Only("RFC3720")),
    ("IFMarkInt", Rule::Reject),
    ("OFMarkInt", Rule::Reject),
];

const fn length(ours: u32, set: fn(&mut Parameters, u32)) -> Rule {
    Rule::Min {
        ours,
        from: MIN_LENGTH,
        to: MAX_LENGTH,
        set: Some(set),
    }
}

/// One login's negotiation.
#[derive(Debug, Default)]
pub(crate) struct Negotiation {
    pub(crate) parameters: Parameters,
    /// Bit per rule: answered already.
    seen: u32,
}

/// A key was negotiated twice, which is an error of the initiator (RFC 7143 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Repeated;

impl Negotiation {
    /// Answers one key. Keys that declare something have no answer; unknown ones are not understood.
    pub(crate) fn answer(&mut self, key: &str, value: &str, out: &mut BytesMut) -> Result<(), Repeated> {
        match key {
            "InitiatorName" | "InitiatorAlias" | "TargetName" | "SessionType" => return Ok(()),
            "MaxRecvDataSegmentLength" => {
                self.parameters.declare(value, out);
                return Ok(());
            }
            _ => {}
        }
        let Some(index) = RULES.iter().position(|(name, _)| *name == key) else {
            put(out, key, "NotUnderstood");
            return Ok(());
        };
        if self.seen & 1 << index != 0 {
            return Err(Repeated);
        }
        self.seen |= 1 << index;
        match self.apply(key, RULES[index].1, value) {
            Some(answer) => put(out, key, &answer),
            None => put(out, key, "Reject"),
        }
        Ok(())
    }

    /// The agreed value; `None` if there is none.
    fn apply(&mut self, key: &str, rule: Rule, value: &str) -> Option<String> {
        match rule {
            Rule::Only(known) => value.split(',').find(|offer| *offer == known).map(str::to_owned),
            Rule::And(set) => {
                // Markers are gone since RFC 7143 (13.25): the answer is No.
                let agreed = boolean(value)? && !key.ends_with("Marker");
                Some(self.flag(set, agreed))
            }
            Rule::Or(ours, set) => {
                let agreed = boolean(value)? || ours;
                Some(self.flag(set, agreed))
            }
            Rule::Min { ours, from, to, set } => {
                let agreed = number(value).filter(|n| (from..=to).contains(n))?.min(ours);
                if let Some(set) = set {
                    set(&mut self.parameters, agreed);
                }
                Some(agreed.to_string())
            }
            Rule::Max { to } => number(value).filter(|n| *n <= to).map(|n| n.to_string()),
            Rule::Reject => None,
        }
    }

    fn flag(&mut self, set: Option<fn(&mut Parameters, bool)>, agreed: bool) -> String {
        if let Some(set) = set {
            set(&mut self.parameters, agreed);
        }
        if agreed { "Yes".to_owned() } else { "No".to_owned() }
    }
}

/// Whether the key belongs to login and has no place in full feature phase.
pub(crate) fn is_login_key(key: &str) -> bool {
    let declared = ["InitiatorName", "InitiatorAlias", "TargetName", "SessionType"];
    declared.contains(&key) || RULES.iter().any(|(name, _)| *name == key)
}

fn boolean(value: &str) -> Option<bool> {
    match value {
        "Yes" => Some(true),
        "No" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(key: &str, value: &str) -> (String, Parameters) {
        let (mut negotiation, mut out) = (Negotiation::default(), BytesMut::new());
        negotiation.answer(key, value, &mut out).unwrap();
        let text = String::from_utf8(out.to_vec()).unwrap();
        let answer = text.strip_prefix(key).and_then(|rest| rest.strip_prefix('='));
        (
            answer.unwrap_or(&text).trim_end_matches('\0').to_owned(),
            negotiation.parameters,
        )
    }

    #[test]
    fn every_key_has_its_result() {
        for (key, offer, want) in [
            ("HeaderDigest", "CRC32C,None", "None"),
            ("DataDigest", "CRC32C", "Reject"),
            ("AuthMethod", "CHAP,None", "None"),
            ("AuthMethod", "CHAP", "Reject"),
            ("InitialR2T", "No", "No"),
            ("InitialR2T", "Yes", "Yes"),
            ("InitialR2T", "yes", "Reject"),
            ("ImmediateData", "Yes", "Yes"),
            ("ImmediateData", "No", "No"),
            ("DataPDUInOrder", "No", "Yes"),
            ("DataSequenceInOrder", "Yes", "Yes"),
            ("IFMarker", "Yes", "No"),
            ("OFMarkInt", "2048", "Reject"),
            ("MaxBurstLength", "16776192", "16776192"),
            ("MaxBurstLength", "511", "Reject"),
            ("MaxBurstLength", "16777216", "Reject"),
            ("FirstBurstLength", "0x100000", "262144"),
            ("FirstBurstLength", "65536", "65536"),
            ("MaxConnections", "8", "1"),
            ("MaxConnections", "0", "Reject"),
            ("MaxOutstandingR2T", "16", "1"),
            ("ErrorRecoveryLevel", "2", "0"),
            ("ErrorRecoveryLevel", "3", "Reject"),
            ("DefaultTime2Retain", "20", "0"),
            ("DefaultTime2Wait", "2", "2"),
            ("DefaultTime2Wait", "3601", "Reject"),
            ("TaskReporting", "RFC3720,FastAbort", "RFC3720"),
            ("iSCSIProtocolLevel", "2", "1"),
            ("X-com.example.key", "1", "NotUnderstood"),
            ("MaxRecvDataSegmentLength", "4096", ""),
            ("MaxRecvDataSegmentLength", "0", "Reject"),
            ("InitiatorAlias", "me", ""),
        ] {
            assert_eq!(answer(key, offer).0, want, "{key}={offer}");
        }
    }

    #[test]
    fn results_are_kept() {
        assert_eq!(answer("MaxBurstLength", "1048576").1.max_burst, 1 << 20);
        assert_eq!(answer("FirstBurstLength", "1048576").1.first_burst, 262_144);
        assert_eq!(answer("MaxRecvDataSegmentLength", "4096").1.max_send, 4096);
        assert!(!answer("InitialR2T", "No").1.initial_r2t);
        assert!(!answer("ImmediateData", "No").1.immediate_data);
        assert_eq!(answer("MaxBurstLength", "1").1, Parameters::default());
    }

    #[test]
    fn negotiating_twice_is_an_error_declaring_is_not() {
        let (mut negotiation, mut out) = (Negotiation::default(), BytesMut::new());
        assert_eq!(negotiation.answer("InitialR2T", "No", &mut out), Ok(()));
        assert_eq!(negotiation.answer("InitialR2T", "No", &mut out), Err(Repeated));
        for _ in 0..2 {
            assert_eq!(negotiation.answer("MaxRecvDataSegmentLength", "4096", &mut out), Ok(()));
        }
    }
}
