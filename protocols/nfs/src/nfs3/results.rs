//! The results of the procedures (RFC 1813 section 3.3), without the listings of directories.

use bytes::Bytes;

use super::attributes::{PostOpAttr, Time, WccData};
use super::types::{Handle, StableHow, Verifier};
use crate::xdr::{Reader, Writer, Xdr, XdrError};

/// The bits of FSINFO's properties (section 3.3.19).
pub mod properties {
    /// Hard links (FSF_LINK).
    pub const LINK: u32 = 0x01;
    /// Symbolic links (FSF_SYMLINK).
    pub const SYMLINK: u32 = 0x02;
    /// PATHCONF is the same for every object (FSF_HOMOGENEOUS).
    pub const HOMOGENEOUS: u32 = 0x08;
    /// SETATTR can set times (FSF_CANSETTIME).
    pub const CAN_SET_TIME: u32 = 0x10;
}

xdr_struct! {
    /// LOOKUP3resok.
    LookupOk {
        /// The object.
        object: Handle,
        /// Its attributes.
        attributes: PostOpAttr,
        /// The directory's.
        dir_attributes: PostOpAttr,
    }
}

xdr_struct! {
    /// ACCESS3resok.
    AccessOk {
        /// The object's attributes.
        attributes: PostOpAttr,
        /// Those of the bits asked about that are allowed.
        access: u32,
    }
}

xdr_struct! {
    /// READLINK3resok.
    ReadLinkOk {
        /// The link's attributes.
        attributes: PostOpAttr,
        /// What it points to.
        path: Bytes,
    }
}

/// READ3resok; its count is the length of `data`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadOk {
    /// The file's attributes.
    pub attributes: PostOpAttr,
    /// Whether the data ends at the end of the file.
    pub eof: bool,
    /// In order; sent by reference.
    pub data: Vec<Bytes>,
}

impl Xdr for ReadOk {
    fn encode(&self, w: &mut Writer) {
        self.attributes.encode(w);
        w.length(self.data.iter().map(Bytes::len).sum());
        w.bool(self.eof);
        w.payload(&self.data);
    }

    fn decode(r: &mut Reader<'_>) -> Result<ReadOk, XdrError> {
        let (attributes, count, eof) = (Xdr::decode(r)?, r.u32()?, r.bool()?);
        let data = r.opaque(count)?;
        if u32::try_from(data.len()) != Ok(count) {
            return Err(XdrError::BadValue(count));
        }
        Ok(ReadOk {
            attributes,
            eof,
            data: vec![data],
        })
    }
}

xdr_struct! {
    /// WRITE3resok.
    WriteOk {
        /// The file before and after.
        wcc: WccData,
        /// Bytes written.
        count: u32,
        /// How stable they are; at least what was asked for.
        committed: StableHow,
        /// Changes whenever unstable data may have been lost.
        verifier: Verifier,
    }
}

xdr_struct! {
    /// CREATE3resok, MKDIR3resok, SYMLINK3resok and MKNOD3resok.
    CreateOk {
        /// The new object.
        object: Option<Handle>,
        /// Its attributes.
        attributes: PostOpAttr,
        /// The directory before and after.
        dir_wcc: WccData,
    }
}

xdr_struct! {
    /// RENAME3resok and RENAME3resfail.
    #[derive(Copy, Default)]
    RenameWcc {
        /// The old name's directory.
        from_dir: WccData,
        /// The new name's directory.
        to_dir: WccData,
    }
}

xdr_struct! {
    /// LINK3resok and LINK3resfail.
    #[derive(Copy, Default)]
    LinkWcc {
        /// The object's attributes.
        attributes: PostOpAttr,
        /// The new name's directory.
        dir_wcc: WccData,
    }
}

xdr_struct! {
    /// FSSTAT3resok.
    FsStatOk {
        /// The attributes of the object asked about.
        attributes: PostOpAttr,
        /// Bytes in all.
        total_bytes: u64,
        /// Bytes free.
        free_bytes: u64,
        /// Bytes free for the caller.
        available_bytes: u64,
        /// Files in all.
        total_files: u64,
        /// Files free.
        free_files: u64,
        /// Files free for the caller.
        available_files: u64,
        /// Seconds for which this is not expected to change.
        invariant_seconds: u32,
    }
}

xdr_struct! {
    /// FSINFO3resok.
    FsInfoOk {
        /// The attributes of the object asked about.
        attributes: PostOpAttr,
        /// Bytes of a READ at most.
        read_max: u32,
        /// Bytes of a READ, preferred.
        read_preferred: u32,
        /// The size of a READ should be a multiple of this.
        read_multiple: u32,
        /// Bytes of a WRITE at most.
        write_max: u32,
        /// Bytes of a WRITE, preferred.
        write_preferred: u32,
        /// The size of a WRITE should be a multiple of this.
        write_multiple: u32,
        /// Bytes of a READDIR, preferred.
        dir_preferred: u32,
        /// Bytes of the largest file.
        max_file_size: u64,
        /// The resolution of times.
        time_delta: Time,
        /// Bits, see [`properties`].
        properties: u32,
    }
}

xdr_struct! {
    /// PATHCONF3resok.
    PathConfOk {
        /// The attributes of the object asked about.
        attributes: PostOpAttr,
        /// Hard links of an object at most.
        link_max: u32,
        /// Bytes of a name at most.
        name_max: u32,
        /// Longer names are an error, they are not cut.
        no_trunc: bool,
        /// Only root may change owners.
        chown_restricted: bool,
        /// Names that differ in case only are the same.
        case_insensitive: bool,
        /// The case of names is kept.
        case_preserving: bool,
    }
}

xdr_struct! {
    /// COMMIT3resok.
    CommitOk {
        /// The file before and after.
        wcc: WccData,
        /// As that of WRITE.
        verifier: Verifier,
    }
}
