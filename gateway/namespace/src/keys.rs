//! The names of the keys, and back. Every name has exactly one spelling; others are not recognised.

pub(crate) use trivet_core::keys::NEXT_IMAGE as NEXT;
use trivet_core::{ClientId, ImageId};

use crate::MAX_NAME;

const INODE: &str = "vfs/inode/";
const ENTRY: &str = "vfs/entry/";
const PURGE: &str = "vfs/purge/";
const DONE: &str = "vfs/done/";
const USE: &str = "vfs/use/";
const REPLY: &str = "vfs/reply/";

/// A key under `vfs/`, or the next image number that is free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Next,
    Inode(ImageId),
    Entry(ImageId, Vec<u8>),
    Purge(ImageId),
    Done(ClientId, u64),
    Use(ImageId, ClientId),
    Reply(Vec<u8>, u128),
}

pub(crate) fn inode(id: ImageId) -> String {
    format!("{INODE}{id}")
}

pub(crate) fn purge(id: ImageId) -> String {
    format!("{PURGE}{id}")
}

pub(crate) fn done(client: ClientId, sequence: u64) -> String {
    format!("{DONE}{:016x}/{sequence:x}", client.0)
}

pub(crate) fn reply(caller: &[u8], call: u128) -> String {
    format!("{REPLY}{}/{call:x}", escape(caller))
}

/// The prefix of all uses of an image.
pub(crate) fn users(image: ImageId) -> String {
    format!("{USE}{image}/")
}

pub(crate) fn usage(image: ImageId, client: ClientId) -> String {
    format!("{USE}{image}/{:016x}", client.0)
}

/// The prefix of all entries of a directory.
pub(crate) fn entries(dir: ImageId) -> String {
    format!("{ENTRY}{dir}/")
}

pub(crate) fn entry(dir: ImageId, name: &[u8]) -> String {
    let mut key = entries(dir);
    escape_into(name, &mut key);
    key
}

/// What a key means, if anything.
pub(crate) fn parse(key: &str) -> Option<Key> {
    if key == NEXT {
        Some(Key::Next)
    } else if let Some(rest) = key.strip_prefix(INODE) {
        id(rest).map(Key::Inode)
    } else if let Some(rest) = key.strip_prefix(PURGE) {
        id(rest).map(Key::Purge)
    } else if let Some(rest) = key.strip_prefix(DONE) {
        let (author, sequence) = rest.split_once('/')?;
        Some(Key::Done(client(author)?, number(sequence)?))
    } else if let Some(rest) = key.strip_prefix(USE) {
        let (image, user) = rest.split_once('/')?;
        Some(Key::Use(id(image)?, client(user)?))
    } else if let Some(rest) = key.strip_prefix(REPLY) {
        let (caller, call) = rest.split_once('/')?;
        let number = u128::from_str_radix(call, 16).ok()?;
        let caller = unescape(caller).filter(|_| format!("{number:x}") == call)?;
        Some(Key::Reply(caller, number))
    } else {
        let (dir, name) = key.strip_prefix(ENTRY)?.split_once('/')?;
        let name = unescape(name).filter(|name| (1..=MAX_NAME).contains(&name.len()))?;
        Some(Key::Entry(id(dir)?, name))
    }
}

fn id(hex: &str) -> Option<ImageId> {
    number(hex).map(ImageId)
}

fn number(hex: &str) -> Option<u64> {
    let number = u64::from_str_radix(hex, 16).ok()?;
    (format!("{number:x}") == hex).then_some(number)
}

fn client(hex: &str) -> Option<ClientId> {
    let id = u64::from_str_radix(hex, 16).ok()?;
    (format!("{id:016x}") == hex).then_some(ClientId(id))
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

/// Letters, digits, `.`, `_` and `-` as they are, everything else as `%` and two capital hex digits.
pub(crate) fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    escape_into(bytes, &mut text);
    text
}

fn escape_into(bytes: &[u8], text: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in bytes {
        if is_plain(byte) {
            text.push(char::from(byte));
        } else {
            text.push('%');
            text.push(char::from(HEX[usize::from(byte >> 4)]));
            text.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

/// The bytes that [`escape`] makes `text` of.
pub(crate) fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let escaped = digit(rest.next()?)? << 4 | digit(rest.next()?)?;
            bytes.push(Some(escaped).filter(|&byte| !is_plain(byte))?);
        } else {
            bytes.push(Some(byte).filter(|&byte| is_plain(byte))?);
        }
    }
    Some(bytes)
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_string_has_one_spelling() {
        let every: Vec<u8> = (0..=255).collect();
        for name in [&every[1..], b"plain-name_1.txt", b"a b", b"new\nline", b"%41", b"..."] {
            let text = escape(name);
            assert!(!text.contains('/') && text.is_ascii(), "{text}");
            assert_eq!(unescape(&text).as_deref(), Some(name), "{text}");
        }
        assert_eq!(escape("ü/%".as_bytes()), "%C3%BC%2F%25");
        for wrong in ["%", "%4", "%41", "%c3", "%G0", "a b", "ü", "a/b"] {
            assert_eq!(unescape(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn keys_and_back() {
        let id = ImageId(0x1_0000_0000_0007);
        let name = b"web 01".to_vec();
        let table = [
            ("config/next_image", Key::Next),
            ("vfs/inode/1000000000007", Key::Inode(id)),
            ("vfs/purge/1000000000007", Key::Purge(id)),
            ("vfs/entry/1/web%2001", Key::Entry(ImageId(1), name.clone())),
            ("vfs/done/00000000000000a1/1f", Key::Done(ClientId(0xa1), 31)),
            ("vfs/use/1000000000007/00000000000000a1", Key::Use(id, ClientId(0xa1))),
            ("vfs/reply/web%2001/1f", Key::Reply(name.clone(), 31)),
        ];
        for (text, key) in table {
            assert_eq!(parse(text), Some(key), "{text}");
        }
        assert_eq!(inode(id), table_text(1));
        assert_eq!(purge(id), table_text(2));
        assert_eq!(entry(ImageId(1), &name), table_text(3));
        assert_eq!(done(ClientId(0xa1), 31), table_text(4));
        assert_eq!(usage(id, ClientId(0xa1)), table_text(5));
        assert_eq!(reply(&name, 31), table_text(6));
        let long = format!("vfs/entry/1/{}", "n".repeat(256));
        let wrong = [
            "",
            "vfs/",
            "vfs/inode/",
            "vfs/inode/01",
            "vfs/inode/A",
            "vfs/inode/+1",
            "vfs/entry/1",
            "vfs/entry/1/",
            "vfs/entry/1/a/b",
            "vfs/entry//a",
            "vfs/inode/10000000000000000",
            "vfs/done/00000000000000a1",
            "vfs/done/00000000000000a1/01",
            &long,
        ];
        for text in wrong {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    fn table_text(index: usize) -> &'static str {
        [
            "",
            "vfs/inode/1000000000007",
            "vfs/purge/1000000000007",
            "vfs/entry/1/web%2001",
            "vfs/done/00000000000000a1/1f",
            "vfs/use/1000000000007/00000000000000a1",
            "vfs/reply/web%2001/1f",
        ][index]
    }
}
