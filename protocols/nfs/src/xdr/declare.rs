//! Declares types whose XDR form follows from their fields, in the order of the RFC's own notation.

/// A structure (RFC 4506 section 4.14): its fields in order.
macro_rules! xdr_struct {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        impl $crate::xdr::Xdr for $name {
            fn encode(&self, w: &mut $crate::xdr::Writer) {
                $(self.$field.encode(w);)*
            }

            fn decode(r: &mut $crate::xdr::Reader<'_>) -> Result<Self, $crate::xdr::XdrError> {
                Ok($name { $($field: $crate::xdr::Xdr::decode(r)?,)* })
            }
        }
    };
}

/// An enumeration (RFC 4506 section 4.3): any other number is an error.
macro_rules! xdr_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $value:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum $name {
            $($(#[$variant_meta])* $variant = $value,)*
        }

        impl $name {
            /// Every value, ascending.
            pub const ALL: &[$name] = &[$($name::$variant,)*];

            /// The value with this number.
            #[must_use]
            pub fn from_number(number: u32) -> Option<$name> {
                match number {
                    $($value => Some($name::$variant),)*
                    _ => None,
                }
            }

            /// Its number on the wire.
            #[must_use]
            pub fn number(self) -> u32 {
                self as u32
            }
        }

        impl $crate::xdr::Xdr for $name {
            fn encode(&self, w: &mut $crate::xdr::Writer) {
                w.u32(self.number());
            }

            fn decode(r: &mut $crate::xdr::Reader<'_>) -> Result<Self, $crate::xdr::XdrError> {
                let number = r.u32()?;
                $name::from_number(number).ok_or($crate::xdr::XdrError::BadValue(number))
            }
        }
    };
}
