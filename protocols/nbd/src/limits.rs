//! What one connection may ask for. Every limit is checked before anything is allocated for it.

/// Largest payload of one READ or WRITE, bytes; announced as the maximum block size. 32 MiB is what a client may
/// assume where nothing is announced (specification, "Size constraints").
pub const MAX_PAYLOAD: u32 = 32 << 20;

/// Bounds of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Options in the handshake; one more closes the connection.
    pub options: u32,
    /// Bytes of data in one option; a longer one is skipped and refused.
    pub option_bytes: u32,
    /// Bytes of data in all options together; more closes the connection.
    pub handshake_bytes: u32,
    /// Bytes of replies to LIST, over the whole connection; the listing ends with an error there.
    pub list_bytes: usize,
    /// Requests in flight; at the limit the connection stops consuming input.
    pub requests: usize,
    /// Payload bytes in flight (data of WRITE, length of READ); at the limit the connection stops consuming
    /// input. The request that reaches the limit is still taken, so up to [`MAX_PAYLOAD`] more may be held.
    pub bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            options: 64,
            option_bytes: 4 << 10,
            handshake_bytes: 64 << 10,
            list_bytes: 1 << 20,
            requests: 256,
            bytes: 64 << 20,
        }
    }
}
